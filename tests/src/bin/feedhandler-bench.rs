//! `feedhandler-bench decode`: see `--help` of each.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use feedhandler_testkit::bench::decode;

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Decode(arguments) => decode::run(&arguments),
    }
}
