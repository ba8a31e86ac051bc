//! What came of the soak.
#![forbid(unsafe_code)]

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::Options;
use super::life::Life;
use super::script::Round;
use crate::consumer::{Findings, Report};

/// Memory that a life of the handler may take on after its first session, kB: tables that are allocated at the start, and
/// used for the first time later. A leak of a hundred bytes per packet is beyond it within minutes.
const GROWTH_KILOBYTES: u64 = 24 << 10;

/// Open files that it may have more than after its first session: the control side opens some for moments.
const MORE_FILES: usize = 6;

/// One session.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RoundSummary {
    /// Name of the session.
    pub session: String,
    /// Messages.
    pub messages: u64,
    /// Messages per second.
    pub rate: f64,
    /// Shares of packets that lines A and B lose by themselves.
    pub losses: [f64; 2],
    /// Who was asked for what was lost.
    pub servers: String,
    /// What happened, in order.
    pub events: Vec<String>,
    /// Messages that no line carried.
    pub on_no_line: u64,
    /// Messages that the handler declared lost.
    pub lost: u64,
    /// Requests that it sent.
    pub requests: u64,
    /// Its anonymous resident memory at the end, kB.
    pub kilobytes: u64,
    /// Its open files at the end.
    pub files: usize,
    /// What was not as it has to be.
    pub faults: Vec<String>,
}

impl RoundSummary {
    pub(super) fn new(round: &Round) -> Self {
        Self {
            session: round.exchange.session.escape_ascii().to_string(),
            messages: round.day.messages,
            rate: round.exchange.rate,
            losses: [0, 1].map(|line| round.exchange.lines[line].loss),
            servers: if round.is_served {
                round.servers.each_ref().map(|server| format!("{:?}", server.manner).to_lowercase()).join(", ")
            } else {
                "none answers".to_owned()
            },
            ..Self::default()
        }
    }
}

impl fmt::Display for RoundSummary {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, messages, rate, on_no_line, lost, requests, kilobytes, .. } = self;
        write!(
            f,
            "soak: {session}: {messages} messages at {rate:.0}/s, {on_no_line} on no line, {lost} lost, {requests} \
             requests, {} [{}] {} kB",
            self.servers,
            self.events.join(", "),
            kilobytes,
        )?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// The whole soak.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// True if nothing was wrong.
    pub ok: bool,
    /// By session.
    pub rounds: Vec<RoundSummary>,
    /// Lives of the handler: one more than it was started again.
    pub lives: usize,
    /// Packets that the consumer took.
    pub packets: u64,
    /// Messages that came out; those of a session that came anew after a start of the handler count again.
    pub blocks: u64,
    /// Records compared.
    pub records: u64,
    /// Messages that the output left out.
    pub left_out: u64,
    /// By life: memory that it took on after its first session, kB.
    pub growth_kilobytes: Vec<u64>,
    /// What is wrong with the stream.
    pub findings: Findings,
    /// What is wrong apart from that.
    pub faults: Vec<String>,
    /// Worth knowing, not wrong.
    pub notes: Vec<String>,
    /// How to do all this again.
    pub replay: String,
}

impl Summary {
    /// Adds what was seen of a life's memory and files.
    pub(super) fn add_life(&mut self, life: &Life) {
        self.lives += 1;
        let [first, rest @ ..] = &life.usage[..] else { return };
        let most = rest.iter().map(|usage| usage.kilobytes).max().unwrap_or(first.kilobytes);
        let growth = most.saturating_sub(first.kilobytes);
        self.growth_kilobytes.push(growth);
        if growth > GROWTH_KILOBYTES {
            self.faults.push(format!("life {}: memory grew from {} to {most} kB", self.lives, first.kilobytes));
        }
        let files = rest.last().unwrap_or(first).files;
        if files > first.files + MORE_FILES {
            self.faults.push(format!("life {}: open files grew from {} to {files}", self.lives, first.files));
        }
    }

    /// Adds what the consumer found in a life.
    pub(super) fn add_report(&mut self, report: &Report, dropped: u64) {
        self.packets += report.packets;
        self.blocks += report.blocks;
        self.records += report.records;
        self.left_out += report.gap_messages;
        for (fault, count) in &report.findings.counts {
            *self.findings.counts.entry(*fault).or_default() += count;
        }
        self.findings.first.extend(report.findings.first.iter().cloned());
        if dropped > 0 {
            self.faults.push(format!("the consumer's own socket dropped {dropped} packets: nothing is shown"));
        }
    }

    pub(super) fn judge(&mut self, options: &Options) {
        let Options { minutes, seed, most_rate, mode, .. } = options;
        self.replay = format!(
            "cargo xtask soak --minutes {minutes} --seed {seed} --most-rate {most_rate} --mode {}",
            mode.word()
        );
        if self.blocks == 0 || self.rounds.is_empty() {
            self.faults.push("nothing came out".to_owned());
        }
        self.ok = self.complaints().is_empty();
    }

    /// What is wrong, line by line.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut lines = self.faults.clone();
        for round in &self.rounds {
            lines.extend(round.faults.iter().map(|fault| format!("{}: {fault}", round.session)));
        }
        lines.extend(self.findings.first.iter().map(ToString::to_string));
        lines.extend(self.findings.counts.iter().map(|(fault, count)| format!("{fault:?}: {count} in all")));
        lines
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        table.set_header([
            "session",
            "messages",
            "per s",
            "loss A/B %",
            "servers",
            "events",
            "on no line",
            "lost",
            "requests",
            "MB",
        ]);
        for round in &self.rounds {
            let [a, b] = round.losses.map(|loss| loss * 100.0);
            table.add_row([
                round.session.clone(),
                round.messages.to_string(),
                format!("{:.0}", round.rate),
                format!("{a:.1}/{b:.1}"),
                round.servers.clone(),
                round.events.join("\n"),
                round.on_no_line.to_string(),
                round.lost.to_string(),
                round.requests.to_string(),
                format!("{:.1}", round.kilobytes as f64 / 1024.0),
            ]);
        }
        for column in [1, 2, 6, 7, 8, 9] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{table}")?;
        let growth = self.growth_kilobytes.iter().max().copied().unwrap_or(0) as f64 / 1024.0;
        writeln!(
            f,
            "{} lives of the handler; {} records of {} messages compared; {} left out, all declared; memory grew by \
             {growth:.1} MB at most",
            self.lives, self.records, self.blocks, self.left_out
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))?;
        let verdict = if self.ok { "nothing was lost, and all was right" } else { "NOT RIGHT" };
        write!(f, "{verdict}\nagain: {}", self.replay)
    }
}
