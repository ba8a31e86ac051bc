//! Frames: fixed-size pieces of memory that packets live in, and who owns each of them.
//!
//! # The four rings
//!
//! An AF_XDP socket exchanges frames with the kernel over four rings of descriptors in shared memory:
//!
//! | ring       | direction     | an entry says                              | our side           |
//! |------------|---------------|--------------------------------------------|--------------------|
//! | fill       | we → kernel   | "receive into this frame"                  | producer, `XskRx`  |
//! | RX         | kernel → we   | "a packet of this length is in this frame" | consumer, `XskRx`  |
//! | TX         | we → kernel   | "send these bytes of this frame"           | producer, `XskTx`  |
//! | completion | kernel → we   | "this frame was sent"                      | consumer, `XskTx`  |
//!
//! # Who owns a frame
//!
//! ```text
//!            alloc             refill                 kernel receives
//!   ┌─ free ───────► user ───────────► fill ring ─────────────────────► RX ring ─┐
//!   │    ▲            │ ▲                                                        │ receive
//!   │    └────────────┘ └────────────────────────────────────────────────────────┘
//!   │      free       │
//!   │                 │ send, forward           kernel sends
//!   │                 └──────────────► TX ring ─────────────► completion ring ─┐
//!   └──────────────────────────────────────────────────────────────────────────┘ reclaim
//! ```
//!
//! - *free*: on the pool's stack; nobody reads or writes it.
//! - *user*: a [`Frame`] exists. There is exactly one per index, and it cannot be copied: whoever holds it owns the bytes.
//! - *fill, RX*: lent to a receive port. The kernel may write to it at any moment; no [`Frame`] exists, so no safe code
//!   can reach the bytes.
//! - *TX, completion*: lent to a transmit port. The kernel may read it; the same holds.
//!
//! Kernel sockets and memory ports keep to the same rules: what a port has queued counts as lent to it.
//!
//! # The conservation law
//!
//! `fill + rx + tx + completion + free + held = frame_count`, at every moment. A receive port knows `fill + rx` and a
//! transmit port `tx + completion` (`frames_held()` of the port, which includes what waits inside the port itself); what
//! code outside holds as [`Frame`] or `Received` is *held*. [`Frames::custody`] counts the same from the other side, by
//! each frame's own owner mark. A dropped [`Frame`] is a leak and shows up as a sum that is short.
//!
//! # Layout of one frame
//!
//! ```text
//! 0            256 = BUFFER_START        316        320 = HOME       362 = BUFFER_START + PAYLOAD_OFFSET      frame_bytes
//! │ XDP headroom │ … FrameMeta (16 bytes) before the data │ received packet, or the headers we write │ payload … │
//! ```
//!
//! A packet that is longer than what lies behind HOME comes over several frames, each filled from HOME on, and is copied
//! together into a jumbo buffer ([`Frames::with_jumbos`]): one more kind of frame, which the law counts with the others.
//!
//! The kernel puts a received packet at HOME (64 bytes of UMEM headroom behind its own 256). A packet that we build has
//! its payload where the payload of a plain received packet lies, so its headers begin at HOME (42 bytes: Ethernet, IPv4,
//! UDP) or 4 bytes before (with a VLAN tag). `xsk-rs` has no way to make a descriptor from an address, but a UMEM of the
//! same dimensions with another headroom makes descriptors with other offsets. So two UMEMs are made at start for their
//! descriptors alone, and dropped.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use xdp_ebpf::FrameMeta;
use xsk_rs::umem::Umem;
use xsk_rs::umem::frame::FrameDesc;

use super::headers::{HEADER_BYTES, TAG_BYTES};
use super::{PAYLOAD_OFFSET, Received};
use create::{check_size, create_umem};
use jumbo::Jumbos;
use lines::{FreeStack, Lines};

mod create;
mod custody;
mod jumbo;
mod lending;
mod lines;
#[cfg(test)]
mod tests;

pub use create::FramesError;
pub use custody::Custody;
pub use jumbo::JUMBO_BYTES;

