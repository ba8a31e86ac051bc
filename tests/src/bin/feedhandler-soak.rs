//! `feedhandler-soak`: the handler under rates, losses, faults and restarts at random, with an account of every message.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use feedhandler_testkit::soak::{Options, run};
use feedhandler_testkit::testbed::clean_up_when_killed;

fn main() -> ExitCode {
    let options = Options::parse();
    match clean_up_when_killed().and_then(|()| run(&options)) {
        Ok(summary) => {
            println!("{summary}");
            for complaint in summary.complaints() {
                eprintln!("feedhandler-soak: {complaint}");
            }
            if summary.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("feedhandler-soak: {error:#}\nagain: --minutes {} --seed {}", options.minutes, options.seed);
            ExitCode::FAILURE
        }
    }
}
