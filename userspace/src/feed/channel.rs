//! One channel: datagrams of its lines in, messages in order and their records out.
//!
//! [`Channel::admit`] takes each datagram of a batch, [`Channel::deliver`] then decodes what the batch made deliverable.
//! The two are apart so that the order store's cache lines are asked for well before the message that needs them.
#![forbid(unsafe_code)]

mod deliver;
#[cfg(test)]
mod tests;

use super::arbiter::{Arbiter, ChannelState, Deadlines, Gap, Verdict};
use super::decode::{Decoder, Records};
use super::hold::{Held, Hold, Insert};
use super::midnights::Midnights;
use super::transport::{self, PacketHeader, PacketKind};
use super::{ChannelIndex, Session};
use crate::config::plan::{DecoderKind, StartAt, TransportKind};
use crate::metrics::{ChannelCounts, DropCounts, DropReason, LineCounts};
use deliver::{Delivery, Packet, Source};

/// Most datagrams that may be admitted between two calls of [`Channel::deliver`].
pub const ADMIT_LIMIT: usize = 1024;

/// A line within its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineRole {
    /// The first copy.
    A,
    /// The second copy.
    B,
    /// Answers of a retransmission server. They fill gaps, but prove no liveness and begin no session.
    Recovery,
}

impl LineRole {
    /// Every role, in index order.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::Recovery];
}

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
    /// Silence of both lines that makes the channel stale, nanoseconds; 0 = never.
    pub stale_ns: u64,
    /// Packets that the hold buffer has room for (4 KiB each).
    pub hold_packets: usize,
    /// Orders that the store has room for (about 33 bytes each).
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

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    counts: LineCounts,
    drops: DropCounts,
}

impl Line {
    /// Counts a held packet of the line that turned out to be a duplicate.
    fn discard(&mut self, held: &Held, counts: &mut ChannelCounts) {
        self.counts.duplicate += 1;
        self.drops.add(DropReason::Duplicate);
        counts.duplicate_messages += held.end - held.sequence;
    }
}

/// One sequenced stream, arbitrated and decoded. Allocates in [`Channel::new`] and never again.
#[derive(Debug)]
pub struct Channel {
    index: ChannelIndex,
    transport: TransportKind,
    arbiter: Arbiter,
    hold: Hold,
    decoder: Decoder,
    records: Records,
    /// What [`Channel::deliver`] will do, in order.
    queue: Vec<Delivery>,
    /// Datagrams admitted since the last delivery.
    admitted: usize,
    /// Session of the delivery; behind the arbiter's while a session change is queued.
    delivered_session: Session,
    /// The end of session that was queued last, so that repeated ones are not.
    told_end: Option<u64>,
    lines: [Line; LineRole::ALL.len()],
    counts: ChannelCounts,
}

impl Channel {
    /// Makes a channel and allocates everything that it will ever use.
    ///
    /// # Errors
    /// A size out of its legal range.
    pub fn new(settings: ChannelSettings) -> Result<Self, ChannelError> {
        if !(1..=MAX_HOLD_PACKETS).contains(&settings.hold_packets) {
            return Err(ChannelError::HoldPackets(settings.hold_packets));
        }
        if !(1..=MAX_ORDERS).contains(&settings.max_orders) {
            return Err(ChannelError::MaxOrders(settings.max_orders));
        }
        let deadlines = Deadlines {
            gap_timeout_ns: settings.gap_timeout_ns,
            give_up_ns: settings.give_up_ns,
            stale_ns: settings.stale_ns,
        };
        // Each held packet has at most one gap in front of it, and each admitted one may open one by itself.
        let gap_capacity = settings.hold_packets + ADMIT_LIMIT;
        // Per admitted or held packet: itself and the loss in front of it; per admitted one also a session's end and
        // beginning.
        let queue_capacity = 2 * (settings.hold_packets + ADMIT_LIMIT) + gap_capacity + 3 * ADMIT_LIMIT;
        Ok(Self {
            index: settings.index,
            transport: settings.transport,
            arbiter: Arbiter::new(deadlines, settings.start, gap_capacity),
            hold: Hold::new(settings.hold_packets, ADMIT_LIMIT),
            decoder: Decoder::new(settings.decoder, settings.publisher_id, settings.max_orders, settings.midnights),
            records: Records::new(),
            queue: Vec::with_capacity(queue_capacity),
            admitted: 0,
            delivered_session: [b' '; 10],
            told_end: None,
            lines: Default::default(),
            counts: ChannelCounts::default(),
        })
    }

