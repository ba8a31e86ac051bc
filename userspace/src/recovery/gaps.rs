//! Sets of sequence numbers as ranges: what is missing, what is on its way.
#![forbid(unsafe_code)]

use std::ops::Range;

/// A set of sequence numbers, small when its members are runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GapSet {
    /// Sorted, disjoint, not touching, none empty.
    ranges: Vec<Range<u64>>,
}

impl GapSet {
    /// Adds all of a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|have| have.end < range.start);
        let to = self.ranges.partition_point(|have| have.start <= range.end);
        let merged = self.ranges[from..to].iter().fold(range, |all, r| all.start.min(r.start)..all.end.max(r.end));
        self.ranges.splice(from..to, [merged]);
    }

    /// Takes all of a range away.
    pub fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|have| have.end <= range.start);
        let to = self.ranges.partition_point(|have| have.start < range.end);
        if from >= to {
            return;
        }
        let before = self.ranges[from].start..range.start;
        let behind = range.end..self.ranges[to - 1].end;
        self.ranges.splice(from..to, [before, behind].into_iter().filter(|left| !left.is_empty()));
    }

    /// How many numbers of a range are in the set.
    #[must_use]
    pub fn overlap(&self, range: &Range<u64>) -> u64 {
        let from = self.ranges.partition_point(|have| have.end <= range.start);
        let touching = self.ranges[from..].iter().take_while(|have| have.start < range.end);
        touching.map(|have| have.end.min(range.end).saturating_sub(have.start.max(range.start))).sum()
    }

    /// The lowest run.
    #[must_use]
    pub fn first(&self) -> Option<Range<u64>> {
        self.ranges.first().cloned()
    }

    /// How many numbers are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.end - range.start))
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is put in and taken out, the set is what a plain set of numbers is, and its runs are as long as can be.
        #[test]
        fn behaves_like_a_set_of_numbers(steps in prop::collection::vec((any::<bool>(), 0..80_u64, 0..12_u64), 1..40)) {
            let (mut set, mut naive) = (GapSet::default(), BTreeSet::new());
            for (is_insert, from, len) in steps {
                let range = from..from + len;
                if is_insert {
                    set.insert(range.clone());
                    naive.extend(range);
                } else {
                    set.remove(&range);
                    naive.retain(|number| !range.contains(number));
                }
                prop_assert_eq!(set.ranges.iter().cloned().flatten().collect::<BTreeSet<u64>>(), naive.clone());
                prop_assert!(set.ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", set);
                prop_assert_eq!(set.is_empty(), naive.is_empty());
                prop_assert_eq!(set.first().map(|range| range.start), naive.first().copied());
                for probe in [0..5, 3..50, 40..92, 17..18, 9..9] {
                    let expected = naive.range(probe.clone()).count() as u64;
                    prop_assert_eq!(set.overlap(&probe), expected, "{:?}", probe);
                }
            }
        }
    }
}
