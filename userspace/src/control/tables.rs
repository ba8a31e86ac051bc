//! What `feedctl` prints for a person: the answers of the control service as tables.
#![forbid(unsafe_code)]

mod machine;

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use feedhandler_proto::v1;

use crate::metrics::SoupState;

/// The answer to a subscription or its end; `verb` is what was asked.
#[must_use]
pub fn changes(verb: &str, changed: &[v1::Group], unchanged: &[v1::Group]) -> String {
    let mut text = format!("{verb}: {} changed, {} as they were\n", changed.len(), unchanged.len());
    let all: Vec<v1::Group> = changed.iter().chain(unchanged).cloned().collect();
    text.push_str(&groups(&all));
    text
}

/// The configured groups.
#[must_use]
pub fn groups(groups: &[v1::Group]) -> String {
    let mut table = table(&["channel", "line", "interface", "group", "vlan", "source", "desired", "in force", "error"]);
    for group in groups {
        table.add_row(group_cells(group));
    }
    format!("{table}\n")
}

/// The configured groups with what was received on each.
#[must_use]
pub fn list(groups: &[v1::Group]) -> String {
    let mut table = table(&[
        "channel",
        "line",
        "interface",
        "group",
        "vlan",
        "source",
        "desired",
        "in force",
        "packets",
        "bytes",
        "by XDP",
        "last seen",
        "canary",
        "error",
    ]);
    numbers(&mut table, 8..13);
    for group in groups {
        let received = [
            group.packets.to_string(),
            group.bytes.to_string(),
            group.frames.map_or_else(|| "-".to_owned(), |frames| frames.packets.to_string()),
            last_seen(group.last_seen_age_ns),
            canary(group),
        ];
        let [before @ .., error] = group_cells(group);
        table.add_row(before.into_iter().chain(received).chain([error]));
    }
    format!("{table}\n")
}

/// What is known of a group alone, the error last.
fn group_cells(group: &v1::Group) -> [String; 9] {
    [
        group.channel.clone(),
        group.line.clone(),
        group.interface.clone(),
        group.group.clone(),
        if group.vlan == 0 { "-".to_owned() } else { group.vlan.to_string() },
        or_dash(&group.source),
        yes(group.desired),
        yes(group.in_force),
        or_dash(&group.error),
    ]
}

fn last_seen(age_ns: Option<u64>) -> String {
    age_ns.map_or_else(|| "never".to_owned(), |age_ns| format!("{} ago", duration(age_ns)))
}

/// What a line's canary heard; anything but a zero is a fault. A dash where there is none.
fn canary(group: &v1::Group) -> String {
    group.canary_packets.map_or_else(|| "-".to_owned(), |packets| packets.to_string())
}

/// The whole status.
#[must_use]
pub fn status(status: &v1::GetStatusResponse) -> String {
    let ready = if status.ready { "READY" } else { "NOT READY" };
    let uptime = duration(status.uptime_ms.saturating_mul(1_000_000));
    let mut text = format!("{}  version {}  up {uptime}  {ready}\n", status.name, status.version);
    for reason in &status.not_ready_reasons {
        let _ = writeln!(text, "  {reason}");
    }
    let sections = [
        ("Channels", channels(status)),
        ("Recovery", recovery(status)),
        ("SoupBinTCP", streams(status)),
        ("Lines", lines(status)),
        ("Destinations", destinations(status)),
        ("Drops", drops(status)),
        ("Interfaces", machine::interfaces(status)),
        ("Workers", machine::workers(status)),
        ("Ports", machine::ports(status)),
        ("Latency since start", machine::latencies(status)),
    ];
    for (title, table) in sections {
        if table.row_count() > 0 {
            let _ = write!(text, "\n{title}\n{table}\n");
        }
    }
    text
}

/// Latencies by stage; a stage without values has dashes.
#[must_use]
pub fn latency(answer: &v1::GetLatencyResponse) -> String {
    machine::stages(answer).to_string() + "\n"
}