/// Offset within a frame at which [`Frames::buffer_mut`] begins: behind the headroom that the kernel keeps for XDP.
pub const BUFFER_START: usize = 256;

/// UMEM headroom: puts the received packet at [`HOME`], with its metadata inside the part of the frame that we can read.
const HEADROOM: usize = 64;

/// Offset within a frame at which the kernel puts a received packet.
pub const HOME: usize = BUFFER_START + HEADROOM;

/// Offset within a frame of the first byte of a packet that we build with a VLAN tag.
const TAGGED_HOME: usize = HOME - TAG_BYTES;

const META_BYTES: usize = size_of::<FrameMeta>();

const _: () = {
    assert!(HOME + HEADER_BYTES == BUFFER_START + PAYLOAD_OFFSET);
    assert!(HEADROOM >= META_BYTES + TAG_BYTES);
};

/// One frame of a pool. Move-only: whoever has it owns its bytes. It must end in [`Frames::free`] or in a port.
#[derive(Debug)]
#[must_use = "a dropped frame is lost to its pool"]
pub struct Frame {
    index: u32,
    /// The pool that it belongs to, so that a frame of another worker cannot alias one of ours.
    pool: u32,
}

/// In whose hands a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Free,
    /// A [`Frame`] exists.
    User,
    /// A receive port: fill or RX ring.
    Rx,
    /// A transmit port: TX or completion ring.
    Tx,
    /// A receive port that gathers a packet in it; a jumbo buffer, which no ring can name.
    Gather,
}

/// Where the packet lies within its frame.
#[derive(Clone, Copy, Debug)]
#[repr(align(8))]
struct Slot {
    start: u16,
    len: u16,
    owner: Owner,
}

impl Slot {
    const FREE: Self = Self { start: HOME as u16, len: 0, owner: Owner::Free };
}

enum Memory {
    /// Each frame from [`BUFFER_START`] on; apart, so that a pointer into one is not touched by access to another.
    Heap(Box<[UnsafeCell<Box<[u8]>>]>),
    Umem(UmemMemory),
}

struct UmemMemory {
    umem: Umem,
    /// Descriptors of the whole frame from [`BUFFER_START`] on.
    views: Vec<FrameDesc>,
    /// Descriptors that begin at [`HOME`].
    homes: Vec<FrameDesc>,
    /// Descriptors that begin at [`TAGGED_HOME`].
    tagged: Vec<FrameDesc>,
    ring_entries: u32,
}

/// A worker's pool of frames, in a UMEM or in plain memory. Allocates when it is made and never again.
///
/// A shared reference is enough for everything: a frame's bytes can only be reached through its one [`Frame`], so output
/// frames can be written while received ones of the same pool are read. One thread at a time: it is not `Sync`.
pub struct Frames {
    memory: Memory,
    /// Of all frames, and of the jumbo buffers behind them.
    slots: Lines<Slot>,
    free: FreeStack,
    /// Without jumbo buffers.
    frame_count: usize,
    frame_bytes: usize,
    jumbos: Jumbos,
    pool: u32,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames")
            .field("frame_count", &self.frame_count)
            .field("frame_bytes", &self.frame_bytes)
            .field("free", &self.free_count())
            .field("umem", &matches!(self.memory, Memory::Umem(_)))
            .finish_non_exhaustive()
    }
}

impl Frames {
    /// A pool in plain memory, for kernel sockets, memory ports and tests.
    ///
    /// # Panics
    /// If a frame has no room for a payload, or its size does not fit 16 bits.
    #[must_use]
    pub fn heap(frame_count: u32, frame_bytes: u32) -> Self {
        let bytes = frame_bytes as usize;
        assert!(bytes > BUFFER_START + PAYLOAD_OFFSET && bytes <= usize::from(u16::MAX), "frame_bytes {bytes}");
        let memory = (0..frame_count).map(|_| UnsafeCell::new(vec![0; bytes - BUFFER_START].into())).collect();
        Self::with_memory(Memory::Heap(memory), frame_count, bytes)
    }

