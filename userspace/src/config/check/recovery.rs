//! Retransmission servers.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;

use super::values::{Checker, quoted};
use crate::config::file::Recovery;
use crate::config::plan::RecoveryPlan;

const DEFAULT_REQUEST_TIMEOUT_MS: i64 = 10;
const DEFAULT_REQUESTS_PER_SECOND: i64 = 1000;
const DEFAULT_OUTSTANDING_REQUESTS: i64 = 16;
const DEFAULT_BACKFILL_MS: i64 = 60_000;
const MOST_SERVERS: usize = 8;

pub(super) fn check(
    check: &mut Checker,
    at: &str,
    written: Option<&Recovery>,
    give_up_ms: u64,
    gap_timeout_us: u64,
) -> Option<RecoveryPlan> {
    let written = written?;
    let servers = servers(check, at, &written.servers, "UDP");
    let source = check.host_address(&format!("{at}.source"), written.source.as_deref());
    let mut number = |key: &str, value: Option<i64>, default, range, unit| -> u64 {
        check.range(format!("{at}.{key}"), value.unwrap_or(default), range, unit)
    };
    let request_timeout_ms = number(
        "request_timeout_ms",
        written.request_timeout_ms,
        DEFAULT_REQUEST_TIMEOUT_MS,
        1..=60_000,
        "milliseconds",
    );
    let rate = written.requests_per_second;
    let rate = number("requests_per_second", rate, DEFAULT_REQUESTS_PER_SECOND, 1..=1_000_000, "requests");
    let outstanding = written.outstanding_requests;
    let outstanding = number("outstanding_requests", outstanding, DEFAULT_OUTSTANDING_REQUESTS, 1..=256, "requests");
    let backfill_ms = number("backfill_ms", written.backfill_ms, DEFAULT_BACKFILL_MS, 1..=86_400_000, "milliseconds");
    if give_up_ms > 0 && request_timeout_ms * 1000 + gap_timeout_us > give_up_ms * 1000 {
        check.problem(
            format!("{at}.request_timeout_ms"),
            request_timeout_ms,
            format!(
                "the first request would still be waited for when the gap is given up: with gap_timeout_us = \
                 {gap_timeout_us} before it, must not reach beyond give_up_ms = {give_up_ms}"
            ),
        );
    }
    Some(RecoveryPlan {
        servers,
        source,
        request_timeout_ms,
        requests_per_second: u32::try_from(rate).unwrap_or_default(),
        outstanding_requests: usize::try_from(outstanding).unwrap_or_default(),
        backfill_ms,
    })
}

/// The servers of the table `at`, reached by `protocol`.
pub(super) fn servers(check: &mut Checker, at: &str, written: &[String], protocol: &str) -> Vec<SocketAddrV4> {
    let mut servers: Vec<SocketAddrV4> = Vec::new();
    for (i, text) in written.iter().enumerate() {
        let key = format!("{at}.servers[{i}]");
        let server = text.parse::<SocketAddrV4>().ok();
        let Some(server) = server.filter(|server| {
            let ip = server.ip();
            server.port() > 0 && !ip.is_multicast() && !ip.is_unspecified() && !ip.is_broadcast()
        }) else {
            let reason =
                format!("must be a server's IPv4 address and {protocol} port, \"ip:port\", such as \"10.0.9.1:18000\"");
            check.problem(key, quoted(text), reason);
            continue;
        };
        if servers.contains(&server) {
            check.problem(key, quoted(text), "is named already: each server once, in the order to be tried");
        }
        servers.push(server);
    }
    if !(1..=MOST_SERVERS).contains(&written.len()) {
        let reason = format!("must name 1 to {MOST_SERVERS} servers; without any, leave the whole table out");
        check.problem(format!("{at}.servers"), format!("{} of them", written.len()), reason);
    }
    servers
}
