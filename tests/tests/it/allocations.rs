//! A running worker allocates nothing.
#![forbid(unsafe_code)]

use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings, Transmission};
use feedhandler_testkit::line::LineSettings;

use crate::bench_worker::{BenchWorker, plan};

#[test]
fn a_running_worker_allocates_nothing() {
    let day = DaySettings { seed: 3, messages: 30_000, instruments: 100, live_orders: 5_000, recency: 0.5 };
    let imperfect = LineSettings {
        loss: 0.05,
        duplicate: 0.02,
        reorder: 0.02,
        reorder_ns: 500_000,
        skew_ns: 50_000,
        ..LineSettings::default()
    };
    let settings = ExchangeSettings { seed: 3, lines: [imperfect, imperfect], ..ExchangeSettings::default() };
    let transmissions: Vec<Transmission> = Exchange::new(settings, Day::new(&day)).collect();
    let mut bench = BenchWorker::new(&plan(20, 512));
    let mut sent = 0;
    let counted = allocation_counter::measure(|| {
        for transmission in &transmissions {
            let line = u16::try_from(transmission.line).unwrap_or_default();
            bench.inject(line, &transmission.payload, transmission.at_ns);
            bench.cycle(transmission.at_ns, |_| sent += 1);
        }
    });
    let counts = bench.link.shared.channel(0);
    assert!(sent > 1_000, "the worker was at work: {sent} packets");
    assert!(counts.held_packets > 0 && counts.gaps_lost > 0, "gaps were held and given up: {counts:?}");
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "allocations, bytes");
}

#[test]
fn the_counter_can_count() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1_u64)))).count_total, 1);
}
