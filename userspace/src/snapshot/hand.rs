//! What the thread tells the worker, and how fast.
#![forbid(unsafe_code)]

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Failure, Run, Snapshot, WORKER_LIMIT};
use crate::clock::monotonic_ns;
use crate::feed::transport::moldudp64::{HEADER_BYTES, HEARTBEAT, write_header};
use crate::feed::{JoinState, Session};

/// Packets are handed over in bursts of about this length, nanoseconds.
const BURST_NS: u64 = 200_000;

impl Run {
    /// Hands a snapshot to the worker; waits until the channel has begun with it.
    pub(super) fn hand_over(&mut self, session: &Session, snapshot: &Snapshot) -> Result<(), Failure> {
        self.say_in(session, snapshot.next, HEARTBEAT);
        self.wait(WORKER_LIMIT, |job| !job.is_wanted());
        if self.state() != JoinState::Arriving {
            return Err(Failure::NotTaken);
        }
        let mut budget = Budget::new(self.job.plan.messages_per_second);
        snapshot.packets(session, |packet, cost| {
            budget.wait(cost);
            self.hand(packet)
        });
        self.wait(WORKER_LIMIT, |job| job.state() != JoinState::Arriving);
        if self.state() != JoinState::Joined {
            return Err(Failure::NotTaken);
        }
        self.counts.joined += 1;
        Ok(())
    }

    /// Tells the worker something about the snapshot of the session that it is in.
    pub(super) fn say(&self, sequence: u64, count: u16) {
        if let Some(session) = self.session() {
            self.say_in(&session, sequence, count);
        }
    }

    fn say_in(&self, session: &Session, sequence: u64, count: u16) {
        let mut packet = [0; HEADER_BYTES];
        write_header(&mut packet, session, sequence, count);
        self.hand(&packet);
    }

    /// Hands a packet over, as soon as there is room; false if nobody wants it any more.
    fn hand(&self, packet: &[u8]) -> bool {
        loop {
            // Also when there is room: what is handed over after the channel went on is for nothing, and takes its time.
            let is_of_use = matches!(self.state(), JoinState::Awaited | JoinState::Arriving);
            if self.is_over.load(Relaxed) || !is_of_use {
                return false;
            }
            let is_taken = {
                let mut packets = self.ends.packets.lock().unwrap_or_else(PoisonError::into_inner);
                packets.hand(self.job.line, packet, monotonic_ns())
            };
            if is_taken {
                return true;
            }
            std::thread::sleep(Duration::from_nanos(BURST_NS));
        }
    }
}

/// Spreads messages over time: what the worker makes of them must find room in the network and with the consumers.
struct Budget {
    per_second: u64,
    due_ns: u64,
}

impl Budget {
    fn new(per_second: u64) -> Self {
        Self { per_second: per_second.max(1), due_ns: monotonic_ns() }
    }

    /// Waits until so many more may go.
    fn wait(&mut self, messages: u64) {
        let ahead_ns = self.due_ns.saturating_sub(monotonic_ns());
        if ahead_ns > BURST_NS {
            std::thread::sleep(Duration::from_nanos(ahead_ns));
        }
        self.due_ns =
            self.due_ns.max(monotonic_ns().saturating_sub(BURST_NS)) + messages * 1_000_000_000 / self.per_second;
    }
}
