//! What becomes of messages that are missing.
#![forbid(unsafe_code)]

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
}

/// What leaves while a gap is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Nothing: packets ahead of the gap wait until it closes or is given up.
    Hold,
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

impl Plan {
    /// The number under which a channel's recovered datagrams reach its worker: behind those of all lines.
    #[must_use]
    pub fn recovery_line(&self, channel: usize) -> LineIndex {
        LineIndex::try_from(self.lines.len() + channel).expect("at most 1024 lines and channels over TCP")
    }

    /// How many lines the workers tell apart, the recovery and the TCP stream of each channel included.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.lines.len() + 2 * self.channels.len()
    }
}
