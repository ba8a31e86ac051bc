//! The integration tests: one binary, so that it links once.
#![forbid(unsafe_code)]

mod allocations;
mod bench_worker;
mod benches;
mod binaries;
mod demo;
mod filter;
mod golden;
mod inside;
mod layout;
mod process;
mod queues;
mod simulation;
mod sockets;
mod steering;
mod tshark;
mod turn;
mod xsk;
