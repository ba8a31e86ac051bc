//! feedctl
fn main() {}
