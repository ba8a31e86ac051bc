//! AF_XDP sockets over `xsk-rs`: the ports of the real data path.
//!
//! One socket per (interface, queue), all on the worker's one UMEM, so that a received frame can be transmitted by another
//! socket as it is. See [`super::umem`] for the rings and who owns a frame when. Our own XDP program is attached by
//! `steering` (libxdp's is inhibited); the socket is entered in its XSKMAP by [`XskPair::fd`].
//!
//! This file is the unsafe wall: the four rings as safe types, which take [`Frame`]s and give [`Frame`]s. The ports
//! behind it ([`XskRx`], [`XskTx`]) are safe code.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use arrayvec::ArrayVec;
use xsk_rs::config::{Interface, SocketConfig};
use xsk_rs::socket::{Fd, RxQueue, Socket, SocketCreateError, TxQueue};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::umem::{CompQueue, FillQueue};

use super::BATCH;
use super::umem::{Frame, Frames, Owner};

mod gather;
mod open;
mod rx;
mod tx;

pub use open::{XskError, XskPair, open};
pub use rx::XskRx;
pub use tx::XskTx;

/// The rings of a new socket, all on the UMEM of the pool with number `pool`.
struct Rings {
    rx: RxRing,
    fill: FillRing,
    tx: TxRing,
    completion: CompletionRing,
}

/// Why a socket has no rings for us.
enum CreateError {
    /// What libxdp or the kernel said.
    Refused(SocketCreateError),
    /// This UMEM has a socket on this queue already.
    Twice,
}

/// Creates a socket on the UMEM of `frames` and binds it.
fn create(frames: &Frames, config: SocketConfig, interface: &Interface, queue: u32) -> Result<Rings, CreateError> {
    let (umem, _) = frames.umem_and_ring_entries().expect("checked by the caller");
    let pool = frames.pool();
    // SAFETY: the config inhibits libxdp's own program, which is all that this call asks for.
    let created = unsafe { Socket::new(config, umem, interface, queue) };
    let (tx, rx, fill_and_completion) = created.map_err(CreateError::Refused)?;
    let (fill, completion) = fill_and_completion.ok_or(CreateError::Twice)?;
    Ok(Rings {
        rx: RxRing { queue: rx, descriptors: [FrameDesc::default(); BATCH] },
        fill: FillRing { queue: fill, pool },
        tx: TxRing { queue: tx, pool, waiting: ArrayVec::new() },
        completion: CompletionRing { queue: completion, pool, descriptors: [FrameDesc::default(); BATCH] },
    })
}

/// A producer of frames to receive into.
#[derive(Debug)]
struct FillRing {
    queue: FillQueue,
    pool: u32,
}

impl FillRing {
    /// Lends up to `wanted` (at most [`BATCH`]) free frames to the kernel, all or none; the answer is how many.
    fn lend(&mut self, frames: &Frames, wanted: usize) -> usize {
        assert_eq!(self.pool, frames.pool(), "the pool that the socket was opened on");
        let count = wanted.min(BATCH).min(frames.free_count());
        if (self.queue.nb_free(count as u32) as usize) < count {
            return 0;
        }
        let mut descriptors = ArrayVec::<FrameDesc, BATCH>::new();
        for _ in 0..count {
            let Some(frame) = frames.alloc() else { break };
            let index = frames.lend(frame, Owner::Rx);
            descriptors.push(frames.fill_descriptor(index));
        }
        // SAFETY: the descriptors are of the socket's own UMEM (same pool), and `lend` took the only `Frame` of each:
        // nothing can reach the bytes until the kernel gives the frame back.
        let filled = unsafe { self.queue.produce(&descriptors) };
        assert_eq!(filled, descriptors.len(), "the fill ring had room");
        filled
    }

    /// Entries that the kernel has taken or that were never filled.
    fn free_entries(&mut self, ring_entries: usize) -> usize {
        self.queue.nb_free(ring_entries as u32) as usize
    }

    fn needs_wakeup(&self) -> bool {
        self.queue.needs_wakeup()
    }

    /// Tells the driver that there are frames again.
    fn wake(&self, rx: &mut RxRing) -> std::io::Result<()> {
        self.queue.wakeup(rx.queue.fd_mut(), 0)
    }
}

