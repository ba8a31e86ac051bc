//! When which line brought what: how much later the other line's copy comes, and what comes too late.
//!
//! Delivered packets are remembered in a ring, in sequence order. Each line's copies come nearly in that order, too, so the place
//! of the newest copy on each line is where the next one is looked for: a few steps within cache lines that were just
//! used, whatever the lines' packets are cut to. Packets are compared by the time of their arrival and not by the order in
//! which the worker took them, which is by port.
#![forbid(unsafe_code)]

use super::Channel;
use crate::feed::LineRole;
use crate::metrics::DropReason;

/// Delivered packets that are remembered: 40 ms of 100,000 a second. A copy that comes later is as late as the oldest at least.
const REMEMBERED: usize = 4096;

/// Steps from the last place before it is searched for.
const STEPS: usize = 8;

/// Messages `sequence..end` were delivered out of a packet.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    sequence: u64,
    end: u64,
    received_ns: u64,
    role: LineRole,
}

/// The newest deliveries of a session.
#[derive(Debug)]
pub(super) struct Copies {
    ring: Box<[Delivered; REMEMBERED]>,
    /// Packets noted in this session.
    written: u64,
    /// Where the newest copy of each line was found.
    places: [u64; LineRole::ALL.len()],
}

impl Copies {
    pub(super) fn new() -> Self {
        let nothing = Delivered { sequence: 0, end: 0, received_ns: 0, role: LineRole::A };
        let ring = vec![nothing; REMEMBERED].into_boxed_slice().try_into().expect("has that length");
        Self { ring, written: 0, places: Default::default() }
    }

    /// A session begins: its numbers have nothing to do with those before.
    pub(super) fn clear(&mut self) {
        self.written = 0;
        self.places = Default::default();
    }

    #[inline]
    pub(super) fn note(&mut self, sequence: u64, end: u64, received_ns: u64, role: LineRole) {
        self.ring[self.written as usize % REMEMBERED] = Delivered { sequence, end, received_ns, role };
        self.written += 1;
    }

    #[inline]
    fn at(&self, place: u64) -> &Delivered {
        &self.ring[place as usize % REMEMBERED]
    }

    fn oldest(&self) -> u64 {
        self.written.saturating_sub(REMEMBERED as u64)
    }

    /// The place of the last delivery that begins at or before a message; `None` if it is not remembered.
    #[inline]
    fn find(&mut self, sequence: u64, role: LineRole) -> Option<u64> {
        let oldest = self.oldest();
        if self.written == 0 || self.at(oldest).sequence > sequence {
            return None;
        }
        let mut place = self.places[role as usize].max(oldest);
        let mut steps = STEPS;
        while steps > 0 {
            if self.at(place).sequence > sequence {
                place -= 1;
            } else if place + 1 < self.written && self.at(place + 1).sequence <= sequence {
                place += 1;
            } else {
                self.places[role as usize] = place;
                return Some(place);
            }
            steps -= 1;
        }
        let place = self.search(sequence);
        self.places[role as usize] = place;
        Some(place)
    }

    /// The same, without a place to begin; the oldest begins at or before the message.
    fn search(&self, sequence: u64) -> u64 {
        let (mut from, mut to) = (self.oldest(), self.written);
        while to - from > 1 {
            let middle = from + (to - from) / 2;
            if self.at(middle).sequence <= sequence {
                from = middle;
            } else {
                to = middle;
            }
        }
        from
    }

    /// How many of the messages up to `end` were never delivered, from a place on.
    fn missing(&self, mut place: u64, mut sequence: u64, end: u64) -> u64 {
        let mut missing = 0;
        while sequence < end {
            let delivered = self.at(place);
            missing += delivered.sequence.min(end).saturating_sub(sequence);
            sequence = sequence.max(delivered.end);
            place += 1;
            if place == self.written {
                return missing + end.saturating_sub(sequence);
            }
        }
        missing
    }
}

impl Channel {
    /// Notes a copy of messages `sequence..end`, all of them behind the expected one; returns how many of them were given up
    /// before.
    #[inline]
    pub(super) fn note_copy(&mut self, role: LineRole, sequence: u64, end: u64, received_ns: u64) -> u64 {
        let Some(place) = self.copies.find(sequence, role) else {
            self.note_forgotten(role, received_ns);
            return 0;
        };
        let first = *self.copies.at(place);
        // One look most of the time: the packet is within one that was delivered.
        let missing = if end <= first.end { 0 } else { self.copies.missing(place, sequence, end) };
        if sequence < first.end && first.role != role {
            let skew_ns = received_ns.abs_diff(first.received_ns);
            let is_behind = received_ns >= first.received_ns;
            self.lines[role as usize].counts.late +=
                u64::from(missing == 0 && is_behind && skew_ns > self.late_ns && role.is_copy());
            if role.is_copy() && first.role.is_copy() {
                let later = if is_behind { role } else { first.role };
                self.lines[later as usize].skew.record(skew_ns);
            }
        }
        self.lines[role as usize].counts.late += u64::from(missing > 0);
        missing
    }

    /// A copy of what is not remembered any more.
    #[cold]
    fn note_forgotten(&mut self, role: LineRole, received_ns: u64) {
        let oldest = *self.copies.at(self.copies.oldest());
        let age_ns = received_ns.saturating_sub(oldest.received_ns);
        if self.copies.written > 0 && age_ns > self.late_ns {
            self.lines[role as usize].counts.late += 1;
        }
    }

    /// Why a packet is dropped of which so many messages had been given up, and the rest delivered.
    pub(super) fn why_dropped(missing: u64) -> DropReason {
        if missing > 0 { DropReason::Late } else { DropReason::Duplicate }
    }
}
