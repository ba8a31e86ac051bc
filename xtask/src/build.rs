//! The release build of the handler and of the programs that show and measure it.
#![forbid(unsafe_code)]

use anyhow::Result;

use crate::{process, setup};

/// Sets up, then builds.
pub fn run() -> Result<()> {
    setup::run()?;
    process::run(process::cargo().args(["build", "--release", "-p", "feedhandler", "-p", "feedhandler-testkit"]))
}

/// Sets up, then builds what runs on a host of the operator's.
pub fn handler() -> Result<()> {
    setup::run()?;
    process::run(process::cargo().args(["build", "--release", "--locked", "-p", "feedhandler"]))
}
