//! The state of everything, as the control service tells it.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;

use feedhandler_proto::v1;
use xdp_ebpf::Verdict;

use super::events::session_text;
use super::{Desk, LineState};
use crate::clock::monotonic_ns;
use crate::config::plan::{Format, LinePlan, Plan, QueuePlan};
use crate::edge::Fault;
use crate::latency::Stage;
use crate::metrics::{
    ChannelCounts, DestinationCounts, DropCounts, DropReason, PortCounts, RecoveryCounts, SharedCounts, SoupCounts,
};
use crate::{recovery, snapshot, source};

/// The state by `ChannelCounts::state`.
pub(crate) fn channel_state(state: u64) -> v1::ChannelState {
    match state {
        0 => v1::ChannelState::Unknown,
        1 => v1::ChannelState::Backfill,
        2 => v1::ChannelState::Live,
        3 => v1::ChannelState::Gap,
        4 => v1::ChannelState::Stale,
        5 => v1::ChannelState::Ended,
        _ => v1::ChannelState::Unspecified,
    }
}

/// The configuration's word for a format.
pub(crate) const fn format_label(format: Format) -> &'static str {
    match format {
        Format::Dbn => "dbn",
        Format::Raw => "raw",
    }
}

impl Desk {
    /// The groups of some lines.
    #[must_use]
    pub fn groups(&self, lines: &[usize]) -> Vec<v1::Group> {
        let states = self.line_states();
        let plan = self.plan();
        lines.iter().filter_map(|line| Some(self.group(&plan, plan.lines.get(*line)?, *line, &states[*line]))).collect()
    }

    /// Everything.
    #[must_use]
    pub fn status(&self) -> v1::GetStatusResponse {
        let not_ready_reasons = self.not_ready_reasons();
        let (plan, states) = (self.plan(), self.line_states());
        let mut drops = [0; DropReason::COUNT];
        for link in &self.links {
            for (sum, value) in drops.iter_mut().zip(link.shared.unknown_drops().values()) {
                *sum += value;
            }
        }
        v1::GetStatusResponse {
            name: self.fixed.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.uptime_ns() / 1_000_000,
            ready: not_ready_reasons.is_empty(),
            not_ready_reasons,
            workers: (0..self.fixed.workers.len()).map(|worker| self.worker_status(worker)).collect(),
            interfaces: (0..self.fixed.interfaces.len()).map(|interface| self.interface_status(interface)).collect(),
            channels: plan.channels.indices().map(|channel| self.channel_status(&plan, channel, &states)).collect(),
            destinations: plan.destinations.indices().map(|index| self.destination_status(&plan, index)).collect(),
            latencies: self.latency_status(),
            unmatched_drops: drop_status(DropCounts::from_values(drops)),
        }
    }

    fn group(&self, now: &Plan, plan: &LinePlan, line: usize, state: &LineState) -> v1::Group {
        let counts = self.link_of_channel(plan.channel).shared.line(line);
        v1::Group {
            channel: now.channels[plan.channel].name.clone(),
            line: plan.name.clone(),
            interface: self.fixed.interfaces[plan.interface].name.clone(),
            group: plan.group.to_string(),
            vlan: plan.vlan.into(),
            source: plan.source.map_or_else(String::new, |source| source.to_string()),
            desired: state.desired,
            in_force: state.in_force,
            error: state.error.clone().unwrap_or_default(),
            packets: counts.packets,
            bytes: counts.bytes,
            last_seen_age_ns: age_ns(counts.last_seen_ns),
            frames: self.line_stats(line).ok().flatten().map(|stats| v1::GroupFrames {
                packets: stats.packets,
                bytes: stats.bytes,
                last_seen_age_ns: age_ns(stats.last_seen_ns),
            }),
            canary_packets: self.canary_packets(line),
        }
    }

    /// Frames of all of a worker's ports: those of its queues, and those that other threads feed.
    #[must_use]
    pub fn frames_of(&self, worker: usize) -> u64 {
        let plan = &self.fixed.workers[worker];
        let fed = u64::from(recovery::FRAMES + snapshot::FRAMES + source::FRAMES);
        u64::from(plan.frame_count) * plan.ports.len() as u64 + fed
    }

