//! Exchange simulator, namespace lab, consumer.
#![forbid(unsafe_code)]

pub mod bench;
