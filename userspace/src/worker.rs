//! The duty cycle.
#![forbid(unsafe_code)]

pub mod shared;
