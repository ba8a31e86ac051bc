#![forbid(unsafe_code)]

use super::*;
use crate::feed::transport::PacketKind;

const SESSION: Session = *b"SESSION001";
const DEADLINES: Deadlines =
    Deadlines { gap_timeout_ns: 100, give_up_ns: 1000, doubt_ns: 1000, stale_ns: 5000, backfill_ns: 0 };

fn header(sequence: u64, count: u16) -> PacketHeader {
    let kind = if count == 0 { PacketKind::Heartbeat } else { PacketKind::Data };
    PacketHeader { session: SESSION, sequence, count, kind }
}

fn begun(first: u64) -> Arbiter {
    let mut arbiter = Arbiter::new(DEADLINES, StartAt::Now, 4);
    arbiter.begin(&header(first, 1));
    arbiter
}

/// The table of the MoldUDP64 receiver algorithm.
#[test]
fn packets_are_judged_by_their_place() {
    let mut arbiter = begun(1);
    arbiter.advance(10);
    let cases = [
        (10, 0, Verdict::Alive),
        (12, 0, Verdict::Alive),
        (3, 0, Verdict::Alive),
        (7, 3, Verdict::Duplicate),
        (1, 2, Verdict::Duplicate),
        (7, 4, Verdict::Deliver { skip: 3 }),
        (10, 5, Verdict::Deliver { skip: 0 }),
        (11, 1, Verdict::Hold),
        (10 + UNPROVEN_JUMP, 1, Verdict::Hold),
        (10 + UNPROVEN_JUMP, 0, Verdict::Alive),
        (11 + UNPROVEN_JUMP, 1, Verdict::Unproven),
        (11 + UNPROVEN_JUMP, 0, Verdict::Unproven),
        (u64::MAX - 1, 1, Verdict::Unproven),
    ];
    for (sequence, count, verdict) in cases {
        assert_eq!(arbiter.classify(&header(sequence, count), LineRole::A), verdict, "{sequence}+{count}");
    }
}

#[test]
fn a_gap_opens_asks_and_is_given_up_by_its_age() {
    let mut arbiter = begun(5);
    arbiter.ahead(8, 10, 50);
    assert_eq!(arbiter.gap(Some(8)).map(|gap| (gap.from, gap.to, gap.opened_ns)), Some((5, 8, 50)));
    assert_eq!(arbiter.state(), ChannelState::Backfill);
    assert_eq!(arbiter.poll(149, None, true), None);
    assert!(!arbiter.gap(Some(8)).unwrap().wants_recovery);
    assert_eq!(arbiter.poll(150, None, true), None);
    assert!(arbiter.gap(Some(8)).unwrap().wants_recovery);
    arbiter.advance(6);
    assert_eq!(arbiter.state(), ChannelState::Gap);
    assert_eq!(arbiter.poll(1049, None, true), None);
    assert_eq!(arbiter.poll(1050, None, true), Some(8));
    assert_eq!(arbiter.lose(Some(8)), Some((6, 8)));
    arbiter.advance(10);
    assert_eq!(arbiter.lose(None), None);
    assert_eq!(arbiter.state(), ChannelState::Live);
    let counts = arbiter.counts();
    assert_eq!((counts.gaps_opened, counts.gaps_closed, counts.gaps_lost, counts.messages_lost), (1, 0, 1, 2));
}

#[test]
fn each_gap_has_its_own_deadline() {
    let mut arbiter = begun(1);
    arbiter.ahead(3, 4, 0);
    arbiter.ahead(6, 7, 900);
    arbiter.next_is(9, false, 950);
    assert_eq!(arbiter.counts().gaps_opened, 3);
    assert_eq!(arbiter.poll(1000, None, true), Some(3));
    assert_eq!(arbiter.lose(Some(3)), Some((1, 3)));
    arbiter.advance(4);
    assert_eq!(arbiter.poll(1899, None, true), None);
    assert_eq!(arbiter.poll(1900, None, true), Some(6));
    arbiter.advance(7);
    assert_eq!(arbiter.counts().gaps_closed, 1);
    assert_eq!(arbiter.gap(None).map(|gap| (gap.from, gap.to, gap.opened_ns)), Some((7, 9, 950)));
}

#[test]
fn more_gaps_than_are_remembered_apart_are_still_all_missing() {
    let mut arbiter = begun(1);
    for sequence in (3..40).step_by(2) {
        arbiter.ahead(sequence, sequence + 1, 0);
    }
    assert_eq!(arbiter.counts().gaps_opened, 4);
    let mut lost = Vec::new();
    let mut nearest = 3;
    while let Some(hole) = arbiter.lose(Some(nearest).filter(|nearest| *nearest < 40)) {
        lost.push(hole);
        arbiter.advance(nearest + 1);
        nearest += 2;
        arbiter.settle(Some(nearest), 0);
    }
    let holes: Vec<_> = std::iter::once((1, 3)).chain((4..40).step_by(2).map(|from| (from, from + 1))).collect();
    assert_eq!(lost, holes);
    assert!(!arbiter.is_missing());
}

#[test]
fn what_was_known_and_dropped_becomes_a_gap_when_its_turn_comes() {
    let mut arbiter = begun(1);
    arbiter.ahead(3, 6, 10);
    arbiter.advance(3);
    arbiter.settle(None, 40);
    assert_eq!(arbiter.gap(None).map(|gap| (gap.from, gap.to, gap.opened_ns)), Some((3, 6, 40)));
    arbiter.advance(6);
    arbiter.settle(None, 41);
    assert_eq!(arbiter.counts().gaps_closed, 2);
    assert_eq!(arbiter.state(), ChannelState::Live);
}

