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
/// Taken between two reads of the monotonic clock, so that a preempted call cannot shift it by more than they differ.
#[must_use]
pub fn utc_offset_ns() -> u64 {
    let before = monotonic_ns();
    let utc = utc_ns();
    let after = monotonic_ns();
    utc.wrapping_sub(before + (after - before) / 2)
}

fn to_ns(time: rustix::time::Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
