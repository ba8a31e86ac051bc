//! Metrics of the recovery of channels that have retransmission servers.
#![forbid(unsafe_code)]

use std::fmt;

use super::{Labels, Out};
use crate::config::plan::{ChannelPlan, Plan};
use crate::control::Desk;
use crate::metrics::{LineCounts, RecoveryCounts};

/// The channels that have servers.
pub(super) fn channels(plan: &Plan) -> impl Iterator<Item = (usize, &ChannelPlan)> {
    plan.channels.iter().filter(|(_, channel)| channel.recovery.is_some())
}

/// What answers came to at the workers.
pub(super) fn lines(desk: &Desk, plan: &Plan) -> impl Iterator<Item = (Labels, LineCounts)> {
    channels(plan).map(move |(i, channel)| {
        let labels = vec![("channel", channel.name.clone()), ("line", "recovery".to_owned())];
        (labels, desk.link_of_channel(i).shared.line(plan.recovery_line(i).into()))
    })
}

pub(super) fn recovery(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let counts: Vec<(Labels, [u64; RecoveryCounts::COUNT])> = channels(&desk.plan())
        .map(|(i, channel)| {
            (vec![("channel", channel.name.clone())], desk.link_of_channel(i).shared.recovery(i).values())
        })
        .collect();
    let mut rejected: Vec<(Labels, u64)> = Vec::new();
    for (field, (name, help)) in RecoveryCounts::FIELDS.iter().enumerate() {
        let samples = counts.iter().map(|(labels, values)| (labels.clone(), values[field]));
        match name.strip_prefix("rejected_") {
            None => out.counter(&format!("recovery_{name}"), help, samples)?,
            Some(reason) => rejected.extend(samples.map(|(mut labels, value)| {
                labels.push(("reason", reason.to_owned()));
                (labels, value)
            })),
        }
    }
    out.counter("recovery_rejected", "Datagrams from retransmission servers that were not used, by reason", rejected)
}
