//! Ports in memory: the worker's ends of a simulated network, for simulation, replay and benches.
//!
//! Datagrams lie in one byte arena per port. Once it has grown to the largest backlog, neither side allocates, so the
//! worker can be measured (and its allocations counted) over these ports too.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::umem::{BUFFER_START, Frame, Frames, Owner};
use super::{Batch, LineIndex, PAYLOAD_OFFSET, Received, copy_in};
use crate::metrics::{DropCounts, DropReason, PortCounts};

/// A receive port that is fed by [`MemoryRx::inject`].
#[derive(Debug, Default)]
pub struct MemoryRx {
    queue: VecDeque<Injected>,
    bytes: Vec<u8>,
    counts: PortCounts,
    drops: DropCounts,
}

#[derive(Clone, Copy, Debug)]
struct Injected {
    line: LineIndex,
    received_ns: u64,
    start: usize,
    len: usize,
}

impl MemoryRx {
    /// A port with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A port with room for a backlog, so that injecting so much allocates nothing.
    #[must_use]
    pub fn with_capacity(datagrams: usize, bytes: usize) -> Self {
        Self { queue: VecDeque::with_capacity(datagrams), bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Puts a datagram behind those that wait. `received_ns` is what the worker will see as its time of arrival.
    pub fn inject(&mut self, line: LineIndex, payload: &[u8], received_ns: u64) {
        if self.queue.is_empty() {
            self.bytes.clear();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.queue.push_back(Injected { line, received_ns, start, len: payload.len() });
    }

    /// Datagrams that wait.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// See [`super::RxPort::receive`]. Datagrams wait when there is no free frame; one longer than a frame is dropped.
    pub fn receive(&mut self, frames: &Frames, batch: &mut Batch) {
        let before = batch.len();
        while !batch.is_full() && frames.free_count() > frames.reserve() {
            let Some(Injected { line, received_ns, start, len }) = self.queue.pop_front() else { break };
            copy_in(frames, batch, &mut self.drops, &self.bytes[start..start + len], line, received_ns);
        }
        self.counts.add_receive(batch.len() - before);
    }

    pub(super) fn refill(&mut self, _frames: &Frames) {}

    pub(super) fn update_kernel_counts(&mut self) {}

    /// See [`super::RxPort::counts`].
    #[must_use]
    pub fn counts(&self) -> &PortCounts {
        &self.counts
    }

    /// See [`super::RxPort::drops`].
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        &self.drops
    }

    /// Always 0: what waits is not in frames yet.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        0
    }
}

/// A transmit port whose packets are taken by [`MemoryTx::take`].
#[derive(Debug, Default)]
pub struct MemoryTx {
    /// By number, whether there is such a destination.
    destinations: Vec<Option<()>>,
    queued: Vec<Queued>,
    sent: Vec<Sent>,
    bytes: Vec<u8>,
    counts: PortCounts,
    drops: DropCounts,
}

/// A packet between `send` and `flush`.
#[derive(Clone, Copy, Debug)]
struct Queued {
    index: u32,
    destination: usize,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    destination: usize,
    start: usize,
    len: usize,
}

impl MemoryTx {
    /// A port that keeps everything that is sent.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A port with room for so much, so that keeping it allocates nothing.
    #[must_use]
    pub fn with_capacity(packets: usize, bytes: usize) -> Self {
        Self {
            queued: Vec::with_capacity(packets),
            sent: Vec::with_capacity(packets),
            bytes: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// The packets flushed since the last call, as (destination, UDP payload), in the order they were sent.
    pub fn take(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut taken = Vec::with_capacity(self.sent.len());
        self.drain(|destination, payload| taken.push((destination, payload.to_vec())));
        taken
    }

    /// As [`Self::take`], without copying or allocating.
    pub fn drain(&mut self, mut each: impl FnMut(usize, &[u8])) {
        for Sent { destination, start, len } in self.sent.drain(..) {
            each(destination, &self.bytes[start..start + len]);
        }
        self.bytes.clear();
    }

    pub(super) fn add_destination(&mut self) -> usize {
        self.destinations.push(Some(()));
        self.destinations.len() - 1
    }

    /// The destinations' places, by number.
    pub(super) fn places(&mut self) -> &mut Vec<Option<()>> {
        &mut self.destinations
    }

    fn refuse(&mut self, frames: &Frames, frame: Frame, reason: DropReason) -> DropReason {
        self.drops.add(reason);
        frames.free(frame);
        reason
    }

    /// See [`super::TxPort::send`].
    ///
    /// # Errors
    /// [`DropReason::BadBounds`] if the payload does not fit its frame, [`DropReason::Removed`] if there is no such
    /// destination.
    pub fn send(
        &mut self,
        frames: &Frames,
        frame: Frame,
        payload_bytes: usize,
        destination: usize,
    ) -> Result<(), DropReason> {
        if !matches!(self.destinations.get(destination), Some(Some(()))) {
            return Err(self.refuse(frames, frame, DropReason::Removed));
        }
        if !frames.set_packet(&frame, BUFFER_START + PAYLOAD_OFFSET, payload_bytes) {
            return Err(self.refuse(frames, frame, DropReason::BadBounds));
        }
        self.queued.push(Queued { index: frames.lend(frame, Owner::Tx), destination });
        Ok(())
    }

    /// See [`super::TxPort::forward`].
    ///
    /// # Errors
    /// [`DropReason::Removed`] if there is no such destination.
    pub fn forward(&mut self, frames: &Frames, received: Received, destination: usize) -> Result<(), DropReason> {
        if !matches!(self.destinations.get(destination), Some(Some(()))) {
            return Err(self.refuse(frames, received.frame, DropReason::Removed));
        }
        let start = frames.packet_start(&received.frame) + usize::from(received.payload_offset);
        assert!(frames.set_packet(&received.frame, start, usize::from(received.payload_len)));
        self.queued.push(Queued { index: frames.lend(received.frame, Owner::Tx), destination });
        Ok(())
    }

    /// See [`super::TxPort::flush`].
    pub fn flush(&mut self, frames: &Frames) {
        if self.queued.is_empty() {
            return;
        }
        self.counts.batches += 1;
        self.counts.frames += self.queued.len() as u64;
        for Queued { index, destination } in self.queued.drain(..) {
            let Some(frame) = frames.take_back(index as usize, Owner::Tx) else {
                unreachable!("frame {index} was lent to this port")
            };
            let payload = frames.data(&frame);
            self.sent.push(Sent { destination, start: self.bytes.len(), len: payload.len() });
            self.bytes.extend_from_slice(payload);
            frames.free(frame);
        }
    }

    pub(super) fn reclaim(&mut self, _frames: &Frames) {}

    pub(super) fn update_kernel_counts(&mut self) {}

    /// See [`super::TxPort::counts`].
    #[must_use]
    pub fn counts(&self) -> &PortCounts {
        &self.counts
    }

    /// See [`super::TxPort::drops`].
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        &self.drops
    }

    /// Packets queued and not yet flushed.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.queued.len()
    }
}

#[cfg(test)]
mod tests;
