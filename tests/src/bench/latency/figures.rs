//! Percentiles that do not hide what was lost.
#![forbid(unsafe_code)]

use hdrhistogram::Histogram;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// Longest latency that is resolved, nanoseconds.
const MAX_NS: u64 = 60_000_000_000;

/// Latencies of one leg, with the messages of which there is none because they were lost.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    histogram: Histogram<u64>,
    /// Messages that never arrived: slower than everything.
    pub(super) lost: u64,
}

impl Default for Samples {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_NS, 3).expect("1 ns to 60 s with three digits is legal");
        Self { histogram, lost: 0 }
    }
}

impl Samples {
    pub(super) fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all have the same bounds");
        self.lost += other.lost;
    }

    /// Messages, the lost ones included.
    pub(super) fn count(&self) -> u64 {
        self.histogram.len() + self.lost
    }

    /// The latency that the given share of the messages does not exceed; `None` if so many did not arrive.
    pub(super) fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let rank = (quantile * self.count() as f64).ceil().max(1.0);
        let arrived = self.histogram.len();
        (rank <= arrived as f64).then(|| self.histogram.value_at_quantile(rank / arrived as f64))
    }

    pub(super) fn figures(&self) -> Figures {
        Figures { count: self.count(), ns: Figures::QUANTILES.map(|quantile| self.quantile_ns(quantile)) }
    }
}

/// The percentiles of one leg, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages.
    pub count: u64,
    /// By [`Self::QUANTILES`]; `None`: so many messages were lost.
    pub ns: [Option<u64>; 6],
}

impl Figures {
    /// Which.
    pub const QUANTILES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];
    /// Their names.
    pub const NAMES: [&str; 6] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];

    /// The median over rounds, percentile by percentile. A lost one is longer than any.
    #[must_use]
    pub fn median(rounds: &[Self]) -> Self {
        let middle = |at: usize| -> Option<u64> {
            let mut all: Vec<u64> = rounds.iter().map(|figures| figures.ns[at].unwrap_or(u64::MAX)).collect();
            all.sort_unstable();
            let (low, high) = (*all.get(all.len().saturating_sub(1) / 2)?, *all.get(all.len() / 2)?);
            (high != u64::MAX).then_some(low / 2 + high / 2 + (low % 2 + high % 2) / 2)
        };
        Self { count: rounds.iter().map(|figures| figures.count).sum(), ns: std::array::from_fn(middle) }
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.ns.len()))?;
        map.serialize_entry("count", &self.count)?;
        for (name, ns) in Self::NAMES.iter().zip(self.ns) {
            map.serialize_entry(&format!("{name}_ns"), &ns)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_slower_than_everything() {
        let mut samples = Samples::default();
        (1..=95).for_each(|ns| samples.record(ns));
        samples.lost = 5;
        assert_eq!(samples.count(), 100);
        assert_eq!(samples.quantile_ns(0.5), Some(50));
        assert_eq!(samples.quantile_ns(0.95), Some(95));
        assert_eq!(samples.quantile_ns(0.96), None);
        assert_eq!(samples.figures().ns[5], None);
        assert_eq!(Samples::default().quantile_ns(0.5), None);
    }

    #[test]
    fn medians_take_the_middle_and_count_lost_as_longest() {
        let round = |ns| Figures { count: 1, ns: [ns; 6] };
        assert_eq!(Figures::median(&[round(Some(9)), round(None), round(Some(3))]).ns[0], Some(9));
        assert_eq!(Figures::median(&[round(Some(4)), round(Some(8))]).ns[0], Some(6));
        assert_eq!(Figures::median(&[round(None), round(Some(8)), round(None)]).ns[0], None);
        assert_eq!(Figures::median(&[]).ns[0], None);
    }
}
