#![forbid(unsafe_code)]

use super::notice::{Begins, Due};
use super::*;
use crate::itch::Message;
use crate::mold::{self, Packet};
use crate::ranges::RangeSet;
use crate::records::{self, Shared};
use crate::truth::{Expected, Truth};

const SESSION: Session = *b"CHECK TEST";
const MIDNIGHT_NS: u64 = 1_700_000_000_000_000_000;
const NOW_NS: u64 = MIDNIGHT_NS + 50_000_000_000_000;

fn day() -> DaySettings {
    DaySettings { seed: 9, messages: 5_000, instruments: 20, live_orders: 300, recency: 0.5 }
}

/// One message's block as a right handler writes it.
fn block(truth: &mut Truth, message: &Message, sequence: u64, is_bad_book: bool) -> Vec<u8> {
    let shared = Shared {
        publisher_id: 2,
        instrument: u32::from(message.locate),
        ts_event: MIDNIGHT_NS + message.timestamp_ns,
        sequence: sequence as u32,
        is_bad_book,
        is_snapshot: false,
    };
    truth
        .apply(message)
        .iter()
        .flat_map(|expected: &Expected| records::tests::encode(expected, &shared, NOW_NS))
        .collect()
}

/// A right handler's blocks of the day, without the messages in `lost`.
fn stream(lost: &RangeSet) -> Vec<(u64, Vec<u8>)> {
    let mut truth = Truth::default();
    let mut due = Due::default();
    due.enter(None, 1, Begins::New);
    let first_lost = lost.iter().next().map_or(u64::MAX, |run| run.start);
    let mut blocks = Vec::new();
    for (sequence, message) in (1..).zip(Day::new(&day())) {
        if lost.contains(sequence) {
            due.lost(sequence..sequence + 1);
            continue;
        }
        let mut bytes = notice::encode(&mut due, &SESSION, 2, NOW_NS);
        bytes.extend(block(&mut truth, &message, sequence, sequence > first_lost));
        blocks.push((sequence, bytes));
    }
    blocks
}

fn check(stream: &[(u64, Vec<u8>)], lost: &RangeSet) -> Report {
    let settings = CheckSettings { publisher_id: 2, midnight_ns: MIDNIGHT_NS, started_ns: NOW_NS - 1 };
    let mut checker = Checker::new(settings, vec![day_truth(SESSION, &day())]);
    for (sequence, block) in stream {
        let mut packet = Packet::new(&SESSION, *sequence);
        packet.push(block);
        checker.packet(&packet.into_payload(), NOW_NS + 1);
    }
    checker.packet(&mold::end_of_session(&SESSION, 5_001), NOW_NS + 1);
    assert!(checker.has_ended());
    let account = SessionAccount { common_losses: lost.clone(), next_sequence: 5_001, must_end: true };
    checker.finish(&[account])
}

/// Index of a message with records, not among the last: its block.
fn some_order(stream: &[(u64, Vec<u8>)]) -> usize {
    (2_000..).find(|&i| stream[i].1.len() >= 56 && stream[i + 1].1.len() >= 56 && stream[i].1[1] == 0xA0).unwrap()
}

#[test]
fn a_right_stream_passes() {
    let none = RangeSet::default();
    let report = check(&stream(&none), &none);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!((report.blocks, report.gap_messages, report.heartbeats), (5_000, 0, 1));
    assert_eq!(report.notices, 1, "the session begins");
    assert!(report.records > 5_000 && report.book_orders > 100 && report.book_levels > 50);
}

#[test]
fn what_no_line_carried_may_be_missing_and_must_be_flagged() {
    let mut lost = RangeSet::default();
    lost.insert(1_500..1_520);
    lost.insert(3_000..3_001);
    lost.insert(4_999..5_001);
    let right = stream(&lost);
    let report = check(&right, &lost);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!((report.gaps, report.gap_messages, report.notices), (3, 23, 3), "the last loss has nothing behind it");
    // The same stream without the flag that says so.
    let mut unflagged = right.clone();
    let at = unflagged.iter().position(|(s, b)| *s > 1_520 && b.len() == 56).unwrap();
    unflagged[at].1[36] &= !0x04;
    assert_eq!(check(&unflagged, &lost).findings.count(Fault::Wrong), 1);
}

