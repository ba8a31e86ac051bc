//! What is counted: drop reasons and counter sets, and how they are exported.
#![forbid(unsafe_code)]

pub mod classic;
mod counts;
pub mod export;
pub mod http;
mod skew;
mod soup;

pub use counts::{
    ChannelCounts, DestinationCounts, DropCounts, DropReason, LineCounts, PortCounts, RecoveryCounts,
    RetransmissionCounts, SharedCounts, SnapshotCounts,
};
pub use skew::{SKEW_BOUNDS_NS, SkewCounts};
pub use soup::{SoupCounts, SoupState};
