//! Plain counters that one worker owns, and the shared mirror that everybody else reads.
//!
//! A worker adds to plain `u64` fields; its housekeeping stores them into a [`SharedCounts`] with relaxed atomics. So
//! the data path never shares a cache line with a reader, and a reader may see figures up to one housekeeping old.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Defines a struct of `u64` counters with names and help texts for the exporter.
macro_rules! counter_set {
    ($(#[$doc:meta])* $set:ident { $($field:ident: $help:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $set { $(#[doc = $help] pub $field: u64,)+ }

        impl $set {
            /// Name and help text of each counter, in field order.
            pub const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), $help),)+];
            /// Number of counters.
            pub const COUNT: usize = Self::FIELDS.len();

            /// The counters in field order.
            #[must_use]
            pub fn values(&self) -> [u64; Self::COUNT] { [$(self.$field,)+] }

            /// The inverse of [`Self::values`].
            #[must_use]
            pub fn from_values(values: [u64; Self::COUNT]) -> Self {
                let [$($field,)+] = values;
                Self { $($field,)+ }
            }

            /// The sums of both.
            #[must_use]
            pub fn plus(&self, other: &Self) -> Self { Self { $($field: self.$field + other.$field,)+ } }
        }
    };
}
pub(super) use counter_set;

counter_set! {
    /// One line (A or B copy of a channel), counted by the arbiter.
    LineCounts {
        packets: "Datagrams received on the line",
        bytes: "UDP payload bytes received on the line",
        first: "Packets that delivered at least one message that no other line had delivered",
        duplicate: "Packets whose messages had all been delivered already",
        late: "Packets that came too late: more than gap_timeout_us after another line's copy, or after messages of theirs were given up",
        overlap: "Packets of which a part had been delivered already",
        ahead: "Packets that arrived ahead of a gap and were held",
        heartbeats: "Heartbeats and end-of-session packets",
        malformed: "Packets that the transport parser rejected",
        trailing: "Packets with bytes after the last message block (delivered)",
        last_seen_ns: "CLOCK_MONOTONIC time of the newest packet, nanoseconds",
    }
}

counter_set! {
    /// One channel (sequenced stream), counted after arbitration.
    ChannelCounts {
        packets: "Packets delivered to the decoder",
        messages: "Messages delivered in sequence",
        duplicate_messages: "Messages that arrived again and were not delivered",
        gaps_opened: "Gaps seen (a sequence jumped ahead of the expected one)",
        gaps_closed: "Gaps filled completely before they were given up",
        gaps_lost: "Gaps given up, wholly or in part",
        messages_lost: "Messages declared lost",
        held_packets: "Packets copied into the hold buffer",
        hold_evicted: "Held packets dropped because the hold buffer was full",
        sessions: "Sessions started",
        restarts: "Times that the numbers of a session began again (the sender restarted)",
        notices: "System records in front of messages: a session begins, messages were lost, the lines are back",
        records: "DBN records produced",
        decode_errors: "Messages shorter than their type requires (no record)",
        unknown_types: "Messages of a type that the decoder does not know (skipped)",
        unknown_orders: "Executions, cancels, deletes and replaces of an order that is not in the store",
        duplicate_orders: "Adds of an order reference that was live already (replaced)",
        excess_shares: "Executions or cancels of more shares than the order had left (clamped)",
        orders_full: "Orders not stored because the order store was full",
        saturated_sizes: "Quantities too large for a DBN field (saturated)",
        orders_live: "Orders in the store now",
        first_sequence: "First sequence of this session; above 1 after a late start",
        next_sequence: "Next expected sequence number",
        known_sequence: "Number after the newest message that is known to exist",
        snapshot_messages: "Messages of a snapshot delivered in the place of those before a late start",
        snapshot_state: "Late start by a snapshot: 0 not wanted, 1 awaited, 2 arriving, 3 joined, 4 given up",
        state: "Channel state: 0 unknown, 1 backfill, 2 live, 3 gap, 4 stale, 5 ended",
    }
}

counter_set! {
    /// The recovery of one channel.
    RecoveryCounts {
        requests: "Requests sent to retransmission servers",
        retries: "Requests among them for messages that had been asked for without an answer",
        timeouts: "Requests that were not answered in time",
        failovers: "Changes to another retransmission server",
        cancelled: "Requests whose messages came otherwise before the answer did",
        send_errors: "Requests that the kernel did not send, or whose server's host refused them (ICMP)",
        answers: "Answers that belong to a request",
        cut_answers: "Answers among them with fewer messages than asked for (the rest is asked for again)",
        superfluous: "Answers among them whose messages had all come otherwise",
        recovered_messages: "Messages that answers brought first",
        not_handed: "Answers that found no room on their way to the worker (asked for again)",
        rejected_malformed: "Datagrams from a server that are no whole MoldUDP64 packet, or too long",
        rejected_session: "Answers of another session",
        rejected_empty: "Answers without messages",
        rejected_unasked: "Answers that no request asked for: other sequences, more messages, from the wrong server",
    }
}

