//! What is missing, as it is to be asked for.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use super::Channel;

/// Holes that are told at a time: the nearest ones. The next are told as soon as these are filled.
pub const HOLES: usize = 32;

/// Held packets that are looked at to find the holes between them.
const MOST_HELD: usize = 512;

/// Missing messages as ranges (from, to), ascending, none empty.
pub type Holes = ArrayVec<(u64, u64), HOLES>;

impl Channel {
    /// All that is missing now is told by [`Self::holes`] from now on, whether the other line had its time or not.
    pub fn hurry(&mut self) {
        self.arbiter.hurry();
    }

    /// Finds the nearest holes for which the other line had its time. A hole that is no longer told is filled or given up.
    pub fn holes(&self, holes: &mut Holes) {
        holes.clear();
        if !self.arbiter.is_missing() {
            return;
        }
        let mut held = self.hold.ranges().take(MOST_HELD).peekable();
        // Beyond what is looked at nobody knows what is held.
        let horizon = self.hold.ranges().nth(MOST_HELD).map_or(u64::MAX, |(from, _)| from);
        for (mut from, to) in self.arbiter.wanted() {
            if from >= horizon {
                break;
            }
            let to = to.min(horizon);
            while let Some(&(held_from, held_to)) = held.peek()
                && from < to
                && held_from < to
            {
                if held_from > from && holes.try_push((from, held_from)).is_err() {
                    return;
                }
                from = from.max(held_to);
                // One that reaches beyond this gap may also cover the beginning of the next.
                if held_to > to {
                    break;
                }
                held.next();
            }
            if from < to && holes.try_push((from, to)).is_err() {
                return;
            }
        }
    }
}
