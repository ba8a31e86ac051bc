//! The hold buffer: packets that arrived ahead of a gap, copied so that no receive frame is pinned.
//!
//! Everything is allocated at start. When the buffer is full the packet nearest to the gap stays and the farthest one
//! goes: it will be asked for again, and the near one is needed first.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::LineRole;

/// Least bytes of a slot: more than any frame carries. Where packets may be longer, slots are.
pub const SLOT_BYTES: usize = 4096;

/// Each page is written once at start, so that it exists before the first packet needs it.
const PAGE_BYTES: usize = 4096;

/// A packet in the buffer. The payload is in slot `slot` until [`Hold::release`].
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Sequence of its first message.
    pub sequence: u64,
    /// Sequence after its last message.
    pub end: u64,
    /// CLOCK_MONOTONIC of its arrival, nanoseconds.
    pub received_ns: u64,
    /// The line that brought it.
    pub role: LineRole,
    /// Where its payload is.
    pub slot: u32,
}

/// What became of a packet that was to be held.
#[derive(Clone, Copy, Debug)]
pub enum Insert {
    /// Copied.
    Held,
    /// All of its messages are held already.
    Duplicate,
    /// Not copied: the buffer is full of nearer packets, or the payload is longer than a slot.
    Full,
    /// Copied; this one, the farthest, was dropped for it.
    Evicted(Held),
}

/// Bounded buffer of packets in sequence order.
#[derive(Debug)]
pub struct Hold {
    payloads: Vec<u8>,
    lengths: Vec<u16>,
    free: Vec<u32>,
    /// Ascending in `sequence` and in `end`: no packet covers another one.
    packets: VecDeque<Held>,
    capacity: usize,
    slot_bytes: usize,
}

impl Hold {
    /// Room for `capacity` packets of at most `slot_bytes`, and for `released` more that were taken out but are still being
    /// read.
    #[must_use]
    pub fn new(capacity: usize, released: usize, slot_bytes: usize) -> Self {
        let slots = capacity + released;
        let mut payloads = vec![0; slots * slot_bytes];
        payloads.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
        Self {
            payloads,
            lengths: vec![0; slots],
            free: (0..u32::try_from(slots).expect("the configuration limits hold_packets")).rev().collect(),
            packets: VecDeque::with_capacity(capacity + 1),
            capacity,
            slot_bytes,
        }
    }

    /// Longest payload that can be held, bytes.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Copies a packet that holds messages `sequence..end`. `covered` is told of held packets that it makes superfluous.
    pub fn insert(&mut self, mut packet: Held, payload: &[u8], mut covered: impl FnMut(&Held)) -> Insert {
        let at = self.packets.partition_point(|held| held.sequence < packet.sequence);
        if self.covers(at, &packet) {
            return Insert::Duplicate;
        }
        if payload.len() > self.slot_bytes {
            return Insert::Full;
        }
        while self.packets.get(at).is_some_and(|held| held.end <= packet.end) {
            let held = self.packets.remove(at).expect("just seen");
            self.free.push(held.slot);
            covered(&held);
        }
        let mut outcome = Insert::Held;
        if self.packets.len() >= self.capacity {
            if at >= self.packets.len() {
                return Insert::Full;
            }
            let farthest = self.packets.pop_back().expect("the buffer is full");
            self.free.push(farthest.slot);
            outcome = Insert::Evicted(farthest);
        }
        packet.slot = self.keep(payload);
        self.packets.insert(at, packet);
        outcome
    }

    /// Copies a payload that is delivered at once, of at most [`Self::slot_bytes`], until [`Self::release`].
    pub fn keep(&mut self, payload: &[u8]) -> u32 {
        let slot = self.free.pop().expect("every admitted packet has a slot until deliver()");
        let start = slot as usize * self.slot_bytes;
        self.payloads[start..start + self.slot_bytes][..payload.len()].copy_from_slice(payload);
        self.lengths[slot as usize] = u16::try_from(payload.len()).expect("a UDP payload");
        slot
    }

    /// Whether the held packets around position `at` have all of the packet's messages.
    fn covers(&self, at: usize, packet: &Held) -> bool {
        let mut covered = packet.sequence;
        for held in self.packets.range(at.saturating_sub(1)..) {
            if held.sequence > covered {
                break;
            }
            covered = covered.max(held.end);
            if covered >= packet.end {
                return true;
            }
        }
        false
    }

    /// The sequence of the nearest packet.
    #[inline]
    #[must_use]
    pub fn nearest(&self) -> Option<u64> {
        self.packets.front().map(|held| held.sequence)
    }

    /// The first message at or after `sequence` that a packet of a live line begins with.
    #[must_use]
    pub fn line_from(&self, sequence: u64) -> Option<u64> {
        let at = self.packets.partition_point(|held| held.sequence < sequence);
        self.packets.range(at..).find(|held| held.role != LineRole::Recovery).map(|held| held.sequence)
    }

