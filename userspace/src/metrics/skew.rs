//! How much later one line's copy of a message comes than the other's.
#![forbid(unsafe_code)]

/// Upper bounds of the buckets, nanoseconds: 1-2-5 steps around what two lines of one site differ by, coarser above.
pub const SKEW_BOUNDS_NS: [u64; 16] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
];

/// A histogram of the skew behind the other line, by packet. Plain counters, like those of a counter set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkewCounts {
    /// Packets by bucket; the last one is above all bounds.
    pub buckets: [u64; SKEW_BOUNDS_NS.len() + 1],
    /// Sum of all skews, nanoseconds.
    pub sum_ns: u64,
}

impl SkewCounts {
    /// Number of counters.
    pub const COUNT: usize = SKEW_BOUNDS_NS.len() + 2;

    /// Counts one packet.
    #[inline]
    pub fn record(&mut self, skew_ns: u64) {
        self.buckets[SKEW_BOUNDS_NS.partition_point(|bound| *bound < skew_ns)] += 1;
        self.sum_ns += skew_ns;
    }

    /// Packets counted: so often the other line was first.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Upper bound of the bucket that holds a quantile, nanoseconds; `u64::MAX` above all bounds, `None` if nothing was counted.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        let rank = (count as f64 * quantile).ceil() as u64;
        let mut below = 0;
        let bucket = self.buckets.iter().position(|packets| {
            below += packets;
            below >= rank.max(1)
        });
        bucket.map(|bucket| SKEW_BOUNDS_NS.get(bucket).copied().unwrap_or(u64::MAX))
    }

    /// The counters: buckets, then the sum.
    #[must_use]
    pub fn values(&self) -> [u64; Self::COUNT] {
        let mut values = [self.sum_ns; Self::COUNT];
        values[..self.buckets.len()].copy_from_slice(&self.buckets);
        values
    }

    /// The inverse of [`Self::values`].
    #[must_use]
    pub fn from_values(values: [u64; Self::COUNT]) -> Self {
        let mut buckets = [0; SKEW_BOUNDS_NS.len() + 1];
        buckets.copy_from_slice(&values[..SKEW_BOUNDS_NS.len() + 1]);
        Self { buckets, sum_ns: values[Self::COUNT - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skews_fall_into_their_buckets_and_round_trip() {
        let mut skew = SkewCounts::default();
        assert_eq!(skew.quantile_ns(0.5), None);
        for ns in [0, 1_000, 1_001, 40_000, 2_000_000_000] {
            skew.record(ns);
        }
        assert_eq!((skew.buckets[0], skew.buckets[1], skew.buckets[5], skew.buckets[16]), (2, 1, 1, 1));
        assert_eq!((skew.count(), skew.sum_ns), (5, 2_000_042_001));
        assert_eq!([0.4, 0.5, 0.8, 1.0].map(|q| skew.quantile_ns(q)), [1_000, 2_000, 50_000, u64::MAX].map(Some));
        assert_eq!(SkewCounts::from_values(skew.values()), skew);
    }
}
