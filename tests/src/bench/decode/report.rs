//! The table and the JSON file.
#![forbid(unsafe_code)]

use std::path::Path;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};

use super::{Arguments, Case, Column};

/// The middle of the figures; between two, their mean.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn least(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}

pub(super) fn print(arguments: &Arguments, columns: &[Column]) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    let header = columns.iter().map(|column| format!("{} live orders", column.live));
    table.set_header(std::iter::once("CPU ns per message: median (least)".to_owned()).chain(header));
    for (index, case) in Case::ALL.into_iter().enumerate() {
        if columns.iter().any(|column| column.ns[index].is_empty()) {
            continue;
        }
        let figures = columns.iter().map(|column| &column.ns[index]);
        let cells = figures.map(|figures| format!("{:.1} ({:.1})", median(figures), least(figures)));
        table.add_row(std::iter::once(case.label().to_owned()).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!(
        "{} rounds of {} messages, seed {}; events hit any live order with equal chance.",
        arguments.rounds, arguments.messages, arguments.seed
    );
}

pub(super) fn write(arguments: &Arguments, columns: &[Column], path: &Path) -> anyhow::Result<()> {
    let figures = |column: &Column| -> Map<String, Value> {
        let cases = Case::ALL.into_iter().zip(&column.ns).filter(|(_, ns)| !ns.is_empty());
        cases.map(|(case, ns)| (case.key().to_owned(), json!({ "median": median(ns), "rounds": ns }))).collect()
    };
    let report = json!({
        "bench": "decode",
        "unit": "CPU ns per message",
        "messages": arguments.messages,
        "rounds": arguments.rounds,
        "seed": arguments.seed,
        "live_orders": columns.iter().map(|column| json!({ "live": column.live, "cases": figures(column) })).collect::<Vec<_>>(),
    });
    std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(())
}
