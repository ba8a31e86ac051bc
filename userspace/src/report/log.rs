//! HdrHistogram's logs, line by line.
//!
//! Source: `HistogramLogReader`. Without a BaseTime a time that is more than a year before StartTime counts from that, and
//! another one is absolute.
#![forbid(unsafe_code)]

use std::fmt;

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::latency::Stage;

/// 2200-01-01 UTC: no clock shows more by mistake, and what is reckoned from it stays within 64 bits.
const LAST_NS: u64 = 7_258_118_400 * 1_000_000_000;
const YEAR_NS: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// A line of a log that says how long something took.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub file: &'a str,
    pub number: usize,
    pub stage: Stage,
    /// Begin, UTC, nanoseconds since 1970.
    pub from_ns: u64,
    pub length_ns: u64,
    /// The histogram, encoded.
    pub text: &'a str,
}

/// A line that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The log.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; the line is left out", self.file, self.line, self.reason)
    }
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Log<'a> {
    pub lines: Vec<Line<'a>>,
    pub facts: Vec<(String, String)>,
    pub complaints: Vec<Complaint>,
}

/// What the head said so far.
#[derive(Debug, Default)]
struct Times {
    start_ns: Option<u64>,
    base_ns: Option<u64>,
}

impl Times {
    fn absolute(&mut self, time_ns: u64) -> u64 {
        let start_ns = *self.start_ns.get_or_insert(time_ns);
        let is_relative = time_ns < start_ns.saturating_sub(YEAR_NS);
        let base_ns = *self.base_ns.get_or_insert(if is_relative { start_ns } else { 0 });
        base_ns.saturating_add(time_ns)
    }
}

impl<'a> Log<'a> {
    /// Adds what a file says.
    pub(super) fn read(&mut self, file: &'a str, text: &'a [u8]) {
        let mut times = Times::default();
        for (line, number) in text.split_inclusive(|byte| *byte == b'\n').zip(1..) {
            if let Err(reason) = self.line(file, number, line, &mut times) {
                self.complaints.push(Complaint { file: file.to_owned(), line: number, reason });
            }
        }
    }

    fn line(&mut self, file: &'a str, number: usize, line: &'a [u8], times: &mut Times) -> Result<(), String> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            return Err("it has no end: the file was cut, or is being written".to_owned());
        }
        self.facts.extend(fact(line).filter(|fact| !self.facts.contains(fact)));
        let ns = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        match IntervalLogIterator::new(line).next() {
            None => Ok(()),
            Some(Err(_)) => Err("neither a comment nor an interval of HdrHistogram's log format".to_owned()),
            Some(Ok(LogEntry::StartTime(time))) => {
                times.start_ns = Some(ns(time));
                Ok(())
            }
            Some(Ok(LogEntry::BaseTime(time))) => {
                times.base_ns = Some(ns(time));
                Ok(())
            }
            Some(Ok(LogEntry::Interval(interval))) => {
                let tag = interval.tag().ok_or("it has no tag, and so is none of this program's")?;
                let stage = Stage::ALL.into_iter().find(|stage| stage.label() == tag.as_str());
                let stage = stage.ok_or_else(|| format!("its tag `{}` is no stage of this program", tag.as_str()))?;
                let from_ns = times.absolute(ns(interval.start_timestamp()));
                let (length_ns, text) = (ns(interval.duration()), interval.encoded_histogram());
                if from_ns.saturating_add(length_ns) > LAST_NS {
                    return Err("its time is beyond the year 2200".to_owned());
                }
                self.lines.push(Line { file, number, stage, from_ns, length_ns, text });
                Ok(())
            }
        }
    }
}

/// `#[Fact name: value]`.
fn fact(line: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(line).ok()?.trim_end().strip_prefix("#[Fact ")?.strip_suffix(']')?;
    let (name, value) = text.split_once(": ")?;
    Some((name.to_owned(), value.to_owned()))
}
