//! The configuration as written, checked into a plan.
#![forbid(unsafe_code)]

pub mod plan;
