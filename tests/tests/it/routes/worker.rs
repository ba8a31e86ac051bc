//! The worker as the program builds it, on a memory port: several destinations of one channel whose lines lose and lag.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use feedhandler::config::plan::{RecordKind, RoutePlan};
use feedhandler::metrics::DestinationCounts;
use feedhandler::publish::Route;
use feedhandler::worker::shared::{Command, Event};
use feedhandler_testkit::bench_worker::{BenchWorker, plan_to};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings, Transmission};
use feedhandler_testkit::line::LineSettings;

use super::oracle::{Blocks, Oracle, add_packet, cut, symbols, without_notice};

const END_NS: u64 = 3_000_000_000;

pub fn destination(name: &str, number: u8, more: &str) -> String {
    format!(
        "[[destination]]\nname = \"{name}\"\nchannel = \"itch/equities\"\ninterface = \"memory\"\n\
         group = \"239.20.0.{number}:30001\"\n{more}\n"
    )
}

pub fn words(symbols: &[[u8; 8]]) -> String {
    let word = |symbol: &[u8; 8]| format!("\"{}\"", String::from_utf8_lossy(symbol).trim_end());
    format!("instruments = [{}]", symbols.iter().map(word).collect::<Vec<_>>().join(", "))
}

pub fn day() -> DaySettings {
    DaySettings { seed: 21, messages: 20_000, instruments: 40, live_orders: 2_000, recency: 0.5 }
}

pub fn transmissions(loss: f64) -> Vec<Transmission> {
    let line = LineSettings { loss, skew_ns: 50_000, ..LineSettings::default() };
    let settings = ExchangeSettings { seed: 21, lines: [line, line], ..ExchangeSettings::default() };
    Exchange::new(settings, Day::new(&day())).collect()
}

/// What each destination got.
fn run(
    bench: &mut BenchWorker,
    transmissions: &[Transmission],
    destinations: usize,
    mut each: impl FnMut(&mut BenchWorker, usize),
) -> Vec<Blocks> {
    let mut blocks = vec![Blocks::new(); destinations];
    for (i, transmission) in transmissions.iter().enumerate() {
        each(bench, i);
        bench.inject(u16::try_from(transmission.line).expect("two lines"), &transmission.payload, transmission.at_ns);
        bench.cycle_to(transmission.at_ns, |destination, payload| add_packet(&mut blocks[destination], payload));
    }
    let last_ns = transmissions.last().expect("a day").at_ns;
    for step in 1..=30 {
        bench.cycle_to(last_ns + step * END_NS / 30, |number, payload| add_packet(&mut blocks[number], payload));
    }
    bench.worker.audit();
    blocks
}

#[test]
fn each_destination_gets_its_part_of_a_lossy_channel_under_the_same_numbers() {
    let all = symbols(&Day::new(&day()));
    let some: Vec<_> = all.iter().step_by(4).copied().collect();
    let destinations = destination("some", 2, &words(&some))
        + &destination("trades", 3, "records = [\"trade\", \"status\"]")
        + &destination("raw", 4, "format = \"raw\"")
        + &destination("raw-some", 5, &format!("format = \"raw\"\n{}", words(&some)));
    let mut bench = BenchWorker::whole(&plan_to(20, 512, "", &destinations));
    let blocks = run(&mut bench, &transmissions(0.05), 5, |_, _| {});
    let [whole, some_blocks, trades, raw, raw_some] = &blocks[..] else { unreachable!("five destinations") };
    let counts = bench.link.shared.channel(0);
    assert!(counts.messages_lost > 0 && whole.len() as u64 == counts.messages, "{counts:?}");
    let instruments = RoutePlan { instruments: some, ..RoutePlan::default() };
    let kinds = RoutePlan { records: vec![RecordKind::Trade, RecordKind::Status], ..RoutePlan::default() };
    for (route, blocks, destination) in [(&instruments, some_blocks, 1), (&kinds, trades, 2)] {
        let mut oracle = Oracle::new(route.clone());
        let mut filtered = 0;
        for (key, block) in whole {
            let records = without_notice(block);
            let notice = &block[..block.len() - records.len()];
            let expected = oracle.dbn(records);
            filtered += u64::from(expected.is_empty() && !records.is_empty());
            assert_eq!(blocks.get(key), Some(&[notice, &expected].concat()), "{route:?}: message {}", key.1);
        }
        let counts = DestinationCounts::from_values(bench.link.shared.destinations[destination].load());
        assert_eq!((blocks.len(), counts.blocks_filtered), (whole.len(), filtered), "{route:?}");
        assert!(filtered > 5_000 && counts.records > 1_000, "{route:?}: {counts:?}");
    }
    let mut oracle = Oracle::new(instruments);
    for ((key, message), block) in raw.iter().zip(whole.values()) {
        oracle.learn(without_notice(block));
        let expected = if oracle.raw(message) { &message[..] } else { &[] };
        assert_eq!(raw_some.get(key).map(|block| &block[..]), Some(expected), "message {}", key.1);
    }
    assert_eq!((raw.len(), raw_some.len()), (whole.len(), whole.len()));
}

