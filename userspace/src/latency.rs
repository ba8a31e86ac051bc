//! Latency by stage: where the time between the wire and the transmit ring goes.
#![forbid(unsafe_code)]

pub mod hdr;

use hdrhistogram::Histogram;

/// Legs of a datagram's way through the handler. All times are CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Kernel entry (XDP program, or the receive call in socket mode) to the worker's clock read of that batch.
    EntryToWorker,
    /// The worker's clock read to all records of the batch decoded and in output packets.
    WorkerToDecoded,
    /// Decoded to the transmit ring submitted and the kernel kicked.
    DecodedToSent,
    /// Kernel entry to sent: the whole way through the handler.
    EntryToSent,
}

impl Stage {
    /// Every stage, in the order of the way.
    pub const ALL: [Self; 4] = [Self::EntryToWorker, Self::WorkerToDecoded, Self::DecodedToSent, Self::EntryToSent];

    /// The label used in metrics and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::EntryToWorker => "entry_to_worker",
            Self::WorkerToDecoded => "worker_to_decoded",
            Self::DecodedToSent => "decoded_to_sent",
            Self::EntryToSent => "entry_to_sent",
        }
    }
}

/// Longest latency that is resolved, nanoseconds; anything longer is recorded as this.
pub const MAX_NS: u64 = 60_000_000_000;

/// One histogram per stage, nanoseconds, three significant digits. Recording never allocates.
#[derive(Clone, Debug)]
pub struct StageHistograms([Histogram<u64>; Stage::ALL.len()]);

impl Default for StageHistograms {
    fn default() -> Self {
        Self(std::array::from_fn(|_| {
            Histogram::new_with_bounds(1, MAX_NS, 3).expect("1..60 s with three digits is a legal histogram")
        }))
    }
}

impl StageHistograms {
    /// Records one latency.
    pub fn record(&mut self, stage: Stage, ns: u64) {
        self.0[stage as usize].saturating_record(ns);
    }

    /// Records `count` equal latencies, as when a whole batch shares one leg.
    pub fn record_n(&mut self, stage: Stage, ns: u64, count: u64) {
        self.0[stage as usize].saturating_record_n(ns, count);
    }

    /// The histogram of one stage.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> &Histogram<u64> {
        &self.0[stage as usize]
    }

    /// Adds another worker's, or another interval's, histograms.
    pub fn add(&mut self, other: &Self) {
        for (into, from) in self.0.iter_mut().zip(&other.0) {
            into.add(from).expect("all stage histograms have the same bounds");
        }
    }

    /// What was recorded since `before`, an earlier state of these same histograms. Of its extremes it knows the bucket only.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut interval = self.clone();
        for (from, before) in interval.0.iter_mut().zip(&before.0) {
            from.subtract(before).expect("an earlier state of these histograms");
        }
        interval
    }

    /// Forgets everything recorded, without freeing.
    pub fn clear(&mut self) {
        for histogram in &mut self.0 {
            histogram.clear();
        }
    }
}