#[test]
fn gaps_of_our_own_making_are_as_old_as_the_first_drop_until_nothing_is_missing() {
    let mut arbiter = begun(1);
    let opened = |arbiter: &Arbiter| arbiter.gap(None).map(|gap| (gap.from, gap.to, gap.opened_ns));
    arbiter.ahead(3, 9, 10);
    arbiter.dropped(20);
    arbiter.dropped(30);
    arbiter.advance(3);
    arbiter.settle(Some(5), 40);
    assert_eq!(opened(&arbiter), Some((3, 5, 20)));
    arbiter.advance(7);
    arbiter.settle(None, 50);
    assert_eq!(opened(&arbiter), Some((7, 9, 20)));
    arbiter.advance(9);
    arbiter.settle(None, 60);
    arbiter.ahead(12, 13, 70);
    arbiter.advance(12);
    arbiter.settle(None, 80);
    assert_eq!(opened(&arbiter), Some((12, 13, 80)));
}

#[test]
fn silence_makes_stale_and_any_packet_ends_it() {
    let mut arbiter = Arbiter::new(DEADLINES, StartAt::Now, 4);
    assert_eq!((arbiter.poll(9000, None, true), arbiter.state()), (None, ChannelState::Unknown));
    arbiter.begin(&header(1, 1));
    arbiter.seen(&header(1, 1), LineRole::A, 10_000);
    arbiter.poll(14_999, None, true);
    assert_eq!(arbiter.state(), ChannelState::Live);
    arbiter.poll(15_000, None, true);
    assert_eq!(arbiter.state(), ChannelState::Stale);
    arbiter.seen(&header(1, 1), LineRole::A, 15_001);
    assert_eq!(arbiter.state(), ChannelState::Live);
}

#[test]
fn the_session_ends_when_everything_before_its_end_is_there() {
    let mut arbiter = begun(1);
    arbiter.next_is(4, true, 0);
    assert_eq!((arbiter.ended(), arbiter.state()), (None, ChannelState::Backfill));
    arbiter.advance(4);
    assert_eq!((arbiter.ended(), arbiter.state()), (Some(4), ChannelState::Ended));
    arbiter.next_is(4, true, 1);
    arbiter.next_is(2, true, 1);
    assert_eq!(arbiter.ended(), Some(4));
    arbiter.advance(5);
    assert_eq!((arbiter.ended(), arbiter.state()), (None, ChannelState::Live));
}

#[test]
fn a_session_that_was_left_never_comes_back_and_a_retransmission_begins_none() {
    let mut arbiter = begun(1);
    let other = |n: u8| PacketHeader { session: [n; 10], ..header(1, 1) };
    assert_eq!(arbiter.classify(&other(1), LineRole::Recovery), Verdict::OldSession);
    for n in 1..=OLD_SESSIONS as u8 {
        assert_eq!(arbiter.classify(&other(n), LineRole::B), Verdict::Unproven);
        arbiter.begin(&other(n));
        assert_eq!(arbiter.expected(), 1);
        assert_eq!(arbiter.classify(&header(9, 1), LineRole::A), Verdict::OldSession);
    }
    assert_eq!(arbiter.counts().sessions, 1 + OLD_SESSIONS as u64);
}

#[test]
fn a_second_packet_confirms_unless_it_is_far_the_same_or_too_late() {
    let mut arbiter = begun(1);
    let first = |dropped| Witness::First { dropped };
    let claim = |header, role, received_ns| Claim { header, role, received_ns };
    let near = header(1 << 40, 2);
    assert_eq!(arbiter.witness(&near, LineRole::A, 5), first(None));
    assert_eq!(arbiter.witness(&near, LineRole::A, 6), Witness::Repeated);
    assert_eq!(arbiter.witness(&near, LineRole::B, 7), Witness::Second(claim(near, LineRole::A, 5)));
    assert_eq!(arbiter.witness(&near, LineRole::B, 8), first(None));
    let far = header((1 << 40) + UNPROVEN_JUMP + 1, 0);
    assert_eq!(arbiter.witness(&far, LineRole::A, 9), first(Some(claim(near, LineRole::B, 8))));
    let next = header(far.sequence + 1, 0);
    assert_eq!(arbiter.witness(&next, LineRole::A, 10), Witness::Second(claim(far, LineRole::A, 9)));
    assert_eq!(arbiter.witness(&far, LineRole::A, 10), first(None));
    arbiter.seen(&header(1, 1), LineRole::A, 1010);
    assert_eq!(arbiter.take_contradicted(), None);
    arbiter.seen(&header(1, 1), LineRole::A, 1011);
    assert_eq!(arbiter.witness(&next, LineRole::B, 1012), first(Some(claim(far, LineRole::A, 10))));
    arbiter.seen(&header(1, 1), LineRole::A, 2013);
    assert_eq!(arbiter.take_contradicted(), Some(claim(next, LineRole::B, 1012)));
    assert_eq!(arbiter.take_contradicted(), None);
}

#[test]
fn the_first_session_begins_where_it_is_told_to() {
    for (start, sequence, first) in [(StartAt::Now, 77, 77), (StartAt::First, 77, 1), (StartAt::Now, 0, 1)] {
        let mut arbiter = Arbiter::new(DEADLINES, start, 4);
        arbiter.begin(&header(sequence, 0));
        assert_eq!((arbiter.expected(), arbiter.first()), (first, first));
    }
}
