//! Project tasks: set-up, build, demo, tests, benches.
#![forbid(unsafe_code)]

fn main() {}
