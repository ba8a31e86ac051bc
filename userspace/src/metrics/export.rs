//! All counters as Prometheus metrics.
//!
//! Nothing is kept here: at each scrape the workers' published counters and the XDP programs' maps are read.
//!
//! Sums from the wire to the output: `xdp_verdicts_total` counts every frame once; those `redirected` reach a port
//! (`port_frames_total`) unless the kernel dropped them (`port_kernel_rx_dropped_total`, `port_kernel_rx_ring_full_total`);
//! a datagram then reaches its line (`line_packets_total`) or is in `drops_total` by reason. Of a line's packets each was
//! the first, a heartbeat, or is in `drops_total`, but for those that are held behind a gap or wait for a second witness.
//! `duplicate` there and `line_duplicate_total` are the same packets: never add them. The test `accounting` adds it all up.
#![forbid(unsafe_code)]

mod access;
mod groups;
mod interfaces;
mod recovery;
mod retransmission;
mod skew;
mod snapshot;
mod soup;
mod workers;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{COMMIT, RUSTC};
use super::{ChannelCounts, DestinationCounts, DropCounts, DropReason, LineCounts};
use crate::clock::utc_offset_ns;
use crate::config::plan::Plan;
use crate::control::Desk;

/// Fields of [`ChannelCounts`] that go up and down.
const CHANNEL_GAUGES: [&str; 5] =
    ["orders_live", "next_sequence", "first_sequence", "known_sequence", "snapshot_state"];

type Labels = Vec<(&'static str, String)>;

/// Writes the metrics of one desk.
#[derive(Debug)]
pub struct Exporter {
    registry: Registry,
}

impl Exporter {
    /// An exporter of everything that `desk` knows.
    #[must_use]
    pub fn new(desk: Arc<Desk>) -> Self {
        let mut registry = Registry::with_prefix("feedhandler");
        registry.register_collector(Box::new(DeskCollector(desk)));
        Self { registry }
    }

    /// The metrics now, OpenMetrics text.
    ///
    /// # Errors
    /// None in practice: the text is written to memory.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(32 * 1024);
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct DeskCollector(Arc<Desk>);

impl Collector for DeskCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let desk = &*self.0;
        instance(desk, &mut out)?;
        access::access(desk, &mut out)?;
        interfaces::interfaces(desk, &mut out)?;
        lines(desk, &mut out)?;
        skew::skew(desk, &mut out)?;
        channels(desk, &mut out)?;
        recovery::recovery(desk, &mut out)?;
        snapshot::snapshot(desk, &mut out)?;
        soup::soup(desk, &mut out)?;
        destinations(desk, &mut out)?;
        retransmission::servers(desk, &mut out)?;
        drops(desk, &mut out)?;
        groups::groups(desk, &mut out)?;
        workers::workers(desk, &mut out)?;
        workers::ports(desk, &mut out)?;
        workers::latency(&desk.latencies(), &mut out)
    }
}

/// Writes one metric family at a time.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A gauge of seconds, from nanoseconds.
    fn seconds(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (labels, ns) in samples {
            family.encode_family(&labels)?.encode_gauge(&to_seconds(ns))?;
        }
        Ok(())
    }
}

