//! The feed handler: `run`, `check`, `doctor`, `replay`, `latency-report`, `metrics`.
#![forbid(unsafe_code)]

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use feedhandler::config::Config;
use feedhandler::config::plan::Plan;
use feedhandler::doctor;
use tracing_subscriber::EnvFilter;

/// Market-data feed handler: exchange multicast in over AF_XDP, one clean, ordered, normalised stream out.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Log lines as JSON (to standard error; level by RUST_LOG, default info): the same as --log-format json.
    #[arg(long, global = true)]
    log_json: bool,
    /// How log lines look.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "full", conflicts_with = "log_json")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line with time, level, module and fields.
    Full,
    /// A shorter line.
    Compact,
    /// Several lines each, for a person who looks for something.
    Pretty,
    /// A JSON object a line, for programs.
    Json,
}

#[derive(Subcommand)]
enum Verb {
    /// Run until SIGTERM or SIGINT.
    Run {
        /// The configuration file; config/feedhandler.toml documents every key.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Validate a configuration without starting anything.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say what this host can do and what to fix; changes nothing. Exit status: 0 = all ok, 1 = warnings, 2 = problems.
    Doctor {
        /// The configuration file to judge the host for; without it, the host and its physical interfaces.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a page of a log of latencies (handler.latency_log): percentiles, their course, a table; HTML in one file.
    LatencyReport {
        /// A log; several are put together, as an older one (FILE.1) with the newer.
        #[arg(long = "log", required = true, value_name = "FILE")]
        logs: Vec<PathBuf>,
        /// Only intervals that begin at this time or later, as 2026-11-24T14:30:00Z.
        #[arg(long, value_name = "TIME", value_parser = feedhandler::report::time)]
        from: Option<u64>,
        /// Only intervals that begin before this time.
        #[arg(long, value_name = "TIME", value_parser = feedhandler::report::time)]
        to: Option<u64>,
        /// The page's file; without it, the table is printed.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write the man pages, one for each verb, into a folder.
    Man {
        /// The folder, which must exist.
        folder: PathBuf,
    },
    /// Print every metric that /metrics can have, as a table in Markdown.
    Metrics,
    /// Read captures (pcap, pcapng, either gzipped) through the channels of a configuration and report.
    Replay {
        /// The configuration file; lines are found by group, port and VLAN.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
        /// Capture files; several are merged by time.
        #[arg(required = true, value_name = "CAPTURE")]
        files: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(if cli.log_json { LogFormat::Json } else { cli.log_format });
    match run(cli.verb) {
        Ok(status) => status,
        Err(error) => {
            // One line, the outermost step first: what an operator greps for.
            eprintln!("feedhandler: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// All causes in one line. Many messages contain their cause already; it is not said twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Metrics => print(&feedhandler::metrics::table::markdown().context("cannot write the table")?)?,
        Verb::Man { folder } => clap_mangen::generate_to(Cli::command(), &folder)
            .with_context(|| format!("cannot write into {}", folder.display()))?,
        Verb::LatencyReport { logs, from, to, output } => report(&logs, from, to, output.as_deref())?,
        Verb::Doctor { config, json } => return examine(config.as_deref(), json),
        Verb::Run { config } => feedhandler::app::run(Config::load_whole(&config)?)?,
        Verb::Check { config } => {
            let plan = load(&config)?;
            print(&format!(
                "{}: {} interfaces, {} workers, {} channels, {} lines, {} destinations: OK\n",
                config.display(),
                plan.interfaces.len(),
                plan.workers.len(),
                plan.channels.len(),
                plan.lines.len(),
                plan.destinations.len()
            ))?;
        }
        Verb::Replay { config, json, files } => {
            let report = feedhandler::replay::replay(&load(&config)?, &files)?;
            let text = if json {
                serde_json::to_string_pretty(&report).context("cannot write the report as JSON")? + "\n"
            } else {
                report.to_string()
            };
            print(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the page, or prints the table. What could not be read is complained about and left out.
fn report(logs: &[PathBuf], from: Option<u64>, to: Option<u64>, output: Option<&Path>) -> anyhow::Result<()> {
    let report = feedhandler::report::Report::read(logs, from, to)?;
    report.complaints().iter().for_each(|complaint| eprintln!("feedhandler: {complaint}"));
    match output {
        None => print(&report.to_string())?,
        Some(path) => {
            std::fs::write(path, report.html()).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// To standard output. A reader that has seen enough (head, grep -q) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

/// Prints what the doctor found; the answer is the exit status.
fn examine(config: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let plan = config.map(Config::load);
    let report = doctor::examine(plan.as_ref().map(Result::as_ref), &doctor::Files::host());
    let text = if json {
        serde_json::to_string_pretty(&report).context("cannot write the report as JSON")? + "\n"
    } else {
        report.text(style())
    };
    print(&text)?;
    Ok(ExitCode::from(report.exit_status()))
}

/// Colours and the terminal's own width for a person, neither for a file.
fn style() -> doctor::Style {
    let plain = doctor::Style::default();
    if !std::io::stdout().is_terminal() {
        return plain;
    }
    let columns = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_col);
    let width = if columns == 0 { plain.width } else { columns.min(plain.width) };
    doctor::Style { colours: wants_colours(), width }
}

/// Unless the user says no (no-color.org).
fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn load(path: &Path) -> anyhow::Result<Plan> {
    Ok(Config::load(path)?)
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(feedhandler::log::out);
    // Colours are for people: not into a file or the journal.
    let colours = std::io::stderr().is_terminal() && wants_colours();
    let log = log.with_ansi(colours);
    match format {
        LogFormat::Full => log.init(),
        LogFormat::Compact => log.compact().init(),
        LogFormat::Pretty => log.pretty().init(),
        LogFormat::Json => log.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open: {source}")]
        struct Repeats {
            source: std::io::Error,
        }
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = anyhow::Error::from(Repeats { source }).context("start");
        assert_eq!(one_line(&error), "start: cannot open: permission denied");
    }
}
