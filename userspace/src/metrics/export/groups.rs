//! Memberships, canaries and IGMP.
#![forbid(unsafe_code)]

use std::fmt;

use super::{Out, line_labels};
use crate::control::Desk;

pub(super) fn groups(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let counts = desk.memberships().counts();
    out.gauge("memberships", "Multicast memberships that the kernel holds for this process", [(vec![], counts.held)])?;
    let help = "Memberships that are wanted and not held: their interface is gone, mostly";
    out.gauge("memberships_missing", help, [(vec![], counts.missing)])?;
    let help = "Memberships that the kernel had lost (link made again) and that were joined again";
    out.counter("membership_rejoins", help, [(vec![], counts.rejoined)])?;
    let help = "Memberships reported to the network again because the carrier came back";
    out.counter("membership_reports", help, [(vec![], counts.reported)])?;
    let plan = &*desk.plan();
    let versions = plan.interfaces.iter().enumerate().filter_map(|(index, interface)| {
        Some((vec![("interface", interface.name.clone())], desk.igmp_version(index)?.number().into()))
    });
    out.gauge("interface_igmp_version", "IGMP version in force; below 3 no source can be asked for", versions)?;
    let packets = plan.lines.indices().filter_map(|line| Some((line_labels(plan, line), desk.canary_packets(line)?)));
    let help =
        "Packets of the line that the kernel's stack got though the filter has a rule to redirect them; must be 0";
    out.counter("canary_packets", help, packets)
}
