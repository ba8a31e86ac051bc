//! What is counted: drop reasons and counter sets, and how they are exported.
#![forbid(unsafe_code)]

pub mod classic;
mod counts;
pub mod export;
pub mod http;
mod skew;
mod soup;
pub mod table;

/// Commit that the program was built from; empty where the build did not say (`FEEDHANDLER_COMMIT`, which cargo xtask sets).
pub const COMMIT: &str = match option_env!("FEEDHANDLER_COMMIT") {
    Some(commit) => commit,
    None => "",
};

/// Version of the compiler.
pub const RUSTC: &str = env!("FEEDHANDLER_RUSTC");

/// Version of the program, and its commit where that is known.
#[must_use]
pub fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    if COMMIT.is_empty() { version.to_owned() } else { format!("{version} ({COMMIT})") }
}

pub use counts::{
    ChannelCounts, DestinationCounts, DropCounts, DropReason, LineCounts, PortCounts, RecoveryCounts,
    RetransmissionCounts, SharedCounts, SnapshotCounts,
};
pub use skew::{SKEW_BOUNDS_NS, SkewCounts};
pub use soup::{SoupCounts, SoupState};
