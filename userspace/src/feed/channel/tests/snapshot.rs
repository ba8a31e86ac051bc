//! A late start by a snapshot: what is held, what is dropped, what goes wrong.
#![forbid(unsafe_code)]

use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::feed::JoinState;
use LineRole::Snapshot;

const GIVE_UP_NS: u64 = 10_000;

fn joining() -> ChannelSettings {
    ChannelSettings { start: StartAt::Snapshot { give_up_ns: GIVE_UP_NS }, stale_ns: 0, hold_packets: 64, ..settings() }
}

impl Rig {
    /// Says that a snapshot of all messages before `next` is complete.
    fn announce(&mut self, next: u64) -> Result<(), DropReason> {
        self.send(Snapshot, &packet(&SESSION, next, 0))
    }

    /// Says that a server is about to take one.
    fn attempt(&mut self) {
        self.send(Snapshot, &packet(&SESSION, 0, 0)).unwrap();
    }

    fn joined(&self) -> (JoinState, ChannelState) {
        (self.channel.join_state(), self.channel.state())
    }
}

fn waiting() -> Rig {
    let mut rig = Rig::new(joining());
    rig.data(A, 100, 5).unwrap();
    assert_eq!((rig.joined(), rig.take().as_str()), ((JoinState::Awaited, ChannelState::Backfill), ""));
    assert!(rig.channel.is_unnumbered());
    rig
}

#[test]
fn a_session_that_is_seen_from_its_first_message_waits_for_nothing() {
    for first in [packet(&SESSION, 1, 3), packet(&SESSION, 1, 0)] {
        let mut rig = Rig::new(joining());
        rig.send(A, &first).unwrap();
        assert_eq!(rig.joined(), (JoinState::None, ChannelState::Live));
        assert_eq!(rig.announce(1), Err(DropReason::Unconfirmed));
    }
}

#[test]
fn the_snapshot_takes_the_place_of_what_came_before_and_the_stream_goes_on_behind_it() {
    let mut rig = waiting();
    rig.data(A, 105, 5).unwrap();
    assert_eq!(rig.data(B, 100, 5), Err(DropReason::Duplicate), "held already");
    // What another line had a little later is held, too.
    rig.data(B, 97, 3).unwrap();
    rig.announce(103).unwrap();
    assert_eq!(rig.joined(), (JoinState::Arriving, ChannelState::Backfill));
    assert_eq!(rig.line(B).duplicate, 2, "older than the snapshot");
    assert_eq!(rig.data(B, 99, 4), Err(DropReason::Duplicate));
    rig.data(Snapshot, 90, 8).unwrap();
    assert_eq!(rig.take(), "90-98");
    assert!(!rig.channel.is_unnumbered());
    rig.data(A, 110, 1).unwrap();
    rig.data(Snapshot, 98, 5).unwrap();
    assert_eq!(rig.take(), "98-111");
    assert_eq!(rig.joined(), (JoinState::Joined, ChannelState::Live));
    let counts = rig.channel.counts();
    assert_eq!((counts.first_sequence, counts.next_sequence, counts.snapshot_messages), (90, 111, 13));
    assert_eq!((counts.messages_lost, counts.gaps_opened, counts.duplicate_messages), (0, 0, 5 + 3 + 4 + 3));
    rig.data(A, 111, 1).unwrap();
    assert_eq!(rig.take(), "111-112");
    assert_eq!(rig.announce(112), Err(DropReason::Unconfirmed), "it comes once");
    assert_eq!(rig.data(Snapshot, 112, 1), Err(DropReason::Unconfirmed));
}

#[test]
fn what_lies_between_the_snapshot_and_the_lines_is_an_ordinary_gap() {
    let mut rig = waiting();
    rig.data(A, 110, 1).unwrap();
    rig.poll(200);
    let mut holes = Holes::new();
    rig.channel.holes(&mut holes);
    assert_eq!(holes[..], [(105, 110)], "nothing before the first packet is asked for");
    rig.announce(95).unwrap();
    rig.poll(400);
    rig.channel.holes(&mut holes);
    assert_eq!(holes[..], [(95, 100), (105, 110)]);
    rig.data(Recovery, 95, 5).unwrap();
    rig.data(Snapshot, 80, 15).unwrap();
    assert_eq!(rig.take(), "80-105");
    assert_eq!(rig.joined(), (JoinState::Joined, ChannelState::Gap));
    rig.poll(2000);
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("lost 105-110 110-111", ChannelState::Live));
}

