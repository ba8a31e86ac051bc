//! `feedctl`: sees and changes what a running feed handler does, over its control service.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use feedhandler::control::cli::{Arguments, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(text) => {
            // A reader that has seen enough (head, grep -q) is no error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{}", arguments.report(&failure));
            ExitCode::from(failure.0)
        }
    }
}
