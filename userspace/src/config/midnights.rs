//! Local midnights of an exchange: ITCH times are nanoseconds since the midnight of the exchange's time zone.
#![forbid(unsafe_code)]

use jiff::{Timestamp, ToSpan, tz::TimeZone};

/// Days before and after that a table covers: more than a year, so that a handler never outlives it between restarts.
const DAYS: i32 = 400;

/// Why no table of midnights could be made.
#[derive(Debug, thiserror::Error)]
pub enum TimeZoneError {
    /// Not in the tz database.
    #[error("`{0}` is not an IANA time zone; write one such as \"America/New_York\", \"America/Chicago\" or \"UTC\"")]
    Unknown(String),
    /// A clock that is far out.
    #[error("{0} ns since 1970 is no time that a calendar can be made for; check the host's clock")]
    Clock(u64),
}

/// Looks a time zone up, in the system's tz database or else in the one that is built in.
pub(super) fn time_zone(name: &str) -> Result<TimeZone, TimeZoneError> {
    TimeZone::get(name).map_err(|_| TimeZoneError::Unknown(name.to_owned()))
}

/// The UTC times of the local midnights of `zone_name` from 400 days before `around_utc_ns` to 400 days after it,
/// nanoseconds since 1970, ascending. Where a day has no midnight (a clock change), its first instant.
///
/// # Errors
/// An unknown time zone, or a time outside the calendar's range.
pub fn midnights(zone_name: &str, around_utc_ns: u64) -> Result<Vec<u64>, TimeZoneError> {
    let zone = time_zone(zone_name)?;
    let clock = || TimeZoneError::Clock(around_utc_ns);
    let seconds = i64::try_from(around_utc_ns / 1_000_000_000).map_err(|_| clock())?;
    let today = Timestamp::from_second(seconds).map_err(|_| clock())?.to_zoned(zone.clone()).date();
    (-DAYS..=DAYS)
        .filter_map(|days| {
            let midnight = today.checked_add(days.days()).and_then(|date| date.to_zoned(zone.clone()));
            match midnight {
                // Before 1970 there is no unsigned time; leaving those days out keeps the table sorted and whole.
                Ok(midnight) if midnight.timestamp().as_nanosecond() < 0 => None,
                Ok(midnight) => Some(u64::try_from(midnight.timestamp().as_nanosecond()).map_err(|_| clock())),
                Err(_) => Some(Err(clock())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    #[test]
    fn new_york_midnights_follow_daylight_saving() {
        // 2023-08-22T09:30 in New York; its midnight is 04:00 UTC (1692676800).
        let table = midnights("America/New_York", 1_692_711_000_000_000_000).unwrap();
        assert_eq!(table.len(), 801);
        assert!(table.binary_search(&1_692_676_800_000_000_000).is_ok());
        // 2023-11-05 has 25 hours, 2023-03-12 has 23.
        let lengths: Vec<u64> = table.windows(2).map(|pair| (pair[1] - pair[0]) / HOUR).collect();
        assert!(lengths.iter().all(|hours| (23..=25).contains(hours)), "{lengths:?}");
        assert!(lengths.contains(&23) && lengths.contains(&25));
    }

    #[test]
    fn a_time_near_1970_gives_a_shorter_table() {
        let table = midnights("UTC", 0).unwrap();
        assert_eq!((table[0], table.len()), (0, 401));
    }

    #[test]
    fn unknown_zones_and_absurd_clocks_are_errors() {
        assert!(midnights("America/New_Amsterdam", 0).unwrap_err().to_string().contains("America/New_York"));
        assert!(matches!(midnights("UTC", u64::MAX), Ok(_) | Err(TimeZoneError::Clock(_))));
    }
}
