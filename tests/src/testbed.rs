//! Exchange, handler and consumer as three hosts: network namespaces, and the handler as a process of its own in its one.
//!
//! What the demo shows and the benches measure runs here.
#![forbid(unsafe_code)]

mod client;
mod config;
mod handler;
mod network;
pub(crate) mod signal;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_getaffinity};
use serde::Serialize;

pub(crate) use client::Client;
pub(crate) use config::{DEFAULT as DEMO_CONFIG, HandlerConfig, LineAddress, OutputAddress};
pub(crate) use handler::Handler;
pub(crate) use network::{Network, multicast_socket};
pub use signal::clean_up_when_killed;

/// Receive and transmit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Native XDP, AF_XDP.
    Native,
    /// Generic XDP, AF_XDP.
    Skb,
    /// Kernel sockets.
    Socket,
}

impl Mode {
    /// The configuration's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Skb => "skb",
            Self::Socket => "socket",
        }
    }
}

/// Cores that the calling thread, and what it starts, may use.
pub(crate) fn allowed_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("sched_getaffinity")?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// The handler's program: as given, or `feedhandler` beside this one.
pub(crate) fn handler_binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let own = std::env::current_exe().context("where this program is")?;
    Ok(own.with_file_name("feedhandler"))
}
