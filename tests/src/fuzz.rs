//! Fuzz targets: what must hold whatever the bytes are. Each takes any bytes and panics if something does not hold.
//!
//! `cargo xtask fuzz` feeds them by coverage (tests/fuzz holds the program and the corpus); the corpus also runs as an
//! ordinary test.
#![forbid(unsafe_code)]

mod input;
mod output;
mod parsers;
mod planner;
mod seeds;
mod soup;
mod worker;

pub use seeds::seeds;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Takes any bytes; panics if something does not hold.
    pub run: fn(&[u8]),
    /// Longest input that is of use, bytes.
    pub most_bytes: usize,
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target { name: "moldudp64", run: parsers::moldudp64, most_bytes: 1_500 },
    Target { name: "itch50", run: parsers::itch50, most_bytes: 4_096 },
    Target { name: "headers", run: parsers::headers, most_bytes: 256 },
    Target { name: "config", run: parsers::config, most_bytes: 8_192 },
    Target { name: "capture", run: parsers::capture, most_bytes: 4_096 },
    Target { name: "planner", run: planner::planner, most_bytes: 4_096 },
    Target { name: "output", run: output::output, most_bytes: 4_096 },
    Target { name: "soup", run: soup::soup, most_bytes: 4_096 },
    Target { name: "worker", run: worker::worker, most_bytes: 4_096 },
    // One line per further parser; its seeds go into seeds.rs.
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
