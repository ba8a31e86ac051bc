//! The feed handler's counterparts in tests, benches and the demo: an exchange that publishes a generated day over two
//! imperfect lines, a lab of network namespaces, and a consumer that checks every record against the exchange's truth.
//!
//! Nothing but [`mod@bench`], [`mod@bench_worker`] and [`mod@fuzz`], which run the handler's own code, uses its crate: what
//! checks must not share the checked code's mistakes.
#![forbid(unsafe_code)]

pub mod bench;
pub mod bench_worker;
pub mod bytecode;
pub mod consumer;
pub mod day;
pub mod demo;
pub mod exchange;
pub mod fuzz;
pub mod glimpse;
pub mod itch;
pub mod lab;
pub mod line;
pub mod mold;
pub mod ranges;
pub mod records;
pub mod retransmission;
pub mod soak;
pub mod soup;
pub mod testbed;
pub mod truth;
pub mod venue;
