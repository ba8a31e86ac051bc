//! The simulation of sessions: the exchange begins a new one mid-run, with or without saying that the old one is over, while
//! its lines lose, double, reorder, damage and lag.
//!
//! `FEEDHANDLER_SEEDS=1000` runs more seeds, `FEEDHANDLER_SEED=17` replays one. A failure prints its seed.
#![forbid(unsafe_code)]

use feedhandler::config::midnights;
use feedhandler_testkit::consumer::{CheckSettings, Checker, SessionAccount, day_truth};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings, Transmission};
use feedhandler_testkit::line::LineSettings;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use feedhandler_testkit::bench_worker::{BenchWorker, plan};

const SEEDS: u64 = 20;
const SESSIONS: u64 = 3;
const STEP_NS: u64 = 100_000;
const GIVE_UP_MS: u64 = 20;

/// Between the last packet of a session and the next session's start: more than a gap waits. Sooner, what the slower line
/// still brings of the old session comes too late, and is counted as lost.
const PAUSE_NS: u64 = 2 * GIVE_UP_MS * 1_000_000;

fn line(rng: &mut ChaCha8Rng) -> LineSettings {
    LineSettings {
        loss: rng.random_range(0.0..0.08),
        loss_burst: rng.random_range(1.0..30.0),
        duplicate: rng.random_range(0.0..0.05),
        reorder: rng.random_range(0.0..0.05),
        reorder_ns: rng.random_range(1..2_000_000),
        skew_ns: rng.random_range(0..10_000_000),
        jitter_ns: rng.random_range(0..100_000),
        corrupt: rng.random_range(0.0..0.02),
    }
}

/// What is sent in all sessions, by time; what each session's truth and account are.
struct Run {
    transmissions: Vec<Transmission>,
    days: Vec<(ExchangeSettings, DaySettings)>,
    accounts: Vec<SessionAccount>,
}

fn publish(rng: &mut ChaCha8Rng) -> Run {
    let mut run = Run { transmissions: Vec::new(), days: Vec::new(), accounts: Vec::new() };
    let mut start_ns = 0;
    for number in 1..=SESSIONS {
        let day = DaySettings {
            seed: rng.random(),
            messages: rng.random_range(4_000..6_000),
            instruments: 30,
            live_orders: 500,
            recency: 0.6,
        };
        let mut session = *b"SIM0000000";
        session[9] = b'0' + number as u8;
        let settings = ExchangeSettings {
            seed: rng.random(),
            session,
            rate: rng.random_range(20_000.0..200_000.0),
            packet_messages: rng.random_range(1..40),
            end_count: if rng.random_bool(0.5) { 3 } else { 0 },
            common_loss: 0.002,
            lines: [line(rng), line(rng)],
            ..ExchangeSettings::default()
        };
        let mut exchange = Exchange::new(settings.clone(), Day::new(&day));
        let mut end_ns = start_ns;
        for mut transmission in exchange.by_ref() {
            transmission.at_ns += start_ns;
            end_ns = transmission.at_ns;
            run.transmissions.push(transmission);
        }
        let account = SessionAccount {
            common_losses: exchange.common_losses(),
            next_sequence: exchange.next_sequence(),
            must_end: true,
        };
        run.accounts.push(if settings.end_count > 0 { account } else { account.without_end() });
        run.days.push((settings, day));
        start_ns = end_ns + PAUSE_NS;
    }
    run
}

/// Runs one seed; what was wrong, and how many messages were on no line.
fn run(seed: u64) -> (Vec<String>, u64) {
    let Run { transmissions, days, accounts } = publish(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut bench = BenchWorker::new(&plan(GIVE_UP_MS, 16_384));
    let started_ns = bench.base_ns.wrapping_add(bench.utc_offset_ns);
    let midnights = midnights("America/New_York", started_ns).expect("a known zone");
    let midnight_ns = *midnights.iter().rfind(|midnight| **midnight <= started_ns).expect("a midnight before now");
    let check = CheckSettings { publisher_id: 2, midnight_ns, started_ns };
    let truths = days.iter().map(|(exchange, day)| day_truth(exchange.session, day)).collect();
    let mut checker = Checker::new(check, truths);
    let mut now_ns = 0;
    let mut advance = |bench: &mut BenchWorker, to_ns: u64| {
        while now_ns < to_ns {
            now_ns = to_ns.min(now_ns + STEP_NS);
            bench.cycle(now_ns, |payload| checker.packet(payload, started_ns + now_ns));
        }
    };
    for transmission in &transmissions {
        advance(&mut bench, transmission.at_ns);
        bench.inject(u16::try_from(transmission.line).expect("two lines"), &transmission.payload, transmission.at_ns);
    }
    let last_ns = transmissions.last().map_or(0, |last| last.at_ns);
    advance(&mut bench, last_ns + 3 * GIVE_UP_MS * 1_000_000);
    bench.worker.audit();
    let due: u64 = accounts.iter().map(|account| account.common_losses.count()).sum();
    let report = checker.finish(&accounts);
    let mut wrong: Vec<String> = report.findings.first.iter().map(ToString::to_string).collect();
    let counts = bench.link.shared.channel(0);
    if (counts.messages_lost, counts.sessions) != (due, SESSIONS) {
        wrong.push(format!("{} lost instead of {due}, {} sessions", counts.messages_lost, counts.sessions));
    }
    (wrong, due)
}

#[test]
fn a_session_that_begins_mid_run_costs_nothing_of_the_one_before() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("FEEDHANDLER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("FEEDHANDLER_SEEDS").unwrap_or(SEEDS) + 1,
    };
    let mut on_no_line = 0;
    for seed in seeds {
        let (wrong, lost) = run(seed);
        on_no_line += lost;
        assert!(wrong.is_empty(), "seed {seed} (replay with FEEDHANDLER_SEED={seed}):\n{}", wrong.join("\n"));
    }
    assert!(on_no_line > 100, "{on_no_line} messages on no line: the simulation shows nothing");
}