fn channels(status: &v1::GetStatusResponse) -> Table {
    let mut table = table(&[
        "channel",
        "state",
        "session",
        "next",
        "messages",
        "gaps",
        "closed",
        "lost",
        "messages lost",
        "held packets",
        "orders",
        "room",
    ]);
    numbers(&mut table, 3..12);
    for channel in &status.channels {
        table.add_row([
            channel.name.clone(),
            channel.state().word().to_owned(),
            or_dash(&channel.session),
            channel.next_sequence.to_string(),
            channel.messages.to_string(),
            channel.gaps_opened.to_string(),
            channel.gaps_closed.to_string(),
            channel.gaps_lost.to_string(),
            channel.messages_lost.to_string(),
            counter(&channel.counters, "held_packets"),
            channel.orders_live.to_string(),
            channel.max_orders.to_string(),
        ]);
    }
    table
}

fn recovery(status: &v1::GetStatusResponse) -> Table {
    let columns = ["requests", "retries", "timeouts", "failovers", "answers", "superfluous", "recovered_messages"];
    let mut header = vec!["channel"];
    header.extend(columns);
    header.push("rejected");
    let mut table = table(&header);
    numbers(&mut table, 1..header.len());
    for channel in status.channels.iter().filter(|channel| !channel.recovery.is_empty()) {
        let mut row = vec![channel.name.clone()];
        row.extend(columns.map(|name| counter(&channel.recovery, name)));
        let rejected = channel.recovery.iter().filter(|counter| counter.name.starts_with("rejected_"));
        row.push(rejected.map(|counter| counter.value).sum::<u64>().to_string());
        table.add_row(row);
    }
    table
}

fn streams(status: &v1::GetStatusResponse) -> Table {
    let columns =
        ["connections", "logins", "rejects", "disconnects", "protocol_errors", "gaps", "messages", "heartbeats"];
    let mut header = vec!["channel", "connection"];
    header.extend(columns);
    let mut table = table(&header);
    numbers(&mut table, 2..header.len());
    for channel in status.channels.iter().filter(|channel| !channel.soupbintcp.is_empty()) {
        let state = channel.soupbintcp.iter().find(|counter| counter.name == "state").map_or(0, |state| state.value);
        let state = SoupState::ALL.into_iter().find(|known| *known as u64 == state);
        let mut row = vec![channel.name.clone(), state.map_or("-", SoupState::label).to_owned()];
        row.extend(columns.map(|name| counter(&channel.soupbintcp, name)));
        table.add_row(row);
    }
    table
}

fn lines(status: &v1::GetStatusResponse) -> Table {
    let mut table = table(&[
        "channel",
        "line",
        "group",
        "interface",
        "desired",
        "in force",
        "packets",
        "first",
        "duplicate",
        "late",
        "ahead",
        "malformed",
        "leads",
        "skew p50",
        "skew p99",
        "by XDP",
        "canary",
        "last seen",
    ]);
    numbers(&mut table, 6..18);
    for (channel, line) in
        status.channels.iter().flat_map(|channel| channel.lines.iter().map(move |line| (channel, line)))
    {
        let group = line.group.clone().unwrap_or_default();
        table.add_row([
            group.channel,
            group.line,
            group.group,
            group.interface,
            yes(group.desired),
            yes(group.in_force),
            line.packets.to_string(),
            line.first.to_string(),
            line.duplicate.to_string(),
            line.late.to_string(),
            line.ahead.to_string(),
            line.malformed.to_string(),
            leads(channel, line),
            skew(line.skew_p50_ns),
            skew(line.skew_p99_ns),
            line.redirected_packets.map_or_else(|| "-".to_owned(), |packets| packets.to_string()),
            line.group.as_ref().map_or_else(|| "-".to_owned(), canary),
            last_seen(line.last_seen_age_ns),
        ]);
    }
    table
}

/// Of the packets that came on both lines, the share that came on this one first.
fn leads(channel: &v1::ChannelStatus, line: &v1::LineStatus) -> String {
    let both: u64 = channel.lines.iter().map(|line| line.behind).sum();
    if both == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", 100.0 * (both - line.behind) as f64 / both as f64)
}

/// By how much a line is later, at most.
fn skew(bound_ns: Option<u64>) -> String {
    match bound_ns {
        None => "-".to_owned(),
        Some(u64::MAX) => "> 1 s".to_owned(),
        Some(ns) => format!("<= {}", duration(ns)),
    }
}

