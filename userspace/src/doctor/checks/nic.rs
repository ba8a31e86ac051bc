//! The NIC: queues and offloads as they will be once `[interface.nic]` is in force, whether it can be, and what an earlier
//! handler has left changed.
#![forbid(unsafe_code)]

use std::path::Path;

use rustix::fs::{Access, access};
use rustix::thread::CapabilitySet;

use super::link::Use;
use crate::config::plan::{NicPlan, Plan};
use crate::doctor::files::Files;
use crate::doctor::host::Host;
use crate::doctor::link::{Link, Offloads};
use crate::doctor::{Finding, Findings};
use crate::steering::nic;

/// Where the old values are kept, and those that are kept there now.
pub(in crate::doctor) fn state(plan: &Plan, files: &Files) -> Vec<Finding> {
    let mut findings = Findings::about("configuration");
    if plan.interfaces.iter().any(|interface| interface.nic != NicPlan::default()) {
        folder(&mut findings, &plan.state_dir);
    }
    for left in nic::left_behind(&plan.state_dir, &files.proc) {
        let path = left.path.display();
        let (found, remedy) = match left.changes {
            Some((interface, settings)) => (
                format!(
                    "a handler that did not stop in order has left {} changed on {interface} ({path})",
                    settings.join(", ")
                ),
                "the next start puts the old values back".to_owned(),
            ),
            None => (
                format!("{path} cannot be read: damaged, or root's"),
                "look at it as root; the next start sets a damaged file aside and puts nothing back from it".to_owned(),
            ),
        };
        findings.warning("NIC settings left", found, remedy);
    }
    findings.list
}

fn folder(findings: &mut Findings, folder: &Path) {
    const CHECK: &str = "state_dir";
    let shown = folder.display();
    // The handler makes what is missing.
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    if !there.is_dir() {
        let found = format!("{shown}: {} is not a folder", there.display());
        findings.problem(CHECK, found, "set state_dir to a folder of its own");
    } else if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let remedy =
            "run it as the owner, let the unit make the folder (RuntimeDirectory=feedhandler), or set state_dir";
        findings.problem(CHECK, format!("{shown}: this user may not write to {}", there.display()), remedy);
    } else {
        let state = if there == folder { "there" } else { "made when it is needed" };
        findings.ok(CHECK, format!("{shown} is {state}"));
    }
}

/// Whether the settings can be had, as far as can be seen beforehand.
pub(super) fn settings(findings: &mut Findings, link: &Link, wanted: &Use<'_>, host: &Host) {
    const CHECK: &str = "NIC settings";
    let asked = nic::asked(&wanted.interface.nic);
    if asked.is_empty() {
        return;
    }
    let before = findings.list.len();
    let list = |is_file: bool| {
        let some: Vec<&str> =
            asked.iter().filter(|(_, file)| *file == is_file).map(|(text, _)| text.as_str()).collect();
        some.join(", ")
    };
    let (by_ethtool, files) = (list(false), list(true));
    if !by_ethtool.is_empty() && !host.has_ethtool {
        let remedy = "install it (`apt-get install ethtool`) and see that it is in the PATH of the service";
        findings.problem(CHECK, format!("there is no program `ethtool`, which sets {by_ethtool}"), remedy);
    }
    if !files.is_empty() && host.uid != 0 {
        findings.problem(
            CHECK,
            format!(
                "only root may write the files of {files}, and this is uid {}: CAP_NET_ADMIN is not enough",
                host.uid
            ),
            "start as root, or leave these keys out and set the files before the start (ExecStartPre=+… in the unit)",
        );
    }
    // With XDP it is among what the plan needs anyway.
    if !wanted.uses_xdp() && !host.capabilities.contains(CapabilitySet::NET_ADMIN) {
        let remedy = "start as root, or grant it to the service: AmbientCapabilities=CAP_NET_ADMIN";
        findings.problem(CHECK, "this process lacks CAP_NET_ADMIN, which every setting takes", remedy);
    }
    driver(findings, CHECK, link, &wanted.interface.nic);
    if findings.list.len() == before {
        let all: Vec<&str> = asked.iter().map(|(text, _)| text.as_str()).collect();
        findings.ok(CHECK, format!("set at start and put back at the end: {}", all.join(", ")));
    }
}

/// What the driver says that it does not have.
fn driver(findings: &mut Findings, check: &'static str, link: &Link, nic: &NicPlan) {
    if let (Some(channels), Some(most)) = (nic.channels, link.most_queues)
        && channels > most
    {
        let found = format!("channels = {channels}, and the NIC has at most {most} queues");
        findings.problem(check, found, format!("channels = {most} or less"));
    }
    if !nic.irq_cores.is_empty() && link.is_in_sysfs && link.interrupts.is_empty() {
        let found = "irq_cores is set, and the device has no interrupts of its own";
        findings.problem(
            check,
            found,
            "leave irq_cores out: the interface is virtual, or is down and gets them when up",
        );
    }
    let Some(offloads) = &link.offloads else { return };
    let switches = [
        ("lro", "rx-lro", nic.lro),
        ("gro", "rx-gro", nic.gro),
        ("rx_vlan_strip", VLAN_STRIP, nic.rx_vlan_strip),
        ("steer", "rx-ntuple-filter", (!nic.flow_rules.is_empty()).then_some(true)),
    ];
    for (key, feature, wanted) in switches {
        let Some(wanted) = wanted.filter(|wanted| !offloads.can_be(feature, *wanted)) else { continue };
        let present = if wanted { "off" } else { "on" };
        let remedy = match key {
            "steer" => "channels = 1 and queue = 0, and leave steer out".to_owned(),
            key => format!("leave {key} out"),
        };
        findings.problem(
            check,
            format!("the driver has {feature} {present} for good, and {key} would change it"),
            remedy,
        );
    }
}

