//! What is counted: drop reasons and counter sets, and how they are exported.
#![forbid(unsafe_code)]

pub mod classic;
mod counts;
pub mod export;
pub mod http;

pub use counts::{
    ChannelCounts, DestinationCounts, DropCounts, DropReason, LineCounts, PortCounts, RecoveryCounts, SharedCounts,
};
