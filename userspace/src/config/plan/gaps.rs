//! What becomes of messages that are missing.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::Plan;
use crate::net::LineIndex;

/// Where a channel begins when the handler starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With the first packet that arrives, whatever its sequence.
    Now,
    /// With sequence 1: anything missing before the first packet is a gap.
    First,
    /// With a snapshot of what was before the first packet, if that had not the first message. Packets wait for it.
    Snapshot {
        /// After so long it begins as with [`StartAt::Now`], nanoseconds.
        give_up_ns: u64,
    },
}

/// What leaves while a gap is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Nothing: packets ahead of the gap wait until it closes or is given up.
    Hold,
    /// What follows, as soon as the other line had its time: the gap is declared lost then.
    Pass,
}

/// The retransmission servers of a channel, and how they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPlan {
    /// In the order in which they are tried; 1 to 8.
    pub servers: Vec<SocketAddrV4>,
    /// Address that requests are sent from; `None` = what the routing table says.
    pub source: Option<Ipv4Addr>,
    /// How long an answer is waited for before the next server is asked, milliseconds.
    pub request_timeout_ms: u64,
    /// Requests that are sent at most.
    pub requests_per_second: u32,
    /// Requests that wait for an answer at most.
    pub outstanding_requests: usize,
    /// How long the messages before a late start may take to be recovered, milliseconds.
    pub backfill_ms: u64,
}

/// A word that is not to be seen in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The snapshot servers of a channel (GLIMPSE over SoupBinTCP), and how they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPlan {
    /// In the order in which they are tried; 1 to 8.
    pub servers: Vec<SocketAddrV4>,
    /// At most 6 letters and digits.
    pub username: String,
    /// At most 10.
    pub password: Secret,
    /// Whether the server's session must be the channel's.
    pub same_session: bool,
    /// How long a connection, or the next message, is waited for, milliseconds.
    pub timeout_ms: u64,
    /// After so long without a snapshot the channel begins without, milliseconds.
    pub give_up_ms: u64,
    /// Messages of a snapshot at most.
    pub max_messages: u64,
    /// How fast they are handed to the worker at most.
    pub messages_per_second: u64,
}

impl Plan {
    /// The number under which a channel's recovered datagrams reach its worker: behind those of all lines.
    #[must_use]
    pub fn recovery_line(&self, channel: usize) -> LineIndex {
        LineIndex::try_from(self.lines.room() + channel).expect("at most 1024 lines and channels over TCP")
    }

    /// The number under which a channel's snapshot reaches its worker: behind those of all recovered datagrams.
    #[must_use]
    pub fn snapshot_line(&self, channel: usize) -> LineIndex {
        LineIndex::try_from(self.lines.room() + self.channels.room() + channel).expect("as above")
    }

    /// How many lines the workers tell apart: with the recovery, the snapshot and the TCP stream of each channel.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.lines.room() + 3 * self.channels.room()
    }
}
