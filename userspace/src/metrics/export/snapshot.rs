//! Metrics of late starts by a snapshot.
#![forbid(unsafe_code)]

use std::fmt;

use super::{Labels, Out};
use crate::config::plan::{ChannelPlan, Plan};
use crate::control::Desk;
use crate::metrics::{LineCounts, SnapshotCounts};

/// The channels that begin with a snapshot.
pub(super) fn channels(plan: &Plan) -> impl Iterator<Item = (usize, &ChannelPlan)> {
    plan.channels.iter().filter(|(_, channel)| channel.snapshot.is_some())
}

/// What snapshots came to at the workers.
pub(super) fn lines(desk: &Desk, plan: &Plan) -> impl Iterator<Item = (Labels, LineCounts)> {
    channels(plan).map(move |(i, channel)| {
        let labels = vec![("channel", channel.name.clone()), ("line", "snapshot".to_owned())];
        (labels, desk.link_of_channel(i).shared.line(plan.snapshot_line(i).into()))
    })
}

pub(super) fn snapshot(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let counts: Vec<(Labels, [u64; SnapshotCounts::COUNT])> = channels(&desk.plan())
        .map(|(i, channel)| {
            (vec![("channel", channel.name.clone())], desk.link_of_channel(i).shared.snapshots(i).values())
        })
        .collect();
    let mut failed: Vec<(Labels, u64)> = Vec::new();
    for (field, (name, help)) in SnapshotCounts::FIELDS.iter().enumerate() {
        let samples = counts.iter().map(|(labels, values)| (labels.clone(), values[field]));
        match name.strip_prefix("failed_") {
            None => out.counter(&format!("snapshot_{name}"), help, samples)?,
            Some(reason) => failed.extend(samples.map(|(mut labels, value)| {
                labels.push(("reason", reason.to_owned()));
                (labels, value)
            })),
        }
    }
    out.counter("snapshot_failed", "Attempts to get a snapshot that came to nothing, by reason", failed)
}