    /// The held messages, as ranges (from, to) ascending in both; they may overlap.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.packets.iter().map(|held| (held.sequence, held.end))
    }

    /// Takes the nearest packet out, if it starts at or before `expected`. Its payload stays until [`Self::release`].
    #[inline]
    pub fn take(&mut self, expected: u64) -> Option<Held> {
        self.packets.front().filter(|held| held.sequence <= expected)?;
        self.packets.pop_front()
    }

    /// The payload in a slot.
    #[must_use]
    pub fn payload(&self, slot: u32) -> &[u8] {
        let start = slot as usize * self.slot_bytes;
        &self.payloads[start..start + usize::from(self.lengths[slot as usize])]
    }

    /// Gives a slot back that [`Self::take`] returned.
    pub fn release(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// Whether so much is free that it will not be full before the next look.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.packets.len() * 4 <= self.capacity * 3
    }

    /// Packets held now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(hold: &mut Hold, sequence: u64, end: u64) -> Insert {
        let packet = Held { sequence, end, received_ns: 0, role: LineRole::A, slot: 0 };
        hold.insert(packet, &sequence.to_be_bytes(), |_| {})
    }

    fn drain(hold: &mut Hold) -> Vec<(u64, u64)> {
        let mut taken = Vec::new();
        while let Some(held) = hold.take(u64::MAX) {
            assert_eq!(hold.payload(held.slot), held.sequence.to_be_bytes());
            hold.release(held.slot);
            taken.push((held.sequence, held.end));
        }
        taken
    }

    #[test]
    fn packets_leave_in_sequence_order_when_they_touch() {
        let mut hold = Hold::new(4, 0, SLOT_BYTES);
        for (sequence, end) in [(30, 40), (10, 20), (20, 25)] {
            assert!(matches!(insert(&mut hold, sequence, end), Insert::Held));
        }
        assert_eq!(hold.nearest(), Some(10));
        assert!(hold.take(9).is_none());
        assert_eq!(drain(&mut hold), [(10, 20), (20, 25), (30, 40)]);
        assert_eq!(hold.free.len(), 4);
    }

    #[test]
    fn what_is_held_already_is_not_copied_again_and_what_is_covered_goes() {
        let mut hold = Hold::new(4, 0, SLOT_BYTES);
        insert(&mut hold, 10, 20);
        insert(&mut hold, 20, 30);
        assert!(matches!(insert(&mut hold, 10, 20), Insert::Duplicate));
        assert!(matches!(insert(&mut hold, 12, 28), Insert::Duplicate));
        assert!(matches!(insert(&mut hold, 15, 31), Insert::Held));
        assert_eq!(drain(&mut hold), [(10, 20), (15, 31)]);
        assert_eq!(hold.free.len(), 4);
    }

    #[test]
    fn the_nearest_stay_and_the_farthest_goes() {
        let mut hold = Hold::new(2, 0, SLOT_BYTES);
        insert(&mut hold, 30, 31);
        insert(&mut hold, 50, 51);
        assert!(matches!(insert(&mut hold, 60, 61), Insert::Full));
        assert!(matches!(insert(&mut hold, 40, 41), Insert::Evicted(Held { sequence: 50, .. })));
        assert_eq!(drain(&mut hold), [(30, 31), (40, 41)]);
        let packet = Held { sequence: 1, end: 2, received_ns: 0, role: LineRole::A, slot: 0 };
        assert!(matches!(hold.insert(packet, &[0; SLOT_BYTES + 1], |_| {}), Insert::Full));
        assert_eq!(hold.free.len(), 2);
    }

    #[test]
    fn slots_are_as_long_as_asked_for_and_do_not_touch() {
        let mut hold = Hold::new(3, 0, 9878);
        let payload = |sequence: u64| vec![sequence as u8; 9878];
        let packet = |sequence| Held { sequence, end: sequence + 1, received_ns: 0, role: LineRole::A, slot: 0 };
        for sequence in [3, 1, 2] {
            assert!(matches!(hold.insert(packet(sequence), &payload(sequence), |_| {}), Insert::Held));
        }
        assert!(matches!(hold.insert(packet(0), &[0; 9879], |_| {}), Insert::Full));
        for sequence in 1..=3 {
            let held = hold.take(u64::MAX).unwrap();
            assert_eq!((held.sequence, hold.payload(held.slot)), (sequence, &payload(sequence)[..]));
        }
    }

    #[test]
    fn a_buffer_of_no_packets_refuses_all() {
        let mut hold = Hold::new(0, 0, SLOT_BYTES);
        assert!(matches!(insert(&mut hold, 5, 6), Insert::Full));
        assert!(hold.is_empty());
    }
}
