//! Recovery in simulation: exchange → two lines with losses of their own and in common → the real worker, the real planner and
//! the real way between them → the consumer's check; with retransmission servers in memory, good and bad ones.
//!
//! `FEEDHANDLER_SEEDS=1000` runs more seeds, `FEEDHANDLER_SEED=17` replays one, `FEEDHANDLER_MESSAGES=10000000` makes the long
//! day long. A failure prints its seed.
#![forbid(unsafe_code)]

pub mod rig;

use feedhandler_testkit::exchange::ExchangeSettings;
use feedhandler_testkit::line::LineSettings;
use feedhandler_testkit::retransmission::{Manner, ServerSettings};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rig::{Outcome, Scenario, run};

const SEEDS: u64 = 24;
const MESSAGES: u64 = 6_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok())
}

/// Runs a scenario per seed; the outcomes.
fn each_seed(seeds: u64, scenario: impl Fn(u64, &mut ChaCha8Rng) -> Scenario) -> Vec<Outcome> {
    let seeds = match number("FEEDHANDLER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("FEEDHANDLER_SEEDS").unwrap_or(seeds) + 1,
    };
    let one = |seed| {
        let outcome = run(&scenario(seed, &mut ChaCha8Rng::seed_from_u64(seed)));
        let wrong = outcome.wrong.join("\n");
        assert!(wrong.is_empty(), "seed {seed} (replay with FEEDHANDLER_SEED={seed}):\n{wrong}\n{outcome:#?}");
        outcome
    };
    seeds.map(one).collect()
}

fn sum(outcomes: &[Outcome], value: impl Fn(&Outcome) -> u64) -> u64 {
    outcomes.iter().map(value).sum()
}

/// Two lines that lose, double and reorder by themselves, and lose in common.
fn exchange(seed: u64, rng: &mut ChaCha8Rng) -> ExchangeSettings {
    let mut line = || LineSettings {
        loss: rng.random_range(0.0..0.08),
        loss_burst: rng.random_range(1.0..4.0),
        duplicate: rng.random_range(0.0..0.05),
        reorder: rng.random_range(0.0..0.05),
        reorder_ns: rng.random_range(1..2_000_000),
        skew_ns: rng.random_range(0..1_000_000),
        jitter_ns: rng.random_range(0..100_000),
        corrupt: rng.random_range(0.0..0.01),
    };
    let lines = [line(), line()];
    ExchangeSettings {
        seed,
        rate: rng.random_range(20_000.0..200_000.0),
        packet_messages: rng.random_range(1..40),
        common_loss: 0.002,
        lines,
        ..ExchangeSettings::default()
    }
}

/// An honest server that now and then loses a request or an answer, and puts few messages into some answers.
fn honest(seed: u64, rng: &mut ChaCha8Rng) -> ServerSettings {
    let delay_ns = rng.random_range(20_000..400_000);
    ServerSettings {
        seed,
        delay_ns: (delay_ns, 2 * delay_ns),
        loss: rng.random_range(0.0..0.1),
        duplicate: rng.random_range(0.0..0.1),
        most_messages: rng.random_range(1..60),
        ..ServerSettings::default()
    }
}

fn hostile(seed: u64, rng: &mut ChaCha8Rng) -> ServerSettings {
    let manner = Manner::HOSTILE[rng.random_range(0..Manner::HOSTILE.len())];
    ServerSettings { manner, most_messages: u16::MAX, ..honest(seed, rng) }
}

#[test]
fn nothing_is_lost_with_a_server_that_answers() {
    let outcomes = each_seed(SEEDS, |seed, rng| Scenario {
        servers: (0..rng.random_range(1..3)).map(|server| honest(seed + server, rng)).collect(),
        ..Scenario::new(exchange(seed, rng))
    });
    let on_no_line = sum(&outcomes, |outcome| outcome.on_no_line);
    assert_eq!(sum(&outcomes, |outcome| outcome.lost), 0);
    assert!(on_no_line > 1_000, "{on_no_line} messages were on no line");
    let recovered = sum(&outcomes, |outcome| outcome.counts.recovered_messages);
    assert!(recovered >= on_no_line, "{recovered} recovered");
    for (what, count) in [
        ("cut", sum(&outcomes, |outcome| outcome.counts.cut_answers)),
        ("timeouts", sum(&outcomes, |outcome| outcome.counts.timeouts)),
        ("cancelled", sum(&outcomes, |outcome| outcome.counts.cancelled)),
    ] {
        println!("{what}: {count}");
        assert!(count > 0, "no {what}: the scenario shows nothing");
    }
    println!("messages on no line, all recovered: {on_no_line}; recovered in all: {recovered}");
}

