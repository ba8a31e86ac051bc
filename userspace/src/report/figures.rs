//! From lines of logs to what is drawn.
#![forbid(unsafe_code)]

use hdrhistogram::Histogram;

use super::log::{Complaint, Line};
use crate::latency::{Stage, hdr};

/// Points of a course at most; with more intervals, neighbours are put together.
const COLUMNS: u64 = 360;

/// One stage over the whole time.
#[derive(Debug)]
pub(super) struct StageFigures {
    pub stage: Stage,
    /// Intervals that could be used.
    pub intervals: usize,
    /// All of them together.
    pub total: Histogram<u64>,
    /// One after the other; those without a value are not there.
    pub course: Vec<Column>,
    /// Length of a column, nanoseconds.
    pub width_ns: u64,
}

/// A part of the course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Begin and end, UTC, nanoseconds since 1970.
    pub span_ns: (u64, u64),
    pub count: u64,
    /// p50, p99, p99.9, longest; nanoseconds.
    pub values_ns: [u64; 4],
}

/// The figures of lines that are in order, by stage, and their time. What cannot be decoded is complained about.
pub(super) fn of(lines: &[Line<'_>], complaints: &mut Vec<Complaint>) -> (Vec<StageFigures>, (u64, u64)) {
    let end = |line: &Line<'_>| line.from_ns.saturating_add(line.length_ns);
    let begin_ns = lines.first().map_or(0, |line| line.from_ns);
    let span_ns = (begin_ns, lines.iter().map(end).max().unwrap_or(0));
    // Not shorter than what was logged, or every other column would be empty.
    let logged_ns = lines.iter().map(|line| line.length_ns).filter(|ns| *ns > 0).max().unwrap_or(1);
    let width_ns = (span_ns.1 - span_ns.0).div_ceil(COLUMNS).max(logged_ns).max(1);
    let stages = Stage::ALL.map(|stage| {
        let mut figures = StageFigures { stage, intervals: 0, total: empty(), course: Vec::new(), width_ns };
        let mut part = Part { histogram: empty(), span_ns: (0, 0), number: 0 };
        for line in lines.iter().filter(|line| line.stage == stage) {
            let histogram = match hdr::decode(line.text) {
                Ok(histogram) => histogram,
                Err(error) => {
                    let reason = format!("its histogram cannot be read ({error})");
                    complaints.push(Complaint { file: line.file.to_owned(), line: line.number, reason });
                    continue;
                }
            };
            figures.intervals += 1;
            // The middle, so that a little more or less than a second makes no difference.
            let number = (line.from_ns + line.length_ns / 2 - begin_ns) / width_ns;
            if number != part.number {
                figures.course.extend(part.close());
            }
            part.number = number;
            part.add(&histogram, (line.from_ns, end(line)));
            add(&mut figures.total, &histogram);
        }
        figures.course.extend(part.close());
        figures
    });
    (stages.into(), span_ns)
}

/// The part of a course that is being put together.
struct Part {
    histogram: Histogram<u64>,
    span_ns: (u64, u64),
    number: u64,
}

impl Part {
    fn add(&mut self, histogram: &Histogram<u64>, (from_ns, to_ns): (u64, u64)) {
        if self.span_ns == (0, 0) {
            self.span_ns = (from_ns, to_ns);
        }
        self.span_ns.1 = self.span_ns.1.max(to_ns);
        add(&mut self.histogram, histogram);
    }

    fn close(&mut self) -> Option<Column> {
        let span_ns = std::mem::take(&mut self.span_ns);
        if self.histogram.is_empty() {
            return None;
        }
        let quantile = |quantile| self.histogram.value_at_quantile(quantile);
        let values_ns = [quantile(0.5), quantile(0.99), quantile(0.999), self.histogram.max()];
        let column = Column { span_ns, count: self.histogram.len(), values_ns };
        // clear() would keep the longest.
        self.histogram.reset();
        Some(column)
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are legal")
}

/// Whatever the bounds of the other one are: this one grows.
fn add(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    into.add(from).expect("it grows");
}
