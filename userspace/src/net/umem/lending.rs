//! What ports do with frames: lend them, take them back, and say where in them the packet lies.
#![forbid(unsafe_code)]

use xdp_ebpf::FrameMeta;
use xsk_rs::umem::frame::FrameDesc;

use super::{BUFFER_START, Frame, Frames, HOME, META_BYTES, Owner, TAGGED_HOME};

impl Frames {
    /// Hands a frame over to a port. From here on only the index stands for it, until [`Self::take_back`].
    pub(in crate::net) fn lend(&mut self, frame: Frame, to: Owner) -> u32 {
        let index = self.index(&frame);
        self.slots[index].owner = to;
        frame.index
    }

    /// Marks a frame that a port keeps as a [`Frame`] as lent to it, or as handed over again.
    pub(in crate::net) fn assign(&mut self, frame: &Frame, to: Owner) {
        let index = self.index(frame);
        self.slots[index].owner = to;
    }

    /// Takes back a frame that was lent to `from`. `None` if the index is not one of a frame lent so: such an index came
    /// from a ring that names a frame which is not there, and making a [`Frame`] of it would give it two owners.
    pub(in crate::net) fn take_back(&mut self, index: usize, from: Owner) -> Option<Frame> {
        let slot = self.slots.get_mut(index).filter(|slot| slot.owner == from)?;
        slot.owner = Owner::User;
        Some(Frame { index: index as u32, pool: self.pool })
    }

    /// Says where in the frame the packet lies; `start` counts from the frame's beginning. False if it is not inside.
    #[must_use]
    pub(in crate::net) fn set_packet(&mut self, frame: &Frame, start: usize, len: usize) -> bool {
        let index = self.index(frame);
        let fits = start >= BUFFER_START && len <= self.frame_bytes && start <= self.frame_bytes - len;
        if fits {
            // Both are at most `frame_bytes`, which fits 16 bits.
            (self.slots[index].start, self.slots[index].len) = (start as u16, len as u16);
        }
        fits
    }

    /// Whether a descriptor begins at this offset from the frame's beginning, so that a packet there can be sent.
    pub(in crate::net) fn has_descriptor_at(start: usize) -> bool {
        matches!(start, HOME | TAGGED_HOME)
    }

    /// The pool's number, for a check that a socket and a pool belong together.
    pub(in crate::net) fn pool(&self) -> u32 {
        self.pool
    }

    /// Offset of the packet from the frame's beginning, bytes.
    pub(in crate::net) fn packet_start(&self, frame: &Frame) -> usize {
        usize::from(self.slots[self.index(frame)].start)
    }

    /// Reads the metadata directly before the packet if it carries `cookie`, and erases the cookie: the next packet in
    /// this frame might come without metadata, and must not be taken for this one.
    pub(in crate::net) fn take_meta(&mut self, frame: &Frame, cookie: u16) -> Option<FrameMeta> {
        let index = self.index(frame);
        let end = usize::from(self.slots[index].start) - BUFFER_START;
        let meta = self.whole_mut(index).get_mut(end.checked_sub(META_BYTES)?..end)?;
        let half = |at: usize| u16::from_ne_bytes([meta[at], meta[at + 1]]);
        if half(14) != cookie {
            return None;
        }
        let received_ns = u64::from_ne_bytes(meta[..8].try_into().ok()?);
        let found = FrameMeta { received_ns, line: half(8), payload_offset: half(10), payload_len: half(12), cookie };
        meta[14..].fill(0);
        Some(found)
    }

    /// Index of the frame that a descriptor's address falls into (frames are powers of two, from address 0 on), and the
    /// offset within it.
    pub(in crate::net) fn locate(&self, descriptor: &FrameDesc) -> (usize, usize) {
        (descriptor.addr() / self.frame_bytes, descriptor.addr() % self.frame_bytes)
    }
}
