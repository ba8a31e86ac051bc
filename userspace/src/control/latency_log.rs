//! The log of latencies: HdrHistogram's log format 1.3, a line per stage and interval, over all workers.
//!
//! Written by a control thread, as the user that the handler runs as, once privileges were given up; the data path knows
//! nothing of it. A line that cannot be written is not lost: the next one covers its time, too.
//!
//! Source: HdrHistogram, `HistogramLogWriter` and `HistogramLogReader`. Times are absolute (`BaseTime` 0), so that a log
//! that was begun anew, after a restart or in a new file, reads like one: a second head changes nothing.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Desk;
use super::latency::Round;
use super::stream::EARLY_NS;
use crate::config::plan::LatencyLogPlan;
use crate::latency::{Stage, StageHistograms, hdr};

/// What a log begins with; nothing is added to a file that does not.
const FORMAT: &str = "#[Histogram log format version 1.3]\n";
/// Longest part of a line that a crash can have left, bytes: more than the longest line.
const TORN_BYTES: u64 = 1 << 20;
/// The longest of an interval is written in milliseconds, as HdrHistogram's own writer does.
const MAX_VALUE_DIVISOR: f64 = 1e6;

/// The log and where it stands.
#[derive(Debug)]
pub(super) struct LatencyLog {
    plan: LatencyLogPlan,
    /// Lines about this handler, for the head.
    facts: String,
    open: Option<Open>,
    /// Where the next interval begins.
    base: Round,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
    /// Device and inode.
    identity: (u64, u64),
}

impl LatencyLog {
    /// A log that begins with `base`; the file is opened when the first interval is over.
    pub(super) fn new(plan: LatencyLogPlan, facts: &[(&str, String)], base: Round) -> Self {
        let facts = facts.iter().fold(String::new(), |mut text, (name, value)| {
            let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = writeln!(text, "#[Fact {name}: {value}]");
            text
        });
        Self { plan, facts, open: None, base }
    }

    /// Writes what was recorded since the last interval that could be written.
    ///
    /// # Errors
    /// The system's; the file has whole lines only, all the same.
    pub(super) fn write(&mut self, round: &Round) -> io::Result<()> {
        let interval = round.total.since(&self.base.total);
        let text = lines(&interval, self.base.until_utc_ns, round.until_utc_ns);
        let outcome = self.append(&text);
        if outcome.is_err() {
            self.open = None;
        } else {
            self.base = round.clone();
        }
        outcome
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        let path = &self.plan.path;
        // Somebody may have moved or removed it: then ours is another file.
        let moved = |open: &Open| fs::metadata(path).map(|found| identity(&found)).ok() != Some(open.identity);
        if self.open.as_ref().is_some_and(moved) {
            self.open = None;
        }
        let head = self.head();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::new(path, &head)?,
        };
        if open.len + text.len() as u64 > self.plan.bytes {
            fs::rename(path, older(path))?;
            open = Open::new(path, &head)?;
        }
        open.add(text)?;
        self.open = Some(open);
        Ok(())
    }

    fn head(&self) -> String {
        let start = seconds(self.base.until_utc_ns);
        let date = Timestamp::from_nanosecond(i128::from(self.base.until_utc_ns)).unwrap_or_default();
        format!(
            "{FORMAT}{}#[StartTime: {start} (seconds since epoch), {date:.3}]\n#[BaseTime: 0.000 (seconds since epoch)]\n\
             #[MaxValueDivisor: {MAX_VALUE_DIVISOR:.3}]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
            self.facts
        )
    }
}

impl Open {
    /// Opens the file, or makes it, and adds a head.
    fn new(path: &Path, head: &str) -> io::Result<Self> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
        let found = file.metadata()?;
        let mut len = found.len();
        if len > 0 {
            let mut begin = [0; FORMAT.len()];
            file.read_exact(&mut begin).ok().filter(|()| begin == *FORMAT.as_bytes()).ok_or_else(|| {
                io::Error::other("the file is something else than a log of latencies, and nothing is added to it")
            })?;
            len = whole_lines(&mut file, len)?;
            file.set_len(len)?;
        }
        let mut open = Self { file, len, identity: identity(&found) };
        open.add(head)?;
        Ok(open)
    }

    /// Adds whole lines, or nothing.
    fn add(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes()).inspect_err(|_| {
            // On a full disk some of it may have got in. What is left if even this fails is cut off at the next opening.
            let _ = self.file.set_len(self.len);
        })?;
        self.len += text.len() as u64;
        Ok(())
    }
}

