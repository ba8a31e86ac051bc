//! A channel that comes over TCP.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use super::Plan;
use crate::feed::Session;
use crate::net::LineIndex;
use crate::soup::Version;

/// A password, which is never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// As it stands in the configuration.
    Given(String),
    /// The first line of a file.
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// The SoupBinTCP servers of a channel, and how it logs in to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoupPlan {
    /// In the order in which they are tried; 1 to 8.
    pub servers: Vec<SocketAddrV4>,
    /// At most 6 characters.
    pub username: String,
    /// At most 10 characters.
    pub password: Password,
    /// Session to begin with; `None` = the active one.
    pub session: Option<Session>,
    /// Version that the servers speak.
    pub version: Version,
    /// Address that is connected from; `None` = what the routing table says.
    pub source: Option<Ipv4Addr>,
    /// Silence of ours after which we send a heartbeat, milliseconds.
    pub heartbeat_ms: u64,
    /// Silence of a server after which another is tried, milliseconds.
    pub idle_ms: u64,
    /// Pause before the first new attempt after a failure, milliseconds; each further one is twice as long.
    pub reconnect_ms: u64,
    /// Longest pause, milliseconds.
    pub reconnect_max_ms: u64,
}

impl Plan {
    /// The number under which the datagrams of a channel's TCP stream reach its worker: behind those of all snapshots.
    #[must_use]
    pub fn soup_line(&self, channel: usize) -> LineIndex {
        let index = self.lines.room() + 2 * self.channels.room() + channel;
        LineIndex::try_from(index).expect("at most 1024 lines and channels over TCP")
    }
}
