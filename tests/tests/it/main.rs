//! The integration tests: one binary, so that it links once.
#![forbid(unsafe_code)]

mod accounting;
mod allocations;
mod benches;
mod binaries;
mod demo;
mod deploy;
mod doctor;
mod edits;
mod exchange_port;
mod filter;
mod foreign;
mod fuzz;
mod golden;
mod inside;
mod latency;
mod layout;
mod loud;
mod many_hands;
mod membership;
mod million;
mod modes;
mod nic;
mod observability;
mod package;
mod privileges;
mod process;
mod queues;
mod recovery;
mod reflection;
mod restart;
mod retransmission;
mod routes;
mod sessions;
mod simulation;
mod site;
mod snapshot;
mod soak;
mod sockets;
mod soup;
mod steering;
mod supervised;
mod tools;
mod tshark;
mod turn;
mod venue;
mod xsk;

// As if it were one of the modules above.
