//! Metrics of the retransmission servers of destinations that have one.
#![forbid(unsafe_code)]

use std::fmt;

use super::{Labels, Out};
use crate::control::Desk;
use crate::metrics::RetransmissionCounts;

/// Fields of [`RetransmissionCounts`] that go up and down.
const GAUGES: [&str; 4] = ["retained_messages", "retained_bytes", "first_sequence", "next_sequence"];

pub(super) fn servers(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let plan = desk.plan();
    let destinations = plan.destinations.iter();
    let counts: Vec<(Labels, [u64; RetransmissionCounts::COUNT])> = destinations
        .filter(|(_, plan)| plan.retransmission.is_some())
        .map(|(i, plan)| {
            let counts = desk.link_of_channel(plan.channel).shared.retransmission(i);
            (vec![("destination", plan.name.clone())], counts.values())
        })
        .collect();
    let mut refused: Vec<(Labels, u64)> = Vec::new();
    for (field, (name, help)) in RetransmissionCounts::FIELDS.iter().enumerate() {
        let samples = counts.iter().map(|(labels, values)| (labels.clone(), values[field]));
        let family = format!("retransmission_{name}");
        match name.strip_prefix("refused_") {
            None if GAUGES.contains(name) => out.gauge(&family, help, samples)?,
            None => out.counter(&family, help, samples)?,
            Some(reason) => refused.extend(samples.map(|(mut labels, value)| {
                labels.push(("reason", reason.to_owned()));
                (labels, value)
            })),
        }
    }
    out.counter("retransmission_refused", "Requests that were not answered, by reason", refused)
}