counter_set! {
    /// The snapshots of one channel.
    SnapshotCounts {
        attempts: "Connections that were tried to snapshot servers",
        snapshots: "Snapshots that were received whole",
        messages: "Messages received in snapshots, whole or not",
        joined: "Snapshots that the channel began with",
        failed_connect: "Attempts that ended because there was no connection",
        failed_login: "Attempts that ended because the server refused the login",
        failed_session: "Attempts that ended because the server was in another session",
        failed_broken_off: "Attempts that ended because the server closed before the end of the snapshot",
        failed_silent: "Attempts that ended because no message came for too long, or all took too long",
        failed_malformed: "Attempts that ended because of something that cannot be part of a snapshot",
        failed_too_long: "Attempts that ended because the snapshot had more messages than it may have",
        failed_numbers: "Attempts that ended because the snapshot's number cannot be: fewer messages before it than the snapshot has",
        failed_ahead: "Attempts that ended because the lines did not come up to the snapshot's number",
        failed_not_taken: "Attempts that ended because the channel was past it",
    }
}

counter_set! {
    /// One output stream.
    DestinationCounts {
        packets: "Packets handed to the transmit port",
        bytes: "UDP payload bytes handed to the transmit port",
        blocks: "Message blocks written, empty ones included",
        records: "DBN records written",
        blocks_filtered: "Blocks that the route emptied",
        records_filtered: "DBN records that the route left out",
        mappings_added: "Symbol mappings put in front of an instrument that the route takes only now",
        heartbeats: "Heartbeats and end-of-session packets written",
        not_retained: "Packets that could not be retained, because too many waited for it: requests for them go unanswered",
    }
}

counter_set! {
    /// The retransmission server of one destination.
    RetransmissionCounts {
        retained: "Packets taken in to be sent again",
        unfit: "Packets not taken in, because they are not whole: none, but for a bug",
        requests: "Datagrams that came to the server",
        answers: "Answers sent",
        answered_messages: "Messages in those answers",
        answered_bytes: "UDP payload bytes of those answers",
        send_errors: "Answers that the kernel did not send",
        refused_malformed: "Datagrams that are no request: not of 20 bytes",
        refused_network: "Requests from outside the networks that are answered",
        refused_count: "Requests for 0 or 65535 messages, or of sequence 0",
        refused_overload: "Requests beyond what all clients together are sent",
        refused_client_overload: "Requests beyond what one client is sent",
        refused_session: "Requests for a session of which nothing is retained",
        refused_gone: "Requests for a message that is not retained any more, or never was",
        refused_ahead: "Requests for a message that was not sent yet",
        retained_messages: "Messages that are retained now",
        retained_bytes: "Bytes that they take, with the lengths in front of them",
        first_sequence: "First message of the newest session that is retained",
        next_sequence: "The number after its last one",
    }
}

counter_set! {
    /// One receive or transmit port, with the kernel's own socket statistics beside it.
    PortCounts {
        frames: "Frames received or transmitted",
        pieces: "Frames among them that held a piece of a longer packet (multi-buffer AF_XDP)",
        gathered: "Packets that were put together of such pieces",
        batches: "Receive calls that returned at least one frame, or transmit flushes",
        empty_polls: "Receive calls that returned nothing",
        kicks: "System calls made to wake the kernel up",
        kick_errors: "Wake-up calls that failed with an error other than 'try again'",
        tx_retries: "Flushes that found the transmit ring still busy",
        kernel_rx_dropped: "XDP_STATISTICS rx_dropped, or SO_RXQ_OVFL: dropped by the kernel for lack of a buffer",
        kernel_rx_ring_full: "XDP_STATISTICS rx_ring_full",
        kernel_rx_invalid: "XDP_STATISTICS rx_invalid_descs",
        kernel_tx_invalid: "XDP_STATISTICS tx_invalid_descs",
    }
}

impl PortCounts {
    /// Counts a receive call that returned so many frames.
    pub fn add_receive(&mut self, frames: usize) {
        match frames {
            0 => self.empty_polls += 1,
            _ => {
                self.batches += 1;
                self.frames += frames as u64;
            }
        }
    }
}

