//! Sets of sequence numbers, kept as ranges: who lost what, exactly.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;

/// A set of sequence numbers. Small when its members are runs, as losses are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Sorted, disjoint, not touching, none empty.
    ranges: Vec<Range<u64>>,
}

impl RangeSet {
    /// Adds all of `range`; fast when it lies at or behind the end of the set.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|r| r.end < range.start);
        let to = self.ranges.partition_point(|r| r.start <= range.end);
        let merged = self.ranges[from..to].iter().fold(range, |all, r| all.start.min(r.start)..all.end.max(r.end));
        self.ranges.splice(from..to, [merged]);
    }

    /// Whether the number is in the set.
    #[must_use]
    pub fn contains(&self, sequence: u64) -> bool {
        let at = self.ranges.partition_point(|r| r.end <= sequence);
        self.ranges.get(at).is_some_and(|r| r.start <= sequence)
    }

    /// Numbers in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (self.ranges.get(i), other.ranges.get(j)) {
            both.insert(a.start.max(b.start)..a.end.min(b.end).max(a.start.max(b.start)));
            if a.end < b.end {
                i += 1;
            } else {
                j += 1;
            }
        }
        both
    }

    /// Numbers of this set that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for range in &self.ranges {
            let mut from = range.start;
            let first = other.ranges.partition_point(|r| r.end <= range.start);
            for hole in other.ranges[first..].iter().take_while(|r| r.start < range.end) {
                left.insert(from..hole.start.max(from));
                from = from.max(hole.end);
            }
            left.insert(from.min(range.end)..range.end);
        }
        left
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().cloned()
    }

    /// How many numbers are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }

    /// How many runs of numbers the set has.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.ranges.len()
    }

    /// True if nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl fmt::Display for RangeSet {
    /// First and last number of each run, at most eight runs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.ranges.iter().take(8).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}–{}", range.start, range.end - 1)?;
        }
        match self.ranges.len() {
            0 => write!(f, "none"),
            n if n > 8 => write!(f, " and {} more", n - 8),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeSet;

    #[test]
    fn behaves_like_a_set_of_numbers() {
        for seed in 0..300 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut sets = [(RangeSet::default(), BTreeSet::new()), (RangeSet::default(), BTreeSet::new())];
            for _ in 0..20 {
                let start = rng.random_range(0..80u64);
                let range = start..start + rng.random_range(0..9);
                let (ranges, naive) = &mut sets[rng.random_range(0..2)];
                ranges.insert(range.clone());
                naive.extend(range);
            }
            let [(a, na), (b, nb)] = &sets;
            let numbers = |set: &RangeSet| set.iter().flatten().collect::<BTreeSet<u64>>();
            assert_eq!(&numbers(a), na, "seed {seed}");
            assert_eq!(numbers(&a.intersection(b)), na & nb, "seed {seed}");
            assert_eq!(numbers(&a.difference(b)), na - nb, "seed {seed}");
            assert_eq!(a.count(), na.len() as u64, "seed {seed}");
            for n in 0..90 {
                assert_eq!(a.contains(n), na.contains(&n), "seed {seed}, {n}");
            }
            assert!(a.iter().zip(a.iter().skip(1)).all(|(x, y)| x.end < y.start), "seed {seed}: not merged");
        }
    }
}
