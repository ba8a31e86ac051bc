//! The seeded simulation: exchange → two imperfect lines → the real worker on memory ports → the consumer's check.
//!
//! `FEEDHANDLER_SEEDS=1000` runs more seeds, `FEEDHANDLER_SEED=17` replays one. A failure prints its seed.
#![forbid(unsafe_code)]

use feedhandler::config::midnights;
use feedhandler_testkit::consumer::{CheckSettings, Checker, SessionAccount, day_truth};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings};
use feedhandler_testkit::line::LineSettings;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bench_worker::{BenchWorker, plan};

const SEEDS: u64 = 60;
const MESSAGES: u64 = 6_000;
const STEP_NS: u64 = 100_000;
const GIVE_UP_MS: u64 = 20;
/// Room for all that arrives at the highest rate while a gap is open: here nothing may be lost for want of it.
const HOLD_PACKETS: usize = 16_384;

fn line(rng: &mut ChaCha8Rng) -> LineSettings {
    LineSettings {
        loss: rng.random_range(0.0..0.08),
        loss_burst: rng.random_range(1.0..4.0),
        duplicate: rng.random_range(0.0..0.05),
        reorder: rng.random_range(0.0..0.05),
        reorder_ns: rng.random_range(1..2_000_000),
        skew_ns: rng.random_range(0..1_000_000),
        jitter_ns: rng.random_range(0..100_000),
        corrupt: rng.random_range(0.0..0.01),
    }
}

/// Runs one seed; the answer is what was wrong, if anything, and how many messages no line carried.
fn run(seed: u64) -> (Vec<String>, u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let day = DaySettings { seed, messages: MESSAGES, instruments: 50, live_orders: 1_000, recency: 0.6 };
    let settings = ExchangeSettings {
        seed,
        rate: rng.random_range(20_000.0..400_000.0),
        packet_messages: rng.random_range(1..40),
        lines: [line(&mut rng), line(&mut rng)],
        ..ExchangeSettings::default()
    };
    let session = settings.session;
    let mut exchange = Exchange::new(settings, Day::new(&day));
    let mut bench = BenchWorker::new(&plan(GIVE_UP_MS, HOLD_PACKETS));
    let started_ns = bench.base_ns.wrapping_add(bench.utc_offset_ns);
    let midnights = midnights("America/New_York", started_ns).expect("a known zone");
    let midnight_ns = *midnights.iter().rfind(|midnight| **midnight <= started_ns).expect("a midnight before now");
    let check = CheckSettings { publisher_id: 2, midnight_ns, started_ns };
    let mut checker = Checker::new(check, vec![day_truth(session, &day)]);
    let mut now_ns = 0;
    for transmission in exchange.by_ref() {
        while now_ns + STEP_NS < transmission.at_ns {
            now_ns += STEP_NS;
            bench.cycle(now_ns, |payload| checker.packet(payload, started_ns + now_ns));
        }
        now_ns = now_ns.max(transmission.at_ns);
        let line = u16::try_from(transmission.line).expect("two lines");
        bench.inject(line, &transmission.payload, now_ns);
        // Sometimes several datagrams wait for one cycle, so that batches have more than one.
        if rng.random_bool(0.7) {
            bench.cycle(now_ns, |payload| checker.packet(payload, started_ns + now_ns));
        }
    }
    for _ in 0..3 * GIVE_UP_MS * 1_000_000 / STEP_NS {
        now_ns += STEP_NS;
        bench.cycle(now_ns, |payload| checker.packet(payload, started_ns + now_ns));
    }
    bench.worker.audit();
    let common_losses = exchange.common_losses();
    let lost = common_losses.count();
    let account = SessionAccount { common_losses, next_sequence: exchange.next_sequence(), must_end: true };
    let report = checker.finish(&[account]);
    let mut wrong: Vec<String> = report.findings.first.iter().map(ToString::to_string).collect();
    let declared = bench.link.shared.channel(0).messages_lost;
    if declared != lost {
        wrong.push(format!("{declared} messages counted as lost, {lost} were carried by no line"));
    }
    (wrong, lost)
}

#[test]
fn every_message_that_a_line_carried_comes_out_once_in_order_and_right() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("FEEDHANDLER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("FEEDHANDLER_SEEDS").unwrap_or(SEEDS) + 1,
    };
    let mut lost_in_all = 0;
    for seed in seeds {
        let (wrong, lost) = run(seed);
        lost_in_all += lost;
        assert!(wrong.is_empty(), "seed {seed} (replay with FEEDHANDLER_SEED={seed}):\n{}", wrong.join("\n"));
    }
    println!("messages that no line carried, each declared lost: {lost_in_all}");
}
