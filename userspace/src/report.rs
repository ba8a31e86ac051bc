//! A page of logs of latencies: how long each stage takes, and how that changed; one HTML file that needs nothing else.
#![forbid(unsafe_code)]

mod chart;
mod figures;
mod log;
mod page;

use std::fmt;
use std::path::PathBuf;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use figures::StageFigures;
pub use log::Complaint;

/// Complaints that are told one by one.
const COMPLAINTS: usize = 20;

/// What logs say.
#[derive(Debug)]
pub struct Report {
    /// Begin of the first interval and end of the last, UTC, nanoseconds since 1970.
    span_ns: (u64, u64),
    /// What the heads say of the handlers: name and value, each pair once.
    facts: Vec<(String, String)>,
    stages: Vec<StageFigures>,
    complaints: Vec<Complaint>,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A log cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// Its path.
        file: String,
        /// The system's.
        source: std::io::Error,
    },
    /// Nothing in the logs can be used.
    #[error("nothing in the logs can be used: {0}")]
    Nothing(Complaint),
    /// There is no interval at all.
    #[error("there is no interval in the logs{0}")]
    Empty(&'static str),
}

impl Report {
    /// Reads logs, and of them the intervals that begin from `from` on and before `to` (UTC, nanoseconds since 1970).
    ///
    /// # Errors
    /// A log cannot be read, or nothing in them can be used: the first reason, with file and line.
    pub fn read(paths: &[PathBuf], from: Option<u64>, to: Option<u64>) -> Result<Self, ReportError> {
        let read = |path: &PathBuf| {
            let file = path.display().to_string();
            match std::fs::read(path) {
                Ok(text) => Ok((file, text)),
                Err(source) => Err(ReportError::Read { file, source }),
            }
        };
        let files: Vec<(String, Vec<u8>)> = paths.iter().map(read).collect::<Result<_, _>>()?;
        let mut log = log::Log::default();
        files.iter().for_each(|(file, text)| log.read(file, text));
        let log::Log { mut lines, facts, mut complaints } = log;
        let is_empty = lines.is_empty();
        lines.retain(|line| from.is_none_or(|from| line.from_ns >= from) && to.is_none_or(|to| line.from_ns < to));
        lines.sort_by_key(|line| line.from_ns);
        let (stages, span_ns) = figures::of(&lines, &mut complaints);
        if stages.iter().all(|stage| stage.intervals == 0) {
            return Err(match complaints.into_iter().next() {
                Some(complaint) if is_empty || !lines.is_empty() => ReportError::Nothing(complaint),
                _ if is_empty => ReportError::Empty(""),
                _ => ReportError::Empty(" of that time"),
            });
        }
        Ok(Self { span_ns, facts, stages, complaints })
    }

    /// What was left out, and why; if it is much, the last one says how much more.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut told: Vec<String> = self.complaints.iter().take(COMPLAINTS).map(ToString::to_string).collect();
        if self.complaints.len() > COMPLAINTS {
            told.push(format!("and {} lines more", self.complaints.len() - COMPLAINTS));
        }
        told
    }

    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        page::html(self)
    }
}

/// The table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.span_ns;
        writeln!(f, "{} to {}", date(from), date(to))?;
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(page::COLUMNS.map(str::to_uppercase));
        (1..page::COLUMNS.len())
            .filter_map(|at| Some(table.column_mut(at)?.set_cell_alignment(CellAlignment::Right)))
            .count();
        for stage in &self.stages {
            table.add_row(page::row(stage));
        }
        writeln!(f, "{table}")
    }
}

/// A time as the command line has it: RFC 3339, or without an offset, which means UTC. Nanoseconds since 1970.
///
/// # Errors
/// What is expected instead.
pub fn time(text: &str) -> Result<u64, String> {
    let civil = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let time = text.parse::<Timestamp>().ok().or_else(civil);
    let time = time.ok_or("must be a time, such as 2026-11-24T14:30:00Z or 2026-11-24T09:30:00-05:00")?;
    u64::try_from(time.as_nanosecond()).map_err(|_| "must not be before 1970".to_owned())
}

/// A time for a person.
fn date(ns: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A duration with three digits, in its largest fitting unit.
fn duration(ns: f64) -> String {
    let (number, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = match number {
        n if n >= 100.0 || unit == "ns" => 0,
        n if n >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.digits$} {unit}")
}

#[cfg(test)]
mod tests;