/// Records by message number of these instruments, mappings aside, which may come again.
fn records_of(blocks: &Blocks, symbols: &[[u8; 8]]) -> BTreeMap<u64, Vec<Vec<u8>>> {
    let mut ids = std::collections::HashSet::new();
    let mut found = BTreeMap::<u64, Vec<Vec<u8>>>::new();
    for ((_, sequence), block) in blocks {
        for record in cut(without_notice(block)) {
            let id = u32::from_le_bytes(record[4..8].try_into().expect("four bytes"));
            if record[1] == 0x16 {
                let text: Vec<u8> = record[17..25].iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
                if symbols.iter().any(|symbol| symbol[..] == text[..]) {
                    ids.insert(id);
                }
            } else if ids.contains(&id) {
                found.entry(*sequence).or_default().push(record.to_vec());
            }
        }
    }
    found
}

#[test]
fn what_is_in_both_routes_goes_on_as_if_nothing_had_changed() {
    let all = symbols(&Day::new(&day()));
    let (common, others) = all.split_at(10);
    let (left, right) = others.split_at(others.len() / 2);
    let routes = [left, right].map(|part| {
        let mut instruments = [common, part].concat();
        instruments.sort_unstable();
        RoutePlan { instruments, ..RoutePlan::default() }
    });
    let transmissions = transmissions(0.0);
    let mut bench = BenchWorker::whole(&plan_to(20, 512, "", &destination("some", 2, &words(&routes[0].instruments))));
    let (mut changes, mut back) = (0, 0);
    let mut take_back = |bench: &mut BenchWorker| {
        let mut events = bench.link.events.lock().expect("not poisoned");
        while let Ok(event) = events.pop() {
            back += usize::from(matches!(event, Event::RouteOut(_)));
        }
    };
    let blocks = run(&mut bench, &transmissions, 2, |bench, i| {
        if i % 7 == 6 {
            changes += 1;
            let route = Route::new(&routes[changes % 2]);
            bench.link.send(Command::SetRoute { destination: 1, route }).expect("room");
        }
        take_back(bench);
    });
    take_back(&mut bench);
    assert!(changes > 100 && back == changes, "{changes} changes, {back} routes came back");
    let [whole, some] = &blocks[..] else { unreachable!("two destinations") };
    assert!(whole.keys().eq(some.keys()), "every number, once");
    let (expected, sent) = (records_of(whole, common), records_of(some, common));
    assert!(expected.len() > 1_000 && expected == sent, "{} messages, {} came", expected.len(), sent.len());
    let (of_left, of_all) = (records_of(some, left).len(), records_of(whole, left).len());
    assert!(of_left > of_all / 4 && of_left < of_all * 3 / 4, "{of_left} of {of_all} while it was taken");
}

#[test]
fn every_route_comes_back_also_one_for_nobody() {
    let mut bench = BenchWorker::whole(&plan_to(20, 512, "", "instruments = [\"NONE\"]"));
    let applied = |bench: &BenchWorker| bench.link.shared.commands_applied.load(std::sync::atomic::Ordering::Relaxed);
    let route = || Route::new(&RoutePlan::default());
    let before = applied(&bench);
    for destination in [0, 7, 0] {
        bench.link.send(Command::SetRoute { destination, route: route() }).expect("room");
    }
    (0..5).for_each(|_| bench.cycle(0, |_| {}));
    assert_eq!(applied(&bench), before + 3);
    let mut events = bench.link.events.lock().expect("not poisoned");
    let back = std::iter::from_fn(|| events.pop().ok()).filter(|event| matches!(event, Event::RouteOut(_))).count();
    assert_eq!(back, 3);
}
