//! The report as tables that a person reads.
#![forbid(unsafe_code)]

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{CellReport, ModeReport, Report, RoundReport};
use crate::bench::latency::figures::Figures;
use crate::bench::latency::legs::Leg;

/// The overview's columns: leg and percentile.
const OVERVIEW: [(Leg, usize); 5] = [
    (Leg::EntryToConsumerKernel, 0),
    (Leg::EntryToConsumerKernel, 2),
    (Leg::EntryToConsumerKernel, 3),
    (Leg::IntendedToConsumer, 0),
    (Leg::IntendedToConsumer, 2),
];

/// Share of the time from which on what others did on the cores is worth a warning.
const BUSY_SHARE: f64 = 0.002;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cell in &self.cells {
            writeln!(f, "{} messages/s in bursts of {}", cell.rate, cell.burst)?;
            writeln!(f, "{}", cell.table())?;
            for mode in &cell.modes {
                writeln!(f, "  {}", mode.account())?;
                let waited = mode.waited_share(self.seconds);
                if waited > BUSY_SHARE {
                    writeln!(
                        f,
                        "    busy machine: others had the worker's or the bench's core {:.1} % of the time; the tail is theirs",
                        waited * 100.0
                    )?;
                }
            }
            writeln!(f)?;
        }
        writeln!(f, "Overview")?;
        writeln!(f, "{}", self.overview())?;
        writeln!(
            f,
            "Microseconds, AF_XDP/kernel sockets ×ratio; medians over {} rounds of {} s. Same handler, same \
             configuration but for `mode`\n(native; socket with busy_poll_us = {}); one line (A), every message in a packet \
             of its own, a fresh handler per run.",
            self.rounds, self.seconds, self.busy_poll_us
        )?;
        writeln!(
            f,
            "Open loop: every message has its intended time before the first is sent and the sender waits for nothing, so \
             coordinated\nomission is impossible by construction. Lost messages count as slower than all others: where a \
             percentile falls among them\nit reads `lost`. p99.99 of a round with fewer than 10,000 messages is its longest."
        )?;
        writeln!(
            f,
            "Kernel entry is the XDP program in mode native and the kernel's receive stamp in mode socket. On veth the send \
             call carries\nthe packet into the receiving kernel, so `send call → kernel entry` is mostly the sender's own \
             system call."
        )?;
        writeln!(
            f,
            "`entry → worker`, `worker → decoded` and `decoded → sent` are the handler's own histograms, warm-up included; \
             it tells no p90."
        )?;
        write!(f, "{}.", self.placement)
    }
}

impl Report {
    fn overview(&self) -> Table {
        let mut table = table();
        let columns =
            OVERVIEW.map(|(leg, at)| format!("{}\n{}", leg.label().replace(" → ", "\n→ "), Figures::NAMES[at]));
        table.set_header(
            ["messages/s".to_owned(), "burst".to_owned()].into_iter().chain(columns).chain(["lost".to_owned()]),
        );
        for cell in &self.cells {
            let figures = OVERVIEW.map(|(leg, at)| cell.compare(leg, at));
            let lost = cell.modes.each_ref().map(|mode| mode.total(|round| round.lost).to_string()).join(" / ");
            let row = [cell.rate.to_string(), cell.burst.to_string()];
            table.add_row(row.into_iter().chain(figures).chain([lost]));
        }
        align(table)
    }
}

impl CellReport {
    fn table(&self) -> Table {
        let mut table = table();
        table.set_header(std::iter::once("µs, AF_XDP/sockets ×ratio").chain(Figures::NAMES));
        for leg in Leg::ALL {
            let figures = (0..Figures::NAMES.len()).map(|at| self.compare(leg, at));
            table.add_row(std::iter::once(leg.label().to_owned()).chain(figures));
        }
        align(table)
    }

    /// One percentile of one leg in both modes.
    fn compare(&self, leg: Leg, at: usize) -> String {
        let [ours, theirs] = self.modes.each_ref().map(|mode| mode.median.get(&leg).and_then(|figures| figures.ns[at]));
        let text = |ns: Option<u64>| match ns {
            // Below 100 µs the tenths tell something.
            Some(ns) if ns < 100_000 => format!("{:.1}", ns as f64 / 1e3),
            Some(ns) => format!("{:.0}", ns as f64 / 1e3),
            None if leg.stage().is_some() => "–".to_owned(),
            None => "lost".to_owned(),
        };
        match (ours, theirs) {
            (None, None) if leg.stage().is_some() => "–".to_owned(),
            (Some(a), Some(b)) if b > 0 => format!("{}/{} ×{:.2}", text(ours), text(theirs), a as f64 / b as f64),
            _ => format!("{}/{}", text(ours), text(theirs)),
        }
    }
}

impl ModeReport {
    /// Of the measured time, the share in which the worker or the bench was kept from its core; of both, the larger.
    fn waited_share(&self, seconds: f64) -> f64 {
        let share = |round: &RoundReport| round.worker_waited_ns.max(round.bench_waited_ns) as f64 / 1e9 / seconds;
        self.rounds.iter().map(share).sum::<f64>() / self.rounds.len().max(1) as f64
    }

    /// What became of the messages, in one line.
    fn account(&self) -> String {
        let mut text = format!(
            "{} ({}): {} sent, {} lost, {} doubled; others had the core: the worker's {:.1} ms, the bench's {:.1} ms",
            self.mode.word(),
            self.mode_in_force.join(", "),
            self.total(|round| round.sent),
            self.total(|round| round.lost),
            self.total(|round| round.doubled),
            self.total(|round| round.worker_waited_ns) as f64 / 1e6,
            self.total(|round| round.bench_waited_ns) as f64 / 1e6,
        );
        let mut add = |what: &str, count: u64| {
            if count > 0 {
                text.push_str(&format!("; {what} {count}"));
            }
        };
        add("lost in warm-up", self.total(|round| round.lost_in_warm_up));
        add("declared lost by the handler, warm-up included", self.total(|round| round.declared_lost));
        add("legs that came out negative (counted as 0)", self.total(|round| round.negative));
        for (place, drops) in self.rounds.iter().flat_map(|round| &round.drops) {
            add(place, *drops);
        }
        text
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn align(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
