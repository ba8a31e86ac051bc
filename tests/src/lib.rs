//! The feed handler's counterparts in tests, benches and the demo: an exchange that publishes a generated day over two
//! imperfect lines, a lab of network namespaces, and a consumer that checks every record against the exchange's truth.
//!
//! Nothing but [`mod@bench`] uses the handler's own crate: what checks must not share the checked code's mistakes.
#![forbid(unsafe_code)]

pub mod bench;
pub mod bytecode;
pub mod consumer;
pub mod day;
pub mod demo;
pub mod exchange;
pub mod glimpse;
pub mod itch;
pub mod lab;
pub mod line;
pub mod mold;
pub mod ranges;
pub mod records;
pub mod retransmission;
pub mod soup;
pub mod testbed;
pub mod truth;