    /// A pool in a UMEM: `frame_bytes` of 2048 or 4096, fill and completion rings of `ring_entries`.
    ///
    /// # Errors
    /// A size that is not legal, or a UMEM that the kernel does not give (privileges, locked-memory limit, huge pages).
    pub fn umem(frame_count: u32, frame_bytes: u32, ring_entries: u32, huge_pages: bool) -> Result<Self, FramesError> {
        check_size("frame_count", frame_count, 64..=1 << 24, "64 to 16777216")?;
        check_size("frame_bytes", frame_bytes, 2048..=4096, "2048 or 4096")?;
        check_size("ring_entries", ring_entries, 64..=1 << 16, "64 to 65536")?;
        let create = |headroom: usize, huge_pages: bool| {
            create_umem(frame_count, frame_bytes, ring_entries, headroom, huge_pages)
        };
        let (_, mut views) = create(0, false)?;
        let (_, tagged) = create(TAGGED_HOME - BUFFER_START, false)?;
        let (umem, homes) = create(HEADROOM, huge_pages)?;
        for view in &mut views {
            // SAFETY: the descriptor lies within `umem`, which has the same frame count and size as the one that made it;
            // no frame has been given to the kernel yet. Only the descriptor's length is changed, to the frame's end.
            unsafe { umem.data_mut(view) }.cursor().set_pos(usize::MAX);
        }
        let memory = Memory::Umem(UmemMemory { umem, views, homes, tagged, ring_entries });
        Ok(Self::with_memory(memory, frame_count, frame_bytes as usize))
    }

    fn with_memory(memory: Memory, frame_count: u32, frame_bytes: usize) -> Self {
        static NEXT_POOL: AtomicU32 = AtomicU32::new(0);
        Self {
            memory,
            slots: Lines::new(frame_count as usize, Slot::FREE),
            free: FreeStack::full(frame_count),
            frame_count: frame_count as usize,
            frame_bytes,
            jumbos: Jumbos::default(),
            pool: NEXT_POOL.fetch_add(1, Relaxed),
        }
    }

    /// Takes a free frame; `None` if there is none.
    #[must_use]
    pub fn alloc(&self) -> Option<Frame> {
        let index = self.free.pop()?;
        self.slots.at(index as usize).set(Slot { owner: Owner::User, ..Slot::FREE });
        Some(Frame { index, pool: self.pool })
    }

    /// Gives a frame back.
    pub fn free(&self, frame: Frame) {
        let index = self.index(&frame);
        self.set_owner(index, Owner::Free);
        if index < self.frame_count {
            self.free.push(frame.index);
        } else {
            self.free_jumbo(frame.index);
        }
    }

