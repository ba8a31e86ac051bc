//! Tables of what the handler runs on: interfaces, workers, ports, and the time that it all takes.
#![forbid(unsafe_code)]

use comfy_table::Table;
use feedhandler_proto::v1;

use super::{counter, duration, numbers, or_dash, table, yes};

pub(super) fn interfaces(status: &v1::GetStatusResponse) -> Table {
    let mut table =
        table(&["interface", "wanted", "in force", "fault", "seen", "healed", "unsubscribed", "frames by XDP verdict"]);
    numbers(&mut table, 5..6);
    for interface in &status.interfaces {
        let verdicts: Vec<String> =
            interface.verdicts.iter().map(|verdict| format!("{} {}", verdict.name, verdict.value)).collect();
        let faults: Vec<String> =
            interface.faults.iter().map(|fault| format!("{} {}", fault.name, fault.value)).collect();
        let verdicts = if interface.error.is_empty() { verdicts.join(", ") } else { interface.error.clone() };
        table.add_row([
            interface.name.clone(),
            interface.mode_wanted.clone(),
            interface.mode_in_force.clone(),
            or_dash(&interface.fault),
            or_dash(&faults.join(", ")),
            interface.healed.to_string(),
            or_dash(&interface.unsubscribed),
            if interface.igmp_version == 0 { "-".to_owned() } else { interface.igmp_version.to_string() },
            or_dash(&verdicts),
        ]);
    }
    table
}

pub(super) fn workers(status: &v1::GetStatusResponse) -> Table {
    let mut table = table(&[
        "worker",
        "core",
        "running",
        "last sign",
        "cycles",
        "longest cycle",
        "frames free",
        "frames",
        "events dropped",
    ]);
    numbers(&mut table, 3..9);
    for worker in &status.workers {
        table.add_row([
            worker.name.clone(),
            worker.core.map_or_else(|| "-".to_owned(), |core| core.to_string()),
            yes(worker.running),
            format!("{} ago", duration(worker.silence_ns)),
            worker.cycles.to_string(),
            duration(worker.longest_cycle_ns),
            worker.frames_free.to_string(),
            worker.frame_count.to_string(),
            worker.events_dropped.to_string(),
        ]);
    }
    table
}

pub(super) fn ports(status: &v1::GetStatusResponse) -> Table {
    let columns = ["frames", "kicks", "kick_errors", "tx_retries", "kernel_rx_dropped", "kernel_rx_ring_full"];
    let mut header = vec!["port", "direction"];
    header.extend(columns);
    let mut table = table(&header);
    numbers(&mut table, 2..header.len());
    for port in status.workers.iter().flat_map(|worker| &worker.ports) {
        let mut row = vec![format!("{} queue {}", port.interface, port.queue), port.direction.clone()];
        row.extend(columns.map(|name| counter(&port.counters, name)));
        table.add_row(row);
    }
    table
}

pub(super) fn latencies(status: &v1::GetStatusResponse) -> Table {
    let mut table = table(&["stage", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    numbers(&mut table, 1..8);
    for latency in status.latencies.iter().filter(|latency| latency.count > 0) {
        table.add_row([
            latency.stage.clone(),
            latency.count.to_string(),
            duration(latency.p50_ns),
            duration(latency.p90_ns),
            duration(latency.p99_ns),
            duration(latency.p999_ns),
            duration(latency.p9999_ns),
            duration(latency.max_ns),
        ]);
    }
    table
}

pub(super) fn stages(answer: &v1::GetLatencyResponse) -> Table {
    let mut table = table(&["stage", "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    numbers(&mut table, 1..9);
    for stage in &answer.stages {
        let sums = stage.summary.clone().unwrap_or_default();
        let times =
            [stage.mean_ns as u64, sums.p50_ns, sums.p90_ns, sums.p99_ns, sums.p999_ns, sums.p9999_ns, sums.max_ns];
        let cells = times.map(|ns| if sums.count == 0 { "-".to_owned() } else { duration(ns) });
        table.add_row([sums.stage, sums.count.to_string()].into_iter().chain(cells));
    }
    table
}
