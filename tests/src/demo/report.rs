//! The demo's summary: what was sent, what the handler says it did, what the consumer found.
#![forbid(unsafe_code)]

mod table;

use std::collections::BTreeMap;

use feedhandler_proto::v1::{ChannelStatus, DropStatus, GetStatusResponse};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::toggle::Toggle;
use super::trouble::Trouble;
use crate::consumer::{Findings, Report};
use crate::line::LineSent;

/// Everything that the demo says in the end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// True if everything that at least one line carried came out once, in order and right.
    pub ok: bool,
    /// What was sent, in words.
    pub workload: String,
    /// How long it was sent, seconds.
    pub seconds: f64,
    /// Mode in force, by interface.
    pub modes: BTreeMap<String, String>,
    /// Lines, in the configuration's order.
    pub lines: Vec<LineSummary>,
    /// The channels together, as the handler counts them.
    pub channels: ChannelSummary,
    /// What the consumer got.
    pub output: OutputSummary,
    /// Latency by stage: the handler's, and `entry_to_consumer` as measured by the consumer.
    pub latencies: Vec<Latency>,
    /// Drops by place and reason; only those that happened.
    pub drops: BTreeMap<String, u64>,
    /// Line A off and on again; not with a capture.
    pub toggle: Option<Toggle>,
    /// What was broken midway, and how that went; only if asked for.
    pub trouble: Option<Trouble>,
    /// What is wrong with the stream.
    pub findings: Findings,
    /// What is wrong apart from that.
    pub faults: Vec<String>,
    /// Worth knowing, not wrong.
    pub notes: Vec<String>,
    /// The end of the handler's log, if something is wrong.
    pub handler_log: String,
}

/// One line.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LineSummary {
    /// Channel and name.
    pub name: String,
    /// What the exchange did with it.
    pub sent: LineSent,
    /// Packets that the handler received.
    pub received_packets: u64,
    /// Packets that brought a message first.
    pub first: u64,
    /// Packets that brought nothing new.
    pub duplicate: u64,
    /// Packets that waited for a gap.
    pub ahead: u64,
    /// Packets refused as malformed.
    pub malformed: u64,
}

/// All channels together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChannelSummary {
    /// Messages delivered in order.
    pub messages: u64,
    /// Messages that came again and were dropped.
    pub duplicate_messages: u64,
    /// Gaps seen.
    pub gaps_opened: u64,
    /// Gaps filled.
    pub gaps_closed: u64,
    /// Gaps given up.
    pub gaps_lost: u64,
    /// Messages declared lost by the handler.
    pub messages_lost: u64,
    /// Messages that no line carried, by the exchange's account.
    pub messages_on_no_line: u64,
    /// Messages that no line carried and that the retransmission servers had to give, by the exchange's account.
    pub messages_recovered: u64,
}

/// The consumer's account.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OutputSummary {
    /// Packets received.
    pub packets: u64,
    /// Blocks: messages.
    pub blocks: u64,
    /// Records compared.
    pub records: u64,
    /// Messages that the stream left out.
    pub gap_messages: u64,
    /// Runs of such messages.
    pub gaps: u64,
    /// System records: sessions that begin, messages that are lost.
    pub notices: u64,
    /// Orders in the final books, all compared.
    pub book_orders: u64,
    /// Price levels in the final books.
    pub book_levels: u64,
}

/// One stage's latency, nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// Name of the stage.
    pub stage: String,
    /// Values.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

impl Summary {
    /// Adds what the handler says.
    pub(super) fn add_status(&mut self, status: &GetStatusResponse) {
        self.modes = status.interfaces.iter().map(|i| (i.name.clone(), i.mode_in_force.clone())).collect();
        for channel in &status.channels {
            self.add_channel(channel);
        }
        for destination in &status.destinations {
            self.add_drops(&format!("destination {}", destination.name), &destination.drops);
        }
        self.add_drops("no line", &status.unmatched_drops);
        for port in status.workers.iter().flat_map(|worker| &worker.ports) {
            let lossy =
                ["kernel_rx_dropped", "kernel_rx_ring_full", "kernel_rx_invalid", "kernel_tx_invalid", "kick_errors"];
            for counter in port.counters.iter().filter(|c| c.value > 0 && lossy.contains(&c.name.as_str())) {
                let place = format!("{} {} {}: {}", port.interface, port.queue, port.direction, counter.name);
                self.drops.insert(place, counter.value);
            }
            self.add_drops(&format!("{} {} {}", port.interface, port.queue, port.direction), &port.drops);
        }
        self.latencies.extend(status.latencies.iter().map(|l| Latency {
            stage: l.stage.clone(),
            count: l.count,
            p50_ns: l.p50_ns,
            p99_ns: l.p99_ns,
            p999_ns: l.p999_ns,
            max_ns: l.max_ns,
        }));
    }