/// Where the last whole line ends: a crash may have left a part of one behind it.
fn whole_lines(file: &mut File, len: u64) -> io::Result<u64> {
    let from = len.saturating_sub(TORN_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(TORN_BYTES).read_to_end(&mut end)?;
    Ok(end.iter().rposition(|byte| *byte == b'\n').map_or(len, |at| from + at as u64 + 1))
}

fn identity(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// The older file's name.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// A line per stage; without values, too, so that silence can be told from a handler that was not there.
fn lines(interval: &StageHistograms, from_ns: u64, to_ns: u64) -> String {
    let (from, length) = (seconds(from_ns), seconds(to_ns.saturating_sub(from_ns)));
    Stage::ALL.into_iter().fold(String::new(), |mut text, stage| {
        let histogram = interval.stage(stage);
        let longest = histogram.max() as f64 / MAX_VALUE_DIVISOR;
        let _ = writeln!(text, "Tag={},{from},{length},{longest:.3},{}", stage.label(), hdr::encode(histogram));
        text
    })
}

/// Seconds with milliseconds, as the format has them.
fn seconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
}

/// Logs until the handler stops, and then what is left of the last interval. Returns at once without a log in the plan.
pub(super) async fn run(desk: Arc<Desk>, mut stopped: watch::Receiver<()>) {
    let Some(plan) = desk.plan().latency_log.clone() else { return };
    let mut rounds = desk.watch.rounds();
    let base = rounds.borrow_and_update().clone();
    let interval_ns = u64::from(plan.interval_s) * 1_000_000_000;
    let mut due_ns = base.until_ns + interval_ns;
    let mut log = LatencyLog::new(plan, &facts(&desk), base);
    let mut is_failing = false;
    let mut is_over = false;
    while !is_over {
        tokio::select! {
            changed = rounds.changed() => is_over = changed.is_err(),
            ended = stopped.changed() => is_over = ended.is_err(),
        }
        let round = rounds.borrow_and_update().clone();
        let is_due = round.until_ns + EARLY_NS >= due_ns;
        let is_rest = is_over && round.until_ns > log.base.until_ns;
        if !is_due && !is_rest {
            continue;
        }
        due_ns = (due_ns + interval_ns).max(round.until_ns + EARLY_NS + 1);
        let written = tokio::task::spawn_blocking(move || {
            let outcome = log.write(&round);
            (log, outcome)
        });
        let Ok((same, outcome)) = written.await else { return };
        log = same;
        report(&desk, &log.plan.path, &outcome, &mut is_failing);
    }
}

/// Counts a failure; the first of several is logged, and that it is over.
fn report(desk: &Desk, path: &Path, outcome: &io::Result<()>, is_failing: &mut bool) {
    let file = path.display();
    match outcome {
        Err(error) => {
            desk.latency_log_failures.fetch_add(1, Relaxed);
            if !*is_failing {
                warn!(%file, %error, "latencies cannot be logged; what is missing comes with the first interval that can");
            }
        }
        Ok(()) if *is_failing => info!(%file, "latencies are logged again"),
        Ok(()) => {}
    }
    *is_failing = outcome.is_err();
}

/// What a report says of the handler.
fn facts(desk: &Desk) -> Vec<(&'static str, String)> {
    let plan = desk.plan();
    let host = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let interfaces = plan.interfaces.iter().enumerate();
    let modes: Vec<String> =
        interfaces.map(|(index, plan)| format!("{} ({})", plan.name, desk.mode_in_force(index).label())).collect();
    let worker = |plan: &crate::config::plan::WorkerPlan| {
        plan.core.map_or_else(|| plan.name.clone(), |core| format!("{} on core {core}", plan.name))
    };
    let workers: Vec<String> = plan.workers.iter().map(worker).collect();
    vec![
        ("instance", plan.name.clone()),
        ("version", crate::metrics::version()),
        ("configuration", desk.config_hash()),
        ("host", text(host.nodename())),
        ("kernel", format!("{} {} {}", text(host.sysname()), text(host.release()), text(host.machine()))),
        ("interfaces", modes.join(", ")),
        ("workers", workers.join(", ")),
        ("channels", plan.channels.len().to_string()),
        ("values", "all workers together".to_owned()),
    ]
}

#[cfg(test)]
mod tests;
