//! Latency leg by leg at several rates and bursts, open loop: the handler over AF_XDP against the same handler over
//! busy-polled kernel sockets.
//!
//! Coordinated omission is impossible by construction: every message has its intended time before the first is sent, the
//! sender never waits for an answer, and latency counts from the intended time. What is held up late counts as late.
//!
//! Output is sequence-transparent (one block per input message), so a message's number leads back to its times at the
//! sender; its kernel entry travels with it as the records' `ts_recv`.
#![forbid(unsafe_code)]

mod figures;
mod legs;
mod place;
mod plot;
mod receive;
mod report;
mod run;
mod send;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::testbed::Mode;

pub use figures::Figures;
pub use legs::Leg;
pub use place::Placement;
pub use report::{CellReport, ModeReport, Report, RoundReport};

/// Messages that a cell needs at least, warm-up aside.
const MIN_MESSAGES: usize = 100;

/// Options of `feedhandler-bench latency`.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Messages per second, one table each.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,50000",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rates: Vec<u32>,
    /// Messages, each in a packet of its own, that are due at the same time; bursts come as often as the rate says.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub bursts: Vec<u32>,
    /// How long each cell is measured in each round, after a warm-up of 0.1 s.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Rounds; every cell runs in both modes in each, so that a disturbance hits both.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// SO_BUSY_POLL of the kernel sockets, microseconds.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub busy_poll_us: u32,
    /// Also write every round's figures to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the percentiles, all rounds together, into this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// The handler's binary. Default: `feedhandler` beside this program.
    #[arg(long, value_name = "FILE")]
    pub handler: Option<PathBuf>,
}

/// The modes compared, in table order: the one in question, and its baseline.
const MODES: [Mode; 2] = [Mode::Native, Mode::Socket];

/// One rate with one burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    /// Messages per second.
    rate: u32,
    /// Messages due at the same time.
    burst: u32,
}

impl Cell {
    /// When a message is due after the first one, nanoseconds.
    fn offset_ns(self, index: usize) -> u64 {
        let bursts = index as u64 / u64::from(self.burst);
        bursts * u64::from(self.burst) * 1_000_000_000 / u64::from(self.rate)
    }

    /// Whole bursts that last about so long, as messages.
    fn messages(self, seconds: f64) -> usize {
        let bursts = (f64::from(self.rate) * seconds / f64::from(self.burst)).round().max(1.0);
        bursts as usize * self.burst as usize
    }
}

/// Measures and prints.
///
/// # Errors
/// If it could not be measured (see [`measure`]), or a report cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let report = measure(arguments)?;
    println!("{report}");
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&report).context("report as JSON")?;
        std::fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.svg {
        plot::write(&report, path).with_context(|| format!("cannot draw {}", path.display()))?;
    }
    Ok(())
}

/// Runs all cells in all rounds. Needs root: it makes network namespaces, and removes them.
///
/// # Errors
/// If an option is out of range, the handler does not run as configured, or its output is wrong; lost messages are no
/// error but a figure.
pub fn measure(arguments: &Arguments) -> Result<Report> {
    ensure!((0.05..=3600.0).contains(&arguments.seconds), "--seconds {}: must be 0.05 to 3600", arguments.seconds);
    let bursts = &arguments.bursts;
    let cells = arguments.rates.iter().flat_map(|rate| bursts.iter().map(|burst| Cell { rate: *rate, burst: *burst }));
    let cells: Vec<Cell> = cells.collect();
    for cell in &cells {
        let messages = cell.messages(arguments.seconds);
        ensure!(
            messages >= MIN_MESSAGES,
            "--seconds {} at {} messages/s are {messages} messages: must be at least {MIN_MESSAGES}",
            arguments.seconds,
            cell.rate
        );
    }
    run::run(arguments, &cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_come_as_often_as_the_rate_says() {
        let cell = Cell { rate: 1000, burst: 16 };
        assert_eq!(cell.offset_ns(15), 0);
        assert_eq!(cell.offset_ns(16), 16_000_000);
        assert_eq!(cell.offset_ns(1600), 1_600_000_000);
        assert_eq!(cell.messages(2.0), 2000);
        assert_eq!(Cell { rate: 1000, burst: 64 }.messages(0.1), 128);
    }
}