    /// The packet in the frame: what was received, or what was last built. Empty for a fresh frame.
    #[must_use]
    pub fn data<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let Slot { start, len, .. } = self.slots.at(self.index(frame)).get();
        let start = usize::from(start) - BUFFER_START;
        &self.whole(frame)[start..start + usize::from(len)]
    }

    /// The UDP payload of a received datagram.
    #[must_use]
    pub fn payload<'a>(&'a self, received: &'a Received) -> &'a [u8] {
        let start = usize::from(received.payload_offset);
        &self.data(&received.frame)[start..start + usize::from(received.payload_len)]
    }

    /// The whole frame behind the kernel's headroom. A UDP payload is built at [`PAYLOAD_OFFSET`] of it.
    #[must_use]
    pub fn buffer_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.whole_mut(frame)
    }

    /// Free frames, to receive into and to build in.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// All frames, jumbo buffers among them.
    #[must_use]
    pub fn frame_count(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of one frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Bytes of UDP payload that can be built in a frame.
    #[must_use]
    pub fn payload_capacity(&self) -> usize {
        self.frame_bytes - BUFFER_START - PAYLOAD_OFFSET
    }

    /// Frames that receive ports leave for building output packets, however much they would like to have.
    #[must_use]
    pub(super) fn reserve(&self) -> usize {
        (self.frame_count / 4).min(2 * super::BATCH)
    }

    /// The UMEM and the size of its rings; `None` for a pool in plain memory.
    pub(super) fn umem_and_ring_entries(&self) -> Option<(&Umem, u32)> {
        match &self.memory {
            Memory::Heap(_) => None,
            Memory::Umem(memory) => Some((&memory.umem, memory.ring_entries)),
        }
    }

    /// A descriptor that gives the frame to a fill ring.
    pub(super) fn fill_descriptor(&self, index: u32) -> FrameDesc {
        match &self.memory {
            Memory::Umem(memory) => memory.homes[index as usize],
            Memory::Heap(_) => unreachable!("an AF_XDP port cannot be opened on a pool in plain memory"),
        }
    }

    /// A descriptor of exactly the packet in the frame; `None` if it begins where no descriptor of ours does, or lies in a
    /// jumbo buffer.
    pub(super) fn tx_descriptor(&self, frame: &mut Frame) -> Option<FrameDesc> {
        let index = self.index(frame);
        let Slot { start, len, .. } = self.slots.at(index).get();
        let Memory::Umem(memory) = &self.memory else { return None };
        let mut descriptor = match usize::from(start) {
            HOME => *memory.homes.get(index)?,
            TAGGED_HOME => *memory.tagged.get(index)?,
            _ => return None,
        };
        // SAFETY: the descriptor lies within this UMEM, and the exclusive borrow of its only `Frame` proves that neither
        // the kernel nor anybody else uses the bytes. Only the copy's length is changed.
        unsafe { memory.umem.data_mut(&mut descriptor) }.cursor().set_pos(usize::from(len));
        Some(descriptor)
    }

    /// The slot that a frame stands for.
    fn index(&self, frame: &Frame) -> usize {
        assert_eq!(frame.pool, self.pool, "a frame of another pool");
        frame.index as usize
    }

    fn set_owner(&self, index: usize, owner: Owner) {
        let slot = self.slots.at(index);
        slot.set(Slot { owner, ..slot.get() });
    }

    /// The memory of a jumbo buffer; `index` is beyond those of the pool's own frames.
    #[cold]
    fn jumbo(&self, index: usize) -> &UnsafeCell<Box<[u8]>> {
        &self.jumbos.memory[index - self.frame_count]
    }

    /// The frame from [`BUFFER_START`] on.
    fn whole<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let index = self.index(frame);
        match &self.memory {
            // SAFETY: `frame` is the only `Frame` of this index and is borrowed for as long as the result, so nobody can
            // have it exclusively (`whole_mut`) or give it away.
            Memory::Heap(memory) => unsafe { &*memory.get(index).unwrap_or_else(|| self.jumbo(index)).get() },
            Memory::Umem(memory) => match memory.views.get(index) {
                // SAFETY: the view lies within this UMEM. The only `Frame` proves that the frame is ours, not the kernel's,
                // and its shared borrow excludes `whole_mut` for as long as the result lives.
                Some(view) => unsafe { memory.umem.data(view) }.contents(),
                // SAFETY: as for plain memory.
                None => unsafe { &*self.jumbo(index).get() },
            },
        }
    }

    /// As [`Self::whole`], to write.
    fn whole_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let index = self.index(frame);
        match &self.memory {
            // SAFETY: `frame` is the only `Frame` of this index and is borrowed exclusively for as long as the result.
            Memory::Heap(memory) => unsafe { &mut *memory.get(index).unwrap_or_else(|| self.jumbo(index)).get() },
            Memory::Umem(memory) => {
                let Some(mut view) = memory.views.get(index).copied() else {
                    // SAFETY: as for plain memory.
                    return unsafe { &mut *self.jumbo(index).get() };
                };
                // SAFETY: the view lies within this UMEM. The only `Frame` proves that the frame is ours, not the
                // kernel's, and its exclusive borrow excludes every other reference to the bytes.
                let mut data = unsafe { memory.umem.data_mut(&mut view) };
                let bytes = data.contents_mut();
                let (start, len) = (bytes.as_mut_ptr(), bytes.len());
                // SAFETY: the same bytes, for as long as `self` and `frame` are borrowed: `DataMut` would only lend them
                // for its own lifetime, but the memory is the UMEM's and lives as long as `self`.
                unsafe { std::slice::from_raw_parts_mut(start, len) }
            }
        }
    }
}
