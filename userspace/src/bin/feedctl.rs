//! `feedctl`: sees and changes what a running feed handler does, over its control service.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use feedhandler::control::cli::{Arguments, put, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await.and_then(|text| put(std::io::stdout().lock(), &text)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", arguments.report(&failure));
            ExitCode::from(failure.0)
        }
    }
}
