//! `feedhandler-demo`: exchange, feed handler and consumer in network namespaces, with an account of every message.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use feedhandler_testkit::demo::{Options, Summary, run};
use feedhandler_testkit::testbed::clean_up_when_killed;

fn main() -> ExitCode {
    let options = Options::parse();
    match clean_up_when_killed().and_then(|()| run(&options)).and_then(|summary| print(&options, summary)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("feedhandler-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table, writes the JSON; says whether all was right.
fn print(options: &Options, summary: Summary) -> Result<bool> {
    let json = serde_json::to_string_pretty(&summary).context("summary as JSON")?;
    match options.json.as_deref() {
        Some(path) if path == Path::new("-") => say(&json),
        Some(path) => {
            std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
            say(&summary.to_string());
        }
        None => say(&summary.to_string()),
    }
    for complaint in summary.complaints() {
        eprintln!("feedhandler-demo: {complaint}");
    }
    if !summary.handler_log.is_empty() {
        eprintln!("the handler's last words:\n{}", summary.handler_log);
    }
    Ok(summary.ok)
}

/// A reader that has seen enough (head, grep -q) is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
