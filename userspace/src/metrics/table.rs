//! Every metric there is, as a table: taken from what the exporter writes for a handler with everything on.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use xdp_ebpf::Verdict;

use super::export::Exporter;
use super::{
    ChannelCounts, DestinationCounts, DropReason, LineCounts, PortCounts, RecoveryCounts, RetransmissionCounts,
    SKEW_BOUNDS_NS, SnapshotCounts, SoupCounts, SoupState,
};
use crate::beside::threads::Threads;
use crate::config::plan::{Mode, Plan, WorkerPlan};
use crate::config::{Config, Host};
use crate::control::{Desk, InterfaceLink};
use crate::edge::Fault;
use crate::worker::shared::{WorkerLink, WorkerShared};

/// One family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// Name as series have it, without `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// counter, gauge, histogram.
    pub kind: String,
    /// Unit; empty = a number.
    pub unit: String,
    /// Names of its labels.
    pub labels: BTreeSet<String>,
    /// What it means.
    pub help: String,
}

/// Labels of families that have series only where an XDP program runs, or where something happened.
const ELSEWHERE: [(&str, &[&str]); 8] = [
    ("feedhandler_xdp_verdicts_total", &["interface", "verdict"]),
    ("feedhandler_xdp_line_packets_total", &["channel", "line"]),
    ("feedhandler_xdp_line_bytes_total", &["channel", "line"]),
    ("feedhandler_xdp_line_last_seen_timestamp_seconds", &["channel", "line"]),
    ("feedhandler_canary_packets_total", &["channel", "line"]),
    ("feedhandler_interface_igmp_version", &["interface"]),
    ("feedhandler_interface_mode_refused", &["interface", "mode"]),
    ("feedhandler_tls_certificate_expiry_seconds", &["file"]),
];

/// Every family, in the order in which it is exported.
///
/// # Errors
/// None in practice: the text is written to memory.
pub fn families() -> Result<Vec<Family>, fmt::Error> {
    Ok(read(&Exporter::new(sample()).encode()?))
}

/// The families as a table in Markdown.
///
/// # Errors
/// As [`families`].
pub fn markdown() -> Result<String, fmt::Error> {
    let mut text = String::from("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for Family { name, kind, unit, labels, help } in families()? {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let help = help.replace('|', "\\|");
        writeln!(text, "| `{name}` | {kind} | {unit} | {} | {help} |", labels.join(", "))?;
    }
    let each: Vec<String> = SERIES.iter().map(|(most, what)| format!("{most} for {what}")).collect();
    writeln!(text, "\nSeries at most: {}.", each.join(", "))?;
    Ok(text)
}

/// Most series that each thing of a configuration has: `(how many of one, what it is)`. Names of channels, lines, destinations,
/// interfaces and workers are the only labels that are not words of this program.
pub const SERIES: [(usize, &str); 12] = [
    (128, "the handler"),
    (4 + Verdict::COUNT + 2 * Fault::ALL.len(), "an interface"),
    (12 + DropReason::COUNT, "a worker"),
    (PortCounts::COUNT, "a queue that is received on"),
    (PortCounts::COUNT + DropReason::COUNT, "a queue that is sent on"),
    (ChannelCounts::COUNT + 8, "a channel"),
    (12 + LineCounts::COUNT + SKEW_BOUNDS_NS.len() + DropReason::COUNT, "a line"),
    (LineCounts::COUNT + DropReason::COUNT + RecoveryCounts::COUNT, "a channel's recovery"),
    (LineCounts::COUNT + DropReason::COUNT + SnapshotCounts::COUNT, "a channel's snapshot servers"),
    (LineCounts::COUNT + DropReason::COUNT + SoupCounts::COUNT + SoupState::ALL.len(), "a channel over TCP"),
    (DestinationCounts::COUNT + DropReason::COUNT, "a destination"),
    (RetransmissionCounts::COUNT, "a destination's retransmission server"),
];

/// Most series that the handler of a plan exports.
#[must_use]
pub fn most_series(plan: &Plan) -> usize {
    let channels = || plan.channels.values();
    let numbers = [
        1,
        plan.interfaces.len(),
        plan.workers.len(),
        plan.workers.iter().map(|worker| worker.rx.len()).sum(),
        plan.workers.iter().map(|worker| worker.tx.len()).sum(),
        plan.channels.len(),
        plan.lines.len(),
        channels().filter(|channel| channel.recovery.is_some()).count(),
        channels().filter(|channel| channel.snapshot.is_some()).count(),
        channels().filter(|channel| channel.soup.is_some()).count(),
        plan.destinations.len(),
        plan.destinations.values().filter(|destination| destination.retransmission.is_some()).count(),
    ];
    numbers.into_iter().zip(SERIES).map(|(number, (each, _))| number * each).sum()
}

/// A desk without a handler, for the configuration that has every key.
fn sample() -> Arc<Desk> {
    let text = include_str!("../../../config/feedhandler.toml");
    let plan = Config::parse(text, "feedhandler.toml", &Host { cores: vec![] })
        .expect("the documented configuration is right");
    desk(Plan { subscriptions_file: None, ..plan })
}

/// A desk of a plan, without anything behind it.
fn desk(plan: Plan) -> Arc<Desk> {
    let interface =
        |_: &_| InterfaceLink { mode_in_force: Mode::Native, jumbo: false, steering: None, refused: vec![] };
    let interfaces = plan.interfaces.iter().map(interface).collect();
    let link = |(index, worker): (usize, &WorkerPlan)| {
        let shared =
            WorkerShared::new(plan.line_count(), plan.channels.room(), plan.destinations.room(), worker.ports.len());
        let (commands, events) = (rtrb::RingBuffer::new(1).0, rtrb::RingBuffer::new(1).1);
        WorkerLink { index, commands: commands.into(), events: events.into(), shared, payload_bytes: vec![] }
    };
    let links = plan.workers.iter().enumerate().map(link).collect();
    Desk::new(Arc::new(plan), interfaces, links, Threads::new(Vec::new()))
}

/// The families of an OpenMetrics text.
fn read(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => families.push(Family {
                name: name.to_owned(),
                help: help.to_owned(),
                labels: BTreeSet::new(),
                ..Family::default()
            }),
            ["#", key, name, value] => {
                let Some(family) = families.iter_mut().find(|family| family.name == name) else { continue };
                match key {
                    "TYPE" => value.clone_into(&mut family.kind),
                    "UNIT" => value.clone_into(&mut family.unit),
                    _ => {}
                }
            }
            _ => {
                let Some((name, rest)) = line.split_once('{') else { continue };
                let Some(family) = families.iter_mut().rev().find(|family| name.starts_with(&family.name)) else {
                    continue;
                };
                family.labels.extend(label_names(rest));
            }
        }
    }
    for family in &mut families {
        if family.kind == "counter" {
            family.name.push_str("_total");
        }
        let elsewhere = ELSEWHERE.iter().filter(|(name, _)| *name == family.name).flat_map(|(_, labels)| *labels);
        family.labels.extend(elsewhere.map(|label| (*label).to_owned()));
    }
    families
}

/// Names in `a="x",b="y"} 1`, but for a bucket's bound.
fn label_names(text: &str) -> impl Iterator<Item = String> {
    let labels = text.rsplit_once('}').map_or("", |(labels, _)| labels);
    let names = labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name.to_owned());
    names.filter(|name| name != "le")
}

#[cfg(test)]
mod tests;
