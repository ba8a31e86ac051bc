//! The integration tests: one binary, so that it links once.
#![forbid(unsafe_code)]

mod allocations;
mod bench_worker;
mod benches;
mod filter;
mod golden;
mod handler_binary;
mod layout;
mod simulation;
mod steering;
mod xsk;
