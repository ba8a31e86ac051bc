//! Benches: each beside its baseline in the same run, medians over interleaved rounds.
#![forbid(unsafe_code)]

pub mod decode;
pub mod latency;
pub mod stream;
pub mod throughput;
