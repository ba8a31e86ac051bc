//! The soak, short: two sessions, the first with a new start of the handler, the second without a server that answers.
#![forbid(unsafe_code)]

use clap::Parser;
use feedhandler_testkit::soak::{Options, Summary, run};

use crate::binaries::program;
use crate::turn::turn;

fn soak(minutes: &str, more: &[&str]) -> Summary {
    let handler = program("feedhandler");
    let handler = handler.to_str().expect("a UTF-8 path");
    let fixed = ["soak", "--minutes", minutes, "--most-rate", "6000", "--handler", handler];
    let _turn = turn();
    run(&Options::parse_from(fixed.iter().chain(more))).expect("it runs to its end")
}

#[test]
fn a_short_soak_loses_nothing_that_it_does_not_declare() {
    let summary = soak("0.2", &["--seed", "3"]);
    assert!(summary.ok, "{summary}\n{}", summary.complaints().join("\n"));
    assert!(summary.rounds.len() >= 2 && summary.lives >= 2, "{summary}");
    assert!(summary.rounds.iter().any(|round| round.lost > 0) && summary.left_out > 0, "{summary}");
    assert!(summary.rounds.iter().any(|round| round.on_no_line > 0 && round.lost == 0), "{summary}");
    assert!(summary.replay.contains("--seed 3"), "{}", summary.replay);
}

#[test]
fn what_is_lost_and_not_due_is_found() {
    let summary = soak("0.1", &["--seed", "4", "--cheat"]);
    assert!(!summary.ok, "{summary}");
    let complaints = summary.complaints().join("\n");
    assert!(complaints.contains("declared lost instead of 0") && complaints.contains("Lost"), "{complaints}");
}
