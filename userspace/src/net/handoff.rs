//! A port that another thread of ours feeds: datagrams go through a bounded ring of slots that exist from the start, so that
//! neither side allocates, locks or wakes the other.
#![forbid(unsafe_code)]

use std::fmt;

use super::umem::Frames;
use super::{Batch, LineIndex, copy_in};
use crate::metrics::{DropCounts, PortCounts};

/// Longest payload that can be handed over, bytes: what an Ethernet frame of 1,500 carries.
pub const HANDOFF_BYTES: usize = 1472;

/// One slot of the ring.
struct Slot {
    line: LineIndex,
    len: u16,
    received_ns: u64,
    bytes: [u8; HANDOFF_BYTES],
}

impl Default for Slot {
    fn default() -> Self {
        Self { line: 0, len: 0, received_ns: 0, bytes: [0; HANDOFF_BYTES] }
    }
}

/// The feeding end.
pub struct Handoff {
    ring: rtrb::Producer<Slot>,
    /// Datagrams handed over since the start.
    handed: u64,
}

/// The worker's end.
pub struct HandoffRx {
    ring: rtrb::Consumer<Slot>,
    counts: PortCounts,
    drops: DropCounts,
}

/// Both ends of a ring of so many datagrams.
#[must_use]
pub fn handoff(datagrams: usize) -> (Handoff, HandoffRx) {
    let (producer, ring) = rtrb::RingBuffer::new(datagrams);
    (
        Handoff { ring: producer, handed: 0 },
        HandoffRx { ring, counts: PortCounts::default(), drops: DropCounts::default() },
    )
}

impl Handoff {
    /// Whether one more datagram fits.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.ring.slots() > 0
    }

    /// How many more datagrams fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.ring.slots()
    }

    /// Hands a datagram over; false if the ring is full or the payload longer than [`HANDOFF_BYTES`]. `received_ns` is
    /// CLOCK_MONOTONIC of its arrival.
    pub fn hand(&mut self, line: LineIndex, payload: &[u8], received_ns: u64) -> bool {
        let Some(len) = u16::try_from(payload.len()).ok().filter(|_| payload.len() <= HANDOFF_BYTES) else {
            return false;
        };
        let Ok(mut chunk) = self.ring.write_chunk(1) else { return false };
        let (slots, _) = chunk.as_mut_slices();
        let Some(slot) = slots.first_mut() else { return false };
        (slot.line, slot.len, slot.received_ns) = (line, len, received_ns);
        slot.bytes[..payload.len()].copy_from_slice(payload);
        chunk.commit_all();
        self.handed += 1;
        true
    }

    /// Datagrams handed over since the start.
    #[must_use]
    pub fn handed(&self) -> u64 {
        self.handed
    }

    /// How many of them the worker has taken: once this has reached what [`Self::handed`] was, nothing of before will come to
    /// it any more.
    #[must_use]
    pub fn taken(&self) -> u64 {
        let waiting = self.ring.buffer().capacity() - self.ring.slots();
        self.handed.saturating_sub(waiting as u64)
    }
}

impl HandoffRx {
    /// See [`super::RxPort::receive`]. Datagrams wait when there is no free frame.
    pub fn receive(&mut self, frames: &Frames, batch: &mut Batch) {
        let before = batch.len();
        while !batch.is_full() && frames.free_count() > frames.reserve() {
            let Ok(chunk) = self.ring.read_chunk(1) else { break };
            let (slots, _) = chunk.as_slices();
            let Slot { line, len, received_ns, ref bytes } = slots[0];
            copy_in(frames, batch, &mut self.drops, &bytes[..usize::from(len)], line, received_ns);
            chunk.commit_all();
        }
        self.counts.add_receive(batch.len() - before);
    }

    /// Datagrams that wait in the ring.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.ring.slots()
    }

    pub(super) fn refill(&mut self, _frames: &Frames) {}

    pub(super) fn update_kernel_counts(&mut self) {}

    /// See [`super::RxPort::counts`].
    #[must_use]
    pub fn counts(&self) -> &PortCounts {
        &self.counts
    }

    /// See [`super::RxPort::drops`].
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        &self.drops
    }

    /// Always 0: what waits is not in frames yet.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        0
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff").field("room", &self.ring.slots()).finish_non_exhaustive()
    }
}

impl fmt::Debug for HandoffRx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffRx").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_out_as_they_went_in_and_wait_for_frames() {
        let frames = Frames::heap(256, 2048);
        let (mut feed, mut port) = handoff(4);
        let longest = [7; HANDOFF_BYTES];
        assert!(feed.hand(3, b"one", 11) && feed.hand(4, b"", 12) && feed.hand(5, &longest, 13));
        assert!(!feed.hand(5, &[0; HANDOFF_BYTES + 1], 14), "longer than a slot");
        assert!(feed.has_room() && feed.hand(6, b"four", 15) && !feed.has_room() && !feed.hand(6, b"five", 16));
        let mut taken = Vec::new();
        while frames.free_count() > frames.reserve() {
            taken.push(frames.alloc().unwrap());
        }
        let mut batch = Batch::new();
        port.receive(&frames, &mut batch);
        assert!(batch.is_empty(), "no frame, no datagram");
        taken.into_iter().for_each(|frame| frames.free(frame));
        port.receive(&frames, &mut batch);
        let got: Vec<_> = batch.iter().map(|r| (r.line, r.received_ns, frames.payload(r).to_vec())).collect();
        assert_eq!(
            got,
            [(3, 11, b"one".to_vec()), (4, 12, vec![]), (5, 13, longest.to_vec()), (6, 15, b"four".to_vec())]
        );
        batch.drain(..).for_each(|received| frames.free(received.frame));
        assert_eq!((frames.free_count(), port.counts().frames, port.counts().empty_polls), (256, 4, 1));
        assert!(feed.hand(1, b"again", 1), "slots are used again");
        assert_eq!((feed.handed(), feed.taken()), (5, 4));
    }
}
