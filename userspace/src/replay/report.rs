//! The report of a replay, as data (`--json`) and as tables.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::Replay;
use super::tally::SessionTally;
use crate::config::plan::Plan;
use crate::metrics::{ChannelCounts, DropReason};

/// Instruments whose best prices are shown, busiest first.
const BUSIEST: usize = 10;

/// What a replay found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Frames read from the files.
    pub frames: u64,
    /// Per file, in the order given.
    pub files: Vec<FileReport>,
    /// Frames that are no whole IPv4 multicast UDP datagram, by the parser's verdict (as in the XDP program's counters).
    pub no_datagram: BTreeMap<&'static str, u64>,
    /// Datagrams of groups that the configuration does not have.
    pub unknown_group: u64,
    /// Per line, in the plan's order.
    pub lines: Vec<LineReport>,
    /// Per channel, in the plan's order.
    pub channels: Vec<ChannelReport>,
}

/// One file.
#[derive(Debug, Serialize)]
pub struct FileReport {
    /// Its path as given.
    pub path: String,
    /// Frames read from it.
    pub frames: u64,
    /// Frames left out because they were captured on an interface that is not Ethernet.
    pub skipped_not_ethernet: u64,
    /// Why it was not read to its end: file, offset and reason.
    pub damage: Option<String>,
}

/// One line, before arbitration.
#[derive(Debug, Serialize)]
pub struct LineReport {
    /// `feed/channel line`.
    pub name: String,
    /// Datagrams.
    pub packets: u64,
    /// Messages in those that are whole.
    pub messages: u64,
    /// These messages by type.
    pub messages_by_type: BTreeMap<char, u64>,
    /// Lowest sequence carried.
    pub first_sequence: Option<u64>,
    /// Highest sequence carried.
    pub last_sequence: Option<u64>,
    /// Packets of which nothing was new.
    pub duplicates: u64,
    /// Drops by reason, zeros left out.
    pub drops: BTreeMap<&'static str, u64>,
}

/// One channel, after arbitration.
#[derive(Debug, Serialize)]
pub struct ChannelReport {
    /// `feed/channel`.
    pub name: String,
    /// By session name.
    pub sessions: BTreeMap<String, SessionTally>,
    /// All counters of the channel, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// Delivered messages by type.
    pub messages_by_type: BTreeMap<char, u64>,
    /// Records by kind.
    pub records_by_kind: BTreeMap<&'static str, u64>,
    /// Best bid and offer of the busiest instruments at the end.
    pub best: Vec<BestPrices>,
}

/// Best bid and offer of one instrument.
#[derive(Debug, Serialize)]
pub struct BestPrices {
    /// Instrument id.
    pub instrument_id: u32,
    /// Its symbol, if the feed named it.
    pub symbol: String,
    /// Book records seen.
    pub updates: u64,
    /// Highest bid: price in 1e-9, total size.
    pub bid: Option<(i64, u64)>,
    /// Lowest offer: price in 1e-9, total size.
    pub ask: Option<(i64, u64)>,
}

pub(super) fn build(plan: &Plan, replay: &Replay, files: Vec<FileReport>) -> Report {
    let lines = plan.lines.iter().map(|(i, line)| {
        let (channel, role) = replay.roles[i];
        let lane = &replay.lanes[channel];
        let counts = lane.channel.line_counts(role);
        let drops = lane.channel.line_drops(role);
        let tally = &replay.line_tallies[i];
        let drops = DropReason::ALL.into_iter().map(|reason| (reason.label(), drops.get(reason)));
        LineReport {
            name: format!("{} {}", plan.channels[channel].name, line.name),
            packets: counts.packets,
            messages: tally.messages,
            messages_by_type: tally.by_type.clone(),
            first_sequence: tally.first_sequence,
            last_sequence: tally.last_sequence,
            duplicates: counts.duplicate,
            drops: drops.filter(|(_, count)| *count > 0).collect(),
        }
    });
    let channels = plan.channels.values().zip(&replay.lanes).map(|(channel, lane)| ChannelReport {
        name: channel.name.clone(),
        sessions: lane.tally.sessions.clone(),
        counts: ChannelCounts::FIELDS.iter().map(|field| field.0).zip(lane.channel.counts().values()).collect(),
        messages_by_type: lane.tally.by_type.clone(),
        records_by_kind: lane.tally.by_record.clone(),
        best: best_prices(&lane.tally.books),
    });
    Report {
        frames: replay.frames,
        files,
        no_datagram: replay.no_datagram.clone(),
        unknown_group: replay.not_for_us,
        lines: lines.collect(),
        channels: channels.collect(),
    }
}

