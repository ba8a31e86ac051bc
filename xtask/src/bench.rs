//! The benches, by the test kit's program `feedhandler-bench`.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use anyhow::Result;
use clap::ValueEnum as _;

use crate::{build, process};

/// What can be measured.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Which {
    /// Nanoseconds per message of framing, decoding, order store and records; no network.
    Decode,
    /// AF_XDP in and out against kernel sockets, over veth.
    Throughput,
    /// Each leg's latency at several rates, open loop.
    Latency,
}

/// Sets up, builds, and becomes the bench.
pub fn run(which: Which, arguments: &[OsString]) -> Result<()> {
    if !matches!(which, Which::Decode) {
        process::require_root("this bench (network namespaces, XDP, AF_XDP)")?;
    }
    build::run()?;
    let name = which.to_possible_value().expect("every variant has a name").get_name().to_owned();
    let all: Vec<OsString> = std::iter::once(name.into()).chain(arguments.iter().cloned()).collect();
    process::become_program("feedhandler-bench", &all)
}