/// A consumer of received packets.
#[derive(Debug)]
struct RxRing {
    queue: RxQueue,
    /// Where the ring's descriptors are copied to; kept to save clearing it in each call.
    descriptors: [FrameDesc; BATCH],
}

impl RxRing {
    /// Takes up to `room` descriptors. They are what the kernel wrote: nothing about them has been checked.
    fn take(&mut self, room: usize) -> &[FrameDesc] {
        // SAFETY: consuming only copies descriptors; they are not believed here (`Frames::take_back`, `set_packet`).
        let count = unsafe { self.queue.consume(&mut self.descriptors[..room.min(BATCH)]) };
        &self.descriptors[..count]
    }

    fn fd(&self) -> &Fd {
        self.queue.fd()
    }
}

/// A producer of packets to send. Complete packets wait here until [`TxRing::submit`], so that the ring's shared index
/// is written once per batch.
#[derive(Debug)]
struct TxRing {
    queue: TxQueue,
    pool: u32,
    waiting: ArrayVec<FrameDesc, BATCH>,
}

impl TxRing {
    /// Whether one more packet fits, both here and into the ring.
    fn has_room(&mut self) -> bool {
        let wanted = self.waiting.len() as u32 + 1;
        !self.waiting.is_full() && self.queue.nb_free(wanted) >= wanted
    }

    /// Takes a frame whose packet is complete; call only when [`Self::has_room`]. Gives the frame back if it has no
    /// descriptor that begins where its packet does.
    fn push(&mut self, frames: &Frames, mut frame: Frame) -> Result<(), Frame> {
        assert_eq!(self.pool, frames.pool(), "the pool that the socket was opened on");
        let Some(descriptor) = frames.tx_descriptor(&mut frame) else { return Err(frame) };
        frames.lend(frame, Owner::Tx);
        self.waiting.push(descriptor);
        Ok(())
    }

    /// Moves what waits into the ring; the answer is how many.
    fn submit(&mut self) -> usize {
        if self.waiting.is_empty() {
            return 0;
        }
        // SAFETY: `push` made the descriptors: each is of the socket's own UMEM (same pool) and within its frame
        // (`set_packet`), and `lend` took its only `Frame`: nothing can reach the bytes until the kernel completes it.
        let submitted = unsafe { self.queue.produce(&self.waiting) };
        assert_eq!(submitted, self.waiting.len(), "the TX ring had room");
        self.waiting.clear();
        submitted
    }

    /// Free entries of the ring, as of now.
    fn free_entries(&mut self) -> u32 {
        self.queue.nb_free_exact()
    }

    fn needs_wakeup(&self) -> bool {
        self.queue.needs_wakeup()
    }

    fn fd(&self) -> &Fd {
        self.queue.fd()
    }
}

/// A consumer of frames that were sent.
#[derive(Debug)]
struct CompletionRing {
    queue: CompQueue,
    pool: u32,
    descriptors: [FrameDesc; BATCH],
}

/// What one [`CompletionRing::free_sent`] found.
#[derive(Clone, Copy, Debug)]
struct Completed {
    /// Frames that are free again.
    freed: usize,
    /// Descriptors of frames that had not been lent to a transmit port.
    bogus: usize,
}

impl CompletionRing {
    /// Frees up to [`BATCH`] frames that were sent.
    fn free_sent(&mut self, frames: &Frames) -> Completed {
        assert_eq!(self.pool, frames.pool(), "the pool that the socket was opened on");
        // SAFETY: consuming only copies descriptors; `take_back` checks each.
        let count = unsafe { self.queue.consume(&mut self.descriptors) };
        let mut freed = 0;
        for descriptor in &self.descriptors[..count] {
            let (index, _) = frames.locate(descriptor);
            if let Some(frame) = frames.take_back(index, Owner::Tx) {
                frames.free(frame);
                freed += 1;
            }
        }
        Completed { freed, bogus: count - freed }
    }
}

/// The descriptor as the standard library knows it.
fn borrow(fd: &Fd) -> BorrowedFd<'_> {
    // SAFETY: `xsk-rs` closes the descriptor when the last queue of the socket goes; `fd` is borrowed from a queue, and
    // the result lives no longer than that.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}