    /// Takes one datagram: validates it, arbitrates, and queues what it makes deliverable.
    ///
    /// `slot` is how [`Channel::deliver`] will ask for this payload again; `received_ns` is CLOCK_MONOTONIC. The payload
    /// of a packet that is ahead of a gap is copied.
    ///
    /// # Errors
    /// Why the packet was dropped; it is counted already. [`DropReason::Duplicate`] is the slower line's normal fate.
    ///
    /// # Panics
    /// After [`ADMIT_LIMIT`] calls without a [`Channel::deliver`].
    pub fn admit(&mut self, slot: u16, role: LineRole, payload: &[u8], received_ns: u64) -> Result<(), DropReason> {
        assert!(self.admitted < ADMIT_LIMIT, "deliver() must be called at least every {ADMIT_LIMIT} packets");
        self.admitted += 1;
        let line = &mut self.lines[role as usize];
        line.counts.packets += 1;
        line.counts.bytes += payload.len() as u64;
        line.counts.last_seen_ns = line.counts.last_seen_ns.max(received_ns);
        let result = self.arbitrate(slot, role, payload, received_ns);
        if let Err(reason) = result {
            let line = &mut self.lines[role as usize];
            line.drops.add(reason);
            use DropReason::{BadSequence, TruncatedBlocks, TruncatedHeader};
            if matches!(reason, TruncatedHeader | TruncatedBlocks | BadSequence) {
                line.counts.malformed += 1;
            }
        }
        result
    }

    #[inline]
    fn arbitrate(&mut self, slot: u16, role: LineRole, payload: &[u8], received_ns: u64) -> Result<(), DropReason> {
        let header = PacketHeader::parse(self.transport, payload)?;
        let mut verdict = self.arbiter.classify(&header, role);
        match verdict {
            Verdict::OldSession => return Err(DropReason::OldSession),
            Verdict::Duplicate => {
                self.note_seen(role, received_ns);
                return self.drop_duplicate(role, &header);
            }
            _ => {}
        }
        // The whole packet is checked before anything of it has an effect.
        let trailing = transport::check_blocks(self.transport, payload, header.count)?;
        self.lines[role as usize].counts.trailing += u64::from(trailing > 0);
        if verdict == Verdict::NewSession {
            self.change_session(&header);
            verdict = self.arbiter.classify(&header, role);
        }
        self.note_seen(role, received_ns);
        match verdict {
            Verdict::Deliver { .. } => {
                let source = Source::Slot(slot);
                self.queue_packet(source, role, header.sequence, header.end(), received_ns);
                self.drain();
            }
            Verdict::Hold => {
                self.hold_packet(role, &header, payload, received_ns)?;
            }
            Verdict::Alive => {
                self.lines[role as usize].counts.heartbeats += 1;
                let ends = header.kind == PacketKind::EndOfSession;
                self.arbiter.next_is(header.sequence, ends, received_ns);
            }
            Verdict::Duplicate | Verdict::OldSession | Verdict::NewSession => {
                // A later session begins at 1, so nothing of its first packet can be a duplicate.
                unreachable!("decided above")
            }
        }
        self.arbiter.settle(self.hold.nearest(), received_ns);
        self.tell_end();
        Ok(())
    }

    fn note_seen(&mut self, role: LineRole, received_ns: u64) {
        if role != LineRole::Recovery {
            self.arbiter.seen(received_ns);
        }
    }

    fn drop_duplicate(&mut self, role: LineRole, header: &PacketHeader) -> Result<(), DropReason> {
        self.lines[role as usize].counts.duplicate += 1;
        self.counts.duplicate_messages += u64::from(header.count);
        Err(DropReason::Duplicate)
    }

    /// Copies a packet that is ahead of a gap into the hold buffer.
    fn hold_packet(
        &mut self,
        role: LineRole,
        header: &PacketHeader,
        payload: &[u8],
        received_ns: u64,
    ) -> Result<(), DropReason> {
        self.arbiter.ahead(header.sequence, header.end(), received_ns);
        let packet = Held { sequence: header.sequence, end: header.end(), received_ns, role, slot: 0 };
        let (lines, counts) = (&mut self.lines, &mut self.counts);
        let outcome =
            self.hold.insert(packet, payload, |covered| lines[covered.role as usize].discard(covered, counts));
        match outcome {
            Insert::Held => {}
            Insert::Duplicate => return self.drop_duplicate(role, header),
            Insert::Full => {
                self.counts.hold_evicted += 1;
                return Err(DropReason::HoldFull);
            }
            Insert::Evicted(farthest) => {
                self.counts.hold_evicted += 1;
                self.lines[farthest.role as usize].drops.add(DropReason::HoldFull);
            }
        }
        self.counts.held_packets += 1;
        self.lines[role as usize].counts.ahead += 1;
        Ok(())
    }

