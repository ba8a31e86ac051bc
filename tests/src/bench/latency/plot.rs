//! The percentile plot: one panel per cell, latency over 1/(1 − p), both axes logarithmic.
#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use super::figures::Samples;
use super::legs::Leg;
use super::report::{CellReport, ModeReport, Report};
use crate::testbed::Mode;

/// One panel's size, pixels.
const PANEL: (u32, u32) = (440, 330);

/// Height of the title and of the legend below it, pixels.
const HEAD: [u32; 2] = [36, 26];

/// Width that the legend needs, pixels.
const LEGEND_WIDTH: u32 = 1000;

/// What is drawn, and how strongly.
const CURVES: [(Leg, f64, &str); 2] = [
    (Leg::EntryToConsumerKernel, 1.0, "entry → consumer's kernel"),
    (Leg::IntendedToConsumer, 0.45, "intended → consumer"),
];

/// Points per factor of ten.
const POINTS: u32 = 20;

/// Draws all panels, rates downwards, bursts to the right.
pub(super) fn write(report: &Report, path: &Path) -> Result<()> {
    let bursts = report.cells.iter().filter(|cell| cell.rate == report.cells[0].rate).count().max(1);
    let rows = report.cells.len().div_ceil(bursts);
    let size = ((PANEL.0 * bursts as u32).max(LEGEND_WIDTH), PANEL.1 * rows as u32 + HEAD[0] + HEAD[1]);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE).map_err(drawing)?;
    let title =
        format!("Latency by percentile, µs: AF_XDP and busy-polled kernel sockets, {} rounds together", report.rounds);
    let (head, panels) = root.split_vertically(HEAD[0] + HEAD[1]);
    let (title_area, legend_area) = head.split_vertically(HEAD[0]);
    title_area.titled(&title, ("sans-serif", 20)).map_err(drawing)?;
    legend(&legend_area, report).map_err(drawing)?;
    let span = span(report);
    for (panel, cell) in panels.split_evenly((rows, bursts)).iter().zip(&report.cells) {
        draw(panel, cell, &span).map_err(drawing)?;
    }
    root.present().map_err(drawing)
}

/// Ranges that all panels share, so that they can be compared: 1/(1 − p), microseconds.
struct Span {
    share: f64,
    low_us: f64,
    high_us: f64,
}

fn span(report: &Report) -> Span {
    let modes = || report.cells.iter().flat_map(|cell| &cell.modes);
    let samples = || modes().flat_map(|mode| CURVES.iter().filter_map(|(leg, ..)| mode.samples.get(leg)));
    let all_us = || samples().flat_map(points).map(|(_, us)| us);
    let share = samples().map(|samples| samples.count() as f64).fold(10.0, f64::max);
    Span {
        share,
        low_us: all_us().fold(f64::INFINITY, f64::min).clamp(0.1, 1e6),
        high_us: all_us().fold(1.0, f64::max),
    }
}

/// Latency at 1/(1 − p) = 1, …, number of messages; it ends where messages were lost.
fn points(samples: &Samples) -> Vec<(f64, f64)> {
    let count = samples.count() as f64;
    let steps = (count.max(1.0).log10() * f64::from(POINTS)).floor() as u32;
    let shares = (0..=steps).map(|step| 10_f64.powf(f64::from(step) / f64::from(POINTS))).chain([count]);
    let point = |share: f64| Some((share, samples.quantile_ns(1.0 - 1.0 / share)?.max(1) as f64 / 1e3));
    shares.map_while(point).collect()
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type DrawResult = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

fn draw(panel: &Panel<'_>, cell: &CellReport, span: &Span) -> DrawResult {
    let mut chart = ChartBuilder::on(panel)
        .caption(format!("{} messages/s, bursts of {}", cell.rate, cell.burst), ("sans-serif", 15))
        .margin(8)
        .margin_right(26)
        .x_label_area_size(30)
        .y_label_area_size(54)
        .build_cartesian_2d(
            (1.0..span.share.max(10.0)).log_scale(),
            (span.low_us * 0.8..span.high_us.max(span.low_us * 10.0) * 1.2).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .x_label_formatter(&|share| percentile(*share))
        .y_label_formatter(&|us| micros(*us))
        .y_desc("µs")
        .label_style(("sans-serif", 12))
        .draw()?;
    for mode in &cell.modes {
        for (leg, strength, _) in CURVES {
            let Some(samples) = mode.samples.get(&leg) else { continue };
            chart.draw_series(LineSeries::new(points(samples), color(mode).mix(strength).stroke_width(2)))?;
        }
    }
    Ok(())
}

/// The curves' names, in one row.
fn legend(area: &Panel<'_>, report: &Report) -> DrawResult {
    let Some(cell) = report.cells.first() else { return Ok(()) };
    let curves = cell.modes.iter().flat_map(|mode| CURVES.map(|curve| (mode, curve)));
    let width = area.dim_in_pixel().0 as i32 / (cell.modes.len() * CURVES.len()) as i32;
    for (at, (mode, (_, strength, words))) in (0..).zip(curves) {
        let (x, y) = (at * width + 10, HEAD[1] as i32 / 2);
        let style = color(mode).mix(strength).stroke_width(3);
        area.draw(&PathElement::new([(x, y), (x + 20, y)], style))?;
        area.draw(&Text::new(format!("{}: {words}", name(mode)), (x + 26, y - 7), ("sans-serif", 13)))?;
    }
    Ok(())
}

const fn name(mode: &ModeReport) -> &'static str {
    match mode.mode {
        Mode::Socket => "sockets",
        Mode::Native | Mode::Skb => "AF_XDP",
    }
}

/// Two colours that colour-blind people can tell apart.
const fn color(mode: &ModeReport) -> RGBColor {
    match mode.mode {
        Mode::Socket => RGBColor(213, 94, 0),
        Mode::Native | Mode::Skb => RGBColor(0, 114, 178),
    }
}

/// 1 → 0 %, 10 → 90 %, 1000 → 99.9 %.
fn percentile(share: f64) -> String {
    let nines = share.log10().round().max(0.0) as usize;
    format!("{:.*} %", nines.saturating_sub(2), 100.0 - 100.0 / share)
}

fn micros(us: f64) -> String {
    if us >= 1.0 { format!("{us:.0}") } else { format!("{us:.1}") }
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_labelled_by_their_nines() {
        assert_eq!([1.0, 10.0, 100.0, 1_000.0, 10_000.0].map(percentile), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn a_curve_ends_where_messages_were_lost() {
        let mut samples = Samples::default();
        (0..90).for_each(|_| samples.record(5_000));
        samples.lost = 10;
        let last = *points(&samples).last().unwrap();
        assert!(last.0 <= 10.0 && last.0 > 8.0, "{last:?}");
    }
}
