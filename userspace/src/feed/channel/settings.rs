//! What a channel is made of.
#![forbid(unsafe_code)]

use crate::config::plan::{DecoderKind, OnGap, StartAt, TransportKind};
use crate::feed::{ChannelIndex, Midnights};

/// What a channel is made of.
#[derive(Clone, Debug)]
pub struct ChannelSettings {
    /// Index of the channel in the plan; handed back with everything that it delivers.
    pub index: ChannelIndex,
    /// Framing.
    pub transport: TransportKind,
    /// Message format.
    pub decoder: DecoderKind,
    /// DBN publisher id.
    pub publisher_id: u16,
    /// Age of a gap at which recovery is wanted, nanoseconds.
    pub gap_timeout_ns: u64,
    /// Age of a gap at which it is declared lost, nanoseconds.
    pub give_up_ns: u64,
    /// What leaves while a gap is open.
    pub on_gap: OnGap,
    /// Silence of both lines that makes the channel stale, nanoseconds; 0 = never.
    pub stale_ns: u64,
    /// How long a late start may take to be recovered, nanoseconds; 0 = what is missing is given up as any other gap.
    pub backfill_ns: u64,
    /// Packets that the hold buffer has room for (4 KiB each, or [`Self::payload_bytes`] where that is more).
    pub hold_packets: usize,
    /// Longest payload that its lines can bring, bytes.
    pub payload_bytes: usize,
    /// Orders that the store has room for (48 bytes each).
    pub max_orders: usize,
    /// Where the first session begins.
    pub start: StartAt,
    /// The exchange's local midnights.
    pub midnights: Midnights,
}

/// Why a channel cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// `hold_packets` out of range.
    #[error("hold_packets = {0}: must be 1 to {MAX_HOLD_PACKETS}")]
    HoldPackets(usize),
    /// `max_orders` out of range.
    #[error("max_orders = {0}: must be 1 to {MAX_ORDERS}")]
    MaxOrders(usize),
}

/// Largest legal [`ChannelSettings::hold_packets`].
pub const MAX_HOLD_PACKETS: usize = 1 << 18;

/// Largest legal [`ChannelSettings::max_orders`].
pub const MAX_ORDERS: usize = 1 << 28;
