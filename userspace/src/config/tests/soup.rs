//! Channels that come over TCP.
#![forbid(unsafe_code)]

use super::{GOOD, parse};
use crate::config::plan::{Password, SoupPlan};
use crate::soup::{Version, login};

/// [`GOOD`] with a table of servers in the place of its lines, and no interface that only these used.
fn over_tcp(keys: &str) -> String {
    let (head, rest) = GOOD.split_once("[[feed.channel.line]]").unwrap();
    let destination = &rest[rest.find("[[destination]]").unwrap()..];
    let (handler, interfaces) = head.split_once("[[interface]]").unwrap();
    let out = &interfaces[interfaces.find("name = \"fh-out\"").unwrap()..];
    format!("{handler}[[interface]]\n{out}[feed.channel.soupbintcp]\n{keys}\n{destination}")
}

const SERVERS: &str = "servers = [\"10.0.0.9:1\", \"10.0.0.9:2\"]\nusername = \"FMUSER\"\npassword = \"secret\"\n";

#[test]
fn a_channel_over_tcp_has_no_line_and_its_worker_no_receive_queue() {
    let plan = parse(&over_tcp(SERVERS)).unwrap();
    assert!(plan.lines.is_empty() && plan.workers[0].rx.is_empty() && plan.workers[0].ports.len() == 1);
    // Behind the room of 64 lines, each with the room of 1 + 32 channels.
    let numbers = (plan.recovery_line(0), plan.snapshot_line(0), plan.soup_line(0), plan.line_count());
    assert_eq!(numbers, (64, 97, 130, 163));
    let wanted = SoupPlan {
        servers: vec!["10.0.0.9:1".parse().unwrap(), "10.0.0.9:2".parse().unwrap()],
        username: "FMUSER".to_owned(),
        password: Password::Given("secret".to_owned()),
        session: None,
        version: Version::V3_00,
        source: None,
        heartbeat_ms: 1000,
        idle_ms: 15_000,
        reconnect_ms: 100,
        reconnect_max_ms: 10_000,
    };
    assert_eq!(plan.channels[0].soup, Some(wanted));
    let more = "session = \"SESS01\"\nversion = \"4.10\"\nsource = \"10.0.0.1\"";
    let soup = parse(&over_tcp(&format!("{SERVERS}{more}"))).unwrap().channels[0].soup.clone().unwrap();
    assert_eq!((soup.session, soup.version), (login::session("SESS01"), Version::V4_10));
    let file = SERVERS.replace("\"secret\"", "\"file:/etc/p\"");
    let soup = parse(&over_tcp(&file)).unwrap().channels[0].soup.clone().unwrap();
    assert_eq!(soup.password, Password::File("/etc/p".into()));
}

#[test]
fn mistakes_say_what_is_legal_and_no_password_is_printed() {
    for (from, to, says) in [
        (
            "servers = [\"10.0.0.9:1\", \"10.0.0.9:2\"]",
            "servers = []",
            "soupbintcp.servers = 0 of them: must name 1 to 8",
        ),
        (
            "10.0.0.9:1",
            "10.0.0.9",
            "soupbintcp.servers[0] = \"10.0.0.9\": must be a server's IPv4 address and TCP port",
        ),
        ("FMUSER", "FMUSER7", "soupbintcp.username = \"FMUSER7\": must be at most 6 printable ASCII"),
        ("secret", "a secret too long", "soupbintcp.password: must be at most 10 printable ASCII"),
        ("secret", "file:etc/p", "soupbintcp.password = \"file:etc/p\": the path after `file:` must be absolute"),
        ("secret", "********", "soupbintcp.password: is masked"),
        ("username", "session = \"\"\nusername", "soupbintcp.session = \"\": must be 1 to 10 printable ASCII"),
        ("username", "version = \"4\"\nusername", "soupbintcp.version = \"4\": must be one of `3.00`, `4.00`, `4.10`"),
        ("username", "source = \"x\"\nusername", "soupbintcp.source = \"x\": must be a unicast IPv4 address"),
        ("username", "idle_ms = 99\nusername", "soupbintcp.idle_ms = 99: must be 100 to 99999 milliseconds"),
        ("username", "heartbeat_ms = 15000\nusername", "heartbeat_ms = 15000: must be below idle_ms = 15000"),
        ("username", "reconnect_ms = 9\nusername", "soupbintcp.reconnect_ms = 9: must be 10 to 60000 milliseconds"),
        (
            "username",
            "reconnect_max_ms = 50\nusername",
            "reconnect_max_ms = 50: must not be shorter than reconnect_ms = 100",
        ),
        ("username = \"FMUSER\"", "", "missing field `username`"),
    ] {
        let text = over_tcp(&SERVERS.replacen(from, to, 1));
        let error = parse(&text).expect_err(to).to_string();
        assert!(error.contains(says), "`{to}` gives\n{error}\nwhich does not say\n{says}");
        assert!(!error.contains("secret") && error.lines().count() == 1, "{error}");
    }
}

/// Errors go to logs; what may be a password does not.
#[test]
fn a_syntax_error_shows_no_password() {
    for wrong in [
        "servers = [\"10.0.0.9:1\"]\npassword = \"hush77\nusername = \"x\"\n",
        "servers = [\"10.0.0.9:1\"]\npasword = \"hush77\"\n",
        "servers = [\"10.0.0.9:1\"]\npassword = \"hush77\"\npassword = \"hush77\"\n",
        "servers = [\"10.0.0.9:1\"]\npassword = 7712345\n",
    ] {
        let error = parse(&over_tcp(wrong)).unwrap_err().to_string();
        assert!(!error.contains("hush77") && !error.contains("7712345"), "{error}");
        assert!(error.contains("test.toml:"), "{error}");
    }
}
