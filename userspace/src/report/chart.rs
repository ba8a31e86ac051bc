//! Charts as SVG. Colours are the page's: light and dark.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use jiff::Timestamp;

use super::figures::{Column, StageFigures};
use super::{date, duration};

/// Names and classes of the curves of a course, in the order of [`Column::values_ns`].
pub(super) const CURVES: [(&str, &str); 4] = [("p50", "q0"), ("p99", "q1"), ("p99.9", "q2"), ("max", "q3")];

/// Percentiles that are marked on a curve.
const MARKS: [(f64, &str); 6] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"), (0.999_99, "p99.999")];

/// Points of a percentile curve per factor of ten.
const POINTS: u32 = 40;
/// Most nines that are drawn.
const MOST_NINES: f64 = 6.0;

/// Size of a chart.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub width: f64,
    pub height: f64,
}

/// Margins.
const LEFT: f64 = 62.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 18.0;
const BOTTOM: f64 = 34.0;
/// Height of the strip under a course that shows how many values there were.
const STRIP: f64 = 30.0;

/// From what is shown to where it is on the paper.
struct Axes {
    frame: Frame,
    x: (f64, f64),
    /// Decimal logarithms of nanoseconds.
    y: (f64, f64),
    /// Of the plot's own area.
    bottom: f64,
}

impl Axes {
    fn x(&self, value: f64) -> f64 {
        let share = (value - self.x.0) / (self.x.1 - self.x.0);
        LEFT + share.clamp(0.0, 1.0) * (self.frame.width - LEFT - RIGHT)
    }

    fn y(&self, ns: f64) -> f64 {
        let share = (ns.max(1.0).log10() - self.y.0) / (self.y.1 - self.y.0);
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - TOP)
    }

    /// Opens the drawing and draws what the values are read by.
    fn begin(&self, label: &str) -> String {
        let Frame { width, height } = self.frame;
        let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">");
        let right = width - RIGHT;
        let decades = self.y.1 - self.y.0;
        for ns in steps(self.y) {
            let y = self.y(ns);
            let is_decade = (ns.log10() - ns.log10().round()).abs() < 1e-9;
            let class = if is_decade { "grid" } else { "grid fine" };
            let _ = write!(svg, "<path class=\"{class}\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            // Where there is room, in between, too.
            if is_decade || decades < 2.2 {
                let _ = write!(svg, "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>", LEFT - 8.0, y + 4.0, tick(ns));
            }
        }
        svg
    }

    fn vertical(&self, svg: &mut String, at: f64, text: &str) {
        let (x, top) = (self.x(at), self.frame.height - BOTTOM);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{top}\"/><text class=\"x\" x=\"{x:.1}\" y=\"{}\">{text}</text>",
            top + 20.0
        );
    }
}

/// 1, 2 and 5 of every decade within logarithms.
fn steps((low, high): (f64, f64)) -> Vec<f64> {
    let decades = low.floor() as i32..=high.ceil() as i32;
    let all = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(decade)));
    all.filter(|ns| (low - 1e-9..=high + 1e-9).contains(&ns.log10())).collect()
}

/// A range of logarithms that begins and ends at a step, not shorter than a third of a decade.
fn range(low_ns: f64, high_ns: f64) -> (f64, f64) {
    let (low, high) = (low_ns.max(1.0).log10(), high_ns.max(1.0).log10());
    let all = steps((low.floor() - 1.0, high.ceil() + 1.0));
    let below = all.iter().rev().map(|ns| ns.log10()).find(|step| *step <= low).unwrap_or(low);
    let above = all.iter().map(|ns| ns.log10()).find(|step| *step >= high).unwrap_or(high);
    if above - below < 0.5 { (below, below + 1.0) } else { (below, above) }
}

