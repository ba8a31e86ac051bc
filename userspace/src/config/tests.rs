//! The documented file loads, and bad files are refused with a line that says what to do.
#![forbid(unsafe_code)]

mod bad;
mod nic;
mod soup;

use super::plan::{Endpoint, Mode, Plan, Privileges, QueuePlan, Rates, StartAt, Unsubscribed};
use super::*;
use bad::BAD;

const DOCUMENTED: &str = include_str!("../../../config/feedhandler.toml");

const GOOD: &str = r#"
[handler]
name = "test"
[[interface]]
name = "fh-a"
[[interface]]
name = "fh-b"
mode = "socket"
[[interface]]
name = "fh-out"
[[worker]]
name = "w0"
core = 1
[[feed]]
name = "itch"
transport = "moldudp64"
decoder = "itch50"
publisher_id = 2
time_zone = "America/New_York"
[[feed.channel]]
name = "equities"
[[feed.channel.line]]
name = "A"
interface = "fh-a"
group = "239.10.0.1:26400"
[[feed.channel.line]]
name = "B"
interface = "fh-b"
group = "239.10.0.2:26400"
[[destination]]
name = "out"
channel = "itch/equities"
interface = "fh-out"
group = "239.20.0.1:30001"
"#;

fn parse(text: &str) -> Result<Plan, ConfigError> {
    Config::parse(text, "test.toml", &Host { cores: vec![0, 1, 2] })
}

#[test]
fn the_smallest_file_gets_the_documented_defaults() {
    let plan = parse(GOOD).unwrap();
    assert_eq!(plan.grpc, Endpoint::Unix("/run/feedhandler/control.sock".into()));
    assert_eq!(plan.metrics, None);
    assert_eq!(plan.privileges, Privileges::Keeper);
    assert_eq!(plan.interfaces.iter().map(|i| i.mode).collect::<Vec<_>>(), [Mode::Auto, Mode::Socket, Mode::Auto]);
    let worker = &plan.workers[0];
    assert_eq!((worker.frame_count, worker.frame_bytes, worker.ring_entries, worker.core), (8192, 2048, 2048, Some(1)));
    assert_eq!(worker.rx, [QueuePlan { interface: 0, queue: 0 }, QueuePlan { interface: 1, queue: 0 }]);
    assert_eq!(worker.tx, [QueuePlan { interface: 2, queue: 0 }]);
    let channel = &plan.channels[0];
    assert_eq!((channel.name.as_str(), channel.worker, &channel.lines[..]), ("itch/equities", 0, &[0, 1][..]));
    assert_eq!((channel.gap_timeout_us, channel.give_up_ms, channel.stale_ms), (500, 50, 5000));
    assert_eq!((channel.hold_packets, channel.max_orders, channel.start), (1024, 1_000_000, StartAt::Now));
    assert!(plan.lines.values().all(|line| line.subscribed && line.vlan == 0 && line.source.is_none()));
    let destination = &plan.destinations[0];
    assert_eq!((destination.source_port, destination.ttl, destination.payload_bytes), (30_000, 8, 1472));
    assert_eq!(destination.retransmission, None);
    let text = format!("{GOOD}[destination.retransmission]\naddress = \"10.1.0.5:18000\"");
    let server = parse(&text).unwrap().destinations.take(0).unwrap().retransmission.expect("a server");
    assert_eq!((server.address, server.retain_bytes), ("10.1.0.5:18000".parse().unwrap(), 64 << 20));
    let rates = |requests_per_second, bytes_per_second| Rates { requests_per_second, bytes_per_second };
    assert_eq!((server.rates, server.client_rates), (rates(20_000, 25_000_000), rates(5_000, 6_250_000)));
    let is_answered = |client: [u8; 4]| server.allow.iter().any(|network| network.contains(client.into()));
    assert!(is_answered([10, 9, 8, 7]) && is_answered([127, 0, 0, 1]) && !is_answered([8, 8, 8, 8]));
}

#[test]
fn the_documented_file_loads_and_has_every_key() {
    Config::parse(DOCUMENTED, "feedhandler.toml", &Host { cores: vec![0, 1] }).unwrap();
    let source = include_str!("file.rs");
    let keys: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':').map(|(key, _)| key))
        .filter(|key| !key.contains(' '))
        .collect();
    assert!(keys.len() > 40, "the keys were not found in file.rs: {keys:?}");
    for key in keys {
        let documented = DOCUMENTED.lines().any(|line| {
            line.starts_with(&format!("{key} = "))
                || line == format!("[{key}]")
                || line.trim_start_matches('[').trim_end_matches(']').split('.').next_back() == Some(key)
        });
        assert!(documented, "config/feedhandler.toml does not document `{key}`");
    }
}

