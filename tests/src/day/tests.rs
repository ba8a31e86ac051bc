#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::itch::TYPES;

fn settings(seed: u64, messages: u64) -> DaySettings {
    DaySettings { seed, messages, instruments: 200, live_orders: 2_000, recency: 0.5 }
}

#[test]
fn every_type_appears_and_has_its_length_and_the_day_is_as_long_as_asked() {
    for (seed, messages) in [(1, 20_000), (2, 20_000), (3, 21_357), (4, 60_000), (5, MIN_MESSAGES)] {
        let mut seen = BTreeMap::new();
        let mut bytes = Vec::new();
        let mut last_ns = 0;
        for message in Day::new(&settings(seed, messages)) {
            bytes.clear();
            message.encode(&mut bytes);
            *seen.entry(message.body.code()).or_insert(0u64) += 1;
            let length = TYPES.iter().find(|t| t.0 == bytes[0]).unwrap().1;
            assert_eq!(bytes.len(), length);
            assert_eq!(Message::decode(&bytes), Some(message));
            assert!(message.timestamp_ns >= last_ns && message.timestamp_ns < 24 * HOUR_NS);
            last_ns = message.timestamp_ns;
        }
        assert_eq!(seen.values().sum::<u64>(), messages, "seed {seed}");
        let missing: Vec<_> = TYPES.iter().filter(|t| !seen.contains_key(&t.0)).map(|t| t.0 as char).collect();
        assert!(missing.is_empty(), "seed {seed}, {messages} messages: no {missing:?}");
    }
}

#[test]
fn system_events_bracket_the_day_in_order() {
    let messages: Vec<_> = Day::new(&settings(7, 20_000)).collect();
    let events: Vec<u8> = messages
        .iter()
        .filter_map(|m| if let Body::SystemEvent { event } = m.body { Some(event) } else { None })
        .collect();
    assert_eq!(events, b"OSQMEC");
    assert_eq!(messages.last().unwrap().body, Body::SystemEvent { event: b'C' });
    assert_eq!(messages[0].body, Body::SystemEvent { event: b'O' });
}

/// A book kept the naive way never goes negative, never names a dead order, and ends as the day says it does.
#[test]
fn books_are_consistent() {
    for seed in 0..4 {
        let mut day = Day::new(&settings(seed, 50_000));
        let mut book: HashMap<u64, LiveOrder> = HashMap::new();
        let mut most = 0;
        for message in day.by_ref() {
            let reduce = |book: &mut HashMap<u64, LiveOrder>, reference: u64, shares: u32| {
                let order = book.get_mut(&reference).expect("names a live order");
                assert_eq!(order.locate, message.locate);
                assert!(shares > 0 && shares <= order.shares, "more shares than are left");
                order.shares -= shares;
                if order.shares == 0 {
                    book.remove(&reference);
                }
            };
            match message.body {
                Body::Add { reference, side, shares, price, .. }
                | Body::AddAttributed { reference, side, shares, price, .. } => {
                    assert!(shares > 0 && price > 0 && price <= 0x7735_9400);
                    let order = LiveOrder { reference, locate: message.locate, side, shares, price };
                    assert!(book.insert(reference, order).is_none(), "reference used twice");
                }
                Body::Executed { reference, shares, .. } | Body::ExecutedWithPrice { reference, shares, .. } => {
                    reduce(&mut book, reference, shares);
                }
                Body::Cancel { reference, shares } => {
                    assert!(shares < book[&reference].shares, "a cancel leaves something");
                    reduce(&mut book, reference, shares);
                }
                Body::Delete { reference } => assert!(book.remove(&reference).is_some()),
                Body::Replace { original, reference, shares, price } => {
                    let old = book.remove(&original).expect("replaces a live order");
                    book.insert(reference, LiveOrder { reference, shares, price, ..old });
                }
                _ => {}
            }
            most = most.max(book.len());
        }
        let own: HashMap<u64, LiveOrder> = day.live_orders().iter().map(|o| (o.reference, *o)).collect();
        assert_eq!(own, book, "seed {seed}");
        assert!((1_800..2_400).contains(&most), "seed {seed}: {most} live orders at most");
        for locate in 1..=200 {
            let of = |side| book.values().filter(move |o| o.locate == locate && o.side == side).map(|o| o.price);
            assert!(of(b'B').max() < of(b'S').min() || of(b'S').min().is_none(), "seed {seed}: crossed");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_day() {
    let hash = |seed| Day::new(&settings(seed, 20_000)).map(|m| format!("{m:?}")).collect::<String>();
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

#[test]
fn printable_and_unprintable_executions_both_occur() {
    let printable: Vec<u8> = Day::new(&settings(1, 20_000))
        .filter_map(|m| if let Body::ExecutedWithPrice { printable, .. } = m.body { Some(printable) } else { None })
        .collect();
    assert!(printable.contains(&b'Y') && printable.contains(&b'N'));
}
