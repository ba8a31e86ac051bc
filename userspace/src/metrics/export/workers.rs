//! Metrics of workers and their ports, and latency.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Labels, Out, to_seconds};
use crate::clock::monotonic_ns;
use crate::control::Desk;
use crate::latency::{Stage, StageHistograms};
use crate::metrics::PortCounts;
use crate::worker::shared::WorkerShared;

/// Upper bounds of the latency buckets, nanoseconds: 1-2-5 steps where AF_XDP and kernel sockets differ (below a
/// millisecond), coarser above, where only "too long" matters.
const BUCKETS_NS: [u64; 17] = [
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

pub(super) fn workers(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let (now_ns, plan) = (monotonic_ns(), desk.plan());
    let each = |value: fn(&WorkerShared, u64) -> u64| {
        let workers = plan.workers.iter().zip(desk.links());
        workers
            .map(move |(plan, link)| (vec![("worker", plan.name.clone())], value(&link.shared, now_ns)))
            .collect::<Vec<_>>()
    };
    out.gauge(
        "worker_running",
        "1 while the worker's thread is in its loop",
        each(|w, _| w.running.load(Relaxed).into()),
    )?;
    out.seconds("worker_silence", "Time since the worker's newest housekeeping", each(|w, now| w.silence_ns(now)))?;
    out.counter("worker_cycles", "Duty cycles run", each(|w, _| w.cycles.load(Relaxed)))?;
    let longest = each(|w, _| w.longest_cycle_ns.load(Relaxed));
    out.seconds("worker_longest_cycle", "Longest duty cycle since start", longest)?;
    let dropped = each(|w, _| w.events_dropped.load(Relaxed));
    out.counter("worker_events_dropped", "Events that did not fit into the event queue", dropped)?;
    let refused = each(|w, _| w.commands_refused.load(Relaxed));
    out.counter("worker_commands_refused", "Groups that the worker's own socket was refused", refused)?;
    out.gauge("worker_frames_free", "Frames that no ring and no port holds", each(|w, _| w.frames_free.load(Relaxed)))?;
    let frames = plan
        .workers
        .iter()
        .enumerate()
        .map(|(index, plan)| (vec![("worker", plan.name.clone())], desk.frames_of(index)));
    out.gauge("worker_frames", "Frames of the worker, over all its ports", frames)
}

pub(super) fn ports(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let plan = desk.plan();
    let mut ports: Vec<(Labels, [u64; PortCounts::COUNT])> = Vec::new();
    for (worker, link) in plan.workers.iter().zip(desk.links()) {
        let rx = worker.rx.iter().zip(&link.shared.rx).map(|port| ("rx", port));
        let tx = worker.tx.iter().map(|queue| ("tx", (queue, &link.shared.tx[worker.port_of(*queue)])));
        for (direction, (queue, counts)) in rx.chain(tx) {
            let labels = vec![
                ("worker", worker.name.clone()),
                ("interface", plan.interfaces[queue.interface].name.clone()),
                ("queue", queue.queue.to_string()),
                ("direction", direction.to_owned()),
            ];
            ports.push((labels, counts.load()));
        }
    }
    for (field, (name, help)) in PortCounts::FIELDS.iter().enumerate() {
        let samples = ports.iter().map(|(labels, values)| (labels.clone(), values[field]));
        out.counter(&format!("port_{name}"), help, samples)?;
    }
    Ok(())
}

/// Latency since start over all workers; Prometheus takes differences.
pub(super) fn latency(latencies: &StageHistograms, out: &mut Out<'_>) -> fmt::Result {
    let help = "Time that a datagram spent in a stage, from the XDP program (or the receive call) on";
    let mut family = out.0.encode_descriptor("latency", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for stage in Stage::ALL {
        let mut buckets: Vec<(f64, u64)> = BUCKETS_NS.iter().map(|bound| (to_seconds(*bound), 0)).collect();
        buckets.push((f64::INFINITY, 0));
        let mut sum_ns = 0.0;
        for value in latencies.stage(stage).iter_recorded() {
            let (ns, count) = (value.value_iterated_to(), value.count_since_last_iteration());
            let bucket = BUCKETS_NS.partition_point(|bound| *bound < ns);
            buckets[bucket].1 += count;
            sum_ns += ns as f64 * count as f64;
        }
        let labels: Labels = vec![("stage", stage.label().to_owned())];
        let count = latencies.stage(stage).len();
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum_ns / 1e9, count, &buckets, None)?;
    }
    Ok(())
}
