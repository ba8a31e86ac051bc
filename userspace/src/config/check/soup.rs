//! Channels that come over TCP.
#![forbid(unsafe_code)]

use super::recovery::servers;
use super::values::{Checker, quoted};
use crate::config::differ::MASK;
use crate::config::file::SoupBinTcp;
use crate::config::plan::{Password, SoupPlan};
use crate::soup::{Login, LoginError, Version, login};

const DEFAULT_HEARTBEAT_MS: i64 = 1000;
const DEFAULT_IDLE_MS: i64 = 15_000;
const DEFAULT_RECONNECT_MS: i64 = 100;
const DEFAULT_RECONNECT_MAX_MS: i64 = 10_000;
const FILE: &str = "file:";

const VERSIONS: [(&str, Version); 3] = [
    (Version::V3_00.label(), Version::V3_00),
    (Version::V4_00.label(), Version::V4_00),
    (Version::V4_10.label(), Version::V4_10),
];

pub(super) fn check(check: &mut Checker, at: &str, written: Option<&SoupBinTcp>, has_lines: bool) -> Option<SoupPlan> {
    let written = written?;
    if has_lines {
        let reason =
            "a channel has either lines or servers over TCP: who would be right about the session? Make two channels";
        check.problem(at, "", reason);
    }
    let servers = servers(check, at, &written.servers, "TCP");
    let session = written.session.as_deref().and_then(|text| {
        let session = login::session(text);
        if session.is_none() {
            let reason = "must be 1 to 10 printable ASCII characters; leave the key out for the active session";
            check.problem(format!("{at}.session"), quoted(text), reason);
        }
        session
    });
    let password = password(check, at, &written.password);
    if Login::new(&written.username, "") == Err(LoginError::Username) {
        let reason = "must be at most 6 printable ASCII characters";
        check.problem(format!("{at}.username"), quoted(&written.username), reason);
    }
    let version = check.choice(format!("{at}.version"), written.version.as_deref(), &VERSIONS, Version::V3_00);
    let source = check.host_address(&format!("{at}.source"), written.source.as_deref());
    let mut ms = |key: &str, value: Option<i64>, default, range| -> u64 {
        check.range(format!("{at}.{key}"), value.unwrap_or(default), range, "milliseconds")
    };
    let heartbeat_ms = ms("heartbeat_ms", written.heartbeat_ms, DEFAULT_HEARTBEAT_MS, 10..=60_000);
    let idle_ms = ms("idle_ms", written.idle_ms, DEFAULT_IDLE_MS, 100..=99_999);
    let reconnect_ms = ms("reconnect_ms", written.reconnect_ms, DEFAULT_RECONNECT_MS, 10..=60_000);
    let reconnect_max_ms = ms("reconnect_max_ms", written.reconnect_max_ms, DEFAULT_RECONNECT_MAX_MS, 10..=600_000);
    if heartbeat_ms >= idle_ms && idle_ms > 0 {
        let reason = format!("must be below idle_ms = {idle_ms}: servers are as impatient, and would close");
        check.problem(format!("{at}.heartbeat_ms"), heartbeat_ms, reason);
    }
    if reconnect_max_ms < reconnect_ms && reconnect_max_ms > 0 {
        let reason = format!("must not be shorter than reconnect_ms = {reconnect_ms}, which comes first");
        check.problem(format!("{at}.reconnect_max_ms"), reconnect_max_ms, reason);
    }
    Some(SoupPlan {
        servers,
        username: written.username.clone(),
        password,
        session,
        version,
        source,
        heartbeat_ms,
        idle_ms,
        reconnect_ms,
        reconnect_max_ms,
    })
}

/// The value of a password is in no message.
fn password(check: &mut Checker, at: &str, written: &str) -> Password {
    let key = format!("{at}.password");
    if let Some(path) = written.strip_prefix(FILE) {
        if !path.starts_with('/') || path.ends_with('/') {
            let reason = "the path after `file:` must be absolute, as in \"file:/etc/feedhandler/itch.password\"";
            check.problem(key, quoted(written), reason);
        }
        return Password::File(path.into());
    }
    if written == MASK {
        check.problem(key, "", "is masked, as the handler shows it: write the password");
    } else if Login::new("", written).is_err() {
        check.problem(key, "", "must be at most 10 printable ASCII characters, or \"file:/absolute/path\"");
    }
    Password::Given(written.to_owned())
}
