//! `feedhandler-bench decode`, `throughput`: see `--help` of each.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use feedhandler_testkit::bench::{decode, throughput};

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Decode(arguments) => decode::run(&arguments),
        Bench::Throughput(arguments) => throughput::run(&arguments),
    }
}