/// A step's value, without digits that it does not have.
fn tick(ns: f64) -> String {
    let (number, unit) = match ns {
        ns if ns < 999.0 => (ns, "ns"),
        ns if ns < 999e3 => (ns / 1e3, "µs"),
        ns if ns < 999e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{number:.0} {unit}")
}

/// Percentile curves of stages: the class of each, and its values. At least one must have a value.
pub(super) fn percentiles(curves: &[(&str, &Histogram<u64>)], frame: Frame, label: &str) -> String {
    let curves: Vec<_> = curves.iter().filter(|(_, histogram)| !histogram.is_empty()).collect();
    let nines = curves.iter().map(|(_, histogram)| (histogram.len() as f64).log10().ceil()).fold(2.0, f64::max);
    let low = curves.iter().map(|(_, histogram)| histogram.min().max(1) as f64).fold(f64::INFINITY, f64::min);
    let high = curves.iter().map(|(_, histogram)| histogram.max() as f64).fold(1.0, f64::max);
    let x = (0.0, nines.min(MOST_NINES));
    let axes = Axes { frame, x, y: range(low, high), bottom: frame.height - BOTTOM };
    let mut svg = axes.begin(label);
    for nine in 0..=x.1 as usize {
        axes.vertical(&mut svg, nine as f64, &percent(nine));
    }
    for (class, histogram) in &curves {
        let count = histogram.len() as f64;
        let last = count.log10().min(x.1);
        let steps = (last * f64::from(POINTS)).floor() as u32;
        let mut path = String::new();
        for step in 0..=steps {
            let nines = f64::from(step) / f64::from(POINTS);
            let ns = histogram.value_at_quantile(1.0 - 10_f64.powf(-nines)) as f64;
            let _ = write!(path, "{}{:.1} {:.1}", if step == 0 { 'M' } else { 'L' }, axes.x(nines), axes.y(ns));
        }
        let end =
            if count.log10() > x.1 { histogram.value_at_quantile(1.0 - 10_f64.powf(-x.1)) } else { histogram.max() };
        let _ = write!(path, "L{:.1} {:.1}", axes.x(last), axes.y(end as f64));
        let _ = write!(svg, "<path class=\"curve {class}\" d=\"{path}\"/>");
        for (quantile, name) in MARKS.into_iter().filter(|(quantile, _)| (1.0 - quantile) * count >= 1.0) {
            let ns = histogram.value_at_quantile(quantile) as f64;
            dot(&mut svg, class, axes.x(-(1.0 - quantile).log10()), axes.y(ns), &format!("{name}: {}", duration(ns)));
        }
        let longest = histogram.max() as f64;
        if count.log10() <= x.1 {
            dot(&mut svg, class, axes.x(last), axes.y(longest), &format!("max: {}", duration(longest)));
        }
    }
    svg + "</svg>"
}

fn dot(svg: &mut String, class: &str, x: f64, y: f64, title: &str) {
    let _ = write!(
        svg,
        "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{title}</title></circle>"
    );
}

/// 0 → 0 %, 1 → 90 %, 3 → 99.9 %.
fn percent(nines: usize) -> String {
    match nines {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    }
}

/// How a stage's latency went over a time, with the number of values in a strip below. It must have a column.
pub(super) fn course(stage: &StageFigures, span_ns: (u64, u64), frame: Frame, label: &str) -> String {
    let columns = &stage.course;
    let low = columns.iter().map(|column| column.values_ns[0]).min().unwrap_or(1) as f64;
    let high = columns.iter().map(|column| column.values_ns[3]).max().unwrap_or(1) as f64;
    let seconds = |ns: u64| ns.saturating_sub(span_ns.0) as f64 / 1e9;
    let x = (0.0, seconds(span_ns.1).max(1e-3));
    let axes = Axes { frame, x, y: range(low, high), bottom: frame.height - BOTTOM - STRIP - 8.0 };
    let mut svg = axes.begin(label);
    for (at, text) in times(span_ns) {
        axes.vertical(&mut svg, at, &text);
    }
    let rate = |column: &Column| column.count as f64 / (column.span_ns.1 - column.span_ns.0).max(1) as f64 * 1e9;
    let most = columns.iter().map(rate).fold(f64::MIN_POSITIVE, f64::max);
    let floor = frame.height - BOTTOM;
    let mut bars = String::new();
    for column in columns {
        let (left, right) = (axes.x(seconds(column.span_ns.0)), axes.x(seconds(column.span_ns.1)));
        let height = (rate(column) / most * STRIP).max(0.5);
        let _ = write!(bars, "M{left:.1} {floor}V{:.1}H{:.1}V{floor}Z", floor - height, right.max(left + 0.8));
    }
    let _ = write!(svg, "<path class=\"bars\" d=\"{bars}\"/>");
    for (curve, (_, class)) in CURVES.iter().enumerate().rev() {
        let _ = write!(svg, "<path class=\"curve {class}\" d=\"{}\"/>", line(stage, &axes, curve, seconds));
    }
    for column in columns {
        let (left, right) = (axes.x(seconds(column.span_ns.0)), axes.x(seconds(column.span_ns.1)));
        let values: Vec<String> = CURVES
            .iter()
            .zip(column.values_ns)
            .map(|((name, _), ns)| format!("{name} {}", duration(ns as f64)))
            .collect();
        let _ = write!(
            svg,
            "<rect class=\"hit\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\"><title>{}\n{}\n{:.0} values/s</title></rect>",
            (right - left).max(1.0),
            floor - TOP,
            date(column.span_ns.0),
            values.join("\n"),
            rate(column)
        );
    }
    svg + "</svg>"
}

/// One curve of a course; it breaks where nothing was logged.
fn line(stage: &StageFigures, axes: &Axes, curve: usize, seconds: impl Fn(u64) -> f64) -> String {
    let mut path = String::new();
    let mut before: Option<u64> = None;
    for column in &stage.course {
        let middle = (seconds(column.span_ns.0) + seconds(column.span_ns.1)) / 2.0;
        let (x, y) = (axes.x(middle), axes.y(column.values_ns[curve] as f64));
        let goes_on =
            before.is_some_and(|end_ns| column.span_ns.0 < end_ns.saturating_add(stage.width_ns.saturating_mul(3) / 2));
        // A point by itself is a line of no length, which its round ends make visible.
        let _ = if goes_on { write!(path, "L{x:.1} {y:.1}") } else { write!(path, "M{x:.1} {y:.1}h0") };
        before = Some(column.span_ns.1);
    }
    path
}

/// Round times within a span: seconds behind its begin, and how they are written.
fn times((from_ns, to_ns): (u64, u64)) -> Vec<(f64, String)> {
    const STEPS_S: [u64; 19] =
        [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 604_800];
    let span_s = (to_ns - from_ns) / 1_000_000_000;
    let step_s = STEPS_S.into_iter().find(|step| span_s / step <= 6).unwrap_or(span_s / 6);
    let format = match step_s {
        0..60 => "%H:%M:%S",
        60..43_200 => "%H:%M",
        _ => "%m-%d %H:%M",
    };
    let first_s = from_ns.div_ceil(1_000_000_000).next_multiple_of(step_s);
    let all = (0..).map(|number| first_s + number * step_s).take_while(|s| s * 1_000_000_000 <= to_ns);
    let text =
        |s: u64| Timestamp::from_second(i64::try_from(s).unwrap_or(0)).unwrap_or_default().strftime(format).to_string();
    all.map(|s| ((s * 1_000_000_000 - from_ns) as f64 / 1e9, text(s))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_values() {
        let logs = |low: f64, high: f64| (low.log10(), high.log10());
        assert_eq!(range(1_300.0, 44_000.0), logs(1_000.0, 50_000.0));
        let (low, high) = range(1_000.0, 1_000.0);
        assert!(low == 3.0 && high == 4.0);
        assert_eq!(steps(logs(1_000.0, 10_000.0)), [1_000.0, 2_000.0, 5_000.0, 10_000.0]);
        assert_eq!([1.0, 500.0, 1e3, 2e5, 1e6, 1e9].map(tick), ["1 ns", "500 ns", "1 µs", "200 µs", "1 ms", "1 s"]);
        assert_eq!([0, 1, 2, 3, 5].map(percent), ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]);
    }

    #[test]
    fn times_are_round_and_not_too_many() {
        let second = 1_000_000_000;
        let from_ns = 1_795_521_595 * second;
        let found = times((from_ns, from_ns + 60 * second));
        assert_eq!(found[0], (5.0, "12:00:00".to_owned()));
        for span_s in [0, 1, 59, 600, 7_000, 100_000, 10_000_000, 1_000_000_000] {
            let found = times((from_ns, from_ns + span_s * second));
            assert!(found.len() <= 8, "{span_s}: {found:?}");
        }
    }
}