#[test]
fn the_documented_file_reads_in_paragraphs() {
    let mut last = "";
    for (number, line) in (1..).zip(DOCUMENTED.lines()) {
        // A comment stands below an empty line, or right below the head of its table.
        let is_apart = last.is_empty() || last.starts_with('#') || last.starts_with('[');
        assert!(!line.starts_with('#') || is_apart, "line {number}: no empty line before a comment");
        last = line;
    }
}

#[test]
fn every_bad_file_is_refused_with_what_is_legal() {
    parse(GOOD).expect("the base must be good, or the table shows nothing");
    for (from, to, parts) in BAD {
        assert!(GOOD.contains(from), "{from} is not in the base");
        let error = parse(&GOOD.replacen(from, to, 1)).expect_err(to).to_string();
        for part in *parts {
            assert!(error.contains(part), "`{to}` gives\n{error}\nwhich does not say\n{part}");
        }
        let first = error.lines().next().unwrap();
        assert!(first.starts_with("test.toml:") && first.len() > 30, "{error}");
        // A renamed interface is missed by the line that names it, too: two at most.
        assert!(error.lines().count() <= 2, "`{to}` gives\n{error}");
    }
}

#[test]
fn parts_that_are_missing_altogether() {
    for (cut, says) in [
        ("[[interface]]", "interface: there is none"),
        ("[[worker]]", "worker: there is none"),
        ("[[feed]]", "feed: there is none"),
        ("[[feed.channel]]", "feed[0].channel: the feed has no channel"),
        ("[[feed.channel.line]]", "feed[0].channel[0].line: the channel has no line"),
    ] {
        // Everything from the first such table to the next table of another kind goes.
        let mut kept = String::new();
        let mut cutting = false;
        for line in GOOD.lines() {
            if line.starts_with('[') {
                cutting = line.starts_with(cut.trim_end_matches(']'));
            }
            if !cutting {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        let error = parse(&kept).expect_err(cut).to_string();
        assert!(error.contains(says), "{cut}: {error}");
    }
}

#[test]
fn two_workers_cannot_own_one_queue_except_over_kernel_sockets() {
    let second = r#"
[[worker]]
name = "w1"
[[feed]]
name = "other"
transport = "moldudp64"
decoder = "itch50"
publisher_id = 3
time_zone = "UTC"
[[feed.channel]]
name = "c"
worker = "w1"
[[feed.channel.line]]
name = "A"
interface = "fh-a"
group = "239.10.0.9:26400"
"#;
    let both = GOOD.replacen("name = \"equities\"", "name = \"equities\"\nworker = \"w0\"", 1) + second;
    let error = parse(&both).unwrap_err().to_string();
    assert!(error.contains("queue 0 of interface `fh-a` would have two owners: worker `w0`"), "{error}");
    assert!(error.contains("worker `w1` (line A of `other/c`)"), "{error}");
    assert!(error.contains("as many workers as it has queues (`ethtool -l fh-a`)"), "{error}");
    let own_queue = both.replace("group = \"239.10.0.9:26400\"", "group = \"239.10.0.9:26400\"\nqueue = 1");
    let plan = parse(&own_queue).unwrap();
    assert_eq!(plan.workers[1].rx, [QueuePlan { interface: 0, queue: 1 }]);
    let sockets = both.replacen("name = \"fh-a\"", "name = \"fh-a\"\nmode = \"socket\"", 1);
    assert_eq!(parse(&sockets).unwrap().workers[1].rx.len(), 1);
}

/// Line B of [`GOOD`] on line A's interface and group, with these keys more for B and for A, and for the interface.
fn same_group(of_b: &str, of_a: &str, of_interface: &str) -> String {
    const A: &str = "group = \"239.10.0.1:26400\"\n";
    const B: &str = "interface = \"fh-b\"\ngroup = \"239.10.0.2:26400\"\n";
    const UNUSED: &str = "[[interface]]\nname = \"fh-b\"\nmode = \"socket\"\n";
    GOOD.replacen(A, &format!("{A}{of_a}\n"), 1)
        .replacen(B, &format!("interface = \"fh-a\"\n{A}{of_b}\n"), 1)
        .replacen(UNUSED, "", 1)
        .replacen("name = \"fh-a\"\n", &format!("name = \"fh-a\"\n{of_interface}\n"), 1)
}

#[test]
fn one_group_may_be_two_lines_only_if_their_packets_can_be_told_apart() {
    let (one, two) = ("source = \"10.0.0.1\"", "source = \"10.0.0.2\"");
    let plan = parse(&same_group(one, two, "")).unwrap();
    assert_eq!(plan.lines[0].key(), plan.lines[1].key());
    assert_eq!((plan.lines[0].rule(0).source_ip, plan.lines[1].rule(1).source_ip), ([10, 0, 0, 2], [10, 0, 0, 1]));
    parse(&same_group("vlan = 7", "", "")).unwrap();
    for (of_b, of_a, says) in [
        ("", "", "duplicate group: line A of `itch/equities` takes it already on interface `fh-a`, vlan 0"),
        (one, one, "duplicate group: line A"),
        (
            one,
            "",
            "line A of `itch/equities` takes it from any source on interface `fh-a`, vlan 0, and this one from 10.0.0.1",
        ),
        (
            "",
            two,
            "takes it from 10.0.0.2 on interface `fh-a`, vlan 0, and this one from any: give each line a `source`",
        ),
    ] {
        let error = parse(&same_group(of_b, of_a, "")).unwrap_err().to_string();
        assert!(error.contains("line[1].group = \"239.10.0.1:26400\"") && error.contains(says), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn where_the_nic_strips_tags_rules_have_none_and_vlans_alone_tell_nothing_apart() {
    let stripped = "vlan_stripped = true\nunsubscribed = \"drop\"";
    let plan = parse(&same_group("vlan = 7\nsource = \"10.0.0.1\"", "source = \"10.0.0.2\"", stripped)).unwrap();
    assert_eq!((plan.lines[1].vlan, plan.lines[1].key().vlan, plan.lines[1].key_on_the_wire().vlan), (7, 0, 7));
    assert_eq!((plan.interfaces[0].vlan_stripped, plan.interfaces[0].unsubscribed), (true, Unsubscribed::Drop));
    assert_eq!((plan.interfaces[1].vlan_stripped, plan.interfaces[1].unsubscribed), (false, Unsubscribed::Pass));
    let error = parse(&same_group("vlan = 7", "vlan = 8", stripped)).unwrap_err().to_string();
    for part in ["line A of `itch/equities` takes it in vlan 8", "tells vlan 7 from it", "`ethtool -K fh-a rxvlan off`"]
    {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_channel_s_lines_cannot_be_split_between_workers() {
    // Line B would come in on a queue that another worker owns; there is no key that gives a line a worker.
    let rest = |second_queue: &str| {
        format!(
            r#"
[[interface]]
name = "fh-c"
[[worker]]
name = "w1"
[[feed.channel]]
name = "options"
worker = "w1"
[[feed.channel.line]]
name = "A"
interface = "fh-c"
group = "239.10.0.8:26400"
[[feed.channel.line]]
name = "B"
interface = "fh-a"
{second_queue}group = "239.10.0.9:26400"
"#
        )
    };
    let split = GOOD.replacen("name = \"equities\"", "name = \"equities\"\nworker = \"w0\"", 1);
    // The channel belongs to the feed, so it stands before the destination.
    let (feeds, destination) = split.split_once("[[destination]]").unwrap();
    let file = |second_queue: &str| format!("{feeds}{}[[destination]]{destination}", rest(second_queue));
    let error = parse(&file("")).unwrap_err().to_string();
    assert!(
        error.contains("worker `w0` (line A of `itch/equities`) and worker `w1` (line B of `itch/options`)"),
        "{error}"
    );
    assert!(error.contains("a channel's lines and destinations all run on the channel's worker"), "{error}");
    parse(&file("queue = 1\n")).unwrap();
    let error = parse(&file("worker = \"w0\"\n")).unwrap_err().to_string();
    assert!(error.contains("unknown field `worker`"), "{error}");
}

#[test]
fn all_problems_are_reported_at_once_and_in_one_line_each() {
    let text = GOOD.replacen("publisher_id = 2", "publisher_id = 0", 1).replacen("core = 1", "core = -1", 1);
    let error = parse(&text).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load("/nonexistent/feedhandler.toml").unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/feedhandler.toml: cannot read"), "{error}");
}
