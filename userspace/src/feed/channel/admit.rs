//! The first stage: a datagram is validated, arbitrated, and queued, held or dropped.
#![forbid(unsafe_code)]

use super::deliver::{Delivery, Packet, Source};
use super::{ADMIT_LIMIT, Channel};
use crate::feed::LineRole;
use crate::feed::arbiter::Verdict;
use crate::feed::hold::{Held, Insert};
use crate::feed::transport::{self, PacketHeader, PacketKind};
use crate::metrics::DropReason;

impl Channel {
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
        if role == LineRole::Snapshot {
            return self.take_snapshot(slot, &header, payload, received_ns);
        }
        let mut verdict = self.arbiter.classify(&header, role);
        match verdict {
            Verdict::OldSession => return Err(DropReason::OldSession),
            Verdict::Duplicate | Verdict::Alive
                // What comes over TCP may be a replay: its login says where it begins, and no number has to be guessed.
                if matches!(role, LineRole::A | LineRole::B) && self.arbiter.restarts(&header, role, received_ns) =>
            {
                verdict = Verdict::Unproven;
            }
            Verdict::Duplicate => {
                self.note_seen(role, &header, received_ns);
                return self.drop_duplicate(role, &header, received_ns);
            }
            _ if role == LineRole::Recovery && self.arbiter.exceeds(&header) => return Err(DropReason::Unconfirmed),
            _ => {}
        }
        // The whole packet is checked before anything of it has an effect.
        let trailing = transport::check_blocks(self.transport, payload, header.count)?;
        self.lines[role as usize].counts.trailing += u64::from(trailing > 0);
        if verdict == Verdict::NewSession {
            self.begin_session(role, &header);
            verdict = self.arbiter.classify(&header, role);
        }
        if verdict == Verdict::Unproven {
            if !self.prove(role, &header, payload, received_ns)? {
                return Ok(());
            }
            verdict = self.arbiter.place(&header);
        }
        self.act(verdict, Source::Slot(slot), role, &header, payload, received_ns)
    }

    /// Queues, holds or drops a packet of the current session, as its place demands.
    #[inline]
    pub(super) fn act(
        &mut self,
        verdict: Verdict,
        source: Source,
        role: LineRole,
        header: &PacketHeader,
        payload: &[u8],
        received_ns: u64,
    ) -> Result<(), DropReason> {
        self.note_seen(role, header, received_ns);
        match verdict {
            Verdict::Deliver { .. } | Verdict::Hold => {
                let end = self.end_of(role, header);
                if role == LineRole::Recovery && end <= header.sequence.max(self.arbiter.expected()) {
                    return self.drop_duplicate(role, header, received_ns);
                }
                if verdict == Verdict::Hold {
                    self.hold_packet(role, header, end, payload, received_ns)?;
                } else {
                    self.queue_packet(source, role, header.sequence, end, received_ns);
                    self.drain();
                }
            }
            Verdict::Alive => {
                self.lines[role as usize].counts.heartbeats += 1;
                let ends = header.kind == PacketKind::EndOfSession;
                self.arbiter.next_is(header.sequence, ends, received_ns);
                if ends && self.arbiter.is_unnumbered() {
                    self.forsake_snapshot(received_ns);
                }
            }
            // The second witness says what the first one said, or that was overtaken.
            Verdict::Duplicate => return self.drop_duplicate(role, header, received_ns),
            Verdict::OldSession | Verdict::NewSession | Verdict::Unproven => unreachable!("decided above"),
        }
        self.arbiter.settle(self.hold.nearest(), received_ns);
        self.tell_end();
        Ok(())
    }

    /// Where a packet is to end. What a line has brought stands: a retransmission fills only what is missing before it.
    #[inline]
    fn end_of(&self, role: LineRole, header: &PacketHeader) -> u64 {
        let end = header.end();
        if role != LineRole::Recovery {
            return end;
        }
        self.hold.line_from(header.sequence).map_or(end, |line| line.min(end))
    }

    #[inline]
    fn note_seen(&mut self, role: LineRole, header: &PacketHeader, received_ns: u64) {
        if role.is_copy() && self.arbiter.seen(header, role, received_ns) {
            self.queue.push(Delivery::Back);
        }
    }

    /// Drops a packet whose messages were all delivered or given up.
    fn drop_duplicate(&mut self, role: LineRole, header: &PacketHeader, received_ns: u64) -> Result<(), DropReason> {
        // What lies ahead is held, or a snapshot's, and was not given up.
        let is_behind = header.end() <= self.arbiter.expected();
        let given_up = if is_behind { self.note_copy(role, header.sequence, header.end(), received_ns) } else { 0 };
        self.lines[role as usize].counts.duplicate += u64::from(given_up == 0);
        self.counts.duplicate_messages += u64::from(header.count) - given_up;
        Err(Self::why_dropped(given_up))
    }

    /// Copies a packet that is ahead of a gap into the hold buffer.
    fn hold_packet(
        &mut self,
        role: LineRole,
        header: &PacketHeader,
        end: u64,
        payload: &[u8],
        received_ns: u64,
    ) -> Result<(), DropReason> {
        self.arbiter.ahead(header.sequence, end, received_ns);
        let packet = Held { sequence: header.sequence, end, received_ns, role, slot: 0 };
        let (lines, counts) = (&mut self.lines, &mut self.counts);
        let outcome =
            self.hold.insert(packet, payload, |covered| lines[covered.role as usize].discard(covered, counts));
        match outcome {
            Insert::Held => {}
            Insert::Duplicate => {
                self.lines[role as usize].counts.duplicate += 1;
                self.counts.duplicate_messages += u64::from(header.count);
                return Err(DropReason::Duplicate);
            }
            Insert::Full => {
                self.arbiter.dropped(received_ns);
                self.counts.hold_evicted += 1;
                return Err(DropReason::HoldFull);
            }
            Insert::Evicted(farthest) => {
                self.arbiter.dropped(received_ns);
                self.counts.hold_evicted += 1;
                self.lines[farthest.role as usize].drops.add(DropReason::HoldFull);
            }
        }
        self.counts.held_packets += 1;
        self.lines[role as usize].counts.ahead += 1;
        Ok(())
    }

    /// Queues the part of a packet that is new. It starts at or before the expected message and ends after it.
    pub(super) fn queue_packet(&mut self, source: Source, role: LineRole, sequence: u64, end: u64, received_ns: u64) {
        let expected = self.arbiter.expected();
        let skip = expected - sequence;
        let given_up = if skip > 0 { self.note_copy(role, sequence, expected, received_ns) } else { 0 };
        self.copies.note(expected, end, received_ns, role);
        if role == LineRole::Recovery {
            self.arbiter.answered();
        }
        let line = &mut self.lines[role as usize].counts;
        line.first += 1;
        line.overlap += u64::from(skip > 0);
        self.counts.duplicate_messages += skip - given_up;
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
    pub(super) fn drain(&mut self) {
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
    pub(super) fn give_up(&mut self, to: u64, now_ns: u64) {
        while self.arbiter.expected() < to {
            let Some((from, to)) = self.arbiter.lose(self.hold.nearest()) else { break };
            self.queue.push(Delivery::Lost { from, to });
            self.drain();
            self.arbiter.settle(self.hold.nearest(), now_ns);
        }
    }

    /// Leaves the session, loudly, and begins the one of `header`, which may be the same with its numbers from the beginning.
    pub(super) fn change_session(&mut self, header: &PacketHeader) {
        if self.arbiter.session().is_some() {
            self.forsake_snapshot(0);
            while self.arbiter.is_missing() {
                self.give_up(u64::MAX, 0);
            }
            if self.arbiter.session() != Some(header.session) {
                self.queue_end(self.arbiter.expected());
            }
        }
        let how = self.arbiter.begin(header);
        self.told_end = None;
        self.copies.clear();
        self.queue.push(Delivery::Session { session: header.session, first: self.arbiter.first(), how });
    }

    pub(super) fn tell_end(&mut self) {
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
}
