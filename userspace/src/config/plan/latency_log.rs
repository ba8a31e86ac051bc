//! The log of latencies.
#![forbid(unsafe_code)]

use std::path::PathBuf;

/// Where latencies are logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyLogPlan {
    /// The file; one older one has `.1` behind its name.
    pub path: PathBuf,
    /// Length of an interval, seconds.
    pub interval_s: u32,
    /// Most that a file grows to, bytes; both together take twice that.
    pub bytes: u64,
}
