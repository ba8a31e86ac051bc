//! The benches run, with tiny settings: what they measure on a busy test machine is of no interest, that they do is.
#![forbid(unsafe_code)]

use clap::Parser;
use feedhandler_testkit::bench::latency;

use crate::binaries::program;
use crate::turn::turn;

#[derive(Parser)]
struct LatencyOptions {
    #[command(flatten)]
    arguments: latency::Arguments,
}

#[test]
fn latency_has_samples_on_every_leg_and_loses_nothing() {
    let handler = program("feedhandler");
    let options = ["latency", "--rates", "2000", "--bursts", "4", "--seconds", "0.3", "--rounds", "1", "--handler"];
    let options = options.into_iter().map(std::ffi::OsString::from).chain([handler.into()]);
    let _turn = turn();
    let report = latency::measure(&LatencyOptions::parse_from(options).arguments).unwrap();

    assert_eq!(report.cells.len(), 1);
    let mut in_force = Vec::new();
    for mode in &report.cells[0].modes {
        in_force.extend(mode.mode_in_force.iter().map(String::as_str));
        let round = &mode.rounds[0];
        assert_eq!((round.sent, round.lost, round.lost_in_warm_up, round.doubled), (600, 0, 0, 0), "{round:?}");
        for leg in latency::Leg::ALL {
            let figures = round.legs.get(&leg).unwrap_or_else(|| panic!("{leg:?} has no samples: {round:?}"));
            assert!(figures.count >= 500 && figures.ns[0].is_some_and(|ns| ns > 0), "{leg:?}: {figures:?}");
            assert!(figures.ns[0] <= figures.ns[5], "{leg:?}: {figures:?}");
        }
        // The whole way is not shorter than a part of it.
        let max = |leg| round.legs[&leg].ns[5];
        assert!(max(latency::Leg::IntendedToConsumer) >= max(latency::Leg::SentToConsumer), "{round:?}");
    }
    assert_eq!(in_force, ["native", "native", "socket", "socket"]);
    let text = report.to_string();
    assert!(text.contains("coordinated") && text.contains("600 sent, 0 lost, 0 doubled"), "{text}");
}
