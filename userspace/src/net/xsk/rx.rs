//! The receiving side of an AF_XDP socket: fill ring and RX ring.
//!
//! Frames carry [`xdp_ebpf::FrameMeta`] in front when the program could stamp them. Where the cookie is absent, the same
//! parser that the program uses runs here, on the port's own copy of the rules.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use xdp_ebpf::FrameMeta;

use super::gather::{Gather, Piece, Whole};
use super::{FillRing, RxRing, borrow};
use crate::clock;
use crate::metrics::{DropCounts, DropReason, PortCounts};
use crate::net::classify::{Classified, Rules};
use crate::net::umem::{Frame, Frames, Owner};
use crate::net::{BATCH, Batch, Received};

/// The receiving side of a socket.
#[derive(Debug)]
pub struct XskRx {
    rx: RxRing,
    fill: FillRing,
    /// Most frames that may be lent: those that a full RX ring can hold.
    ring_entries: usize,
    cookie: u16,
    is_zero_copy: bool,
    rules: Rules,
    /// Whether the socket has SO_BUSY_POLL: then an empty ring is polled by a system call.
    is_busy_polled: bool,
    /// Frames in the fill ring, in the kernel's hands or in the RX ring.
    lent: usize,
    /// The packet that comes over several frames just now.
    gather: Gather,
    counts: PortCounts,
    drops: DropCounts,
}

impl XskRx {
    pub(super) fn new(rx: RxRing, fill: FillRing, ring_entries: u32, cookie: u16, is_zero_copy: bool) -> Self {
        Self {
            rx,
            fill,
            ring_entries: ring_entries as usize,
            cookie,
            is_zero_copy,
            rules: Rules::default(),
            is_busy_polled: false,
            lent: 0,
            gather: Gather::default(),
            counts: PortCounts::default(),
            drops: DropCounts::default(),
        }
    }

    /// The rules for frames without metadata; the same that are in the BPF map.
    pub fn set_rules(&mut self, rules: &[(xdp_ebpf::GroupKey, xdp_ebpf::GroupRule)]) {
        self.rules = Rules::new(rules);
    }

    /// The same with a table that was made elsewhere: the one that was in force is in `rules` afterwards.
    pub fn swap_rules(&mut self, rules: &mut Rules) {
        std::mem::swap(&mut self.rules, rules);
    }

    /// The socket has SO_BUSY_POLL now.
    pub(super) fn set_busy_poll(&mut self) {
        self.is_busy_polled = true;
    }

    /// See [`crate::net::RxPort::receive`].
    pub fn receive(&mut self, frames: &Frames, batch: &mut Batch) {
        let Self { rx, cookie, rules, is_busy_polled, lent, gather, counts, drops, .. } = self;
        let mut descriptors = rx.take(batch.remaining_capacity());
        if descriptors.is_empty() && *is_busy_polled {
            poll_driver(rx, counts);
            descriptors = rx.take(batch.remaining_capacity());
        }
        if descriptors.is_empty() {
            counts.empty_polls += 1;
            return;
        }
        counts.batches += 1;
        counts.frames += descriptors.len() as u64;
        // For frames without a stamp (a driver without metadata): when we saw them, at one clock read per call.
        let mut seen_ns = None;
        for descriptor in descriptors {
            let (index, start) = frames.locate(descriptor);
            let piece = Piece { start, len: descriptor.lengths().data(), has_more: descriptor.has_more_frames() };
            // A frame that was not lent to a receive port is somebody else's: it must not be freed.
            let Some(mut frame) = frames.take_back(index, Owner::Rx) else {
                gather.lose(frames, piece.has_more, DropReason::BadBounds, drops);
                continue;
            };
            *lent -= 1;
            let (mut len, mut meta) = (piece.len, None);
            let found = if piece.has_more || gather.is_under_way() {
                let Some(whole) = gather.add(frames, frame, piece, *cookie, counts, drops) else { continue };
                Whole { frame, meta } = whole;
                len = frames.data(&frame).len();
                Ok(())
            } else if frames.set_packet(&frame, start, piece.len) {
                meta = frames.take_meta(&mut frame, *cookie);
                Ok(())
            } else {
                Err(DropReason::BadBounds)
            };
            match found.and_then(|()| find_datagram(frames, &frame, len, meta, rules)) {
                Ok((Classified { line, payload_offset, payload_len }, stamp_ns)) => {
                    let received_ns = stamp_ns.unwrap_or_else(|| *seen_ns.get_or_insert_with(clock::monotonic_ns));
                    batch.push(Received { frame, payload_offset, payload_len, line, received_ns });
                }
                Err(reason) => {
                    drops.add(reason);
                    frames.free(frame);
                }
            }
        }
    }

