//! One interface: addresses, IGMP, and who may keep a group away.
#![forbid(unsafe_code)]

use super::link::Use;
use crate::doctor::Findings;
use crate::doctor::link::Link;
use crate::steering::IgmpVersion;

pub(super) fn multicast(findings: &mut Findings, name: &str, link: &Link, wanted: Option<&Use<'_>>) {
    address(findings, name, link, wanted);
    let receives = wanted.is_none_or(|wanted| !wanted.lines.is_empty());
    if receives {
        igmp(findings, name, link, wanted);
        snooping(findings, link);
        if wanted.is_some_and(|wanted| !wanted.uses_xdp()) {
            reverse_path(findings, name, link);
        }
    }
}

fn address(findings: &mut Findings, name: &str, link: &Link, wanted: Option<&Use<'_>>) {
    const CHECK: &str = "IPv4 address";
    let give = format!("`ip addr add ADDRESS/PREFIX dev {name}`");
    if let Some(address) = link.interface.ipv4 {
        let more = link.address_count.saturating_sub(1);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return findings.ok(CHECK, format!("{address}{more}"));
    }
    let Some(wanted) = wanted else { return findings.warning(CHECK, "none: queries are answered from 0.0.0.0", give) };
    // Groups are joined by the interface's index, for one source as well: no line needs an address.
    if let Some(to) = wanted.destinations.iter().find(|to| to.source.is_none()) {
        let found = format!("none, and destination `{}` has no `source` to send from", to.name);
        findings.problem(CHECK, found, format!("{give}, or set `source`"));
    } else if wanted.lines.is_empty() {
        findings.ok(CHECK, "none, and none is needed");
    } else {
        findings.warning(CHECK, "none: IGMP reports leave from 0.0.0.0, which some switches ignore", give);
    }
}

fn igmp(findings: &mut Findings, name: &str, link: &Link, wanted: Option<&Use<'_>>) {
    const CHECK: &str = "IGMP";
    let specific = wanted.and_then(|wanted| wanted.lines.iter().find(|line| line.source.is_some()));
    // Forcing version 3 changes nothing.
    let forced = link.forced_igmp.filter(|version| *version != IgmpVersion::V3);
    let in_force = forced.or(link.igmp);
    let found = match (forced, in_force) {
        (Some(version), _) => format!("version {}, forced", version.number()),
        (None, Some(version)) => format!("version {} in force", version.number()),
        (None, None) => "version unknown".to_owned(),
    };
    let remedy = match forced {
        None => format!("an older querier speaks on the network of {name}: set the switch to IGMPv3"),
        Some(_) => format!("`sysctl -w net.ipv4.conf.{name}.force_igmp_version=0` (and conf.all)"),
    };
    match specific {
        Some(line) if in_force.is_some_and(|version| version < IgmpVersion::V3) => findings.problem(
            CHECK,
            format!(
                "{found}; line {} ({}) is source-specific, which only version 3 can ask for",
                line.name, line.group
            ),
            remedy,
        ),
        _ if forced.is_some() => findings.warning(CHECK, found, remedy),
        _ if link.igmp.is_none() => {
            findings.warning(
                CHECK,
                "cannot tell: the interface is not in /proc/net/igmp",
                format!("`ip link set dev {name} up`"),
            );
        }
        _ => findings.ok(CHECK, found),
    }
}

fn snooping(findings: &mut Findings, link: &Link) {
    const CHECK: &str = "IGMP snooping";
    let Some(bridge) = &link.bridge else { return };
    let name = &bridge.name;
    if bridge.snoops && !bridge.is_querier {
        findings.warning(
            CHECK,
            format!(
                "bridge {name} snoops and asks nothing: without another querier it cuts every group off after some minutes"
            ),
            format!(
                "see that the network has a querier (`bridge -d mdb show dev {name}`), else \
                 `ip link set {name} type bridge mcast_querier 1` (or mcast_snooping 0)"
            ),
        );
    } else if bridge.snoops {
        findings.ok(CHECK, format!("bridge {name} snoops, and is the querier"));
    } else {
        findings.ok(CHECK, format!("bridge {name} does not snoop"));
    }
}

/// Strict checking drops a multicast packet whose source is not reached by this interface, before any socket sees it.
fn reverse_path(findings: &mut Findings, name: &str, link: &Link) {
    const CHECK: &str = "reverse path filter";
    if link.rp_filter == 1 {
        findings.warning(
            CHECK,
            "strict: packets are dropped unless the route to their source leads back over this interface",
            format!("`sysctl -w net.ipv4.conf.{name}.rp_filter=2` (the stronger of it and conf.all counts), or add the route"),
        );
    } else {
        findings.ok(CHECK, if link.rp_filter == 0 { "off" } else { "loose" });
    }
}
