//! What a worker does every ~100 µs, beside the packets: deadlines, heartbeats, counters.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;

use super::Worker;
use super::channels::ChannelSlot;
use super::shared::Event;
use crate::clock::utc_offset_ns;
use crate::feed::{ChannelIndex, ChannelState};
use crate::net::{Frames, Outlets, TxPort};

/// Deadlines are looked at, and counters published, this often, nanoseconds.
const HOUSEKEEPING_NS: u64 = 100_000;

/// A housekeeping that is so late, nanoseconds, says that the thread was kept from running (another one on its core, a stopped
/// machine): nobody could be asked for what is missing meanwhile.
pub(super) const STANDSTILL_NS: u64 = 5_000_000;

/// The kernel's socket statistics are read this often (one system call per port), nanoseconds.
const KERNEL_COUNTS_NS: u64 = 100_000_000;

/// The offset between the clocks is taken this often (UTC is slewed under us), nanoseconds.
const UTC_OFFSET_NS: u64 = 1_000_000_000;

/// When what is due next, CLOCK_MONOTONIC nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    housekeeping_ns: u64,
    kernel_counts_ns: u64,
    utc_offset_ns: u64,
    cycles: u64,
    /// Start of the newest cycle that received something.
    busy_since_ns: Option<u64>,
    longest_cycle_ns: u64,
}

impl Schedule {
    /// Counts a cycle that started at `started_ns`; the cycle before it ended there.
    fn count_cycle(&mut self, started_ns: u64, received: bool) {
        self.cycles += 1;
        if let Some(busy_ns) = self.busy_since_ns.take() {
            self.longest_cycle_ns = self.longest_cycle_ns.max(started_ns.saturating_sub(busy_ns));
        }
        self.busy_since_ns = received.then_some(started_ns);
    }
}

impl Worker {
    /// The end of every cycle; most of the time it only compares `now_ns` with the schedule.
    pub(super) fn keep_house(&mut self, now_ns: u64, received: bool, clock: &impl Fn() -> u64) {
        self.schedule.count_cycle(now_ns, received);
        if now_ns < self.schedule.housekeeping_ns {
            return;
        }
        let still_ns = now_ns.saturating_sub(self.schedule.housekeeping_ns);
        self.schedule.housekeeping_ns = now_ns + HOUSEKEEPING_NS;
        self.run_deadlines(now_ns, still_ns, clock);
        self.wants.tell(&self.channels);
        self.report_channels();
        let mut out = Outlets::new(&self.ports.frames, &mut self.ports.tx);
        self.publisher.tick(now_ns, &mut out);
        self.publisher.flush(&mut out);
        if now_ns >= self.schedule.utc_offset_ns {
            self.schedule.utc_offset_ns = now_ns + UTC_OFFSET_NS;
            self.utc_offset_ns = utc_offset_ns();
        }
        if now_ns >= self.schedule.kernel_counts_ns {
            self.schedule.kernel_counts_ns = now_ns + KERNEL_COUNTS_NS;
            self.ports.update_kernel_counts();
        }
        self.publish_counts(now_ns);
        if cfg!(debug_assertions) {
            self.audit();
        }
    }

    /// Sends what is open, publishes the last counters, and gives all frames back.
    pub(super) fn finish(&mut self, now_ns: u64) {
        self.ports.tx.iter_mut().flatten().for_each(TxPort::insist);
        let mut out = Outlets::new(&self.ports.frames, &mut self.ports.tx);
        self.publisher.flush(&mut out);
        self.publisher.close(&out);
        self.ports.reclaim();
        self.publish_counts(now_ns);
        self.audit();
        self.shared.running.store(false, Relaxed);
    }

    /// Tells the streams and control what state the channels are in.
    fn report_channels(&mut self) {
        for slot in self.channels.iter_mut() {
            let state = slot.channel.state();
            if let Some(session) = slot.channel.session().filter(|_| !slot.channel.is_unnumbered()) {
                let channel = ChannelIndex::try_from(slot.plan_index).expect("fewer than 65,536 channels");
                let next = slot.channel.counts().next_sequence;
                self.publisher.set_input(channel, &session, next, state != ChannelState::Stale);
            }
            if state != slot.reported {
                slot.reported = state;
                let event = Event::State { channel: slot.plan_index, state: state as u64 };
                if self.events.push(event).is_err() {
                    self.events_dropped += 1;
                }
            }
        }
    }

    pub(super) fn publish_counts(&mut self, now_ns: u64) {
        let shared = &self.shared;
        for (index, line) in self.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            let Some(ChannelSlot { channel, .. }) = self.channels.get(line.channel) else { continue };
            shared.lines[index].store(&channel.line_counts(line.role).values());
            shared.line_skews[index].store(&channel.line_skew(line.role).values());
            shared.line_drops[index].store(&channel.line_drops(line.role).plus(&self.line_drops[index]).values());
        }
        let unknown = self.lines.len();
        shared.line_drops[unknown].store(&self.ports.rx_drops().plus(&self.line_drops[unknown]).values());
        for slot in self.channels.iter() {
            shared.channels[slot.plan_index].store(&slot.channel.counts().values());
            if let Some(session) = slot.channel.session() {
                shared.sessions[slot.plan_index].store(&session);
            }
        }
        for (index, counts, drops) in self.publisher.counts() {
            shared.destinations[index].store(&counts.values());
            shared.destination_drops[index].store(&drops.values());
        }
        self.ports.publish_counts(shared);
        shared.cycles.store(self.schedule.cycles, Relaxed);
        shared.longest_cycle_ns.store(self.schedule.longest_cycle_ns, Relaxed);
        shared.events_dropped.store(self.events_dropped, Relaxed);
        let free: usize = self.ports.frames.iter().map(Frames::free_count).sum();
        shared.frames_free.store(free as u64, Relaxed);
        shared.heartbeat_ns.store(now_ns, Relaxed);
    }
}