/// Kernel's names of offloads, and those of `ethtool -K`.
const VLAN_STRIP: &str = "rx-vlan-hw-parse";
const MERGING: [(&str, &str); 2] = [("rx-lro", "lro"), ("rx-gro-hw", "rx-gro-hw")];

pub(super) fn offloads(findings: &mut Findings, name: &str, link: &Link, wanted: Option<&Use<'_>>) {
    const CHECK: &str = "offloads";
    let Some(now) = &link.offloads else {
        return findings.warning(CHECK, "cannot tell: the kernel does not say", "look at `ethtool -k`");
    };
    let before = findings.list.len();
    let lro = wanted.and_then(|wanted| wanted.interface.nic.lro);
    let will_be = |kernel: &str| lro.filter(|_| kernel == "rx-lro").unwrap_or_else(|| now.is_on(kernel));
    let merging: Vec<&str> = MERGING.iter().filter(|(kernel, _)| will_be(kernel)).map(|(_, tool)| *tool).collect();
    if !merging.is_empty() {
        let switches = merging.iter().map(|name| format!("{name} off")).collect::<Vec<_>>().join(" ");
        let found = format!("{} merges packets in the NIC; drivers refuse native XDP with it", merging.join(" and "));
        let remedy = match lro {
            Some(true) => "lro = false in [interface.nic]".to_owned(),
            _ => format!("`ethtool -K {name} {switches}`"),
        };
        findings.warning(CHECK, found, remedy);
    }
    if let Some(wanted) = wanted {
        tags(findings, CHECK, name, now, wanted);
    }
    if findings.list.len() == before {
        findings.ok(CHECK, "none that hurts");
    }
}

/// What the filter looks for must be what the NIC leaves in the frame.
fn tags(findings: &mut Findings, check: &'static str, name: &str, now: &Offloads, wanted: &Use<'_>) {
    if wanted.lines.iter().all(|line| line.vlan == 0) {
        return;
    }
    let planned = wanted.interface.nic.rx_vlan_strip;
    match (planned.unwrap_or_else(|| now.is_on(VLAN_STRIP)), wanted.interface.vlan_stripped) {
        (true, false) => findings.warning(
            check,
            "the NIC takes VLAN tags off before the XDP program sees them, and lines here have a vlan",
            format!(
                "`ethtool -K {name} rxvlan off` (or rx_vlan_strip = false in [interface.nic]); where the driver does not let \
                 you, vlan_stripped = true"
            ),
        ),
        (false, true) => findings.problem(
            check,
            "the NIC leaves VLAN tags in, and with vlan_stripped = true the filter looks for none: lines with a vlan are silent",
            format!("vlan_stripped = false (or, to strip them, `ethtool -K {name} rxvlan on`)"),
        ),
        _ => {}
    }
}

pub(super) fn queues(findings: &mut Findings, name: &str, link: &Link, wanted: Option<&Use<'_>>) {
    const CHECK: &str = "queues";
    let (Some(rx), Some(tx)) = (link.interface.rx_queues, link.interface.tx_queues) else { return };
    let found = format!("{rx} receive, {tx} transmit");
    let Some(wanted) = wanted.filter(|wanted| wanted.uses_xdp()) else { return findings.ok(CHECK, found) };
    let nic = &wanted.interface.nic;
    let (found, rx, tx) = match nic.channels {
        Some(channels) if (channels, channels) != (rx, tx) => {
            (format!("{found}; {channels} of each once the handler starts"), channels, channels)
        }
        _ => (found, rx, tx),
    };
    let absent = |queues: &[u32], count| queues.iter().copied().find(|queue| *queue >= count);
    let polled = rx.min(u32::try_from(wanted.rx.len()).unwrap_or(u32::MAX));
    if let Some(queue) = absent(&wanted.rx, rx).or_else(|| absent(&wanted.tx, tx)) {
        let remedy = format!(
            "queue = 0 to {}, or more queues: `ethtool -L {name} combined {more}` (or channels = {more} in [interface.nic])",
            rx.min(tx).saturating_sub(1),
            more = queue + 1
        );
        findings.problem(CHECK, format!("{found}; this plan uses queue {queue}"), remedy);
    } else if polled > 0 && polled < rx && nic.flow_rules.is_empty() {
        let found = format!("{found}; {polled} of the receive queues are polled, groups on others pass to the kernel");
        let remedy = format!(
            "one queue (`ethtool -L {name} combined 1`, or channels = 1 in [interface.nic]), or steer the groups (steer = \
             \"ntuple\" there, or `ethtool -N {name} flow-type udp4 …`)"
        );
        findings.warning(CHECK, found, remedy);
    } else {
        findings.ok(CHECK, found);
    }
}
