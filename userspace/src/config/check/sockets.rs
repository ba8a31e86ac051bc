//! Options of an interface's sockets.
#![forbid(unsafe_code)]

use super::values::Checker;
use crate::config::file::Interface;
use crate::config::plan::{Mode, SocketPlan};
use crate::net::BATCH;

/// One batch per busy poll: what one receive call takes. (The kernel's own default is 8.)
const DEFAULT_BUDGET: i64 = BATCH as i64;
const DEFAULT_RECEIVE_BUFFER_BYTES: i64 = 8 << 20;

/// Checks the socket options of the interface at `at`.
pub(super) fn check(check: &mut Checker, at: &str, written: &Interface, mode: Mode) -> SocketPlan {
    let number = |check: &mut Checker, key: &str, value: Option<i64>, default, range, unit| -> u32 {
        check.range(format!("{at}.{key}"), value.unwrap_or(default), range, unit)
    };
    let before = check.problems.len();
    let busy_poll_us = number(check, "busy_poll_us", written.busy_poll_us, 0, 0..=10_000, "microseconds (0 = off)");
    let is_legal = check.problems.len() == before;
    let budget = written.busy_poll_budget;
    let busy_poll_budget = number(check, "busy_poll_budget", budget, DEFAULT_BUDGET, 1..=65_535, "packets");
    if busy_poll_us == 0 && is_legal {
        let reason = "has no effect without busy polling: set busy_poll_us above 0, or leave it out";
        if let Some(budget) = budget {
            check.problem(format!("{at}.busy_poll_budget"), budget, reason);
        }
        if written.prefer_busy_poll == Some(true) {
            check.problem(format!("{at}.prefer_busy_poll"), true, reason);
        }
    }
    if !matches!(mode, Mode::Auto | Mode::Socket) {
        let reason = format!(
            "kernel sockets only, and mode `{}` never has any: leave it out, or set mode = \"socket\" or \"auto\"",
            mode.label()
        );
        if written.reuse_port == Some(true) {
            check.problem(format!("{at}.reuse_port"), true, reason.as_str());
        }
        if let Some(bytes) = written.receive_buffer_bytes {
            check.problem(format!("{at}.receive_buffer_bytes"), bytes, reason);
        }
    }
    SocketPlan {
        busy_poll_us,
        busy_poll_budget: u16::try_from(busy_poll_budget).unwrap_or_default(),
        prefer_busy_poll: written.prefer_busy_poll.unwrap_or(false),
        reuse_port: written.reuse_port.unwrap_or(false),
        receive_buffer_bytes: number(
            check,
            "receive_buffer_bytes",
            written.receive_buffer_bytes,
            DEFAULT_RECEIVE_BUFFER_BYTES,
            4096..=1 << 30,
            "bytes",
        ),
    }
}