fn destinations(status: &v1::GetStatusResponse) -> Table {
    let names =
        ["destination", "channel", "group", "interface", "format", "packets", "bytes", "blocks", "filtered", "records"];
    let mut table = table(&names);
    numbers(&mut table, 5..10);
    for destination in &status.destinations {
        let filtered = destination.counters.iter().find(|counter| counter.name == "blocks_filtered");
        table.add_row([
            destination.name.clone(),
            destination.channel.clone(),
            destination.group.clone(),
            destination.interface.clone(),
            destination.format.clone(),
            destination.packets.to_string(),
            destination.bytes.to_string(),
            destination.blocks.to_string(),
            filtered.map_or(0, |counter| counter.value).to_string(),
            destination.records.to_string(),
        ]);
    }
    table
}

fn drops(status: &v1::GetStatusResponse) -> Table {
    let mut table = table(&["where", "reason", "packets", "loses data"]);
    numbers(&mut table, 2..3);
    let mut add = |place: String, drops: &[v1::DropStatus]| {
        for drop in drops {
            table.add_row([place.clone(), drop.reason.clone(), drop.packets.to_string(), yes(!drop.benign)]);
        }
    };
    for line in status.channels.iter().flat_map(|channel| &channel.lines) {
        let group = line.group.clone().unwrap_or_default();
        add(format!("{} line {}", group.channel, group.line), &line.drops);
    }
    add("no line".to_owned(), &status.unmatched_drops);
    for destination in &status.destinations {
        add(format!("destination {}", destination.name), &destination.drops);
    }
    for port in status.workers.iter().flat_map(|worker| &worker.ports) {
        add(format!("{} queue {} {}", port.interface, port.queue, port.direction), &port.drops);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    // Never wrapped to the terminal: `feedctl status | grep` must find whole values.
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    table
}

fn numbers(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The value of a counter by its name; a dash if the handler does not have it.
fn counter(counters: &[v1::Counter], name: &str) -> String {
    let found = counters.iter().find(|counter| counter.name == name);
    found.map_or_else(|| "-".to_owned(), |counter| counter.value.to_string())
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// A duration in its largest fitting unit.
fn duration(ns: u64) -> String {
    const MINUTE_S: u64 = 60;
    const HOUR_S: u64 = 3600;
    const DAY_S: u64 = 86_400;
    match (ns, ns / 1_000_000_000) {
        (0..1_000, _) => format!("{ns} ns"),
        (1_000..1_000_000, _) => format!("{:.1} us", ns as f64 / 1e3),
        (1_000_000..1_000_000_000, _) => format!("{:.1} ms", ns as f64 / 1e6),
        (_, 0..MINUTE_S) => format!("{:.1} s", ns as f64 / 1e9),
        (_, s @ MINUTE_S..HOUR_S) => format!("{} min {} s", s / MINUTE_S, s % MINUTE_S),
        (_, s @ HOUR_S..DAY_S) => format!("{} h {} min", s / HOUR_S, s % HOUR_S / MINUTE_S),
        (_, s) => format!("{} d {} h", s / DAY_S, s % DAY_S / HOUR_S),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_their_unit() {
        let texts: Vec<String> =
            [999, 1_500, 2_000_000, 59_000_000_000, 61_000_000_000, 7_260_000_000_000, 90_000_000_000_000]
                .map(duration)
                .into();
        assert_eq!(texts, ["999 ns", "1.5 us", "2.0 ms", "59.0 s", "1 min 1 s", "2 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn a_drop_that_loses_data_is_told_from_one_that_does_not() {
        let drops = vec![
            v1::DropStatus { reason: "duplicate".into(), packets: 7, benign: true },
            v1::DropStatus { reason: "bad_bounds".into(), packets: 1, benign: false },
        ];
        let text = drops_text(drops);
        let line = |word: &str| text.lines().find(|line| line.contains(word)).unwrap().to_owned();
        assert!(line("duplicate").trim_end().ends_with("no"));
        assert!(line("bad_bounds").trim_end().ends_with("yes"));
    }

    fn drops_text(unmatched_drops: Vec<v1::DropStatus>) -> String {
        status(&v1::GetStatusResponse { unmatched_drops, ..Default::default() })
    }
}