    /// See [`crate::net::RxPort::refill`]. Never lends more than the RX ring can hold, and leaves a reserve of frames for
    /// output packets.
    pub fn refill(&mut self, frames: &Frames) {
        loop {
            let spare = frames.free_count().saturating_sub(frames.reserve());
            let wanted = (self.ring_entries - self.lent).min(spare).min(BATCH);
            // Whole batches, unless the kernel has little left: the ring's shared index is written once per batch.
            if wanted == 0 || (wanted < BATCH && self.lent > self.ring_entries / 2) {
                break;
            }
            match self.fill.lend(frames, wanted) {
                0 => break,
                count => self.lent += count,
            }
        }
        if self.fill.needs_wakeup() {
            self.counts.kicks += 1;
            if self.fill.wake(&mut self.rx).is_err() {
                self.counts.kick_errors += 1;
            }
        }
    }

    /// Whether the kernel has taken any of the frames that were lent to it.
    pub fn is_fed(&mut self) -> bool {
        self.fill.free_entries(self.ring_entries) + self.lent > self.ring_entries
    }

    /// See [`crate::net::RxPort::counts`].
    #[must_use]
    pub fn counts(&self) -> &PortCounts {
        &self.counts
    }

    /// See [`crate::net::RxPort::drops`].
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        &self.drops
    }

    /// See [`crate::net::RxPort::frames_held`].
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.lent + self.gather.frames_held()
    }

    /// See [`crate::net::RxPort::update_kernel_counts`]. `rx_fill_ring_empty_descs` counts in zero-copy mode
    /// only, where the driver finds the fill ring empty: in copy mode it is the same event as `rx_dropped`.
    pub fn update_kernel_counts(&mut self) {
        if let Ok(statistics) = self.rx.fd().xdp_statistics() {
            let starved = if self.is_zero_copy { statistics.rx_fill_ring_empty_descs() } else { 0 };
            self.counts.kernel_rx_dropped = statistics.rx_dropped() + starved;
            self.counts.kernel_rx_ring_full = statistics.rx_ring_full();
            self.counts.kernel_rx_invalid = statistics.rx_invalid_descs();
        }
    }
}

impl AsFd for XskRx {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(self.rx.fd())
    }
}

/// Runs the driver's receive routine for the socket's queue, once, in this thread: what receiving from an AF_XDP socket
/// with SO_BUSY_POLL does, whether it needs a wake-up or not. A socket that does not know its NAPI polls nothing:
/// since Linux 6.14 it is told at bind, in zero-copy mode and by drivers that register it (netif_queue_set_napi); before,
/// by its first packet, in copy mode too.
fn poll_driver(rx: &RxRing, counts: &mut PortCounts) {
    counts.kicks += 1;
    match recv(borrow(rx.fd()), &mut [0_u8; 0][..], RecvFlags::DONTWAIT) {
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
        Err(_) => counts.kick_errors += 1,
    }
}

/// Finds the datagram in a frame, by the metadata or by parsing, and when it arrived if it is stamped.
#[inline]
fn find_datagram(
    frames: &Frames,
    frame: &Frame,
    len: usize,
    meta: Option<FrameMeta>,
    rules: &Rules,
) -> Result<(Classified, Option<u64>), DropReason> {
    let Some(meta) = meta else {
        return Ok((rules.classify(frames.data(frame))?, None));
    };
    if usize::from(meta.payload_offset) + usize::from(meta.payload_len) > len {
        return Err(DropReason::BadBounds);
    }
    let found = Classified { line: meta.line, payload_offset: meta.payload_offset, payload_len: meta.payload_len };
    Ok((found, Some(meta.received_ns)))
}
