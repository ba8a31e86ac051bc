//! How much later the copies of one line come than those of the other.
#![forbid(unsafe_code)]

use std::fmt;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Out, line_labels, to_seconds};
use crate::control::Desk;
use crate::metrics::SKEW_BOUNDS_NS;

/// One histogram per line. The count of one line's is how often the other was first: the share of the line that leads is
/// the other's count in the sum of both.
pub(super) fn skew(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let help = "How much later than on the other line the line's copy of a message came, for packets of which it did";
    let mut family = out.0.encode_descriptor("line_skew", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    let bounds = SKEW_BOUNDS_NS.iter().map(|bound| to_seconds(*bound)).chain([f64::INFINITY]);
    let plan = &*desk.plan();
    for (index, line) in plan.lines.iter() {
        let skew = desk.link_of_channel(line.channel).shared.skew(index);
        let buckets: Vec<(f64, u64)> = bounds.clone().zip(skew.buckets).collect();
        let labels = line_labels(plan, index);
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            to_seconds(skew.sum_ns),
            skew.count(),
            &buckets,
            None,
        )?;
    }
    let counts = |line: usize| desk.link_of_channel(plan.lines[line].channel).shared.skew(line).count();
    let leads = plan.lines.iter().map(|(index, line)| {
        let others = plan.channels[line.channel].lines.iter().filter(|other| **other != index);
        (line_labels(plan, index), others.map(|other| counts(*other)).sum())
    });
    out.counter("line_led", "Packets of the other line that came after the line's copy of their first message", leads)
}
