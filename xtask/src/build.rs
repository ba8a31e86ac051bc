//! The release build of the handler and of the programs that show and measure it.
#![forbid(unsafe_code)]

use std::process::Command;

use anyhow::Result;

use crate::{process, setup};

/// Sets up, then builds.
pub fn run() -> Result<()> {
    setup::run()?;
    process::run(cargo().args(["build", "--release", "-p", "feedhandler", "-p", "feedhandler-testkit"]))
}

/// Sets up, then builds what runs on a host of the operator's.
pub fn handler() -> Result<()> {
    setup::run()?;
    process::run(cargo().args(["build", "--release", "--locked", "-p", "feedhandler"]))
}

/// cargo, which tells the handler what it is built from; a tree that was changed since says so, one without git says nothing.
fn cargo() -> Command {
    let mut command = process::cargo();
    let folder = process::workspace().to_string_lossy();
    let describe = ["-C", &folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
    if let Some(commit) = process::output("git", &describe) {
        command.env("FEEDHANDLER_COMMIT", commit.trim());
    }
    command
}
