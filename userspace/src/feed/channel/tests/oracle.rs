//! Random packetisation, loss, duplication and reordering per line against sort-and-dedup of what arrived.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// One copy of the stream: how it is cut, and what happens to each packet.
#[derive(Clone, Debug)]
struct Copy {
    cuts: Vec<u16>,
    /// Per packet: lost (0), doubled (1), or once; and how far it is delayed, in packets.
    fates: Vec<(u8, usize)>,
}

fn copy() -> impl Strategy<Value = Copy> {
    let fate = (0..10u8, prop_oneof![4 => Just(0usize), 1 => 0..12usize]);
    (prop::collection::vec(0..9u16, 1..60), prop::collection::vec(fate, 60))
        .prop_map(|(cuts, fates)| Copy { cuts, fates })
}

/// The packets of a copy in order of arrival: (time, sequence, count).
fn arrivals(copy: &Copy, from: u64, to: u64) -> Vec<(usize, u64, u16)> {
    let mut sequence = from;
    let mut arrivals = Vec::new();
    for (i, (cut, (fate, delay))) in copy.cuts.iter().cycle().zip(&copy.fates).enumerate() {
        // A cut of 0 is a heartbeat.
        let count = u64::from(*cut).min(to - sequence) as u16;
        let times = match fate {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        for again in 0..times {
            arrivals.push((i + delay + again * 3, sequence, count));
        }
        sequence += u64::from(count);
    }
    arrivals.sort_by_key(|(time, ..)| *time);
    arrivals
}

#[derive(Default)]
struct Told {
    delivered: Vec<u64>,
    lost: Vec<u64>,
}

/// Checks that what came out counts up by one from `first`, every number either delivered or lost.
fn check_order(out: Vec<Out>, first: u64) -> Told {
    let mut told = Told::default();
    let mut next = first;
    for out in out {
        match out {
            Out::Message(_, sequence, bytes) => {
                assert_eq!(sequence, next);
                assert_eq!(bytes, message(sequence));
                told.delivered.push(sequence);
                next += 1;
            }
            Out::Lost(_, from, to) => {
                assert_eq!(from, next);
                assert!(to > from);
                told.lost.extend(from..to);
                next = to;
            }
            Out::End(..) => panic!("nobody ended the session"),
        }
    }
    told
}

struct Scenario {
    a: Copy,
    b: Copy,
    batch: usize,
    hold_packets: usize,
    give_up_early: bool,
}

/// Feeds both copies, batch by batch; returns the channel, what arrived, and what came out.
fn run(scenario: &Scenario) -> (Channel, BTreeSet<u64>, u64, Told) {
    let settings = ChannelSettings { hold_packets: scenario.hold_packets, start: StartAt::First, ..settings() };
    let mut channel = Channel::new(settings).unwrap();
    let mut out = Collect::default();
    let mut all: Vec<_> = arrivals(&scenario.a, 1, 150).into_iter().map(|packet| (A, packet)).collect();
    all.extend(arrivals(&scenario.b, 1, 150).into_iter().map(|packet| (B, packet)));
    all.sort_by_key(|(_, (time, ..))| *time);
    let (mut arrived, mut known) = (BTreeSet::new(), 1);
    let (mut now_ns, mut accepted, mut dropped) = (0, 0, 0);
    for batch in all.chunks(scenario.batch) {
        let payloads: Vec<_> = batch.iter().map(|(_, (_, s, n))| packet(&SESSION, *s, *n)).collect();
        for (slot, (role, (_, sequence, count))) in batch.iter().enumerate() {
            match channel.admit(slot as u16, *role, &payloads[slot], now_ns) {
                Ok(()) => accepted += 1,
                Err(_) => dropped += 1,
            }
            arrived.extend(*sequence..sequence + u64::from(*count));
            known = known.max(sequence + u64::from(*count));
            now_ns += 10;
        }
        channel.deliver(|slot| &payloads[usize::from(slot)], 0, &mut out);
        if scenario.give_up_early {
            channel.poll(now_ns + 900);
            channel.deliver(|_| unreachable!(), 0, &mut out);
        }
    }
    assert_eq!(accepted + dropped, all.len());
    // More than once: gaps differ in age.
    while channel.gap().is_some() {
        now_ns += 1_000;
        channel.poll(now_ns);
        channel.deliver(|_| unreachable!(), 0, &mut out);
    }
    (channel, arrived, known, check_order(out.0, 1))
}

/// Sums that hold whatever happened.
fn check_counts(channel: &Channel, told: &Told) {
    let counts = channel.counts();
    assert_eq!(counts.messages, told.delivered.len() as u64);
    assert_eq!(counts.messages_lost, told.lost.len() as u64);
    assert_eq!(counts.gaps_opened, counts.gaps_closed + counts.gaps_lost);
    assert_eq!(channel.gap(), None);
    assert!(channel.hold.is_empty());
    for role in [A, B] {
        let (line, drops) = (channel.line_counts(role), channel.line_drops(role));
        // Every packet has exactly one fate.
        let dropped = drops.get(DropReason::HoldFull) + drops.get(DropReason::Late);
        let fates = line.first + line.duplicate + line.heartbeats + dropped;
        assert_eq!(line.packets, fates);
        assert_eq!(line.duplicate, drops.get(DropReason::Duplicate));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// With room to hold everything and patience, exactly what arrived comes out, and only the rest is lost.
    #[test]
    fn delivers_exactly_what_arrived(a in copy(), b in copy(), batch in 1..64usize) {
        let (channel, arrived, known, told) = run(&Scenario { a, b, batch, hold_packets: 400, give_up_early: false });
        let missing: Vec<u64> = (1..known).filter(|sequence| !arrived.contains(sequence)).collect();
        prop_assert!(told.delivered.iter().eq(arrived.iter()));
        prop_assert_eq!(&told.lost, &missing);
        check_counts(&channel, &told);
    }

    /// With a small buffer and an impatient clock more is lost, but never silently, never twice, never out of order.
    #[test]
    fn whatever_happens_each_message_is_delivered_once_or_lost(
        a in copy(), b in copy(), batch in 1..64usize, hold_packets in 1..5usize, give_up_early: bool
    ) {
        let (channel, arrived, known, told) = run(&Scenario { a, b, batch, hold_packets, give_up_early });
        prop_assert_eq!((told.delivered.len() + told.lost.len()) as u64, known - 1);
        prop_assert!(told.delivered.iter().all(|sequence| arrived.contains(sequence)));
        check_counts(&channel, &told);
    }
}