#[test]
fn without_a_server_just_the_common_losses_are_declared_each_once() {
    let outcomes = each_seed(8, |seed, rng| Scenario::new(exchange(seed, rng)));
    let lost = sum(&outcomes, |outcome| outcome.lost);
    assert!(lost > 300, "{lost}");
    assert_eq!(lost, sum(&outcomes, |outcome| outcome.on_no_line));
}

#[test]
fn a_hostile_server_before_a_good_one_costs_nothing_but_time() {
    let outcomes = each_seed(SEEDS, |seed, rng| Scenario {
        servers: vec![hostile(seed, rng), honest(seed + 1, rng)],
        ..Scenario::new(exchange(seed, rng))
    });
    assert_eq!(sum(&outcomes, |outcome| outcome.lost), 0);
    let failovers = sum(&outcomes, |outcome| outcome.counts.failovers);
    let rejected = sum(&outcomes, Outcome::rejected);
    assert!(failovers >= outcomes.len() as u64 / 2 && rejected > 0, "{failovers} fail-overs, {rejected} rejected");
}

#[test]
fn hostile_servers_alone_neither_invent_a_loss_nor_lose_what_a_line_carried() {
    for manner in Manner::HOSTILE {
        let outcomes = each_seed(2, |seed, rng| Scenario {
            servers: vec![ServerSettings { manner, most_messages: u16::MAX, ..honest(seed, rng) }; 2],
            ..Scenario::new(exchange(seed, rng))
        });
        let (lost, on_no_line) = (sum(&outcomes, |outcome| outcome.lost), sum(&outcomes, |o| o.on_no_line));
        let Outcome { counts, .. } = outcomes[0];
        println!("{manner:?}: {lost} lost, {} requests, {} rejected", counts.requests, outcomes[0].rejected());
        assert_eq!(lost, on_no_line, "{manner:?}");
        assert_eq!(counts.recovered_messages, 0, "{manner:?}: nothing of it was used");
        assert!(manner == Manner::Silent || outcomes[0].rejected() > 0, "{manner:?}");
    }
}

#[test]
fn a_late_start_is_served_from_the_first_message_on() {
    let outcomes = each_seed(6, |seed, rng| Scenario {
        messages: 12_000,
        // Room for a fraction of what comes while the beginning is recovered: it is dropped, and recovered in its turn.
        hold_packets: 64,
        join: 0.6,
        servers: vec![ServerSettings { loss: 0.02, most_messages: 60, ..honest(seed, rng) }],
        ..Scenario::new(ExchangeSettings { rate: 20_000.0, ..exchange(seed, rng) })
    });
    assert_eq!(sum(&outcomes, |outcome| outcome.lost), 0);
    let missed = sum(&outcomes, |outcome| outcome.missed);
    assert!(missed > 12_000, "{missed} messages were sent before the start");
    assert!(sum(&outcomes, |outcome| outcome.hold_evicted) > 0, "the hold buffer overflowed meanwhile");
    println!("messages before the start, all recovered: {missed}");
}

#[test]
fn a_late_start_without_an_answer_is_given_up_in_time() {
    let outcomes = each_seed(2, |seed, rng| Scenario {
        messages: 12_000,
        join: 0.6,
        servers: vec![ServerSettings { manner: Manner::Silent, ..honest(seed, rng) }],
        ..Scenario::new(ExchangeSettings { rate: 20_000.0, ..exchange(seed, rng) })
    });
    for outcome in &outcomes {
        assert_eq!(outcome.lost, outcome.on_no_line, "what no line carried, the time before the start included");
    }
}

/// 5 % of the packets of each line are lost by themselves, and about 1 % of the messages on both.
#[test]
fn a_long_day_with_losses_on_each_line_and_on_both() {
    let messages = number("FEEDHANDLER_MESSAGES").unwrap_or(100_000);
    let line = LineSettings { loss: 0.05, skew_ns: 15_000, jitter_ns: 5_000, ..LineSettings::default() };
    let exchange = ExchangeSettings { seed: 1, common_loss: 0.001, lines: [line, line], ..ExchangeSettings::default() };
    let server = ServerSettings { loss: 0.02, ..ServerSettings::default() };
    let without = run(&Scenario { messages, ..Scenario::new(exchange.clone()) });
    assert!(without.wrong.is_empty(), "{without:#?}");
    assert_eq!(without.lost, without.on_no_line, "just what no line carried is declared lost");
    let share = without.on_no_line as f64 / messages as f64;
    assert!((0.007..0.015).contains(&share), "{share} of the messages were on no line");
    let with = run(&Scenario { messages, servers: vec![server; 2], ..Scenario::new(exchange) });
    assert!(with.wrong.is_empty(), "{with:#?}");
    assert_eq!((with.lost, with.on_no_line), (0, without.on_no_line));
    println!(
        "{messages} messages, {} on no line ({:.2} %): all declared, or all recovered",
        with.on_no_line,
        share * 100.0
    );
}
