//! The open-loop sender: every message has its time before the first one is sent, and nothing that happens moves it.
#![forbid(unsafe_code)]

use std::net::UdpSocket;

use anyhow::{Context, Result};

use super::Cell;
use crate::bench::stream::Stream;

/// Live orders that the stream hovers around: few, because the order store is not what is measured here.
const LIVE_ORDERS: usize = 10_000;

/// Times of one message, CLOCK_MONOTONIC nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentAt {
    /// When the schedule wanted it to be sent.
    pub(super) intended_ns: u64,
    /// Just before the send call.
    pub(super) stamp_ns: u64,
}

/// Sends packets of one message each, sequence numbers from 1.
pub(super) struct Sender {
    socket: UdpSocket,
    cell: Cell,
    start_ns: u64,
    /// All payloads, one after the other, made before the first is due.
    bytes: Vec<u8>,
    /// Where each payload ends.
    ends: Vec<usize>,
    stamps_ns: Vec<u64>,
}

impl Sender {
    /// Prepares `count` messages.
    pub(super) fn new(socket: UdpSocket, cell: Cell, count: usize) -> Self {
        let mut stream = Stream::new(LIVE_ORDERS, 1);
        let (mut bytes, mut ends) = (Vec::with_capacity(count * 64), Vec::with_capacity(count));
        for _ in 0..count {
            stream.packet_of(&mut bytes, 1);
            ends.push(bytes.len());
        }
        Self { socket, cell, start_ns: 0, bytes, ends, stamps_ns: Vec::with_capacity(count) }
    }

    /// Sets the time of the first message.
    pub(super) fn start_at(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
    }

    /// Whether the next message's time has come.
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        !self.is_done() && now_ns >= self.intended_ns(self.stamps_ns.len())
    }

    /// Sends the next message; `clock` is read just before the call.
    pub(super) fn send(&mut self, clock: impl Fn() -> u64) -> Result<()> {
        let index = self.stamps_ns.len();
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let payload = &self.bytes[start..self.ends[index]];
        self.stamps_ns.push(clock());
        self.socket.send(payload).context("send of the bench")?;
        Ok(())
    }

    /// Messages in all.
    pub(super) fn count(&self) -> u64 {
        self.ends.len() as u64
    }

    pub(super) fn is_done(&self) -> bool {
        self.stamps_ns.len() == self.ends.len()
    }

    /// What was sent when; the first entry is message 1.
    pub(super) fn sent(&self) -> Vec<SentAt> {
        let sent = self.stamps_ns.iter().enumerate();
        sent.map(|(index, stamp_ns)| SentAt { intended_ns: self.intended_ns(index), stamp_ns: *stamp_ns }).collect()
    }

    fn intended_ns(&self, index: usize) -> u64 {
        self.start_ns + self.cell.offset_ns(index)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell as Clock;

    use super::*;

    #[test]
    fn a_delay_moves_stamps_but_never_the_schedule() {
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(sink.local_addr().unwrap()).unwrap();
        let mut sender = Sender::new(socket, Cell { rate: 1_000_000, burst: 2 }, 6);
        sender.start_at(10_000);
        let now_ns = Clock::new(9_999);
        assert!(!sender.is_due(now_ns.get()));
        // Held up for 3 µs: everything is overdue at once, and is sent at once.
        now_ns.set(13_000);
        while sender.is_due(now_ns.get()) {
            sender.send(|| now_ns.get()).unwrap();
        }
        // The last burst of two is due at 14 µs.
        assert!(!sender.is_done());
        now_ns.set(14_000);
        while sender.is_due(now_ns.get()) {
            sender.send(|| now_ns.get()).unwrap();
        }
        assert!(sender.is_done());
        let sent = sender.sent();
        let intended: Vec<u64> = sent.iter().map(|sent| sent.intended_ns).collect();
        assert_eq!(intended, [10_000, 10_000, 12_000, 12_000, 14_000, 14_000]);
        assert_eq!(sent[0].stamp_ns, 13_000);
        assert_eq!(sent[5].stamp_ns, 14_000);
        let mut payload = [0; 2_000];
        let length = sink.recv(&mut payload).unwrap();
        let view = crate::mold::parse(&payload[..length]).unwrap();
        assert_eq!((view.sequence, view.blocks.len()), (1, 1));
    }
}