fn best_prices(books: &super::books::Books) -> Vec<BestPrices> {
    let mut best: Vec<_> = books
        .books
        .iter()
        .filter(|(_, book)| book.updates > 0)
        .map(|(&instrument_id, book)| BestPrices {
            instrument_id,
            symbol: book.symbol.clone(),
            updates: book.updates,
            bid: book.bids.last_key_value().map(|(price, size)| (*price, *size)),
            ask: book.asks.first_key_value().map(|(price, size)| (*price, *size)),
        })
        .collect();
    best.sort_by_key(|row| (std::cmp::Reverse(row.updates), row.instrument_id));
    best.truncate(BUSIEST);
    best
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} frames: {} not a UDP multicast datagram, {} of groups that the configuration does not have",
            self.frames,
            self.no_datagram.values().sum::<u64>(),
            self.unknown_group
        )?;
        if !self.no_datagram.is_empty() {
            writeln!(f, "no datagram: {}", pairs(&self.no_datagram))?;
        }
        for file in &self.files {
            if file.skipped_not_ethernet > 0 {
                writeln!(
                    f,
                    "{}: left out {} frames of interfaces that are not Ethernet",
                    file.path, file.skipped_not_ethernet
                )?;
            }
            if let Some(damage) = &file.damage {
                writeln!(f, "DAMAGED, read up to there ({} frames): {damage}", file.frames)?;
            }
        }
        let mut table = table(["line", "packets", "messages", "first", "last", "duplicates", "drops"]);
        for line in &self.lines {
            table.add_row([
                line.name.clone(),
                line.packets.to_string(),
                line.messages.to_string(),
                optional(line.first_sequence),
                optional(line.last_sequence),
                line.duplicates.to_string(),
                pairs(&line.drops),
            ]);
        }
        writeln!(f, "{table}")?;
        for line in &self.lines {
            writeln!(f, "  {} by type: {}", line.name, pairs(&line.messages_by_type))?;
        }
        self.channels.iter().try_for_each(|channel| channel.fmt(f))
    }
}

impl fmt::Display for ChannelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |name| self.counts.get(name).copied().unwrap_or_default();
        writeln!(f, "\n{}", self.name)?;
        writeln!(
            f,
            "  messages {}, records {}, duplicate messages {}, gaps opened {} closed {} lost {}, messages lost {}",
            count("messages"),
            count("records"),
            count("duplicate_messages"),
            count("gaps_opened"),
            count("gaps_closed"),
            count("gaps_lost"),
            count("messages_lost")
        )?;
        let mut sessions = table(["session", "first", "last", "messages", "lost"]);
        for (name, tally) in &self.sessions {
            let numbers = [tally.first_sequence, tally.last_sequence, tally.messages, tally.lost];
            sessions.add_row(std::iter::once(name.clone()).chain(numbers.map(|n| n.to_string())));
        }
        writeln!(f, "{sessions}")?;
        writeln!(f, "  by type:   {}", pairs(&self.messages_by_type))?;
        writeln!(f, "  by record: {}", pairs(&self.records_by_kind))?;
        let mut best = table(["instrument", "symbol", "updates", "bid size", "bid", "ask", "ask size"]);
        for row in &self.best {
            best.add_row([
                row.instrument_id.to_string(),
                row.symbol.clone(),
                row.updates.to_string(),
                optional(row.bid.map(|(_, size)| size)),
                row.bid.map_or_else(|| "-".into(), |(price, _)| decimal(price)),
                row.ask.map_or_else(|| "-".into(), |(price, _)| decimal(price)),
                optional(row.ask.map(|(_, size)| size)),
            ]);
        }
        writeln!(f, "{best}")
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn optional(value: Option<u64>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn pairs<K: fmt::Display>(map: &BTreeMap<K, u64>) -> String {
    if map.is_empty() {
        return "-".into();
    }
    map.iter().map(|(key, count)| format!("{key} {count}")).collect::<Vec<_>>().join("  ")
}

/// A DBN price (1e-9) with four decimals, the finest that ITCH has.
fn decimal(price: i64) -> String {
    format!("{}.{:04}", price / 1_000_000_000, price % 1_000_000_000 / 100_000)
}
