//! What a retransmission may do, what is asked for, and a late start that is recovered.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn a_retransmission_says_nothing_that_no_line_has_said() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    rig.data(A, 6, 2).unwrap();
    let wrong = [(8, 1), (6, 3), (1 << 20, 1), (100, 0), (3, 0), (100, moldudp64::END_OF_SESSION)];
    for (sequence, count) in wrong {
        assert_eq!(rig.data(Recovery, sequence, count), Err(DropReason::Unconfirmed), "{sequence} {count}");
    }
    assert_eq!(rig.channel.gap().map(|gap| (gap.from, gap.to)), Some((3, 6)));
    rig.data(Recovery, 2, 6).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("1-8", ChannelState::Live));
    rig.data(A, 8, 2).unwrap();
    assert_eq!(rig.take(), "8-10", "the line goes on as if nothing had been said");
}

fn holes(rig: &Rig) -> Vec<(u64, u64)> {
    let mut holes = Holes::new();
    rig.channel.holes(&mut holes);
    holes.to_vec()
}

#[test]
fn holes_are_told_when_the_other_line_had_its_time_and_not_when_they_are_filled() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 1).unwrap();
    rig.data(A, 5, 1).unwrap();
    rig.poll(99);
    assert_eq!(holes(&rig), []);
    rig.data(A, 9, 1).unwrap();
    rig.poll(100);
    assert_eq!(holes(&rig), [(2, 5)]);
    rig.data(B, 3, 1).unwrap();
    assert_eq!(holes(&rig), [(2, 3), (4, 5)]);
    rig.poll(199);
    assert_eq!(holes(&rig), [(2, 3), (4, 5), (6, 9)]);
    rig.data(B, 2, 1).unwrap();
    rig.data(Recovery, 4, 1).unwrap();
    assert_eq!(holes(&rig), [(6, 9)]);
    rig.poll(2000);
    assert_eq!((rig.take().as_str(), holes(&rig)), ("1-6 lost 6-9 9-10", vec![]));
}

#[test]
fn who_will_not_wait_is_told_what_is_missing_now_and_of_no_later_hole() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 1).unwrap();
    rig.data(A, 5, 1).unwrap();
    rig.data(A, 8, 1).unwrap();
    rig.poll(50);
    assert_eq!(holes(&rig), [], "the other line still has its time");
    rig.channel.hurry();
    assert_eq!(holes(&rig), [(2, 5), (6, 8)]);
    rig.data(A, 11, 1).unwrap();
    assert_eq!(holes(&rig), [(2, 5), (6, 8)]);
    rig.poll(200);
    assert_eq!(holes(&rig), [(2, 5), (6, 8), (9, 11)]);
}

proptest! {
    /// Holes are what a plain set says is missing: of all that is known to exist, what did not come.
    #[test]
    fn holes_are_what_is_missing(packets in prop::collection::vec((1..120_u64, 1..9_u16), 1..40)) {
        let mut rig = Rig::new(ChannelSettings {
            hold_packets: 64,
            start: StartAt::First,
            gap_timeout_ns: 0,
            ..settings()
        });
        let mut missing: BTreeSet<u64> = BTreeSet::new();
        let mut known = 1;
        for (i, (sequence, count)) in packets.into_iter().enumerate() {
            let _ = rig.data(if i % 2 == 0 { A } else { B }, sequence, count);
            let end = sequence + u64::from(count);
            missing.extend(known..end.max(known));
            known = known.max(end);
            missing.retain(|number| !(sequence..end).contains(number));
            let told: BTreeSet<u64> = holes(&rig).into_iter().flat_map(|(from, to)| from..to).collect();
            prop_assert!(told.is_subset(&missing), "{:?} but missing is {:?}", told, missing);
            if holes(&rig).len() < HOLES {
                prop_assert_eq!(&told, &missing);
            }
        }
    }
}

fn late_start() -> Rig {
    let late =
        ChannelSettings { start: StartAt::First, backfill_ns: 50_000, stale_ns: 0, hold_packets: 2, ..settings() };
    let mut rig = Rig::new(late);
    rig.data(A, 100, 1).unwrap();
    rig.poll(200);
    assert_eq!((holes(&rig), rig.channel.state()), (vec![(1, 100)], ChannelState::Backfill));
    rig
}

#[test]
fn a_late_start_is_waited_for_as_long_as_answers_come() {
    let mut rig = late_start();
    for sequence in (1..100).step_by(9) {
        rig.poll(rig.now_ns + 900);
        rig.data(Recovery, sequence, 9).unwrap();
    }
    assert!(rig.now_ns > 9_000, "many times give_up_ns");
    assert_eq!(rig.take(), "1-101");
    rig.data(A, 101, 0).unwrap();
    rig.poll(rig.now_ns + 1);
    assert_eq!(rig.channel.state(), ChannelState::Live);
    // From now on a gap is given up like any other.
    rig.data(A, 103, 1).unwrap();
    rig.poll(rig.now_ns + 1000);
    assert_eq!(rig.take(), "lost 101-103 103-104");
}