#[test]
fn a_loss_that_is_not_named_or_wrongly_is_found() {
    let mut lost = RangeSet::default();
    lost.insert(1_500..1_520);
    let right = stream(&lost);
    let at = right.iter().position(|(sequence, _)| *sequence == 1_520).unwrap();
    let mut stream = right.clone();
    stream[at].1.drain(..320);
    assert_eq!(check(&stream, &lost).findings.counts, [(Fault::Wrong, 1)].into(), "not named");
    for (index, byte) in [(at, 16), (at, 50), (at, 319), (at, 2), (0, 40)] {
        let mut stream = right.clone();
        stream[index].1[byte] ^= 1;
        assert_eq!(check(&stream, &lost).findings.count(Fault::Wrong), 1, "byte {byte} of block {index}");
    }
    let mut stream = right.clone();
    let notice = right[at].1[..320].to_vec();
    stream[at + 1].1.splice(..0, notice);
    assert_eq!(check(&stream, &lost).findings.counts, [(Fault::Wrong, 1)].into(), "named twice");
}

#[test]
fn an_injected_loss_is_found() {
    let none = RangeSet::default();
    let mut stream = stream(&none);
    let at = some_order(&stream);
    let (sequence, _) = stream.remove(at);
    let report = check(&stream, &none);
    assert_eq!(report.findings.count(Fault::Lost), 1);
    assert!(report.findings.first.iter().any(|f| f.fault == Fault::Lost && f.sequence == sequence));
}

#[test]
fn a_loss_of_the_tail_is_found() {
    let none = RangeSet::default();
    let mut stream = stream(&none);
    stream.truncate(4_990);
    assert_eq!(check(&stream, &none).findings.count(Fault::Lost), 10);
}

#[test]
fn an_injected_duplicate_is_found() {
    let none = RangeSet::default();
    let mut stream = stream(&none);
    let at = some_order(&stream);
    stream.insert(at, stream[at].clone());
    let report = check(&stream, &none);
    assert_eq!(report.findings.counts, [(Fault::Doubled, 1)].into());
}

#[test]
fn swapped_messages_are_found() {
    let none = RangeSet::default();
    let mut stream = stream(&none);
    let at = some_order(&stream);
    stream.swap(at, at + 1);
    let report = check(&stream, &none);
    assert_eq!(report.findings.count(Fault::Misordered), 1);
    assert_eq!(report.findings.count(Fault::Lost), 1, "it is not delivered where it belongs");
}

#[test]
fn a_wrong_field_of_any_record_is_found() {
    let none = RangeSet::default();
    let right = stream(&none);
    // One record of each type, and one byte that matters in it.
    for (rtype, at) in [(0xA0, 24), (0xA0, 52), (0x12, 24), (0x13, 238), (0x14, 88), (0x16, 17)] {
        let mut stream = right.clone();
        let index = stream.iter().position(|(_, b)| b.get(1) == Some(&rtype));
        let (index, offset) =
            index.map_or_else(|| (stream.iter().position(|(_, b)| b.len() == 696).unwrap(), 176), |index| (index, 0));
        stream[index].1[offset + at] ^= 0x10;
        let report = check(&stream, &none);
        assert_eq!(report.findings.count(Fault::Wrong), 1, "type {rtype:#x} byte {at}");
    }
}

#[test]
fn missing_and_extra_records_are_found() {
    let none = RangeSet::default();
    let right = stream(&none);
    let mut stream = right.clone();
    let at = some_order(&stream);
    let extra = stream[at].1[..56].to_vec();
    stream[at].1.extend(extra);
    assert!(check(&stream, &none).findings.count(Fault::Wrong) == 1);
    let mut stream = right;
    stream[at].1.clear();
    assert!(check(&stream, &none).findings.count(Fault::Wrong) == 1);
}

#[test]
fn a_wrong_book_a_foreign_session_and_garbage_are_found() {
    let none = RangeSet::default();
    let mut stream = stream(&none);
    // The size of an add that stays in the book to the end.
    let resting = Day::new(&day());
    let mut day_ = resting;
    while day_.next().is_some() {}
    let order = day_.live_orders()[0].reference.to_le_bytes();
    let at = stream.iter().position(|(_, b)| b.windows(8).any(|w| w == order)).unwrap();
    let record = stream[at].1.len() - 56;
    stream[at].1[record + 32] ^= 1;
    assert!(check(&stream, &none).findings.count(Fault::Book) >= 1);

    let settings = CheckSettings { publisher_id: 2, midnight_ns: MIDNIGHT_NS, started_ns: NOW_NS };
    let mut checker = Checker::new(settings, vec![day_truth(SESSION, &day())]);
    checker.packet(&mold::heartbeat(b"ANOTHER   ", 1), NOW_NS);
    checker.packet(b"short", NOW_NS);
    checker.packet(&mold::heartbeat(&SESSION, 1), NOW_NS);
    let mut packet = Packet::new(&SESSION, 1);
    packet.push(&[0; 3]);
    checker.packet(&packet.into_payload(), NOW_NS);
    assert_eq!(checker.findings().counts, [(Fault::Malformed, 2), (Fault::Foreign, 1), (Fault::Wrong, 1)].into());
}