    fn add_channel(&mut self, channel: &ChannelStatus) {
        let total = &mut self.channels;
        total.messages += channel.messages;
        total.gaps_opened += channel.gaps_opened;
        total.gaps_closed += channel.gaps_closed;
        total.gaps_lost += channel.gaps_lost;
        total.messages_lost += channel.messages_lost;
        let duplicates = channel.counters.iter().find(|counter| counter.name == "duplicate_messages");
        total.duplicate_messages += duplicates.map_or(0, |counter| counter.value);
        for status in &channel.lines {
            let line = status.group.as_ref().map_or("?", |group| group.line.as_str());
            let name = format!("{} {line}", channel.name);
            self.add_drops(&format!("line {line}"), &status.drops);
            if let Some(line) = self.lines.iter_mut().find(|line| line.name == name) {
                line.received_packets = status.packets;
                line.first = status.first;
                line.duplicate = status.duplicate;
                line.ahead = status.ahead;
                line.malformed = status.malformed;
            }
        }
    }

    fn add_drops(&mut self, place: &str, drops: &[DropStatus]) {
        for drop in drops.iter().filter(|drop| drop.packets > 0) {
            *self.drops.entry(format!("{place}: {}", drop.reason)).or_default() += drop.packets;
        }
    }

    /// Adds what one consumer found.
    pub(super) fn add_report(&mut self, report: &Report, latency: &mut Histogram<u64>) {
        let output = &mut self.output;
        output.packets += report.packets;
        output.blocks += report.blocks;
        output.records += report.records;
        output.gap_messages += report.gap_messages;
        output.notices += report.notices;
        output.gaps += report.gaps as u64;
        output.book_orders += report.book_orders as u64;
        output.book_levels += report.book_levels as u64;
        for (fault, count) in &report.findings.counts {
            *self.findings.counts.entry(*fault).or_default() += count;
        }
        self.findings.first.extend(report.findings.first.iter().cloned());
        latency.add(&report.entry_to_consumer).expect("all have the same bounds");
    }

    /// Adds the consumer's own latency.
    pub(super) fn add_consumer_latency(&mut self, latency: &Histogram<u64>) {
        self.latencies.push(Latency {
            stage: "entry_to_consumer".to_owned(),
            count: latency.len(),
            p50_ns: latency.value_at_quantile(0.5),
            p99_ns: latency.value_at_quantile(0.99),
            p999_ns: latency.value_at_quantile(0.999),
            max_ns: latency.max(),
        });
    }

    /// Judges: nothing found, and the handler's own figures agree with the exchange's account.
    pub(super) fn judge(&mut self) {
        if self.output.blocks == 0 {
            self.faults.push("nothing came out".to_owned());
        }
        let ChannelSummary { messages_lost, messages_on_no_line, messages, .. } = self.channels;
        if messages_lost != messages_on_no_line {
            let text =
                format!("the handler declared {messages_lost} messages lost, {messages_on_no_line} were on no line");
            self.faults.push(text);
        }
        if messages != self.output.blocks {
            self.faults.push(format!("the handler delivered {messages} messages, {} came out", self.output.blocks));
        }
        if let Some(toggle) = &self.toggle {
            self.faults.extend(toggle.faults.iter().cloned());
        }
        if let Some(trouble) = &self.trouble {
            self.faults.extend(trouble.faults.iter().cloned());
        }
        self.ok = self.faults.is_empty() && self.findings.is_empty();
    }

    /// What is wrong, line by line, for the error output.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.faults.clone();
        lines.extend(self.findings.first.iter().map(ToString::to_string));
        for (fault, count) in &self.findings.counts {
            lines.push(format!("{fault:?}: {count} in all"));
        }
        lines
    }
}
