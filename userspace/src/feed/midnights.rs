//! Local midnights: where the exchange's time of day counts from.
#![forbid(unsafe_code)]

const DAY_NS: u64 = 86_400_000_000_000;

/// UTC times of an exchange's local midnights, nanoseconds since the epoch, ascending.
///
/// Made at start from the time-zone database, so that the data path needs none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Midnights(Vec<u64>);

impl Midnights {
    /// From a list in any order.
    #[must_use]
    pub fn new(mut utc_ns: Vec<u64>) -> Self {
        utc_ns.sort_unstable();
        utc_ns.dedup();
        Self(utc_ns)
    }

    /// Every UTC midnight: for an exchange that keeps UTC, and for tests.
    #[must_use]
    pub fn utc() -> Self {
        Self(Vec::new())
    }

    /// The newest midnight at or before `utc_ns`, and the one that follows it.
    ///
    /// Outside the list days of 24 hours are counted from its ends.
    #[must_use]
    pub fn around(&self, utc_ns: u64) -> (u64, u64) {
        let after = self.0.partition_point(|midnight| *midnight <= utc_ns);
        let anchor = match after.checked_sub(1) {
            Some(index) => match self.0.get(after) {
                Some(next) => return (self.0[index], *next),
                None => self.0[index],
            },
            None => self.0.first().map_or(0, |first| first % DAY_NS),
        };
        let midnight = utc_ns - utc_ns.saturating_sub(anchor) % DAY_NS;
        let midnight = if utc_ns < anchor { 0 } else { midnight };
        (midnight, midnight.saturating_add(DAY_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_midnight_not_after_the_time_counts() {
        let midnights = Midnights::new(vec![5 * DAY_NS, 3 * DAY_NS + 7, 4 * DAY_NS + 7]);
        assert_eq!(midnights.around(3 * DAY_NS + 7), (3 * DAY_NS + 7, 4 * DAY_NS + 7));
        assert_eq!(midnights.around(5 * DAY_NS - 1), (4 * DAY_NS + 7, 5 * DAY_NS));
    }

    #[test]
    fn outside_the_list_days_are_counted_on() {
        let midnights = Midnights::new(vec![3 * DAY_NS + 7]);
        assert_eq!(midnights.around(9 * DAY_NS + 6), (8 * DAY_NS + 7, 9 * DAY_NS + 7));
        assert_eq!(midnights.around(2 * DAY_NS + 9), (2 * DAY_NS + 7, 3 * DAY_NS + 7));
        assert_eq!(midnights.around(3), (0, DAY_NS));
        assert_eq!(Midnights::utc().around(2 * DAY_NS + 5), (2 * DAY_NS, 3 * DAY_NS));
    }
}
