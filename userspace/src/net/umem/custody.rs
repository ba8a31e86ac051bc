//! Counting frames: the conservation law as a check.
#![forbid(unsafe_code)]

use super::{Frames, Owner};

/// Frames by owner; see [`Frames::custody`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Custody {
    /// On the pool's stacks: frames and jumbo buffers.
    pub free: usize,
    /// Held as [`Frame`](super::Frame) by code outside ports.
    pub user: usize,
    /// Lent to receive ports.
    pub rx: usize,
    /// Lent to transmit ports.
    pub tx: usize,
}

impl Custody {
    /// All frames.
    #[must_use]
    pub fn sum(&self) -> usize {
        self.free + self.user + self.rx + self.tx
    }
}

impl Frames {
    /// Counts the frames by their own owner marks: the other side of the conservation law. Walks all frames.
    #[must_use]
    pub fn custody(&self) -> Custody {
        let mut custody = Custody::default();
        for slot in self.slots.iter() {
            match slot.get().owner {
                Owner::Free => custody.free += 1,
                Owner::User => custody.user += 1,
                Owner::Rx | Owner::Gather => custody.rx += 1,
                Owner::Tx => custody.tx += 1,
            }
        }
        custody
    }

    /// Asserts the conservation law: `free + held by ports + held outside = frame_count`, and that the owner marks agree.
    ///
    /// `rx_held` and `tx_held` are the sums of `frames_held()` over the ports, `user_held` what the caller knows of.
    ///
    /// # Panics
    /// If a frame was lost or doubled: a bug of ours.
    pub fn assert_conserved(&self, rx_held: usize, tx_held: usize, user_held: usize) {
        let free = self.free_count() + self.free_jumbo_count();
        let said = Custody { free, user: user_held, rx: rx_held, tx: tx_held };
        assert_eq!(said, self.custody(), "frames by ports' counts against frames by owner marks");
        assert_eq!(said.sum(), self.slots.len(), "frames lost or doubled: {said:?}");
    }
}