    /// Queues the part of a packet that is new. It starts at or before the expected message and ends after it.
    fn queue_packet(&mut self, source: Source, role: LineRole, sequence: u64, end: u64, received_ns: u64) {
        let expected = self.arbiter.expected();
        let skip = expected - sequence;
        let line = &mut self.lines[role as usize].counts;
        line.first += 1;
        line.overlap += u64::from(skip > 0);
        self.counts.duplicate_messages += skip;
        self.counts.packets += 1;
        // Both fit: they are parts of the packet's u16 count.
        self.queue.push(Delivery::Packet(Packet {
            source,
            skip: skip as u16,
            count: (end - sequence) as u16,
            sequence: expected,
            received_ns,
        }));
        self.arbiter.advance(end);
    }

    /// Queues the held packets that now follow.
    fn drain(&mut self) {
        while let Some(held) = self.hold.take(self.arbiter.expected()) {
            if held.end <= self.arbiter.expected() {
                self.lines[held.role as usize].discard(&held, &mut self.counts);
                self.hold.release(held.slot);
            } else {
                self.queue_packet(Source::Held(held.slot), held.role, held.sequence, held.end, held.received_ns);
            }
        }
    }

    /// Declares everything missing before `to` lost; what is held between is delivered in its place.
    fn give_up(&mut self, to: u64, now_ns: u64) {
        while self.arbiter.expected() < to {
            let Some((from, to)) = self.arbiter.lose(self.hold.nearest()) else { break };
            self.queue.push(Delivery::Lost { from, to });
            self.drain();
            self.arbiter.settle(self.hold.nearest(), now_ns);
        }
    }

    /// Leaves the session, loudly, and begins the one of `header`.
    fn change_session(&mut self, header: &PacketHeader) {
        if self.arbiter.session().is_some() {
            while self.arbiter.is_missing() {
                self.give_up(u64::MAX, 0);
            }
            self.queue_end(self.arbiter.expected());
        }
        self.arbiter.begin(header);
        self.told_end = None;
        self.queue.push(Delivery::Session(header.session));
    }

    fn tell_end(&mut self) {
        if let Some(end) = self.arbiter.ended() {
            self.queue_end(end);
        }
    }

    fn queue_end(&mut self, next: u64) {
        if self.told_end != Some(next) {
            self.told_end = Some(next);
            self.queue.push(Delivery::End { next });
        }
    }

    /// Housekeeping: gives up gaps that are too old and notices silence. Call [`Channel::deliver`] after it.
    pub fn poll(&mut self, now_ns: u64) {
        while let Some(to) = self.arbiter.poll(now_ns) {
            self.give_up(to, now_ns);
        }
        self.tell_end();
    }

    /// The messages that the channel waits for, if any.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        self.arbiter.gap(self.hold.nearest())
    }

    /// The session that is received; `None` before the first packet.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.arbiter.session()
    }

    /// State of the channel.
    #[must_use]
    pub fn state(&self) -> ChannelState {
        self.arbiter.state()
    }

    /// First sequence that was to be delivered in this session: above 1 after a late start, when what came before is
    /// unknown.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.arbiter.first()
    }

    /// Whether [`Channel::deliver`] has something to do.
    #[must_use]
    pub fn has_deliveries(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Counters of the channel.
    #[must_use]
    pub fn counts(&self) -> ChannelCounts {
        let mut counts = self.counts;
        let gaps = self.arbiter.counts();
        counts.gaps_opened = gaps.gaps_opened;
        counts.gaps_closed = gaps.gaps_closed;
        counts.gaps_lost = gaps.gaps_lost;
        counts.messages_lost = gaps.messages_lost;
        counts.sessions = gaps.sessions;
        counts.next_sequence = self.arbiter.expected();
        counts.state = self.state() as u64;
        self.decoder.add_counts(&mut counts);
        counts
    }

    /// Counters of one line.
    #[must_use]
    pub fn line_counts(&self, role: LineRole) -> LineCounts {
        self.lines[role as usize].counts
    }

    /// Dropped packets of one line.
    #[must_use]
    pub fn line_drops(&self, role: LineRole) -> DropCounts {
        self.lines[role as usize].drops
    }
}
