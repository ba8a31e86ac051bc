//! Snapshot servers.
#![forbid(unsafe_code)]

use super::recovery;
use super::values::Checker;
use crate::config::differ::MASK;
use crate::config::file::Snapshot;
use crate::config::plan::{Secret, SnapshotPlan, StartAt};

const DEFAULT_TIMEOUT_MS: i64 = 5_000;
const DEFAULT_GIVE_UP_MS: i64 = 60_000;
const DEFAULT_MAX_MESSAGES: i64 = 5_000_000;
const DEFAULT_MESSAGES_PER_SECOND: i64 = 500_000;

/// Lengths of SoupBinTCP's login fields.
const USERNAME_BYTES: usize = 6;
const PASSWORD_BYTES: usize = 10;

/// Checks the table and sets what `start` takes from it.
pub(super) fn check(
    check: &mut Checker,
    at: &str,
    written: Option<&Snapshot>,
    start: &mut StartAt,
) -> Option<SnapshotPlan> {
    let at = format!("{at}.snapshot");
    let Some(written) = written else {
        if matches!(start, StartAt::Snapshot { .. }) {
            check.problem(at, "", "start = \"snapshot\" needs this table: who has a snapshot");
        }
        return None;
    };
    if !matches!(start, StartAt::Snapshot { .. }) {
        check.problem(
            at.clone(),
            "",
            "nobody is asked for a snapshot unless start = \"snapshot\"; leave the table out",
        );
    }
    let servers = recovery::servers(check, &at, &written.servers, "TCP");
    if written.password.as_deref() == Some(MASK) {
        check.problem(format!("{at}.password"), "", "is masked, as the handler shows it: write the password");
    }
    let mut word = |key: &str, value: Option<&String>, most_bytes| {
        let value = value.map_or("", String::as_str);
        if value.len() > most_bytes || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            let reason = format!("must be at most {most_bytes} ASCII characters without spaces");
            // A password is not for the log.
            check.problem(format!("{at}.{key}"), format!("{} bytes", value.len()), reason);
        }
        value.to_owned()
    };
    let username = word("username", written.username.as_ref(), USERNAME_BYTES);
    let password = Secret(word("password", written.password.as_ref(), PASSWORD_BYTES));
    let mut number = |key: &str, value: Option<i64>, default, range, unit| -> u64 {
        check.range(format!("{at}.{key}"), value.unwrap_or(default), range, unit)
    };
    let timeout_ms = number("timeout_ms", written.timeout_ms, DEFAULT_TIMEOUT_MS, 10..=60_000, "milliseconds");
    let give_up_ms = number("give_up_ms", written.give_up_ms, DEFAULT_GIVE_UP_MS, 10..=3_600_000, "milliseconds");
    let most = written.max_messages;
    let max_messages = number("max_messages", most, DEFAULT_MAX_MESSAGES, 1000..=100_000_000, "messages");
    let rate = written.messages_per_second;
    let rate = number("messages_per_second", rate, DEFAULT_MESSAGES_PER_SECOND, 1000..=100_000_000, "messages");
    if timeout_ms > give_up_ms {
        check.problem(
            format!("{at}.timeout_ms"),
            timeout_ms,
            format!("the first server would still be waited for when all is given up: must not be above give_up_ms = {give_up_ms}"),
        );
    }
    *start = StartAt::Snapshot { give_up_ns: give_up_ms * 1_000_000 };
    Some(SnapshotPlan {
        servers,
        username,
        password,
        same_session: written.same_session.unwrap_or(true),
        timeout_ms,
        give_up_ms,
        max_messages,
        messages_per_second: rate,
    })
}
