//! The log of latencies.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::values::{Checker, quoted};
use crate::config::file::Handler;
use crate::config::plan::LatencyLogPlan;

const DEFAULT_INTERVAL_S: i64 = 10;
const DEFAULT_BYTES: i64 = 64 << 20;

/// `handler.latency_log` and what goes with it.
pub(super) fn check(check: &mut Checker, handler: &Handler) -> Option<LatencyLogPlan> {
    let interval_s = check.range(
        "handler.latency_log_interval_s",
        handler.latency_log_interval_s.unwrap_or(DEFAULT_INTERVAL_S),
        1..=3600,
        "seconds",
    );
    let bytes = check.range(
        "handler.latency_log_bytes",
        handler.latency_log_bytes.unwrap_or(DEFAULT_BYTES),
        1 << 20..=1_000_000_000_000,
        "bytes",
    );
    let Some(path) = handler.latency_log.as_deref() else {
        let keys = [
            ("handler.latency_log_interval_s", handler.latency_log_interval_s),
            ("handler.latency_log_bytes", handler.latency_log_bytes),
        ];
        for (key, value) in keys.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            check.problem(key, value, "needs latency_log: without it nothing is logged");
        }
        return None;
    };
    if !path.starts_with('/') || path.ends_with('/') {
        let reason = "must be an absolute path of a file, such as \"/var/log/feedhandler/latency.hlog\"";
        check.problem("handler.latency_log", quoted(path), reason);
    }
    Some(LatencyLogPlan { path: PathBuf::from(path), interval_s, bytes })
}
