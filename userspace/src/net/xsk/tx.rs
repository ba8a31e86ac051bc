//! The sending side of an AF_XDP socket: TX ring and completion ring.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::{CompletionRing, FillRing, TxRing, borrow};
use crate::metrics::{DropCounts, DropReason, PortCounts};
use crate::net::headers::{Header, Template};
use crate::net::umem::{BUFFER_START, Frame, Frames};
use crate::net::{BATCH, PAYLOAD_OFFSET, Received};

/// Frames that the kernel's copy-mode transmit path sends per system call (its `TX_BATCH_SIZE`).
const FRAMES_PER_KICK: u32 = 32;

/// Kicks in a row that may move nothing before a flush leaves the rest to the next one.
const IDLE_KICKS: u32 = 8;

/// Flushes that at most pass without a kick after the device dropped a frame: some 30 ms of a quiet worker.
const MOST_SKIPPED: u32 = 256;

/// The sending side of a socket.
#[derive(Debug)]
pub struct XskTx {
    tx: TxRing,
    completion: CompletionRing,
    ring_entries: u32,
    /// By number; `None` where there is no such destination (any more).
    templates: Vec<Option<Template>>,
    /// Frames that wait for submission, in the TX ring, in the kernel's hands or in the completion ring.
    lent: usize,
    prefilled: Option<Prefilled>,
    /// Whether the socket has SO_BUSY_POLL: then nobody but our calls makes the driver send.
    is_busy_polled: bool,
    /// Flushes that still pass without a kick, because the device dropped what it was given.
    flushes_to_skip: u32,
    /// As many as were skipped last time; 0 once it has taken something.
    skipped: u32,
    counts: PortCounts,
    drops: DropCounts,
}

/// The fill ring of a TX-only zero-copy socket. In zero-copy mode a socket owns its queue's receive side too, and a queue
/// without buffers goes deaf for everybody (ice, i40e), so the ring is filled once and left alone.
#[derive(Debug)]
pub(super) struct Prefilled {
    /// Kept alive: dropping it would not unmap it, but nobody else may produce into it.
    pub(super) _fill: FillRing,
    pub(super) frame_count: usize,
}

impl XskTx {
    pub(super) fn new(tx: TxRing, completion: CompletionRing, ring_entries: u32, prefilled: Option<Prefilled>) -> Self {
        Self {
            tx,
            completion,
            ring_entries,
            templates: Vec::new(),
            lent: 0,
            prefilled,
            is_busy_polled: false,
            flushes_to_skip: 0,
            skipped: 0,
            counts: PortCounts::default(),
            drops: DropCounts::default(),
        }
    }

    /// The socket has SO_BUSY_POLL now.
    pub(super) fn set_busy_poll(&mut self) {
        self.is_busy_polled = true;
    }

    /// See [`crate::net::TxPort::add_destination`].
    pub fn add_destination(&mut self, header: &Header) -> usize {
        self.templates.push(Some(Template::new(header)));
        self.templates.len() - 1
    }

    /// The destinations' places, by number.
    pub(in crate::net) fn places(&mut self) -> &mut Vec<Option<Template>> {
        &mut self.templates
    }

    /// See [`crate::net::TxPort::send`].
    ///
    /// # Errors
    /// [`DropReason::BadBounds`] if the payload does not fit its frame, [`DropReason::TxFull`] if the TX ring stays full,
    /// [`DropReason::Removed`] if there is no such destination.
    pub fn send(
        &mut self,
        frames: &Frames,
        frame: Frame,
        payload_bytes: usize,
        destination: usize,
    ) -> Result<(), DropReason> {
        self.enqueue(frames, frame, BUFFER_START + PAYLOAD_OFFSET, payload_bytes, destination)
    }

    /// See [`crate::net::TxPort::forward`].
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn forward(&mut self, frames: &Frames, received: Received, destination: usize) -> Result<(), DropReason> {
        let Received { frame, payload_offset, payload_len, .. } = received;
        let payload_start = frames.packet_start(&frame) + usize::from(payload_offset);
        self.enqueue(frames, frame, payload_start, usize::from(payload_len), destination)
    }

