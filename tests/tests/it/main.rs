//! The integration tests: one binary, so that it links once.
#![forbid(unsafe_code)]

mod accounting;
mod allocations;
mod bench_worker;
mod benches;
mod binaries;
mod demo;
mod exchange_port;
mod filter;
mod golden;
mod inside;
mod layout;
mod membership;
mod process;
mod simulation;
mod steering;
mod tshark;
mod turn;
mod xsk;
