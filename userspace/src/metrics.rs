//! What is counted: drop reasons and counter sets, and how they are exported.
#![forbid(unsafe_code)]

mod counts;

pub use counts::{ChannelCounts, DestinationCounts, DropCounts, DropReason, LineCounts, PortCounts, SharedCounts};
