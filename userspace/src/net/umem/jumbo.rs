//! Buffers for packets that are longer than a frame. They come over several frames (multi-buffer AF_XDP), which lie anywhere
//! in the UMEM; the stages want a payload in one piece, so it is copied together into one of these.
//!
//! A buffer is a [`Frame`] as any other, with an index behind those of the pool's own frames, but never lent to the kernel:
//! it is in plain memory, and no ring can name it. Only [`XskRx`](crate::net::xsk::XskRx) takes one.
#![forbid(unsafe_code)]

use std::cell::UnsafeCell;

use super::lines::{FreeStack, Lines};
use super::{BUFFER_START, Frame, Frames, HOME, Owner, Slot};

/// Bytes of a jumbo buffer, laid out as a frame is: room for packets of an MTU of 9898, more than any that is in use.
pub const JUMBO_BYTES: u32 = 10 * 1024;

/// Jumbo buffers of one pool.
#[derive(Default)]
pub(super) struct Jumbos {
    pub(super) memory: Box<[UnsafeCell<Box<[u8]>>]>,
    free: FreeStack,
}

impl Frames {
    /// The same pool with so many jumbo buffers. Call it before any frame is taken.
    ///
    /// # Panics
    /// If a frame was taken already.
    #[must_use]
    pub fn with_jumbos(mut self, count: u32) -> Self {
        assert_eq!(self.free_count(), self.frame_count, "no frame may be taken yet");
        let room = JUMBO_BYTES as usize - BUFFER_START;
        // Written, so that the pages exist before the first packet needs them.
        let memory = (0..count).map(|_| UnsafeCell::new(vec![1; room].into())).collect();
        self.jumbos = Jumbos { memory, free: FreeStack::full(count) };
        self.slots = Lines::new(self.frame_count + count as usize, Slot::FREE);
        self
    }

    /// Whether packets may be longer than a frame.
    #[must_use]
    pub fn takes_jumbos(&self) -> bool {
        !self.jumbos.memory.is_empty()
    }

    /// Jumbo buffers that are free.
    #[must_use]
    pub fn free_jumbo_count(&self) -> usize {
        self.jumbos.free.len()
    }

    /// Takes a jumbo buffer for a receive port to gather a packet in; `None` if there is none.
    pub(in crate::net) fn alloc_jumbo(&self) -> Option<Frame> {
        let index = self.frame_count as u32 + self.jumbos.free.pop()?;
        self.slots.at(index as usize).set(Slot { owner: Owner::Gather, ..Slot::FREE });
        Some(Frame { index, pool: self.pool })
    }

    pub(super) fn free_jumbo(&self, index: u32) {
        self.jumbos.free.push(index - self.frame_count as u32);
    }

    /// Appends the packet in `piece` to the one that is gathered in a jumbo buffer; false if it does not fit.
    pub(in crate::net) fn append(&self, jumbo: &mut Frame, piece: &Frame) -> bool {
        let slot = self.slots.at(self.index(jumbo)).get();
        let bytes = self.data(piece);
        let start = HOME - BUFFER_START + usize::from(slot.len);
        let Some(room) = self.whole_mut(jumbo).get_mut(start..start + bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        // Within the buffer, whose size fits 16 bits.
        self.slots.at(jumbo.index as usize).set(Slot { len: slot.len + bytes.len() as u16, ..slot });
        true
    }

    /// Longest UDP payload that can be received, bytes.
    #[must_use]
    pub fn longest_payload(&self) -> usize {
        let frame_bytes = if self.takes_jumbos() { JUMBO_BYTES as usize } else { self.frame_bytes };
        frame_bytes.saturating_sub(BUFFER_START + crate::net::PAYLOAD_OFFSET)
    }
}
