//! Metrics of the channels that come over TCP.
#![forbid(unsafe_code)]

use std::fmt;

use super::{Labels, Out};
use crate::config::plan::{ChannelPlan, Plan};
use crate::control::Desk;
use crate::metrics::{LineCounts, SoupCounts, SoupState};

/// The channels that come over TCP.
pub(super) fn channels(plan: &Plan) -> impl Iterator<Item = (usize, &ChannelPlan)> {
    plan.channels.iter().filter(|(_, channel)| channel.soup.is_some())
}

/// What their streams came to at the workers.
pub(super) fn lines(desk: &Desk, plan: &Plan) -> impl Iterator<Item = (Labels, LineCounts)> {
    channels(plan).map(move |(i, channel)| {
        let labels = vec![("channel", channel.name.clone()), ("line", "soupbintcp".to_owned())];
        (labels, desk.link_of_channel(i).shared.line(plan.soup_line(i).into()))
    })
}

pub(super) fn soup(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let counts: Vec<(Labels, SoupCounts)> = channels(&desk.plan())
        .map(|(i, channel)| (vec![("channel", channel.name.clone())], desk.link_of_channel(i).shared.soup(i)))
        .collect();
    let states = counts.iter().flat_map(|(labels, counts)| {
        SoupState::ALL.into_iter().map(move |state| {
            let mut labels = labels.clone();
            labels.push(("state", state.label().to_owned()));
            (labels, u64::from(counts.state == state as u64))
        })
    });
    out.gauge("soupbintcp_state", "1 for the state that the connection is in", states)?;
    for (field, (name, help)) in SoupCounts::FIELDS.iter().enumerate().filter(|(_, (name, _))| *name != "state") {
        let samples = counts.iter().map(|(labels, counts)| (labels.clone(), counts.values()[field]));
        out.counter(&format!("soupbintcp_{name}"), help, samples)?;
    }
    Ok(())
}