#[test]
fn a_snapshot_of_a_time_that_no_line_has_shown_is_refused() {
    let mut rig = waiting();
    for next in [106, 1 << 40, 1] {
        assert_eq!(rig.announce(next), Err(DropReason::Unconfirmed), "{next}");
    }
    assert_eq!(rig.data(Snapshot, 90, 5), Err(DropReason::Unconfirmed), "not announced");
    assert_eq!(rig.send(Snapshot, &packet(&NEXT_SESSION, 103, 0)), Err(DropReason::OldSession));
    rig.announce(105).unwrap();
    for (sequence, count) in [(101, 5), (105, 1), (1 << 40, 1)] {
        assert_eq!(rig.data(Snapshot, sequence, count), Err(DropReason::Unconfirmed), "{sequence}");
    }
    rig.data(Snapshot, 50, 5).unwrap();
    for sequence in [50, 54, 56] {
        assert_eq!(rig.data(Snapshot, sequence, 1), Err(DropReason::Unconfirmed), "{sequence}: not the next");
    }
    rig.data(Snapshot, 55, 50).unwrap();
    assert_eq!((rig.take().as_str(), rig.joined().0), ("50-105", JoinState::Joined));
}

#[test]
fn without_a_snapshot_it_begins_with_what_is_there() {
    let mut rig = waiting();
    rig.data(A, 107, 1).unwrap();
    rig.data(B, 3, 1).unwrap();
    rig.poll(1);
    rig.poll(GIVE_UP_NS);
    assert_eq!(rig.take(), "");
    rig.poll(GIVE_UP_NS + 1);
    // A stray packet of long ago is no reason to declare all since then lost.
    assert_eq!((rig.take().as_str(), rig.joined()), ("100-105", (JoinState::GivenUp, ChannelState::Gap)));
    assert_eq!(rig.channel.first_sequence(), 100);
    rig.data(B, 105, 2).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("105-108", ChannelState::Live));
    assert_eq!(rig.channel.counts().messages_lost, 0);
    assert_eq!(rig.announce(103), Err(DropReason::Unconfirmed), "too late");

    let mut told = waiting();
    told.send(Snapshot, &packet(&SESSION, 0, moldudp64::END_OF_SESSION)).unwrap();
    assert_eq!((told.take().as_str(), told.joined()), ("100-105", (JoinState::GivenUp, ChannelState::Live)));
}

#[test]
fn a_snapshot_that_stops_arriving_is_lost_and_nothing_else() {
    let mut rig = waiting();
    rig.announce(102).unwrap();
    rig.data(Snapshot, 90, 5).unwrap();
    rig.poll(1_000);
    rig.poll(5_000_000_999);
    assert_eq!(rig.take(), "90-95");
    rig.poll(5_000_001_000);
    assert_eq!((rig.take().as_str(), rig.joined().0), ("lost 95-102 102-105", JoinState::GivenUp));
    let counts = rig.channel.counts();
    assert_eq!((counts.gaps_opened, counts.gaps_lost, counts.messages_lost), (1, 1, 7));
    assert_eq!(rig.data(Snapshot, 95, 5), Err(DropReason::Unconfirmed));

    let mut never = waiting();
    never.announce(102).unwrap();
    never.poll(5_000_001_000);
    assert_eq!((never.take().as_str(), never.channel.counts().messages_lost), ("102-105", 0));
}

#[test]
fn what_has_no_room_is_dropped_and_a_new_attempt_begins_with_an_empty_buffer() {
    let mut rig = Rig::new(ChannelSettings { hold_packets: 2, ..joining() });
    for sequence in [100, 101] {
        rig.data(A, sequence, 1).unwrap();
    }
    rig.attempt();
    assert_eq!(rig.data(A, 102, 1), Err(DropReason::HoldFull), "nothing was missing, so nothing was forgotten");
    rig.attempt();
    assert_eq!(rig.channel.line_drops(A).get(DropReason::HoldFull), 3);
    rig.data(A, 103, 1).unwrap();
    rig.data(A, 104, 1).unwrap();
    rig.announce(103).unwrap();
    rig.data(Snapshot, 50, 53).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("50-105", ChannelState::Live));
    assert_eq!((rig.channel.counts().hold_evicted, rig.channel.counts().messages_lost), (3, 0));
}