/// Why a packet, a message or an output packet was not passed on. Every drop has exactly one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The frame carried no metadata of ours and the user-space parser found no UDP datagram in it.
    NotUdp,
    /// No configured line takes this group.
    UnknownGroup,
    /// The line is known but not subscribed (it was switched off a moment ago).
    NotSubscribed,
    /// The descriptor, the metadata or the UDP length pointed outside the frame.
    BadBounds,
    /// Payload shorter than the transport header.
    TruncatedHeader,
    /// Message blocks end before the count is reached, or a block runs past the payload.
    TruncatedBlocks,
    /// Sequence 0 with messages, or a sequence that would overflow.
    BadSequence,
    /// A session that was left already.
    OldSession,
    /// A jump far ahead, or another session while one was alive, that no second packet confirmed.
    Unconfirmed,
    /// All messages had been delivered before: the normal fate of the slower line's packets.
    Duplicate,
    /// Messages of it had been given up as lost before it came, and the others delivered.
    Late,
    /// The hold buffer was full and this packet was the farthest ahead.
    HoldFull,
    /// A block larger than the destination's packets; an empty block was sent in its place, or one without the notice in front.
    Oversized,
    /// No free frame to build an output packet in, or no jumbo buffer to gather a packet in.
    NoFreeFrame,
    /// The transmit ring or socket buffer stayed full.
    TxFull,
    /// The kernel refused to send.
    TxError,
    /// The port's link was lost: with the packet in its transmit ring, or before one could be built.
    LinkLost,
    /// Longer than the longest datagram that can be received: than a frame of a kernel socket, or than a jumbo buffer.
    TooLong,
    /// A packet over several frames of which a piece was missing.
    BrokenChain,
    /// The channel that held it, or the destination that it was for, was removed while the handler ran.
    Removed,
}

impl DropReason {
    /// Every reason, in discriminant order.
    pub const ALL: [Self; 20] = [
        Self::NotUdp,
        Self::UnknownGroup,
        Self::NotSubscribed,
        Self::BadBounds,
        Self::TruncatedHeader,
        Self::TruncatedBlocks,
        Self::BadSequence,
        Self::OldSession,
        Self::Unconfirmed,
        Self::Duplicate,
        Self::Late,
        Self::HoldFull,
        Self::Oversized,
        Self::NoFreeFrame,
        Self::TxFull,
        Self::TxError,
        Self::LinkLost,
        Self::TooLong,
        Self::BrokenChain,
        Self::Removed,
    ];

    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// The label used in metrics and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotUdp => "not_udp",
            Self::UnknownGroup => "unknown_group",
            Self::NotSubscribed => "not_subscribed",
            Self::BadBounds => "bad_bounds",
            Self::TruncatedHeader => "truncated_header",
            Self::TruncatedBlocks => "truncated_blocks",
            Self::BadSequence => "bad_sequence",
            Self::OldSession => "old_session",
            Self::Unconfirmed => "unconfirmed",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::HoldFull => "hold_full",
            Self::Oversized => "oversized",
            Self::NoFreeFrame => "no_free_frame",
            Self::TxFull => "tx_full",
            Self::TxError => "tx_error",
            Self::LinkLost => "link_lost",
            Self::TooLong => "too_long",
            Self::BrokenChain => "broken_chain",
            Self::Removed => "removed",
        }
    }

    /// True for drops that lose nothing: every message of the packet was delivered by another packet.
    #[must_use]
    pub const fn is_benign(self) -> bool {
        matches!(self, Self::Duplicate | Self::NotSubscribed)
    }
}

/// Drops by reason. Aligned, so that whatever holds one begins and ends with cache lines of its own: ports, streams and
/// channels of several workers lie on one heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(128))]
pub struct DropCounts([u64; DropReason::COUNT]);

impl DropCounts {
    /// Counts one drop.
    pub fn add(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// Drops for one reason.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The counters in the order of [`DropReason::ALL`].
    #[must_use]
    pub fn values(&self) -> [u64; DropReason::COUNT] {
        self.0
    }

    /// The inverse of [`Self::values`].
    #[must_use]
    pub fn from_values(values: [u64; DropReason::COUNT]) -> Self {
        Self(values)
    }

    /// The sums of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

/// The mirror of one counter set: stored by its worker, loaded by anybody.
#[derive(Debug)]
#[repr(align(128))]
pub struct SharedCounts<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for SharedCounts<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> SharedCounts<N> {
    /// Stores all values; only the owning worker may call this.
    pub fn store(&self, values: &[u64; N]) {
        for (slot, value) in self.0.iter().zip(values) {
            slot.store(*value, Relaxed);
        }
    }

    /// Loads all values; each is exact, together they may straddle one housekeeping.
    #[must_use]
    pub fn load(&self) -> [u64; N] {
        std::array::from_fn(|i| self.0[i].load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_indexed_by_their_discriminant() {
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i, "{}", reason.label());
        }
    }

    #[test]
    fn counter_sets_round_trip_through_the_shared_mirror() {
        let counts = LineCounts { packets: 3, last_seen_ns: 9, ..Default::default() };
        let shared = SharedCounts::default();
        shared.store(&counts.values());
        assert_eq!(LineCounts::from_values(shared.load()), counts);
    }
}
