//! The two clocks: CLOCK_MONOTONIC for everything that is measured, UTC for what leaves the house.
#![forbid(unsafe_code)]

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC now, nanoseconds: the clock of `bpf_ktime_get_ns` and of every timestamp inside the process.
#[must_use]
pub fn monotonic_ns() -> u64 {
    to_ns(clock_gettime(ClockId::Monotonic))
}

/// CLOCK_REALTIME now, nanoseconds since the epoch, UTC.
#[must_use]
pub fn utc_ns() -> u64 {
    to_ns(clock_gettime(ClockId::Realtime))
}

/// What to add to a CLOCK_MONOTONIC time to get UTC, nanoseconds (wrapping).
///
/// The tightest of a few readings, each between two of the monotonic clock: a reading in whose middle the thread was
/// preempted would be off by as long as that took, for as long as it is used.
#[must_use]
pub fn utc_offset_ns() -> u64 {
    let reading = || {
        let before = monotonic_ns();
        let utc = utc_ns();
        let width = monotonic_ns() - before;
        (width, utc.wrapping_sub(before + width / 2))
    };
    (0..READINGS).map(|_| reading()).min_by_key(|(width, _)| *width).map_or(0, |(_, offset)| offset)
}

/// Readings that [`utc_offset_ns`] takes.
const READINGS: usize = 5;

fn to_ns(time: rustix::time::Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
