//! The demonstration: exchange, handler and consumer as three hosts, and an account of every message.
//!
//! The handler is the real program in a process of its own; the exchange and the consumer are this crate's.
#![forbid(unsafe_code)]

mod capture;
mod fault;
pub(crate) mod receive;
mod report;
mod run;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod toggle;
pub(crate) mod trouble;
pub(crate) mod workload;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

pub use report::Summary;
pub use run::run;
pub use trouble::{Kind as TroubleKind, Trouble};

use crate::testbed::Mode;

/// Publishes a generated ITCH 5.0 day (or a capture) to the feed handler over two imperfect lines, and checks every record
/// that comes out against the exchange's own truth.
///
/// Needs root: it makes network namespaces, and removes them. Exit status: 0 if everything that at least one line carried
/// came out once, in order and right; 1 if not, with what and where.
#[derive(Clone, Debug, Parser)]
#[command(name = "feedhandler-demo", version)]
pub struct Options {
    /// How long the day lasts.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub seconds: f64,
    /// Messages per second; the day has rate × seconds messages.
    #[arg(long, default_value_t = 100_000.0, value_parser = rate)]
    pub rate: f64,
    /// Share of packets that each line loses, independently of the other: 0 to 0.5.
    #[arg(long, default_value_t = 0.005, value_parser = share)]
    pub loss: f64,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the summary to this file as JSON ("-" = standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Send the UDP multicast packets of this capture (pcap or pcapng, also gzipped) instead of a generated day.
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// With --capture: how much faster than the capture's own times.
    #[arg(long, default_value_t = 1.0, value_parser = speed, requires = "capture")]
    pub speed: f64,
    /// How the handler exchanges frames with the interfaces. Default: as in the configuration.
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// The handler's binary. Default: `feedhandler` beside this program.
    #[arg(long, value_name = "FILE")]
    pub handler: Option<PathBuf>,
    /// The handler's configuration. Default: config/demo.toml as built in.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// MTU of the lines' links. With more than 1500 the exchange fills packets of up to 8900 bytes. A generated day only.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1500..=9898), conflicts_with = "capture")]
    pub mtu: u16,
    /// Let gaps wait ten times as long as configured: for busy machines, where a sender that waits for its core between
    /// its packets on A and B would pass for loss.
    #[arg(long, hide = true)]
    pub patient: bool,
    /// Let the exchange have a retransmission server on each line's network, and the handler ask them: then nothing may be
    /// lost, whatever the lines lose. A generated day only.
    #[arg(long, conflicts_with = "capture")]
    pub recovery: bool,
    /// With --recovery: the handler hears nothing until midway, and gets what was sent before from the servers.
    #[arg(long, requires = "recovery", conflicts_with_all = ["trouble", "fault"])]
    pub late_start: bool,
    /// With --recovery: the first server floods the handler with everything but the answer.
    #[arg(long, requires = "recovery", hide = true)]
    pub hostile_server: bool,
    /// Share of messages at which both lines lose the packet that has it: 0 to 0.5.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub common_loss: f64,
    /// Most messages of a packet.
    #[arg(long, default_value_t = 24, hide = true)]
    pub packet_messages: u16,
    /// Nothing is done midway: no line is switched off and on.
    #[arg(long, hide = true)]
    pub undisturbed: bool,
    /// Midway, break something of the network instead of switching line A off: the stream goes on and what was lost comes
    /// back. A generated day only.
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with = "capture")]
    pub trouble: Option<TroubleKind>,
    /// Break something on purpose: the check has to fail.
    #[arg(long, value_enum, hide = true)]
    pub fault: Option<FaultOption>,
}

/// What to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaultOption {
    /// Midway, delete both lines' rules from the filter's map behind the handler's back.
    RemoveRule,
}

fn number(text: &str, low: f64, high: f64, what: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("must be {what}, {low} to {high}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    number(text, 1.0, 86_400.0, "a number of seconds")
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 100.0, 10_000_000.0, "a number of messages per second")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0, 0.5, "a share")
}

fn speed(text: &str) -> Result<f64, String> {
    number(text, 1e-3, 1e9, "a factor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_limits() {
        let parse = |arguments: &[&str]| Options::try_parse_from([&["demo"], arguments].concat());
        assert!(parse(&[]).is_ok());
        assert!(parse(&["--loss", "0.02", "--seconds", "20", "--mode", "skb"]).is_ok());
        for bad in [["--loss", "0.6"], ["--loss", "x"], ["--seconds", "0"], ["--rate", "nan"], ["--speed", "2"]] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
        let error = parse(&["--loss", "2"]).unwrap_err().to_string();
        assert!(error.contains("must be a share, 0 to 0.5"), "{error}");
    }
}
