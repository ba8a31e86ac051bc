//! `feedhandler-exchange`: the exchange simulator by hand.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use feedhandler_testkit::testbed::clean_up_when_killed;
use feedhandler_testkit::venue::{Options, run};

fn main() -> ExitCode {
    let options = Options::parse();
    // A reader that has seen enough is no error.
    let say = |text: &str| drop(writeln!(std::io::stdout(), "{text}"));
    match clean_up_when_killed().and_then(|()| run(&options, say)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("feedhandler-exchange: {error:#}");
            ExitCode::FAILURE
        }
    }
}
