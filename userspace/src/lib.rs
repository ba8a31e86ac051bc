//! A market-data feed handler: exchange multicast in over AF_XDP, one clean, ordered, normalised stream out.
//!
//! The modules stand in the order in which data flows; ARCHITECTURE.md is the map.
#![deny(unsafe_code)]

pub mod app;
pub mod config;

pub mod net;

pub mod feed;
pub mod publish;
pub mod soup;
pub mod worker;

pub mod replay;

pub mod beside;
pub mod control;
pub mod edge;
pub mod keeper;
pub mod recovery;
pub mod retransmission;
pub mod snapshot;
pub mod source;
pub mod steering;

pub mod doctor;
pub mod limits;
pub mod log;
pub mod privilege;

pub mod clock;
pub mod latency;
pub mod metrics;
pub mod report;