#[test]
fn what_had_no_room_during_a_late_start_is_recovered_too() {
    let mut rig = late_start();
    for sequence in 101..110 {
        let _ = rig.data(A, sequence, 1);
    }
    rig.poll(1_100);
    rig.data(Recovery, 1, 99).unwrap();
    assert_eq!(rig.take(), "1-102");
    // As old as the first drop, and yet not given up.
    rig.poll(1_900);
    assert_eq!((rig.take().as_str(), holes(&rig), rig.channel.state()), ("", vec![(102, 110)], ChannelState::Backfill));
    rig.data(Recovery, 102, 8).unwrap();
    rig.poll(1_950);
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("102-110", ChannelState::Live));
}

#[test]
fn messages_that_no_server_has_are_lost_alone_and_a_pause_loses_nothing() {
    let mut rig = late_start();
    rig.data(Recovery, 1, 9).unwrap();
    rig.poll(300);
    rig.data(Recovery, 12, 20).unwrap();
    rig.poll(1_200);
    assert_eq!(rig.take(), "1-10", "10 and 11 are waited for");
    rig.poll(1_300);
    assert_eq!((rig.take().as_str(), holes(&rig)), ("lost 10-12 12-32", vec![(32, 100)]));
    assert_eq!(rig.channel.state(), ChannelState::Backfill);
    // The server pauses for many times give_up, while live messages are dropped for want of room.
    for sequence in 101..110 {
        let _ = rig.data(A, sequence, 1);
    }
    rig.poll(15_000);
    rig.data(Recovery, 32, 68).unwrap();
    rig.poll(15_100);
    assert_eq!((rig.take().as_str(), holes(&rig)), ("32-102", vec![(102, 110)]));
    rig.data(Recovery, 102, 8).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("102-110", ChannelState::Live));
}

#[test]
fn what_is_missing_does_not_age_while_nobody_could_be_asked() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 1).unwrap();
    rig.data(A, 4, 1).unwrap();
    rig.poll(300);
    rig.channel.stood_still(50_000, 50_300);
    rig.poll(50_300);
    assert_eq!((rig.take().as_str(), holes(&rig)), ("1-2", vec![(2, 4)]));
    // It waited for the worker, and is as old as that it was seen.
    rig.now_ns = 600;
    rig.data(A, 7, 1).unwrap();
    rig.poll(50_999);
    assert_eq!((rig.take().as_str(), holes(&rig)), ("", vec![(2, 4), (5, 7)]), "both are asked for");
    rig.poll(51_000);
    assert_eq!(rig.take(), "lost 2-4 4-5");
    rig.poll(51_300);
    assert_eq!(rig.take(), "lost 5-7 7-8");
}

/// Where an answer overlaps what a line has brought, the line's bytes are delivered.
#[test]
fn a_retransmission_never_takes_the_place_of_a_line() {
    let mut forged = packet(&SESSION, 2, 8);
    let at = forged.len() - message(9).len();
    forged[at..].fill(b'!');
    let told = |rig: &mut Rig| {
        let told = std::mem::take(&mut rig.out.0);
        let is_ours = told.iter().all(|out| matches!(out, Out::Message(_, n, bytes) if *bytes == message(*n)));
        (told.len(), is_ours)
    };
    // Delivered at once, with a packet of a line held behind.
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 1).unwrap();
    rig.data(A, 8, 3).unwrap();
    rig.send(Recovery, &forged).unwrap();
    assert_eq!(told(&mut rig), (10, true));
    // Held itself, and it would have covered a packet of a line.
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 0).unwrap();
    rig.data(B, 9, 1).unwrap();
    rig.data(A, 14, 1).unwrap();
    rig.send(Recovery, &forged).unwrap();
    rig.data(A, 1, 1).unwrap();
    assert_eq!(told(&mut rig), (9, true));
    assert_eq!(rig.data(Recovery, 9, 1), Err(DropReason::Duplicate));
    assert_eq!(rig.channel.line_counts(Recovery).duplicate, 1);
}

#[test]
fn a_late_start_without_answers_or_without_end_is_given_up() {
    let mut rig = late_start();
    for sequence in 101..110 {
        let _ = rig.data(A, sequence, 1);
    }
    rig.poll(1_300);
    assert_eq!(rig.take(), "lost 1-100 100-102 lost 102-110", "with what was dropped: once, and not one by one");
    let mut rig = late_start();
    rig.poll(20_199);
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("", ChannelState::Backfill), "there is room to wait");
    rig.poll(20_200);
    assert_eq!(rig.take(), "lost 1-100 100-101");
    let mut rig = late_start();
    for sequence in 1..80 {
        rig.poll(rig.now_ns + 700);
        let _ = rig.data(Recovery, sequence, 1);
    }
    assert!(rig.take().starts_with("1-72 lost 72-100 100-101"), "after backfill_ns");
}
