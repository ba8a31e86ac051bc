//! The sums.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use xdp_ebpf::Verdict;

use super::DROPS;
use super::metrics::Metrics;
use super::site::{INTERFACES, Site};
use Verdict::{DropNoRule, DropWrongSource, Redirected};

/// The sums of one interface: generator → links → verdicts → rings.
pub fn check_interface(site: &Site, metrics: &Metrics, interface: usize, is_native: bool) {
    let name = INTERFACES[interface];
    let of = |metric: &str| metrics.sum(metric, &[("interface", name), ("direction", "rx")]);
    let (far, near) = site.link_counts(interface);
    let context = format!("{name}: {far:?} → {near:?}\n{}", metrics.shown());
    assert_eq!(far.packets + far.dropped, site.sent(interface), "the sender's link; {context}");
    assert_eq!(near.packets, far.packets, "the link; {context}");
    assert_eq!(metrics.sum("xdp_verdicts_total", &[("interface", name)]), near.packets, "verdicts; {context}");
    assert_eq!(far.dropped > 0, interface == DROPS, "the queue was to overflow by the flood alone; {context}");
    for verdict in Verdict::ALL {
        let counted = metrics.sum("xdp_verdicts_total", &[("interface", name), ("verdict", verdict.label())]);
        let sent = site.sent[interface].get(verdict.label()).copied().unwrap_or(0);
        // Only the flood can overflow the queue; what is sent frame by frame is received before the next one comes.
        let overflowed = if verdict == Redirected { far.dropped } else { 0 };
        assert_eq!(counted, sent - overflowed, "{}; {context}", verdict.label());
    }
    let redirected = metrics.sum("xdp_verdicts_total", &[("interface", name), ("verdict", "redirected")]);
    assert_eq!(redirected, metrics.received_or_dropped(&[("interface", name)]), "the rings; {context}");
    let ring_drops = of("port_kernel_rx_dropped_total") + of("port_kernel_rx_ring_full_total");
    let driver = site.driver_counts(interface);
    if is_native {
        let drops = [DropNoRule, DropWrongSource].map(|verdict| site.sent[interface].get(verdict.label()).copied());
        let dropped = drops.into_iter().flatten().sum::<u64>();
        // A failed redirect is one that the ring had no room for: the same frames once more, not to be added.
        for (name, count) in [
            ("xdp_packets", near.packets),
            ("xdp_drops", dropped),
            ("xdp_redirect", of("port_frames_total")),
            ("drops", ring_drops),
        ] {
            assert_eq!(driver.get(name), Some(&count), "{name} of {driver:?}; {context}");
        }
    }
    assert_eq!((of("port_kernel_rx_ring_full_total"), of("port_kernel_rx_invalid_total")), (0, 0), "{context}");
}

/// Packets by reason.
type Drops<'a> = &'a [(&'a str, u64)];

/// Ports → lines → what became of each packet.
pub fn check_lines(metrics: &Metrics) {
    assert!(metrics.is_taken_by_lines(), "{}", metrics.shown());
    assert_eq!(metrics.sum("drops_total", &[("scope", "worker")]), 0, "of no line; {}", metrics.shown());
    let redirected = metrics.sum("xdp_verdicts_total", &[("verdict", "redirected")]);
    assert_eq!(metrics.sum("xdp_line_packets_total", &[]), redirected, "{}", metrics.shown());
    // How many of the flood's frames found room is not known beforehand: all of them are duplicates, as is what fills up.
    let received = metrics.sum("port_frames_total", &[("interface", "fh-in"), ("direction", "rx")]);
    let a_others = 15 + 3 + 9;
    let expected: [(&str, u64, u64, Drops<'_>); 4] = [
        (
            "itch/one/A",
            10 + 3 + 1 + 1,
            3,
            &[
                ("bad_sequence", 1),
                ("duplicate", received - a_others - 6 - 9),
                ("hold_full", 2),
                ("old_session", 1),
                ("truncated_blocks", 1),
                ("truncated_header", 2),
                ("unconfirmed", 2),
            ],
        ),
        ("itch/one/B", 1, 0, &[("duplicate", 11), ("not_subscribed", 3)]),
        ("itch/two/A", 5 + 1, 0, &[]),
        ("itch/three/A", 7 + 1 + 1, 0, &[]),
    ];
    for (name, first, heartbeats, drops) in expected {
        let (channel, line) = name.rsplit_once('/').expect("a channel and a line");
        let of = |metric: &str| metrics.sum(metric, &[("channel", channel), ("line", line)]);
        let drops: BTreeMap<String, u64> = drops.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        assert_eq!(metrics.drops(name), drops, "{name}; {}", metrics.shown());
        assert_eq!((of("line_first_total"), of("line_heartbeats_total")), (first, heartbeats), "{name}");
        let switched_off = drops.get("not_subscribed").copied().unwrap_or(0);
        let dropped = drops.values().sum::<u64>() - switched_off;
        assert_eq!(of("line_packets_total"), first + heartbeats + dropped, "{name}");
        assert!(
            metrics
                .text()
                .contains(&format!("xdp_line_last_seen_timestamp_seconds{{channel=\"{channel}\",line=\"{line}\"}} 1"))
        );
    }
}

/// What an operator sees of it.
pub fn check_feedctl(site: &Site, metrics: &Metrics) {
    let json = site.feedctl(&["--output", "json", "list"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    for group in json["groups"].as_array().expect("groups") {
        let labels = [("channel", group["channel"].as_str().unwrap()), ("line", group["line"].as_str().unwrap())];
        let shown = ["packets", "bytes"].map(|name| {
            let number =
                |value: &serde_json::Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0);
            (number(&group[name]), number(&group["frames"][name]))
        });
        let counted = ["packets", "bytes"].map(|name| {
            let of = |metric: &str| metrics.sum(&format!("{metric}_{name}_total"), &labels);
            (of("line"), of("xdp_line"))
        });
        assert_eq!(shown, counted, "{group}");
    }
    let table = String::from_utf8(site.feedctl(&["status"]).stdout).unwrap();
    let row = |name: &str| {
        let found = table.lines().find(|line| line.trim_start().starts_with(name) && line.contains("pass_"));
        found.unwrap_or_else(|| panic!("{table}")).to_owned()
    };
    assert!(row("fh-in").contains(" drop ") && row("fh-in").contains("drop_no_rule "), "{table}");
    assert!(row("fh-pass").contains(" pass ") && !row("fh-pass").contains("drop_no_rule"), "{table}");
}
