//! A day that is joined in the middle by a GLIMPSE snapshot: in simulation, with the thread that fetches it and real servers,
//! good and bad, and with the handler as a process.
//!
//! `FEEDHANDLER_SEEDS=1000` runs more seeds of the simulation, `FEEDHANDLER_SEED=17` replays one.
#![forbid(unsafe_code)]

mod process;
pub mod sim;
mod thread;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sim::{Outcome, Scenario, run};

const SEEDS: u64 = 24;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok())
}

fn each_seed(scenario: impl Fn(u64, &mut ChaCha8Rng) -> Scenario) -> Vec<Outcome> {
    let seeds = match number("FEEDHANDLER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("FEEDHANDLER_SEEDS").unwrap_or(SEEDS) + 1,
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

#[test]
fn a_day_joined_in_the_middle_ends_in_the_books_of_one_followed_from_the_start() {
    let outcomes = each_seed(|seed, rng| Scenario {
        servers: 1,
        // Older than the first packet that came, or newer than it.
        taken: rng.random_range(-300..600),
        late_ns: rng.random_range(0..40_000_000),
        attempts: rng.random_range(0..3),
        ..Scenario::new(seed, rng)
    });
    let (joined, recovered) = (sum(&outcomes, |o| o.snapshot_messages), sum(&outcomes, |o| o.recovered));
    assert!(outcomes.iter().all(|outcome| outcome.lost == 0), "nothing is lost with a server that answers");
    assert!(
        joined > 200 * outcomes.len() as u64 && recovered > 0,
        "{joined} messages of snapshots, {recovered} recovered"
    );
    assert!(number("FEEDHANDLER_SEED").is_some() || outcomes.iter().any(|outcome| outcome.was_older));
    println!("{} days, {joined} messages of snapshots, {recovered} recovered", outcomes.len());
}

#[test]
fn without_a_retransmission_server_just_what_no_line_carried_behind_the_snapshot_is_lost() {
    let outcomes = each_seed(|seed, rng| Scenario {
        taken: rng.random_range(100..600),
        late_ns: rng.random_range(0..40_000_000),
        ..Scenario::new(seed, rng)
    });
    let lost = sum(&outcomes, |outcome| outcome.lost);
    assert!(lost > 0 || number("FEEDHANDLER_SEED").is_some(), "the lines lost nothing in common");
    println!("{lost} messages lost, all of them on no line");
}

#[test]
fn a_hold_buffer_that_is_too_small_for_the_wait_costs_requests_and_no_message() {
    let outcomes = each_seed(|seed, rng| Scenario {
        servers: 1,
        taken: rng.random_range(0..600),
        late_ns: rng.random_range(20_000_000..60_000_000),
        attempts: rng.random_range(0..3),
        hold_packets: 32,
        ..Scenario::new(seed, rng)
    });
    let evicted = sum(&outcomes, |outcome| outcome.hold_evicted);
    assert!(evicted > 0, "the hold buffer was large enough");
    assert_eq!(sum(&outcomes, |outcome| outcome.lost), 0);
}
