//! The integration tests: one binary, so that it links once.
#![forbid(unsafe_code)]

mod accounting;
mod allocations;
mod bench_worker;
mod benches;
mod binaries;
mod demo;
mod deploy;
mod doctor;
mod exchange_port;
mod filter;
mod foreign;
mod golden;
mod inside;
mod layout;
mod membership;
mod modes;
mod nic;
mod observability;
mod package;
mod privileges;
mod process;
mod queues;
mod recovery;
mod restart;
mod simulation;
mod site;
mod sockets;
mod steering;
mod supervised;
mod tools;
mod tshark;
mod turn;
mod xsk;