fn to_seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn instance(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let labels = vec![
        ("name", desk.plan().name.clone()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("commit", COMMIT.to_owned()),
        ("rustc", RUSTC.to_owned()),
    ];
    out.gauge("build_info", "Always 1; the labels say what runs", [(labels, 1)])?;
    let hash = vec![("hash", desk.config_hash())];
    out.gauge("config_info", "Always 1; the label changes with the configuration that runs", [(hash, 1)])?;
    let help = "When the handler started, since 1970 UTC";
    out.seconds("start_time", help, [(vec![], desk.started_utc_ns())])?;
    let help = "Changes of subscriptions that could not be written to the subscriptions file";
    out.counter("subscriptions_unsaved", help, [(vec![], desk.unsaved_changes())])?;
    let help = "Intervals that could not be written to the log of latencies; their values came with a later one";
    out.counter("latency_log_failures", help, [(vec![], desk.latency_log_failures())])?;
    let ready = desk.not_ready_reasons().is_empty();
    out.gauge(
        "ready",
        "1 when all workers are alive, all desired lines in force and no channel is stale",
        [(vec![], ready.into())],
    )
}

fn line_labels(plan: &Plan, line: usize) -> Labels {
    let line = &plan.lines[line];
    vec![("channel", plan.channels[line.channel].name.clone()), ("line", line.name.clone())]
}

fn lines(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let plan = desk.plan();
    let plan = &*plan;
    let all = || plan.lines.indices();
    let counts: Vec<LineCounts> =
        plan.lines.iter().map(|(i, line)| desk.link_of_channel(line.channel).shared.line(i)).collect();
    let states = desk.line_states();

    let labelled = all().map(|i| {
        let line = &plan.lines[i];
        let mut labels = line_labels(plan, i);
        labels.push(("interface", plan.interfaces[line.interface].name.clone()));
        labels.push(("group", line.group.to_string()));
        labels.push(("vlan", line.vlan.to_string()));
        (labels, 1)
    });
    out.gauge("line_info", "Always 1; where the line comes in", labelled)?;
    let desired = all().map(|i| (line_labels(plan, i), states[i].desired.into()));
    out.gauge("line_desired", "1 when the line is to be subscribed", desired)?;
    let in_force = all().map(|i| (line_labels(plan, i), states[i].in_force.into()));
    out.gauge("line_in_force", "1 when the line is joined, in the filter's map and enabled", in_force)?;

    // What is recovered is a line like the others, but for that nobody subscribes to it.
    let mut counts: Vec<(Labels, LineCounts)> = all().map(|i| line_labels(plan, i)).zip(counts).collect();
    counts.extend(recovery::lines(desk, plan));
    counts.extend(snapshot::lines(desk, plan));
    counts.extend(soup::lines(desk, plan));
    for (field, (name, help)) in LineCounts::FIELDS.iter().enumerate() {
        if *name == "last_seen_ns" {
            let samples = counts.iter().map(|(labels, counts)| (labels.clone(), since_1970(counts.last_seen_ns)));
            let help = "When the newest packet of the line came, since 1970 UTC; 0 = never";
            out.seconds("line_last_seen_timestamp", help, samples)?;
            continue;
        }
        let samples = counts.iter().map(|(labels, counts)| (labels.clone(), counts.values()[field]));
        out.counter(&format!("line_{name}"), help, samples)?;
    }
    xdp_lines(desk, out)
}

/// The XDP program's own counters by line.
fn xdp_lines(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let plan = &*desk.plan();
    let all = || plan.lines.indices();
    let redirected: Vec<_> =
        all().filter_map(|i| Some((line_labels(plan, i), desk.line_stats(i).ok().flatten()?))).collect();
    let packets = redirected.iter().map(|(labels, stats)| (labels.clone(), stats.packets));
    out.counter("xdp_line_packets", "Frames that the XDP program redirected for the line", packets)?;
    let bytes = redirected.iter().map(|(labels, stats)| (labels.clone(), stats.bytes));
    out.counter("xdp_line_bytes", "Bytes of those frames, headers included", bytes)?;
    let last_seen = redirected.iter().map(|(labels, stats)| (labels.clone(), since_1970(stats.last_seen_ns)));
    let help = "When the XDP program saw the newest of those frames, since 1970 UTC; 0 = never";
    out.seconds("xdp_line_last_seen_timestamp", help, last_seen)
}

/// UTC of a CLOCK_MONOTONIC time, nanoseconds; 0 (never) stays 0.
fn since_1970(monotonic_ns: u64) -> u64 {
    if monotonic_ns == 0 { 0 } else { monotonic_ns.wrapping_add(utc_offset_ns()) }
}

fn channels(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let channels = &desk.plan().channels;
    let labels = |i: usize| vec![("channel", channels[i].name.clone())];
    let counts: Vec<(usize, ChannelCounts)> =
        channels.iter().map(|(i, plan)| (i, desk.links()[plan.worker].shared.channel(i))).collect();
    for (field, (name, help)) in ChannelCounts::FIELDS.iter().enumerate() {
        let samples = counts.iter().map(|(i, counts)| (labels(*i), counts.values()[field]));
        if *name == "state" {
            // One series per state, so that an alert can name the state and needs no number.
            let states = counts.iter().flat_map(|(i, counts)| {
                ["unknown", "backfill", "live", "gap", "stale", "ended"].into_iter().zip(0..).map(
                    move |(word, state)| {
                        let mut labels = labels(*i);
                        labels.push(("state", word.to_owned()));
                        (labels, u64::from(counts.state == state))
                    },
                )
            });
            out.gauge("channel_state", "1 for the state that the channel is in", states)?;
        } else if CHANNEL_GAUGES.contains(name) {
            out.gauge(&format!("channel_{name}"), help, samples)?;
        } else {
            out.counter(&format!("channel_{name}"), help, samples)?;
        }
    }
    let room = channels.iter().map(|(i, channel)| (labels(i), channel.max_orders as u64));
    out.gauge("channel_max_orders", "Orders that the order store has room for", room)
}

fn destinations(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let destinations = &desk.plan().destinations;
    for (field, (name, help)) in DestinationCounts::FIELDS.iter().enumerate() {
        let samples = destinations.iter().map(|(i, plan)| {
            let counts = desk.link_of_channel(plan.channel).shared.destinations[i].load();
            (vec![("destination", plan.name.clone())], counts[field])
        });
        out.counter(&format!("destination_{name}"), help, samples)?;
    }
    Ok(())
}

fn drops(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let plan = &*desk.plan();
    let mut samples: Vec<(Labels, u64)> = Vec::new();
    let mut add = |scope: &str, name: &str, counts: DropCounts| {
        for reason in DropReason::ALL {
            let labels = vec![
                ("scope", scope.to_owned()),
                ("name", name.to_owned()),
                ("reason", reason.label().to_owned()),
                ("benign", reason.is_benign().to_string()),
            ];
            samples.push((labels, counts.get(reason)));
        }
    };
    for (i, line) in plan.lines.iter() {
        let name = format!("{}/{}", plan.channels[line.channel].name, line.name);
        add("line", &name, desk.link_of_channel(line.channel).shared.drops(i));
    }
    for (i, channel) in recovery::channels(plan) {
        let line = plan.recovery_line(i).into();
        add("line", &format!("{}/recovery", channel.name), desk.link_of_channel(i).shared.drops(line));
    }
    for (i, channel) in snapshot::channels(plan) {
        let line = plan.snapshot_line(i).into();
        add("line", &format!("{}/snapshot", channel.name), desk.link_of_channel(i).shared.drops(line));
    }
    for (i, channel) in soup::channels(plan) {
        let line = plan.soup_line(i).into();
        add("line", &format!("{}/soupbintcp", channel.name), desk.link_of_channel(i).shared.drops(line));
    }
    for (worker, link) in plan.workers.iter().zip(desk.links()) {
        add("worker", &worker.name, link.shared.unknown_drops());
        for queue in &worker.tx {
            let drops = &link.shared.tx_drops[worker.port_of(*queue)];
            let name = format!("{}/{}", plan.interfaces[queue.interface].name, queue.queue);
            add("port", &name, DropCounts::from_values(drops.load()));
        }
    }
    for (i, destination) in plan.destinations.iter() {
        let counts = desk.link_of_channel(destination.channel).shared.destination_drops[i].load();
        add("destination", &destination.name, DropCounts::from_values(counts));
    }
    let help = "Packets not passed on, by reason: of a line, of a worker (no known line), of a destination (not built), or of a transmit port (not sent)";
    out.counter("drops", help, samples)
}
