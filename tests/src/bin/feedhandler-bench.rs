//! `feedhandler-bench decode`, `throughput`, `latency`: see `--help` of each.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use feedhandler_testkit::bench::{decode, latency, throughput};
use feedhandler_testkit::testbed::clean_up_when_killed;

#[derive(Parser)]
#[command(about = "Benches of the feed handler, each beside its baseline")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Nanoseconds per message: framing, decoding, order store, and the whole channel.
    Decode(decode::Arguments),
    /// Packets per second in and out again: AF_XDP against kernel sockets.
    Throughput(throughput::Arguments),
    /// Latency leg by leg, open loop: AF_XDP against busy-polled kernel sockets. Needs root.
    Latency(latency::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("feedhandler-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Decode(arguments) => decode::run(&arguments),
        Bench::Throughput(arguments) => {
            clean_up_when_killed()?;
            throughput::run(&arguments)
        }
        Bench::Latency(arguments) => {
            clean_up_when_killed()?;
            latency::run(&arguments)
        }
    }
}
