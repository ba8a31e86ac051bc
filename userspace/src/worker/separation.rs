//! Workers share no cache line: what one writes lies in lines that no other thread writes.
//!
//! Checked by layout, in units of two lines of 64 bytes, because processors fetch them in pairs. A buffer on the heap whose
//! elements are aligned so begins with a line of its own and ends with one.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;

use super::channels::Place;
use super::shared::WorkerShared;
use crate::metrics::DropCounts;
use crate::net::{RxPort, TxPort};
use crate::publish::Stream;

const LINES: usize = 128;

/// Start and length of a value that must have its cache lines for itself.
fn place<T>(value: &T) -> (usize, usize) {
    (std::ptr::from_ref(value).addr(), size_of::<T>())
}

/// Everything in it that its worker writes.
fn written_by_worker(shared: &WorkerShared) -> Vec<(usize, usize)> {
    let WorkerShared {
        lines,
        line_skews,
        line_drops,
        channels,
        sessions,
        destinations,
        destination_drops,
        tx_drops,
        rx,
        tx,
        ..
    } = shared;
    let scalars = [
        place(&shared.cycles),
        place(&shared.longest_cycle_ns),
        place(&shared.heartbeat_ns),
        place(&shared.commands_applied),
        place(&shared.commands_refused),
        place(&shared.events_dropped),
        place(&shared.frames_free),
        place(&shared.running),
    ];
    let mut places = scalars.to_vec();
    places.extend(lines.iter().map(place));
    places.extend(line_skews.iter().map(place));
    places.extend(channels.iter().map(place));
    places.extend(sessions.iter().map(place));
    places.extend(destinations.iter().map(place));
    places.extend(rx.iter().chain(tx).map(place));
    places.extend(line_drops.iter().chain(destination_drops).chain(tx_drops).map(place));
    places
}

#[test]
fn counters_of_two_workers_and_of_control_lie_in_lines_of_their_own() {
    let shared = [WorkerShared::new(3, 2, 2, 2), WorkerShared::new(3, 2, 2, 2)];
    let mut all: Vec<(usize, usize)> = shared.iter().flat_map(|shared| written_by_worker(shared)).collect();
    all.extend(shared.iter().map(|shared| place(shared.commands_sent())));
    all.sort_unstable();
    assert_eq!(all.len(), 2 * (8 + 3 + 3 + 2 + 2 + 2 + 4 + 4 + 2 + 2 + 1));
    for (start, bytes) in &all {
        assert!(start % LINES == 0 && bytes % LINES == 0 && *bytes > 0, "{bytes} bytes at {start:#x}");
    }
    assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "they overlap: {all:x?}");
    // The counts of the `Arc` itself, which control changes, stand before it.
    assert!(align_of::<WorkerShared>() >= LINES);
    assert_eq!(shared[0].cycles.load(Relaxed), 0);
}

#[test]
fn what_workers_write_for_each_packet_is_aligned_to_lines() {
    for (name, align) in [
        ("DropCounts", align_of::<DropCounts>()),
        ("RxPort", align_of::<RxPort>()),
        ("TxPort", align_of::<TxPort>()),
        ("Stream", align_of::<Stream>()),
        ("Place", align_of::<Place>()),
    ] {
        assert!(align >= LINES, "a Vec<{name}> may share its first and last line with another worker's: {align}");
    }
}