    fn worker_status(&self, worker: usize) -> v1::WorkerStatus {
        let plan = &self.fixed.workers[worker];
        let shared = &self.links[worker].shared;
        type Port<'a> = (&'a QueuePlan, &'a SharedCounts<{ PortCounts::COUNT }>);
        let port = |(queue, counts): Port<'_>, direction: &str, drops: DropCounts| {
            let values = counts.load();
            v1::PortStatus {
                interface: self.fixed.interfaces[queue.interface].name.clone(),
                queue: queue.queue,
                direction: direction.to_owned(),
                counters: counters(PortCounts::FIELDS, &values),
                drops: drop_status(drops),
            }
        };
        // What receive ports drop is of no known line, and reported as that.
        let rx = plan.rx.iter().zip(&shared.rx).map(|pair| port(pair, "rx", DropCounts::default()));
        let tx =
            plan.tx.iter().map(|queue| (queue, plan.port_of(*queue))).map(|(queue, i)| {
                port((queue, &shared.tx[i]), "tx", DropCounts::from_values(shared.tx_drops[i].load()))
            });
        v1::WorkerStatus {
            name: plan.name.clone(),
            core: plan.core.and_then(|core| u32::try_from(core).ok()),
            running: shared.running.load(Relaxed),
            silence_ns: shared.silence_ns(monotonic_ns()),
            cycles: shared.cycles.load(Relaxed),
            longest_cycle_ns: shared.longest_cycle_ns.load(Relaxed),
            frames_free: shared.frames_free.load(Relaxed),
            frame_count: self.frames_of(worker),
            events_dropped: shared.events_dropped.load(Relaxed),
            ports: rx.chain(tx).collect(),
        }
    }

    fn interface_status(&self, interface: usize) -> v1::InterfaceStatus {
        let plan = &self.fixed.interfaces[interface];
        let (verdicts, error) = match self.verdicts(interface) {
            Ok(verdicts) => (verdicts, String::new()),
            Err(error) => (None, error.to_string()),
        };
        let named = |(verdict, value): (Verdict, u64)| v1::Counter { name: verdict.label().to_owned(), value };
        let health = self.interface_health(interface);
        let begun = Fault::ALL.into_iter().zip(health.begun);
        let begun_counter = |(fault, value): (Fault, u64)| v1::Counter { name: fault.label().to_owned(), value };
        let (fault, particulars) = health.now.map_or((None, String::new()), |(fault, text)| (Some(fault), text));
        let refused = self.modes_refused(interface).iter();
        let has_program = verdicts.is_some() || !error.is_empty();
        v1::InterfaceStatus {
            name: plan.name.clone(),
            mode_wanted: plan.mode.label().to_owned(),
            mode_in_force: self.mode_in_force(interface).label().to_owned(),
            verdicts: Verdict::ALL
                .into_iter()
                .zip(verdicts.into_iter().flatten())
                .filter(|(_, value)| *value > 0)
                .map(named)
                .collect(),
            error,
            fault: fault.map_or_else(String::new, |fault| fault.label().to_owned()),
            fault_particulars: particulars,
            faults: begun.filter(|(_, value)| *value > 0).map(begun_counter).collect(),
            healed: health.healed,
            modes_refused: refused
                .map(|refusal| v1::ModeRefused { mode: refusal.mode.label().to_owned(), why: refusal.why.clone() })
                .collect(),
            unsubscribed: if has_program { plan.unsubscribed.label() } else { "" }.to_owned(),
            igmp_version: self.igmp_version(interface).map_or(0, |version| version.number().into()),
        }
    }

    fn channel_status(&self, now: &Plan, channel: usize, states: &[LineState]) -> v1::ChannelStatus {
        let plan = &now.channels[channel];
        let shared = &self.link_of_channel(channel).shared;
        let counts = shared.channel(channel);
        let recovery = plan.recovery.as_ref().map(|_| shared.recovery(channel).values());
        let soup = plan.soup.as_ref().map(|_| shared.soup(channel).values());
        v1::ChannelStatus {
            name: plan.name.clone(),
            worker: self.fixed.workers[plan.worker].name.clone(),
            state: channel_state(counts.state).into(),
            session: session_text(&shared.sessions[channel].load()),
            next_sequence: counts.next_sequence,
            messages: counts.messages,
            gaps_opened: counts.gaps_opened,
            gaps_closed: counts.gaps_closed,
            gaps_lost: counts.gaps_lost,
            messages_lost: counts.messages_lost,
            orders_live: counts.orders_live,
            max_orders: plan.max_orders as u64,
            counters: counters(ChannelCounts::FIELDS, &counts.values()),
            lines: plan.lines.iter().map(|line| self.line_status(now, *line, &states[*line])).collect(),
            recovery: recovery.map_or_else(Vec::new, |values| counters(RecoveryCounts::FIELDS, &values)),
            soupbintcp: soup.map_or_else(Vec::new, |values| counters(SoupCounts::FIELDS, &values)),
        }
    }

    fn line_status(&self, now: &Plan, line: usize, state: &LineState) -> v1::LineStatus {
        let plan = &now.lines[line];
        let shared = &self.links[now.channels[plan.channel].worker].shared;
        let counts = shared.line(line);
        let skew = shared.skew(line);
        let group = self.group(now, plan, line, state);
        v1::LineStatus {
            late: counts.late,
            behind: skew.count(),
            skew_p50_ns: skew.quantile_ns(0.5),
            skew_p99_ns: skew.quantile_ns(0.99),
            packets: counts.packets,
            bytes: counts.bytes,
            first: counts.first,
            duplicate: counts.duplicate,
            ahead: counts.ahead,
            malformed: counts.malformed,
            last_seen_age_ns: age_ns(counts.last_seen_ns),
            redirected_packets: group.frames.map(|frames| frames.packets),
            drops: drop_status(shared.drops(line)),
            group: Some(group),
        }
    }

    fn destination_status(&self, now: &Plan, index: usize) -> v1::DestinationStatus {
        let plan = &now.destinations[index];
        let shared = &self.links[now.channels[plan.channel].worker].shared;
        let counts = DestinationCounts::from_values(shared.destinations[index].load());
        v1::DestinationStatus {
            name: plan.name.clone(),
            channel: now.channels[plan.channel].name.clone(),
            interface: self.fixed.interfaces[plan.queue.interface].name.clone(),
            group: plan.group.to_string(),
            format: format_label(plan.format).to_owned(),
            packets: counts.packets,
            bytes: counts.bytes,
            blocks: counts.blocks,
            records: counts.records,
            heartbeats: counts.heartbeats,
            drops: drop_status(DropCounts::from_values(shared.destination_drops[index].load())),
            counters: counters(DestinationCounts::FIELDS, &counts.values()),
        }
    }

    fn latency_status(&self) -> Vec<v1::LatencyStatus> {
        let latencies = self.latencies();
        let status = |stage| super::latency::summary(stage, latencies.stage(stage));
        Stage::ALL.into_iter().map(status).collect()
    }
}

/// Age of what happened at a CLOCK_MONOTONIC time; 0 = never.
fn age_ns(seen_ns: u64) -> Option<u64> {
    (seen_ns > 0).then(|| monotonic_ns().saturating_sub(seen_ns))
}

fn counters(fields: &[(&str, &str)], values: &[u64]) -> Vec<v1::Counter> {
    fields
        .iter()
        .zip(values)
        .map(|((name, _), value)| v1::Counter { name: (*name).to_owned(), value: *value })
        .collect()
}

fn drop_status(drops: DropCounts) -> Vec<v1::DropStatus> {
    let occurred = DropReason::ALL.into_iter().filter(|reason| drops.get(*reason) > 0);
    let status = |reason: DropReason| v1::DropStatus {
        reason: reason.label().to_owned(),
        packets: drops.get(reason),
        benign: reason.is_benign(),
    };
    occurred.map(status).collect()
}
