//! The report: figures of every round, medians, and the tables.
#![forbid(unsafe_code)]

mod tables;

use std::collections::BTreeMap;

use feedhandler_proto::v1::{DropStatus, GetStatusResponse};
use serde::Serialize;

use super::figures::{Figures, Samples};
use super::legs::{Leg, Legs};
use super::{Arguments, Cell, MODES, Placement};
use crate::testbed::Mode;

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `latency`.
    pub bench: &'static str,
    /// Which core did what.
    pub placement: Placement,
    /// Seconds per cell, mode and round, warm-up aside.
    pub seconds: f64,
    /// Rounds.
    pub rounds: u32,
    /// SO_BUSY_POLL of the kernel sockets, microseconds.
    pub busy_poll_us: u32,
    /// By rate, then burst.
    pub cells: Vec<CellReport>,
}

/// One rate with one burst.
#[derive(Clone, Debug, Serialize)]
pub struct CellReport {
    /// Messages per second.
    pub rate: u32,
    /// Messages due at the same time.
    pub burst: u32,
    /// AF_XDP, then kernel sockets.
    pub modes: [ModeReport; MODES.len()],
}

/// One mode of one cell.
#[derive(Clone, Debug, Serialize)]
pub struct ModeReport {
    /// The mode.
    pub mode: Mode,
    /// What the handler says is in force, by interface.
    pub mode_in_force: Vec<String>,
    /// Medians over the rounds.
    pub median: BTreeMap<Leg, Figures>,
    /// Each round.
    pub rounds: Vec<RoundReport>,
    /// All rounds together, for the plot.
    #[serde(skip)]
    pub(super) samples: BTreeMap<Leg, Samples>,
}

/// One run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RoundReport {
    /// Messages sent, warm-up aside.
    pub sent: u64,
    /// Of those, messages that never arrived.
    pub lost: u64,
    /// Messages of the warm-up that never arrived.
    pub lost_in_warm_up: u64,
    /// Messages that arrived more than once.
    pub doubled: u64,
    /// Legs that came out negative and are recorded as 0: the handler's idea of UTC was off.
    pub negative: u64,
    /// Drops by place; only those that happened.
    pub drops: BTreeMap<String, u64>,
    /// Messages that the handler declared lost.
    pub declared_lost: u64,
    /// How long the handler's worker was ready to run while something else had its core, nanoseconds.
    pub worker_waited_ns: u64,
    /// The same for the sender and receiver.
    pub bench_waited_ns: u64,
    /// By leg. Those of the handler's own stages hold the warm-up as well.
    pub legs: BTreeMap<Leg, Figures>,
}

/// What one run yields.
pub(super) struct Run {
    pub(super) round: RoundReport,
    pub(super) samples: BTreeMap<Leg, Samples>,
    pub(super) mode_in_force: Vec<String>,
}

impl Report {
    pub(super) fn new(arguments: &Arguments, placement: Placement, cells: &[Cell]) -> Self {
        let mode = |mode| ModeReport {
            mode,
            mode_in_force: Vec::new(),
            median: BTreeMap::new(),
            rounds: Vec::new(),
            samples: BTreeMap::new(),
        };
        let cell = |cell: &Cell| CellReport { rate: cell.rate, burst: cell.burst, modes: MODES.map(mode) };
        Self {
            bench: "latency",
            placement,
            seconds: arguments.seconds,
            rounds: arguments.rounds,
            busy_poll_us: arguments.busy_poll_us,
            cells: cells.iter().map(cell).collect(),
        }
    }
}

impl CellReport {
    /// Adds a run of the mode with the given index.
    pub(super) fn add(&mut self, mode: usize, run: Run) {
        let report = &mut self.modes[mode];
        report.mode_in_force = run.mode_in_force;
        report.rounds.push(run.round);
        for (leg, samples) in &run.samples {
            report.samples.entry(*leg).or_default().add(samples);
        }
        for leg in Leg::ALL {
            let rounds: Vec<Figures> = report.rounds.iter().filter_map(|round| round.legs.get(&leg).copied()).collect();
            report.median.insert(leg, Figures::median(&rounds));
        }
    }
}

impl ModeReport {
    /// The sum of a figure over the rounds.
    #[must_use]
    pub fn total(&self, figure: impl Fn(&RoundReport) -> u64) -> u64 {
        self.rounds.iter().map(figure).sum()
    }
}

impl RoundReport {
    pub(super) fn new(legs: &Legs, status: &GetStatusResponse, sent: usize) -> Self {
        let mut round = Self { sent: sent as u64, lost: legs.lost, negative: legs.negative, ..Self::default() };
        round.legs = legs.samples.iter().map(|(leg, samples)| (*leg, samples.figures())).collect();
        for leg in Leg::ALL {
            let stage = status.latencies.iter().find(|latency| Some(latency.stage.as_str()) == leg.stage());
            if let Some(stage) = stage.filter(|stage| stage.count > 0) {
                let ns =
                    [stage.p50_ns, stage.p90_ns, stage.p99_ns, stage.p999_ns, stage.p9999_ns, stage.max_ns].map(Some);
                round.legs.insert(leg, Figures { count: stage.count, ns });
            }
        }
        round.declared_lost = status.channels.iter().map(|channel| channel.messages_lost).sum();
        let lines = status.channels.iter().flat_map(|channel| &channel.lines).flat_map(|line| &line.drops);
        let outputs = status.destinations.iter().flat_map(|destination| &destination.drops);
        let ports = status.workers.iter().flat_map(|worker| &worker.ports).flat_map(|port| &port.drops);
        for DropStatus { reason, packets, .. } in lines.chain(outputs).chain(ports).chain(&status.unmatched_drops) {
            round.add_drops(&format!("handler: {reason}"), *packets);
        }
        round
    }

    /// Counts drops at a place.
    pub(super) fn add_drops(&mut self, place: &str, packets: u64) {
        if packets > 0 {
            *self.drops.entry(place.to_owned()).or_default() += packets;
        }
    }
}
