//! What ports do with frames: lend them, take them back, and say where in them the packet lies.
#![forbid(unsafe_code)]

use xdp_ebpf::FrameMeta;
use xsk_rs::umem::frame::FrameDesc;

use super::{BUFFER_START, Frame, Frames, HOME, JUMBO_BYTES, META_BYTES, Owner, Slot, TAGGED_HOME};

impl Frames {
    /// Hands a frame over to a port. From here on only the index stands for it, until [`Self::take_back`].
    pub(in crate::net) fn lend(&self, frame: Frame, to: Owner) -> u32 {
        self.set_owner(self.index(&frame), to);
        frame.index
    }

    /// Marks a frame that a port keeps as a [`Frame`] as lent to it, or as handed over again.
    pub(in crate::net) fn assign(&self, frame: &Frame, to: Owner) {
        self.set_owner(self.index(frame), to);
    }

    /// Takes back a frame that was lent to `from`. `None` if the index is not one of a frame lent so: such an index came
    /// from a ring that names a frame which is not there, and making a [`Frame`] of it would give it two owners.
    pub(in crate::net) fn take_back(&self, index: usize, from: Owner) -> Option<Frame> {
        self.slots.get(index).filter(|slot| slot.get().owner == from)?;
        self.set_owner(index, Owner::User);
        Some(Frame { index: index as u32, pool: self.pool })
    }

    /// Says where in the frame the packet lies; `start` counts from the frame's beginning. False if it is not inside.
    #[must_use]
    pub(in crate::net) fn set_packet(&self, frame: &Frame, start: usize, len: usize) -> bool {
        let slot = self.slots.at(self.index(frame));
        let inside = |bytes: usize| start >= BUFFER_START && len <= bytes && start <= bytes - len;
        let fits = inside(self.frame_bytes) || (self.index(frame) >= self.frame_count && inside(JUMBO_BYTES as usize));
        if fits {
            // Both are at most the frame's size, which fits 16 bits.
            slot.set(Slot { start: start as u16, len: len as u16, ..slot.get() });
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
        usize::from(self.slots.at(self.index(frame)).get().start)
    }

    /// Reads the metadata directly before the packet if it carries `cookie`, and erases the cookie: the next packet in
    /// this frame might come without metadata, and must not be taken for this one.
    pub(in crate::net) fn take_meta(&self, frame: &mut Frame, cookie: u16) -> Option<FrameMeta> {
        let end = self.packet_start(frame) - BUFFER_START;
        let meta = self.whole_mut(frame).get_mut(end.checked_sub(META_BYTES)?..end)?;
        let found = FrameMeta::from_bytes(*meta.first_chunk()?);
        if found.cookie != cookie {
            return None;
        }
        meta[META_BYTES - size_of_val(&cookie)..].fill(0);
        Some(found)
    }

    /// Index of the frame that a descriptor's address falls into (frames are powers of two, from address 0 on), and the
    /// offset within it.
    pub(in crate::net) fn locate(&self, descriptor: &FrameDesc) -> (usize, usize) {
        (descriptor.addr() / self.frame_bytes, descriptor.addr() % self.frame_bytes)
    }
}