    /// Completes the packet whose payload lies at `payload_start` of the frame, and queues it.
    fn enqueue(
        &mut self,
        frames: &Frames,
        mut frame: Frame,
        payload_start: usize,
        payload_bytes: usize,
        destination: usize,
    ) -> Result<(), DropReason> {
        if !self.tx.has_room() {
            // Mostly it is the batch that is full, not the ring: then no system call is needed here.
            self.counts.frames += self.tx.submit() as u64;
        }
        if !self.tx.has_room() {
            self.flush(frames);
            if !self.tx.has_room() {
                return Err(self.refuse(frames, frame, DropReason::TxFull));
            }
        }
        let Some(Some(template)) = self.templates.get(destination) else {
            return Err(self.refuse(frames, frame, DropReason::Removed));
        };
        if !write_packet(frames, &mut frame, template, payload_start, payload_bytes) {
            return Err(self.refuse(frames, frame, DropReason::BadBounds));
        }
        match self.tx.push(frames, frame) {
            Ok(()) => {
                self.lent += 1;
                Ok(())
            }
            Err(_) => unreachable!("write_packet puts packets where descriptors begin"),
        }
    }

    fn refuse(&mut self, frames: &Frames, frame: Frame, reason: DropReason) -> DropReason {
        self.drops.add(reason);
        frames.free(frame);
        reason
    }

    /// See [`crate::net::TxPort::flush`]. In copy mode one system call sends 32 frames, so it kicks as
    /// often as the backlog needs, and stops when several in a row have moved nothing.
    pub fn flush(&mut self, frames: &Frames) {
        self.counts.frames += self.tx.submit() as u64;
        // With nothing to send, too: a link that is well again must not find its first packet waiting.
        let skips = self.flushes_to_skip > 0;
        self.flushes_to_skip = self.flushes_to_skip.saturating_sub(1);
        let mut backlog = self.backlog();
        if backlog == 0 || skips {
            return;
        }
        self.counts.batches += 1;
        let mut idle = 0;
        for _ in 0..backlog.div_ceil(FRAMES_PER_KICK) + IDLE_KICKS {
            // The flag is cleared while a driver is sending on its own (zero-copy).
            if !(self.tx.needs_wakeup() || self.is_busy_polled) || !self.kick() {
                return;
            }
            let left = self.backlog();
            if left == 0 {
                return;
            }
            // It may be the completion ring that is full.
            self.reclaim(frames);
            idle = if left == backlog { idle + 1 } else { 0 };
            if idle == IDLE_KICKS {
                break;
            }
            backlog = left;
        }
        self.counts.tx_retries += 1;
    }

    /// Makes the next flush kick in any case: it is the last one.
    pub fn insist(&mut self) {
        self.flushes_to_skip = 0;
    }

    /// Packets in the TX ring that the kernel has not taken.
    fn backlog(&mut self) -> u32 {
        self.ring_entries - self.tx.free_entries()
    }

    /// Makes the kernel send; false if it makes no sense to go on now.
    fn kick(&mut self) -> bool {
        self.counts.kicks += 1;
        match send(borrow(self.tx.fd()), &[], SendFlags::DONTWAIT) {
            // AGAIN: more is left than one call sends. NOBUFS: no socket buffer for a moment.
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {
                self.skipped = 0;
                true
            }
            // The device took a frame and dropped it: it has no carrier, is going down, or its queue or the peer's is full.
            // Each further kick would cost a frame, so the rest is left in the ring for ever more flushes.
            Err(Errno::BUSY) => {
                self.drops.add(DropReason::TxError);
                self.skipped = (2 * self.skipped).clamp(1, MOST_SKIPPED);
                self.flushes_to_skip = self.skipped;
                false
            }
            // Such as NETDOWN: the frames stay in the ring.
            Err(_) => {
                self.counts.kick_errors += 1;
                false
            }
        }
    }

