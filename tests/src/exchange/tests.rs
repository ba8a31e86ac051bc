#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::*;
use crate::day::{Day, DaySettings};

fn settings(seed: u64) -> ExchangeSettings {
    let a = LineSettings {
        loss: 0.03,
        loss_burst: 2.0,
        duplicate: 0.02,
        reorder: 0.02,
        reorder_ns: 300_000,
        jitter_ns: 2_000,
        ..Default::default()
    };
    let lines = [a, LineSettings { skew_ns: 20_000, corrupt: 0.01, ..a }];
    ExchangeSettings { seed, lines, quiet_every: 7_000, ..Default::default() }
}

fn day(seed: u64) -> Day {
    Day::new(&DaySettings { seed, messages: 20_000, ..Default::default() })
}

#[test]
fn both_lines_carry_all_messages_but_their_losses_in_packets_of_their_own() {
    for seed in 0..5 {
        let mut exchange = Exchange::new(settings(seed), day(seed));
        let mut carried: [BTreeMap<u64, Vec<u8>>; 2] = Default::default();
        let mut starts: [Vec<u64>; 2] = Default::default();
        let (mut ends, mut last_ns) = ([0; 2], 0);
        for Transmission { at_ns, line, payload, .. } in exchange.by_ref() {
            assert!(at_ns >= last_ns, "out of order in time");
            last_ns = at_ns;
            let Ok(view) = mold::parse(&payload) else { continue };
            ends[line] += u32::from(view.is_end);
            starts[line].push(view.sequence);
            for (i, block) in view.blocks.iter().enumerate() {
                carried[line].insert(view.sequence + i as u64, block.to_vec());
            }
        }
        assert_eq!(exchange.next_sequence(), 20_001);
        assert!(ends.iter().all(|&n| n > 5), "{ends:?}");
        assert_ne!(starts[0], starts[1], "lines cut at the same messages");
        for (sequence, message) in (1..).zip(day(seed)) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            for (line, carried) in carried.iter().enumerate() {
                let want = (!exchange.lost(line).contains(sequence)).then_some(&bytes);
                assert_eq!(carried.get(&sequence), want, "seed {seed} line {line} message {sequence}");
            }
        }
        assert!(exchange.lost(0).count() > 100 && !exchange.common_losses().is_empty());
        assert!(exchange.sent(0).heartbeats > 12, "{:?}", exchange.sent(0));
    }
}

#[test]
fn the_rate_is_kept_and_time_limits_hold() {
    let settings = ExchangeSettings { lead_ns: 0, end_count: 1, ..Default::default() };
    let mut exchange = Exchange::new(settings, day(1));
    let last = exchange.by_ref().last().unwrap();
    let seconds = last.at_ns as f64 / 1e9;
    assert!((0.15..0.35).contains(&seconds), "20,000 messages at 100,000 per second took {seconds} s");
}
