//! The demonstration, by the test kit's program `feedhandler-demo`.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use anyhow::Result;

use crate::{build, process};

const PROGRAM: &str = "feedhandler-demo";

/// Sets up, builds, and becomes the demo.
pub fn run(arguments: &[OsString]) -> Result<()> {
    prepare(arguments)?;
    process::become_program(PROGRAM, arguments)
}

/// The same as a step of something longer: returns when the demo is over.
pub fn run_to_end(arguments: &[&str]) -> Result<()> {
    prepare(arguments)?;
    process::run(std::process::Command::new(process::release_program(PROGRAM)?).args(arguments))
}

fn prepare<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Result<()> {
    if !arguments.iter().any(|argument| matches!(argument.as_ref().to_str(), Some("--help" | "-h"))) {
        process::require_root("the demo (network namespaces, XDP, AF_XDP)")?;
    }
    build::run()
}