    /// See [`crate::net::TxPort::reclaim`].
    pub fn reclaim(&mut self, frames: &Frames) {
        loop {
            let completed = self.completion.free_sent(frames);
            self.lent -= completed.freed;
            for _ in 0..completed.bogus {
                self.drops.add(DropReason::BadBounds);
            }
            if completed.freed + completed.bogus < BATCH {
                return;
            }
        }
    }

    /// See [`crate::net::TxPort::counts`].
    #[must_use]
    pub fn counts(&self) -> &PortCounts {
        &self.counts
    }

    /// See [`crate::net::TxPort::drops`].
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        &self.drops
    }

    /// See [`crate::net::TxPort::frames_held`].
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.lent + self.prefilled_count()
    }

    /// Frames that lie for good in the fill ring of a TX-only zero-copy socket, 0 otherwise. They count as lent to a
    /// receive port.
    #[must_use]
    pub fn prefilled_count(&self) -> usize {
        self.prefilled.as_ref().map_or(0, |prefilled| prefilled.frame_count)
    }

    /// See [`crate::net::TxPort::update_kernel_counts`].
    pub fn update_kernel_counts(&mut self) {
        if let Ok(statistics) = self.tx.fd().xdp_statistics() {
            self.counts.kernel_tx_invalid = statistics.tx_invalid_descs();
        }
    }
}

impl AsFd for XskTx {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(self.tx.fd())
    }
}

/// Writes the headers in front of the payload; false if the packet does not fit its frame.
///
/// The payload is moved only if the headers in front of it would begin where no descriptor does: it came with IP options,
/// or with a VLAN tag and goes out without.
fn write_packet(
    frames: &Frames,
    frame: &mut Frame,
    template: &Template,
    payload_start: usize,
    payload_bytes: usize,
) -> bool {
    let mut start = payload_start - template.len();
    if !Frames::has_descriptor_at(start) {
        if payload_bytes > frames.payload_capacity() {
            return false;
        }
        let from = payload_start - BUFFER_START;
        frames.buffer_mut(frame).copy_within(from..from + payload_bytes, PAYLOAD_OFFSET);
        start = BUFFER_START + PAYLOAD_OFFSET - template.len();
    }
    if !frames.set_packet(frame, start, template.len() + payload_bytes) {
        return false;
    }
    let header_start = start - BUFFER_START;
    template.write(&mut frames.buffer_mut(frame)[header_start..header_start + template.len()], payload_bytes);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::umem::HOME;
    use proptest::prelude::*;
    use xdp_ebpf::headers::parse;

    proptest! {
        /// Wherever the payload of a received packet lies, what goes out is a whole packet with that payload, where a
        /// descriptor begins; and it was moved only if it had to be.
        #[test]
        fn packets_are_completed_around_their_payload(
            offset in prop_oneof![Just(42_usize), Just(46), Just(50), 42_usize..140], bytes in 0_usize..1500, vlan in 0_u16..3,
        ) {
            let frames = Frames::heap(1, 2048);
            let mut frame = frames.alloc().unwrap();
            let payload: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
            let from = HOME - BUFFER_START + offset;
            frames.buffer_mut(&mut frame)[from..from + bytes].copy_from_slice(&payload);
            let header = Header::multicast(
                [2; 6], vlan, "10.0.0.1:1".parse().unwrap(), "239.0.0.1:2".parse().unwrap(), 1).unwrap();
            let template = Template::new(&header);
            prop_assert!(write_packet(&frames, &mut frame, &template, HOME + offset, bytes));
            let start = frames.packet_start(&frame);
            prop_assert!(Frames::has_descriptor_at(start));
            let stays = match vlan { 0 => offset == 42, _ => offset == 42 || offset == 46 };
            prop_assert_eq!(start + template.len() == HOME + offset, stays, "{} bytes of headers", template.len());
            let parsed = parse(frames.data(&frame)).unwrap();
            prop_assert_eq!((parsed.key.vlan, usize::from(parsed.payload_len)), (vlan, bytes));
            prop_assert_eq!(&frames.data(&frame)[usize::from(parsed.payload_offset)..], &payload[..]);
            frames.free(frame);
        }
    }
}
