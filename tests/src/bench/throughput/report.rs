//! The table and the JSON file.
#![forbid(unsafe_code)]

use std::path::Path;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::{Arguments, FLOOD, Point, Run};

/// Below this part of the wanted rate the generator was the limit, not what is measured.
const GENERATOR_KEPT_UP: f64 = 0.97;

/// The middle of the figures; between two, their mean.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

impl Run {
    fn offered_kpps(&self) -> f64 {
        self.arrived.offered.packets as f64 / self.arrived.offered.seconds / 1000.0
    }

    fn delivered_kpps(&self) -> f64 {
        self.arrived.delivered as f64 / self.arrived.offered.seconds / 1000.0
    }

    fn lost_percent(&self) -> f64 {
        let offered = self.arrived.offered.packets;
        offered.saturating_sub(self.arrived.delivered) as f64 * 100.0 / offered.max(1) as f64
    }

    fn worker_ns(&self) -> f64 {
        self.forwarded.busy_ns as f64 / self.forwarded.packets.max(1) as f64
    }

    fn softirq_ns(&self) -> f64 {
        self.arrived.softirq_ns as f64 / self.arrived.delivered.max(1) as f64
    }
}

impl Point {
    fn median(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(figure))
    }

    fn is_generator_limited(&self) -> bool {
        self.rate_kpps != FLOOD && self.median(Run::offered_kpps) < GENERATOR_KEPT_UP * self.rate_kpps as f64
    }
}

pub(super) fn print(arguments: &Arguments, points: &[Point]) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "kpps wanted",
        "kind",
        "offered",
        "delivered",
        "lost %",
        "worker CPU ns/packet",
        "softirq ns/packet",
        "",
    ]);
    for point in points {
        table.add_row([
            if point.rate_kpps == FLOOD { "flood".to_owned() } else { point.rate_kpps.to_string() },
            point.kind.label().to_owned(),
            format!("{:.1}", point.median(Run::offered_kpps)),
            format!("{:.1}", point.median(Run::delivered_kpps)),
            format!("{:.2}", point.median(Run::lost_percent)),
            format!("{:.0}", point.median(Run::worker_ns)),
            format!("{:.0}", point.median(Run::softirq_ns)),
            if point.is_generator_limited() { "generator-limited" } else { "" }.to_owned(),
        ]);
    }
    for column in table.column_iter_mut().filter(|column| !matches!(column.index, 1 | 7)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!(
        "medians of {} rounds of {} s each; {} bytes of payload; veth, AF_XDP in copy mode; generator and \
         worker on a core each. Worker CPU: cycles that moved packets. Softirq: all cores, sampled by a 10 ms tick.",
        arguments.rounds, arguments.seconds, arguments.payload_bytes
    );
}

pub(super) fn write(arguments: &Arguments, points: &[Point], path: &Path) -> anyhow::Result<()> {
    let run = |run: &Run| -> Value {
        json!({
            "seconds": run.arrived.offered.seconds,
            "offered": run.arrived.offered.packets,
            "delivered": run.arrived.delivered,
            "forwarded": run.forwarded.packets,
            "worker_busy_ns": run.forwarded.busy_ns,
            "softirq_ns": run.arrived.softirq_ns,
        })
    };
    let point = |point: &Point| -> Value {
        json!({
            "kind": point.kind.label(),
            "wanted_kpps": point.rate_kpps,
            "offered_kpps": point.median(Run::offered_kpps),
            "delivered_kpps": point.median(Run::delivered_kpps),
            "lost_percent": point.median(Run::lost_percent),
            "worker_ns_per_packet": point.median(Run::worker_ns),
            "softirq_ns_per_packet": point.median(Run::softirq_ns),
            "generator_limited": point.is_generator_limited(),
            "rounds": point.runs.iter().map(run).collect::<Vec<_>>(),
        })
    };
    let report = json!({
        "bench": "throughput",
        "payload_bytes": arguments.payload_bytes,
        "rounds": arguments.rounds,
        "points": points.iter().map(point).collect::<Vec<_>>(),
    });
    std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(())
}
