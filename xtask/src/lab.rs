//! What is run by hand, and for long: programs of the test kit.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use anyhow::Result;
use clap::ValueEnum as _;

use crate::{build, process};

/// What the lab has.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Part {
    /// The exchange: two lines with losses, re-request servers, session after session.
    Exchange,
}

/// Sets up, builds, and becomes a part of the lab.
pub fn run(part: Part, arguments: &[OsString]) -> Result<()> {
    let name = part.to_possible_value().expect("every variant has a name").get_name().to_owned();
    become_built(&format!("feedhandler-{name}"), arguments)
}

/// Sets up, builds, and becomes the soak.
pub fn soak(arguments: &[OsString]) -> Result<()> {
    become_built("feedhandler-soak", arguments)
}

fn become_built(program: &str, arguments: &[OsString]) -> Result<()> {
    let is_help = arguments.iter().any(|argument| matches!(argument.to_str(), Some("--help" | "-h")));
    if !is_help {
        process::require_root("this (network namespaces, XDP, AF_XDP)")?;
    }
    build::run()?;
    process::become_program(program, arguments)
}
