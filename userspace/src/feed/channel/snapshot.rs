//! A snapshot in the place of what came before a late start.
//!
//! It comes through the same ring as answers of retransmission servers do, as packets of a line of its own, in this order: a
//! heartbeat with sequence 0 (a server is about to take one), a heartbeat with the number of the first message that the
//! snapshot does not contain (it is complete), and its messages as data, numbered so that they end before that one. An end
//! of session says that there will be none.
#![forbid(unsafe_code)]

use super::Channel;
use super::deliver::{Delivery, Source};
use crate::feed::LineRole;
use crate::feed::arbiter::{Forsaken, JoinState};
use crate::feed::hold::Held;
use crate::feed::transport::{self, PacketHeader, PacketKind};
use crate::metrics::DropReason;

impl Channel {
    /// How a late start by a snapshot stands.
    #[must_use]
    pub fn join_state(&self) -> JoinState {
        self.arbiter.join_state()
    }

    /// Whether the next message to leave has no number yet, because a snapshot decides it.
    #[must_use]
    pub fn is_unnumbered(&self) -> bool {
        self.arbiter.is_unnumbered()
    }

    /// Takes a packet of the snapshot's line.
    #[cold]
    pub(super) fn take_snapshot(
        &mut self,
        slot: u16,
        header: &PacketHeader,
        payload: &[u8],
        received_ns: u64,
    ) -> Result<(), DropReason> {
        if self.arbiter.session() != Some(header.session) {
            return Err(DropReason::OldSession);
        }
        let is_used = match header.kind {
            PacketKind::Data => return self.take_snapshot_messages(slot, header, payload, received_ns),
            PacketKind::Heartbeat if header.sequence == 0 => {
                if self.arbiter.forget() {
                    self.drop_held(u64::MAX, DropReason::HoldFull);
                }
                true
            }
            PacketKind::Heartbeat => self.arbiter.announce(header.sequence, received_ns),
            PacketKind::EndOfSession => {
                self.forsake_snapshot(received_ns);
                true
            }
        };
        if !is_used {
            return Err(DropReason::Unconfirmed);
        }
        self.lines[LineRole::Snapshot as usize].counts.heartbeats += 1;
        if header.kind == PacketKind::Heartbeat && header.sequence > 0 {
            self.drop_held(header.sequence, DropReason::Duplicate);
            self.arbiter.settle_behind(header.sequence, self.hold.nearest(), received_ns);
        }
        Ok(())
    }

    fn take_snapshot_messages(
        &mut self,
        slot: u16,
        header: &PacketHeader,
        payload: &[u8],
        received_ns: u64,
    ) -> Result<(), DropReason> {
        transport::check_blocks(self.transport, payload, header.count)?;
        let is_first = self.arbiter.take_snapshot(header).ok_or(DropReason::Unconfirmed)?;
        if is_first {
            self.copies.clear();
            self.queue.push(Delivery::Snapshot { first: header.sequence });
        }
        self.counts.snapshot_messages += u64::from(header.count);
        self.queue_packet(Source::Slot(slot), LineRole::Snapshot, header.sequence, header.end(), received_ns);
        if self.arbiter.finish_join() {
            self.queue.push(Delivery::SnapshotEnds { first: self.arbiter.first() });
            self.go_on(received_ns);
        }
        Ok(())
    }

    /// Goes on without a snapshot, if one is waited for.
    pub(super) fn forsake_snapshot(&mut self, now_ns: u64) {
        match self.arbiter.forsake(now_ns) {
            None => return,
            Some(Forsaken::Late) => self.queue.push(Delivery::Late { first: self.arbiter.first() }),
            Some(Forsaken::Broken(from, to)) => {
                self.queue.push(Delivery::SnapshotEnds { first: self.arbiter.first() });
                self.queue.push(Delivery::Lost { from, to });
            }
        }
        self.go_on(now_ns);
    }

    /// Delivers what was held, as far as nothing is missing.
    fn go_on(&mut self, now_ns: u64) {
        self.drain();
        self.arbiter.settle(self.hold.nearest(), now_ns);
        self.tell_end();
    }

    /// Drops held packets that have nothing from `next` on.
    fn drop_held(&mut self, next: u64, reason: DropReason) {
        while self.hold.ranges().next().is_some_and(|(_, end)| end <= next) {
            let Some(held) = self.hold.take(u64::MAX) else { break };
            self.hold.release(held.slot);
            self.drop_one(&held, reason);
        }
    }

    fn drop_one(&mut self, held: &Held, reason: DropReason) {
        let line = &mut self.lines[held.role as usize];
        if reason == DropReason::Duplicate {
            line.discard(held, &mut self.counts);
        } else {
            line.drops.add(reason);
            self.counts.hold_evicted += 1;
        }
    }
}
