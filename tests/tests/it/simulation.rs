//! The seeded simulation: exchange → two imperfect lines, stray packets between → the real worker on memory ports → the
//! consumer's check.
//!
//! `FEEDHANDLER_SEEDS=1000` runs more seeds, `FEEDHANDLER_SEED=17` replays one. A failure prints its seed.
#![forbid(unsafe_code)]

use feedhandler::config::midnights;
use feedhandler::config::plan::Plan;
use feedhandler::feed::Beginning;
use feedhandler::metrics::DropReason;
use feedhandler::worker::shared::Event;
use feedhandler_testkit::consumer::{CheckSettings, Checker, SessionAccount, day_truth};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings};
use feedhandler_testkit::line::LineSettings;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use feedhandler_testkit::bench_worker::{BenchWorker, plan, plan_with};

const SEEDS: u64 = 60;
const MESSAGES: u64 = 6_000;
const STEP_NS: u64 = 100_000;
const GIVE_UP_MS: u64 = 20;
/// Room for all that arrives at the highest rate while a gap is open: here nothing may be lost for want of it.
const HOLD_PACKETS: usize = 16_384;
/// Share of packets that a stray one precedes.
const STRAYS: f64 = 0.01;

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

/// Whether the session has begun and has not ended: what is then heard of another one needs a second witness.
fn is_under_way(bench: &BenchWorker, payload: &[u8]) -> bool {
    bench.link.shared.channel(0).messages > 0 && payload.get(18..20).is_some_and(|count| count != [0xFF, 0xFF])
}

/// The packet as a stray one: of another session, or with a sequence that is far ahead.
fn stray(rng: &mut ChaCha8Rng, payload: &[u8]) -> Vec<u8> {
    let mut stray = payload.to_vec();
    if rng.random_bool(0.5) {
        rng.fill(&mut stray[..10]);
    } else {
        stray[10..18].copy_from_slice(&rng.random_range(1_u64 << 30..1 << 62).to_be_bytes());
    }
    stray
}

/// What came of one seed.
struct Outcome {
    wrong: Vec<String>,
    /// Messages that no line carried.
    lost: u64,
    /// Packets dropped for want of a second witness.
    unconfirmed: u64,
    /// System records that the consumer compared.
    notices: u64,
    /// Packets that came first on one line and later on the other.
    skews: u64,
}

/// What is wrong with the events: each names what it is about, and together they name all that was lost.
fn check_events(bench: &BenchWorker, session: &[u8; 10], lost: u64) -> Vec<String> {
    let (mut wrong, mut named, mut began) = (Vec::new(), 0, Vec::new());
    while let Ok(event) = bench.link.events.lock().expect("nobody panicked").pop() {
        match event {
            Event::Lost { session: of, from, to, .. } => {
                named += to - from;
                if of != *session || from >= to {
                    wrong.push(format!("an event names {from}-{to} of session {}", of.escape_ascii()));
                }
            }
            Event::Began { session: of, first, how, .. } => began.push((of, first, how)),
            _ => {}
        }
    }
    if named != lost {
        wrong.push(format!("{named} messages named in events, {lost} were carried by no line"));
    }
    if began != [(*session, 1, Beginning::New)] {
        wrong.push(format!("sessions that began: {began:?}"));
    }
    wrong
}

/// Runs one seed.
fn run(seed: u64, plan: &Plan) -> Outcome {
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
    let mut bench = BenchWorker::new(plan);
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
        if rng.random_bool(STRAYS) && is_under_way(&bench, &transmission.payload) {
            bench.inject(line, &stray(&mut rng, &transmission.payload), now_ns);
        }
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
    wrong.extend(check_events(&bench, &session, lost));
    let skews = (0..2).map(|line| bench.link.shared.skew(line).count()).sum();
    let unconfirmed = (0..2).map(|line| bench.link.shared.drops(line).get(DropReason::Unconfirmed)).sum();
    Outcome { wrong, lost, unconfirmed, notices: report.notices, skews }
}

/// Runs the seeds over one plan; what came of all, or the first one that failed.
fn run_all(seeds: u64, plan: &Plan) -> Outcome {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("FEEDHANDLER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("FEEDHANDLER_SEEDS").unwrap_or(seeds) + 1,
    };
    let mut all = Outcome { wrong: Vec::new(), lost: 0, unconfirmed: 0, notices: 0, skews: 0 };
    for seed in seeds {
        let Outcome { wrong, lost, unconfirmed, notices, skews } = run(seed, plan);
        assert!(wrong.is_empty(), "seed {seed} (replay with FEEDHANDLER_SEED={seed}):\n{}", wrong.join("\n"));
        all.lost += lost;
        all.unconfirmed += unconfirmed;
        all.notices += notices;
        all.skews += skews;
    }
    println!("stray packets that were dropped: {}", all.unconfirmed);
    println!("messages that no line carried, each declared lost: {}", all.lost);
    println!(
        "system records: {}; packets that came first on one line and then on the other: {}",
        all.notices, all.skews
    );
    all
}

#[test]
fn every_message_that_a_line_carried_comes_out_once_in_order_and_right() {
    let all = run_all(SEEDS, &plan(GIVE_UP_MS, HOLD_PACKETS));
    assert!(all.unconfirmed > 0, "no stray packet was noticed");
    assert!(all.notices > 0 && all.skews > 0);
}

/// `give_up_ms` is longer than the run, and yet all is declared lost that no line carried, and nothing that one did: lines
/// differ by less than `gap_timeout_us`.
#[test]
fn with_on_gap_pass_a_gap_costs_the_other_line_s_time_and_no_more() {
    let all = run_all(SEEDS / 3, &plan_with(600_000, HOLD_PACKETS, "on_gap = \"pass\"\ngap_timeout_us = 8000"));
    assert!(all.lost > 0, "no loss, so nothing is shown");
}
