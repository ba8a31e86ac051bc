//! feedhandler
fn main() {}
