//! The real handler over veth for as long as one likes: session after session with rates, losses, faults, switches and
//! restarts at random, all from one seed; and a judgement of every record and of the handler's memory.
#![forbid(unsafe_code)]

mod life;
mod report;
mod round;
mod script;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;

pub use report::{RoundSummary, Summary};

use crate::consumer::utc_ns;
use crate::demo::serve;
use crate::lab;
use crate::testbed::{HandlerConfig, Mode, Network, handler_binary, signal};
use life::Site;
use round::Rounds;

/// Runs the feed handler between a simulated exchange and a consumer that checks every record, with faults at random.
///
/// Needs root: it makes network namespaces, and removes them. Exit status: 0 if nothing was lost but what no line carried and
/// no server gave, everything else came out once, in order and right, and memory stayed flat; 1 if not, with what and where.
#[derive(Clone, Debug, Parser)]
#[command(name = "feedhandler-soak", version)]
pub struct Options {
    /// How long, about: sessions of 6 to 14 seconds, two at least.
    #[arg(long, default_value_t = 3.0, value_parser = minutes)]
    pub minutes: f64,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Most messages per second that a session may have.
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u64).range(4_000..))]
    pub most_rate: u64,
    /// How the handler exchanges frames with the interfaces.
    #[arg(long, value_enum, default_value = "native")]
    pub mode: Mode,
    /// The handler's binary. Default: `feedhandler` beside this program.
    #[arg(long, value_name = "FILE")]
    pub handler: Option<PathBuf>,
    /// Lose something on purpose and keep quiet about it: the check has to fail.
    #[arg(long, hide = true)]
    pub cheat: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.1..=10_080.0).contains(&value) => Ok(value),
        _ => Err("must be a number of minutes, 0.1 to 10080".to_owned()),
    }
}

/// Runs the soak.
///
/// # Errors
/// If it could not be run to its end. What the check finds is in the summary.
pub fn run(options: &Options) -> Result<Summary> {
    for name in lab::sweep() {
        eprintln!("removed namespace {name}, left behind by somebody who was killed");
    }
    let script = script::script(options);
    let mut config = HandlerConfig::load(None)?;
    ensure!(config.lines()?.len() == 2 && config.outputs()?.len() == 1, "two lines and one destination");
    let directory = tempfile::Builder::new().prefix("feedhandler-soak-").tempdir().context("temporary directory")?;
    let socket = directory.path().join("control.sock");
    config.adapt(&socket, Some(options.mode))?;
    config.be_patient()?;
    let (lines, mut outputs) = (config.lines()?, config.outputs()?);
    let network = Network::new(&lines, &outputs)?;
    config.ask_servers(&serve::addresses(&network))?;
    let path = directory.path().join("soak.toml");
    config.write(&path)?;
    let site = Site {
        network,
        output: outputs.swap_remove(0),
        binary: handler_binary(options.handler.as_deref())?,
        config: path,
        socket,
        publisher_id: config.publisher_id()?,
        midnight_ns: config.midnight_ns()?,
        started_ns: utc_ns(),
        directory,
    };
    let mut rounds = Rounds::new(site, lines, &script)?;
    for number in 0..script.len() {
        if signal::is_stopping() {
            break;
        }
        rounds.run(number, options.cheat && number == 0)?;
    }
    rounds.finish(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_limits() {
        let parse = |arguments: &[&str]| Options::try_parse_from([&["soak"], arguments].concat());
        assert_eq!(parse(&["--minutes", "0.25", "--seed", "9"]).map(|options| options.seed).ok(), Some(9));
        for bad in [["--minutes", "0"], ["--minutes", "x"], ["--most-rate", "10"], ["--mode", "fast"]] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