#[test]
fn a_session_that_ends_or_changes_meanwhile_is_not_waited_for() {
    let mut rig = waiting();
    rig.send(A, &packet(&SESSION, 105, moldudp64::END_OF_SESSION)).unwrap();
    assert_eq!((rig.take().as_str(), rig.joined()), ("100-105 end 105", (JoinState::GivenUp, ChannelState::Ended)));

    for messages in [0, 5, 12] {
        let mut rig = waiting();
        rig.announce(102).unwrap();
        if messages > 0 {
            rig.data(Snapshot, 90, messages).unwrap();
        }
        rig.take();
        for role in [A, B] {
            rig.send(role, &packet(&NEXT_SESSION, 1, 1)).ok();
        }
        let begins = match messages {
            0 => "102-105 ",
            5 => "lost 95-102 102-105 ",
            _ => "",
        };
        assert_eq!(rig.take(), format!("{begins}end 105 / 1-2"));
        assert_eq!(rig.data(Snapshot, 95, 1), Err(DropReason::OldSession));
        assert_eq!(rig.channel.state(), ChannelState::Live);
    }
}

/// What one line does with a run of messages.
#[derive(Clone, Debug)]
struct Sent {
    role: LineRole,
    sequence: u64,
    count: u16,
}

/// Both lines' packets of `messages`, cut apart, some lost, merged at random.
fn lines(messages: Range<u64>) -> impl Strategy<Value = Vec<Sent>> {
    let line = |role| {
        let messages = messages.clone();
        prop::collection::vec((1..6_u16, prop::bool::weighted(0.85)), 1..60).prop_map(move |cuts| {
            let mut sequence = messages.start;
            let mut sent = Vec::new();
            for (count, is_carried) in cuts.into_iter().cycle() {
                let count = count.min(u16::try_from(messages.end - sequence).unwrap());
                if count == 0 {
                    break;
                }
                if is_carried || sequence == messages.start {
                    sent.push(Sent { role, sequence, count });
                }
                sequence += u64::from(count);
            }
            sent
        })
    };
    (line(A), line(B), prop::collection::vec(any::<bool>(), 200)).prop_map(|(a, b, order)| {
        let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
        let mut merged = Vec::new();
        for is_a in order.into_iter().cycle() {
            let next = if is_a { a.next().or_else(|| b.next()) } else { b.next().or_else(|| a.next()) };
            match next {
                Some(sent) => merged.push(sent),
                None => break,
            }
        }
        merged
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// However snapshot and live packets mingle: every number once and in order, those before `next` from the snapshot, those
    /// from it on from the lines; lost is what no line carried, and nothing else.
    #[test]
    fn every_number_comes_once_from_where_it_should(
        sent in lines(200..260),
        at in 1..40_usize,
        back in 0..20_u64,
        messages in 1..60_u64,
        pieces in prop::collection::vec((1..9_u16, 0..4_usize), 60),
    ) {
        let mut rig = Rig::new(joining());
        let mut live = sent.iter();
        for sent in live.by_ref().take(at) {
            let _ = rig.data(sent.role, sent.sequence, sent.count);
        }
        let known = rig.channel.counts().known_sequence;
        let next = known - back.min(known - 190);
        let from = next - messages;
        prop_assert_eq!(rig.take(), "");
        rig.announce(next).unwrap();
        let mut pieces = pieces.into_iter().cycle();
        let mut sequence = from;
        while sequence < next {
            let (count, between) = pieces.next().unwrap();
            let count = u64::from(count).min(next - sequence);
            rig.data(Snapshot, sequence, u16::try_from(count).unwrap()).unwrap();
            sequence += count;
            for sent in live.by_ref().take(between) {
                let _ = rig.data(sent.role, sent.sequence, sent.count);
            }
        }
        prop_assert_eq!(rig.channel.join_state(), JoinState::Joined);
        for sent in live {
            let _ = rig.data(sent.role, sent.sequence, sent.count);
        }
        rig.send(A, &packet(&SESSION, 260, 0)).unwrap();
        rig.poll(100_000);
        rig.poll(200_000);
        let carried = |number: u64| {
            sent.iter().any(|sent| (sent.sequence..sent.sequence + u64::from(sent.count)).contains(&number))
        };
        let mut expected = from;
        for out in std::mem::take(&mut rig.out.0) {
            match out {
                Out::Message(_, number, bytes) => {
                    prop_assert_eq!((number, bytes), (expected, message(number)));
                    prop_assert!(number < next || carried(number), "{}", number);
                    expected += 1;
                }
                Out::Lost(_, from, to) => {
                    prop_assert_eq!(from, expected);
                    prop_assert!((from..to).all(|number| number >= next && !carried(number)), "{}-{}", from, to);
                    expected = to;
                }
                Out::End(..) => prop_assert!(false, "no end was told"),
            }
        }
        prop_assert_eq!(expected, 260);
        prop_assert_eq!(rig.channel.counts().snapshot_messages, messages);
    }
}
