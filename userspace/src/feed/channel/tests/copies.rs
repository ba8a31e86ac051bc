//! Which line was first, by how much, and what came too late.
#![forbid(unsafe_code)]

use super::*;

/// Feeds packets (line, received_ns, sequence, count) one by one.
fn fed(packets: &[(LineRole, u64, u64, u16)]) -> Rig {
    let mut rig = Rig::new(settings());
    for (role, received_ns, sequence, count) in packets {
        rig.now_ns = *received_ns;
        let _ = rig.data(*role, *sequence, *count);
    }
    rig
}

fn skew(rig: &Rig, role: LineRole) -> (u64, u64) {
    let skew = rig.channel.line_skew(role);
    (skew.count(), skew.sum_ns)
}

#[test]
fn the_skew_is_that_of_the_later_line_by_time_of_arrival() {
    // Line B is 30 later, then line A 7; the worker took the packets of line A first.
    let rig = fed(&[(A, 100, 1, 2), (B, 130, 1, 2), (A, 210, 3, 2), (B, 203, 3, 2)]);
    assert_eq!((skew(&rig, A), skew(&rig, B)), ((1, 7), (1, 30)));
    assert_eq!((rig.line(A).late, rig.line(B).late), (0, 0));
}

#[test]
fn the_skew_is_found_whatever_packets_are_cut_to() {
    let rig = fed(&[(A, 10, 1, 4), (A, 20, 5, 4), (A, 30, 9, 4), (B, 31, 1, 5), (B, 32, 6, 1), (B, 33, 7, 9)]);
    // The last one begins with a copy and brings 13 to 15.
    assert_eq!((skew(&rig, A), skew(&rig, B)), ((0, 0), (3, 21 + 12 + 13)));
    assert_eq!(rig.line(B).first, 1);
}

#[test]
fn a_copy_is_late_when_it_would_not_have_closed_the_gap_in_time() {
    let rig = fed(&[(A, 1_000, 1, 1), (A, 1_000, 2, 1), (B, 1_100, 1, 1), (B, 1_101, 2, 1)]);
    assert_eq!((rig.line(B).late, rig.line(B).duplicate), (1, 2));
}

#[test]
fn a_line_s_own_doubles_and_retransmissions_say_nothing_of_the_skew() {
    let rig = fed(&[
        (A, 1, 1, 1),
        (A, 900, 1, 1),
        (A, 901, 3, 1),
        (Recovery, 950, 2, 1),
        (B, 960, 2, 1),
        (Recovery, 999, 1, 1),
    ]);
    assert_eq!((skew(&rig, A), skew(&rig, B)), ((0, 0), (0, 0)));
    assert_eq!((rig.line(A).late, rig.line(B).late, rig.line(Recovery).late), (0, 0, 0));
}

#[test]
fn what_was_given_up_before_it_came_is_late_and_no_duplicate() {
    let mut rig = fed(&[(A, 0, 1, 2), (A, 0, 5, 2)]);
    rig.poll(1_000);
    assert_eq!(rig.data(B, 1, 2), Err(DropReason::Duplicate));
    for (sequence, count) in [(3, 1), (3, 2), (2, 2), (4, 2), (1, 6)] {
        assert_eq!(rig.data(B, sequence, count), Err(DropReason::Late), "{sequence} {count}");
    }
    assert_eq!(rig.data(B, 5, 2), Err(DropReason::Duplicate));
    assert_eq!(rig.data(Recovery, 3, 2), Err(DropReason::Late));
    // Half of it is new.
    assert_eq!(rig.data(B, 4, 4), Ok(()));
    let line = rig.line(B);
    assert_eq!((line.duplicate, line.first, line.late), (2, 1, 8), "6 by what was given up, 2 by time");
    assert_eq!(rig.channel.line_drops(B).get(DropReason::Late), 5);
    assert_eq!(rig.channel.counts().duplicate_messages, 2 + 1 + 1 + 4 + 2 + 2);
    assert!(!DropReason::Late.is_benign());
}

#[test]
fn a_copy_of_what_is_forgotten_is_as_late_as_the_oldest_that_is_not() {
    let mut rig = Rig::new(settings());
    for sequence in 1..=10_000 {
        rig.now_ns += 10;
        rig.data(A, sequence, 1).unwrap();
    }
    assert_eq!(rig.data(B, 3, 1), Err(DropReason::Duplicate));
    assert_eq!((rig.line(B).late, skew(&rig, B)), (1, (0, 0)));
    // Far from where the last one was.
    for sequence in [9_999, 6_000, 9_990, 7_777] {
        let _ = rig.data(B, sequence, 1);
    }
    let sum = [9_999, 6_000, 9_990, 7_777].map(|sequence| (10_000 - sequence) * 10).iter().sum();
    assert_eq!(skew(&rig, B), (4, sum));
}
