//! Ports in memory: the worker's ends of a simulated network, for simulation, replay and benches.
//!
//! Datagrams lie in one byte arena per port. Once it has grown to the largest backlog, neither side allocates, so the
//! worker can be measured (and its allocations counted) over these ports too.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::umem::{BUFFER_START, Frame, Frames, Owner};
use super::{Batch, LineIndex, PAYLOAD_OFFSET, Received};
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
            let Some(mut frame) = frames.alloc() else { break };
            if len > frames.payload_capacity() {
                self.drops.add(DropReason::BadBounds);
                frames.free(frame);
                continue;
            }
            frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + len]
                .copy_from_slice(&self.bytes[start..start + len]);
            assert!(frames.set_packet(&frame, BUFFER_START + PAYLOAD_OFFSET, len));
            batch.push(Received { frame, payload_offset: 0, payload_len: len as u16, line, received_ns });
        }
        match batch.len() - before {
            0 => self.counts.empty_polls += 1,
            received => {
                self.counts.batches += 1;
                self.counts.frames += received as u64;
            }
        }
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
    destinations: usize,
    queued: Vec<Queued>,
    sent: Vec<Sent>,
    bytes: Vec<u8>,
    discard: bool,
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

    /// A port that counts what is sent and forgets it, for benches.
    #[must_use]
    pub fn discarding() -> Self {
        Self { discard: true, ..Self::default() }
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
        self.destinations += 1;
        self.destinations - 1
    }

    /// See [`super::TxPort::send`].
    ///
    /// # Errors
    /// [`DropReason::BadBounds`] if the payload does not fit its frame.
    pub fn send(
        &mut self,
        frames: &Frames,
        frame: Frame,
        payload_bytes: usize,
        destination: usize,
    ) -> Result<(), DropReason> {
        assert!(destination < self.destinations, "destination {destination} is not registered");
        if !frames.set_packet(&frame, BUFFER_START + PAYLOAD_OFFSET, payload_bytes) {
            self.drops.add(DropReason::BadBounds);
            frames.free(frame);
            return Err(DropReason::BadBounds);
        }
        self.queued.push(Queued { index: frames.lend(frame, Owner::Tx), destination });
        Ok(())
    }

    /// See [`super::TxPort::forward`].
    ///
    /// # Errors
    /// Never; the signature is that of the other ports.
    pub fn forward(&mut self, frames: &Frames, received: Received, destination: usize) -> Result<(), DropReason> {
        assert!(destination < self.destinations, "destination {destination} is not registered");
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
            if !self.discard {
                let payload = frames.data(&frame);
                self.sent.push(Sent { destination, start: self.bytes.len(), len: payload.len() });
                self.bytes.extend_from_slice(payload);
            }
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
mod tests {
    use super::*;
    use crate::net::{BATCH, RxPort, TxPort};
    use proptest::prelude::*;

    fn build(frames: &Frames, payload: &[u8]) -> Frame {
        let mut frame = frames.alloc().unwrap();
        frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload.len()].copy_from_slice(payload);
        frame
    }

    #[test]
    fn injected_datagrams_come_out_in_order_and_in_batches() {
        let mut frames = Frames::heap(1024, 2048);
        let mut port = MemoryRx::new();
        for i in 0..100_u16 {
            port.inject(i % 3, &i.to_be_bytes(), u64::from(i));
        }
        let mut seen = 0_u16;
        let mut batch = Batch::new();
        while port.backlog() > 0 {
            port.receive(&mut frames, &mut batch);
            assert!(batch.len() == BATCH || port.backlog() == 0);
            frames.assert_conserved(port.frames_held(), 0, batch.len());
            for received in batch.drain(..) {
                assert_eq!(frames.payload(&received), seen.to_be_bytes());
                assert_eq!((received.line, received.received_ns), (seen % 3, u64::from(seen)));
                frames.free(received.frame);
                seen += 1;
            }
        }
        assert_eq!((seen, port.counts().frames, port.counts().batches), (100, 100, 2));
        frames.assert_conserved(0, 0, 0);
    }

    #[test]
    fn a_datagram_longer_than_a_frame_is_dropped_and_counted() {
        let mut frames = Frames::heap(64, 2048);
        let mut port = MemoryRx::new();
        port.inject(0, &vec![1; frames.payload_capacity() + 1], 0);
        port.inject(0, &vec![2; frames.payload_capacity()], 0);
        let mut batch = Batch::new();
        port.receive(&mut frames, &mut batch);
        assert_eq!((batch.len(), port.drops().get(DropReason::BadBounds)), (1, 1));
        let received = batch.pop().unwrap();
        assert!(frames.payload(&received).iter().all(|byte| *byte == 2));
        frames.free(received.frame);
        frames.assert_conserved(0, 0, 0);
    }

    #[test]
    fn a_payload_longer_than_a_frame_is_refused() {
        let mut frames = Frames::heap(64, 2048);
        let mut port = MemoryTx::new();
        port.add_destination();
        let frame = frames.alloc().unwrap();
        let too_long = frames.payload_capacity() + 1;
        assert_eq!(port.send(&mut frames, frame, too_long, 0), Err(DropReason::BadBounds));
        assert_eq!(port.drops().get(DropReason::BadBounds), 1);
        frames.assert_conserved(0, 0, 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Inject(LineIndex, Vec<u8>),
        Receive,
        Forward,
        Free,
        Send(Vec<u8>),
        Flush,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let payload = || prop::collection::vec(any::<u8>(), 0..40);
        let step = prop_oneof![
            3 => (0_u16..4, payload()).prop_map(|(line, payload)| Step::Inject(line, payload)),
            2 => Just(Step::Receive),
            2 => Just(Step::Forward),
            1 => Just(Step::Free),
            1 => payload().prop_map(Step::Send),
            1 => Just(Step::Flush),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever is done in whatever order: no frame is lost, and what comes out is what a plain list says.
        #[test]
        fn frames_are_conserved_and_payloads_kept(steps in steps()) {
            let mut frames = Frames::heap(16, 2048);
            let mut rx = RxPort::Memory(MemoryRx::new());
            let mut tx = TxPort::Memory(MemoryTx::new());
            let header = Header::multicast(
                [2; 6], 0, "10.0.0.1:1".parse().unwrap(), "239.0.0.1:2".parse().unwrap(), 1).unwrap();
            let destination = tx.add_destination(header).unwrap();
            let mut held = std::collections::VecDeque::new();
            let mut expected: Vec<Vec<u8>> = vec![];
            let mut batch = Batch::new();
            for step in steps {
                match step {
                    Step::Inject(line, payload) => match &mut rx {
                        RxPort::Memory(port) => port.inject(line, &payload, 0),
                        _ => unreachable!(),
                    },
                    Step::Receive => {
                        rx.receive(&mut frames, &mut batch);
                        held.extend(batch.drain(..));
                    }
                    Step::Forward => if let Some(received) = held.pop_front() {
                        expected.push(frames.payload(&received).to_vec());
                        tx.forward(&mut frames, received, destination).unwrap();
                    },
                    Step::Free => if let Some(Received { frame, .. }) = held.pop_back() {
                        frames.free(frame);
                    },
                    Step::Send(payload) => if frames.free_count() > 0 {
                        let frame = build(&mut frames, &payload);
                        tx.send(&mut frames, frame, payload.len(), destination).unwrap();
                        expected.push(payload);
                    },
                    Step::Flush => { tx.flush(&mut frames); tx.reclaim(&mut frames); }
                }
                frames.assert_conserved(rx.frames_held(), tx.frames_held(), held.len());
            }
            tx.flush(&mut frames);
            let TxPort::Memory(port) = &mut tx else { unreachable!() };
            let sent: Vec<_> = port.take().into_iter().map(|(_, payload)| payload).collect();
            prop_assert_eq!(sent, expected);
        }
    }

    use crate::net::Header;
}
