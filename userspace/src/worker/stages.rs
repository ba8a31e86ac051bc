//! The stages of one batch: admit, deliver, publish, send; and their latencies.
#![forbid(unsafe_code)]

use super::Worker;
use super::housekeeping::STANDSTILL_NS;
use super::tap::Tap;
use crate::latency::Stage;
use crate::metrics::DropReason;
use crate::net::Outlets;

/// Packets whose latency is recorded in one go. A gap that releases more than so many held packets at once leaves the
/// rest out of the histograms: all of them waited for the same deadline.
pub(super) const MOST_ARRIVALS: usize = 1 << 16;

impl Worker {
    /// Takes the batch through all stages and gives its frames back.
    ///
    /// All of it came in by `port`.
    pub(super) fn run_batch(&mut self, port: usize, clock: &impl Fn() -> u64) {
        let woken_ns = clock();
        self.admit_batch(port, woken_ns);
        self.deliver(port, woken_ns, clock);
        for received in self.batch.drain(..) {
            self.ports.frames[port].free(received.frame);
        }
    }

    /// Delivers what deadlines released: there is no batch now.
    pub(super) fn run_deadlines(&mut self, now_ns: u64, still_ns: u64, clock: &impl Fn() -> u64) {
        for slot in self.channels.iter_mut() {
            // A part of it counts: a thread that is kept from running all the time must still come to an end with a gap.
            if still_ns > STANDSTILL_NS {
                slot.channel.stood_still(still_ns - STANDSTILL_NS, now_ns);
            }
            slot.channel.poll(now_ns);
        }
        self.channels.touch_all();
        self.deliver(0, now_ns, clock);
    }

    /// Stage 1 for the whole batch. What is refused is counted, by line and reason.
    fn admit_batch(&mut self, port: usize, woken_ns: u64) {
        for (i, received) in self.batch.iter().enumerate() {
            let unknown = self.lines.len();
            let index = usize::from(received.line);
            let Some(Some(line)) = self.lines.get(index) else {
                self.line_drops[unknown].add(DropReason::UnknownGroup);
                continue;
            };
            if !line.enabled {
                self.line_drops[index].add(DropReason::NotSubscribed);
                continue;
            }
            self.latency.record(Stage::EntryToWorker, woken_ns.saturating_sub(received.received_ns));
            let Some(slot) = self.channels.touch(line.channel) else { unreachable!("a channel goes with its lines") };
            let payload = self.ports.frames[port].payload(received);
            let position = u16::try_from(i).expect("a batch has at most 64 datagrams");
            // The channel counts what it refuses.
            let _ = slot.channel.admit(position, line.role, payload, received.received_ns);
        }
    }

    /// Stage 2 and the way out. A packet's latency is recorded when its messages leave, so that one that was held counts
    /// with all the time that it waited. The batch, if there is one, came in by `port`.
    fn deliver(&mut self, port: usize, started_ns: u64, clock: &impl Fn() -> u64) {
        let sent_before = self.ports.frames_sent();
        let mut tap = Tap {
            outbound: self.publisher.outbound(Outlets::new(&self.ports.frames, &mut self.ports.tx)),
            events: &mut self.events,
            dropped: &mut self.events_dropped,
            arrivals: &mut self.arrivals,
        };
        let (frames, batch) = (self.ports.frames.get(port), &self.batch);
        for slot in self.channels.take_touched() {
            let payload = |i| frames.expect("a batch came in by a port").payload(&batch[usize::from(i)]);
            slot.channel.deliver(payload, self.utc_offset_ns, &mut tap);
        }
        let decoded_ns = clock();
        self.publisher.flush(&mut Outlets::new(&self.ports.frames, &mut self.ports.tx));
        if self.ports.frames_sent() != sent_before && !self.arrivals.is_empty() {
            let sent_ns = clock();
            let count = self.arrivals.len() as u64;
            self.latency.record_n(Stage::WorkerToDecoded, decoded_ns - started_ns, count);
            self.latency.record_n(Stage::DecodedToSent, sent_ns - decoded_ns, count);
            for entry_ns in &self.arrivals {
                self.latency.record(Stage::EntryToSent, sent_ns.saturating_sub(*entry_ns));
            }
        }
        self.arrivals.clear();
    }
}
