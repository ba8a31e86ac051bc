//! Replay of real captures against counts that independent programs took. The captures are not part of the project: set
//! FEEDHANDLER_CAPTURES to their folder. Where they are absent the tests say SKIPPED.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use feedhandler::config::plan::Plan;
use feedhandler::config::{Config, Host};
use feedhandler::replay::{Report, replay};
use serde_json::Value;

pub const WIRE: &str = "nasdaq-itch50-wire.pcap";

/// The folder with captures and `golden.json`, if it is there.
pub fn captures(test: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/captures");
    let folder = PathBuf::from(std::env::var("FEEDHANDLER_CAPTURES").unwrap_or_else(|_| beside.to_owned()));
    let there = folder.join("golden.json").is_file();
    if !there {
        // Not println!: libtest swallows that of tests that pass.
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "SKIPPED {test}: no golden.json in {} (set FEEDHANDLER_CAPTURES)", folder.display());
    }
    there.then_some(folder)
}

fn plan() -> Plan {
    let feed = |name: &str, publisher: u16, group: &str, vlan: u16| {
        format!(
            r#"
            [[feed]]
            name = "{name}"
            transport = "moldudp64"
            decoder = "itch50"
            publisher_id = {publisher}
            time_zone = "America/New_York"
            [[feed.channel]]
            name = "itch"
            start = "now"
            [[feed.channel.line]]
            name = "A"
            interface = "any"
            group = "{group}"
            vlan = {vlan}
            "#
        )
    };
    let text = format!(
        "[handler]\nname = \"golden\"\n[[interface]]\nname = \"any\"\n[[worker]]\nname = \"w0\"\n{}{}",
        feed("nasdaq", 2, "233.54.12.111:26477", 141),
        feed("bx", 3, "233.49.196.40:25475", 142)
    );
    Config::parse(&text, "golden.toml", &Host { cores: Vec::new() }).expect("a legal configuration")
}

/// Messages by type over all channels.
fn by_type(report: &Report) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (kind, count) in report.channels.iter().flat_map(|channel| &channel.messages_by_type) {
        *sum.entry(kind.to_string()).or_default() += count;
    }
    sum
}

#[test]
fn the_itch_wire_capture_matches_its_golden_counts() {
    let Some(folder) = captures("the_itch_wire_capture_matches_its_golden_counts") else { return };
    let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let golden = &golden["files"][WIRE];
    let report = replay(&plan(), &[folder.join(WIRE)]).unwrap();
    assert_eq!(report.frames, golden["packets"].as_u64().unwrap());
    assert_eq!(by_type(&report), serde_json::from_value(golden["per_type"].clone()).unwrap());
    let lines = golden["lines"].as_object().unwrap();
    for (line, name) in report.lines.iter().zip(["000010059B 233.54.12.111:26477", "000010059D 233.49.196.40:25475"]) {
        let expected = &lines[name];
        assert_eq!(Some(line.packets), expected["packets"].as_u64(), "{name}");
        assert_eq!(Some(line.messages), expected["messages"].as_u64(), "{name}");
        assert_eq!(line.first_sequence, expected["first_seq"].as_u64(), "{name}");
        assert_eq!(line.last_sequence, expected["last_seq"].as_u64(), "{name}");
        assert!(line.drops.is_empty(), "{name}: {:?}", line.drops);
    }
    for (channel, (session, packets)) in report.channels.iter().zip([("000010059B", 9), ("000010059D", 3)]) {
        let tally = &channel.sessions[session];
        // Single packets picked from a day: what lies between them was never captured and is declared lost.
        assert_eq!(tally.last_sequence - tally.first_sequence + 1, tally.messages + tally.lost);
        assert!(channel.counts["gaps_lost"] < packets && channel.counts["decode_errors"] == 0);
    }
}

#[test]
fn replaying_a_capture_twice_over_delivers_each_message_once() {
    let Some(folder) = captures("replaying_a_capture_twice_over_delivers_each_message_once") else { return };
    let once = replay(&plan(), &[folder.join(WIRE)]).unwrap();
    let twice = replay(&plan(), &[folder.join(WIRE), folder.join(WIRE)]).unwrap();
    assert_eq!(twice.frames, 2 * once.frames);
    assert_eq!(by_type(&twice), by_type(&once));
}
