//! Settings of the NIC: each by itself, and with the queues and cores that the rest of the file uses.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use xdp_ebpf::MAX_QUEUES;

use super::values::{Checker, quoted};
use crate::config::file::{Interface, Nic};
use crate::config::plan::{FlowRulePlan, Mode, NicPlan, Plan, QueuePlan};

/// More CPUs no Linux kernel is built for (NR_CPUS).
const MOST_CORES: i64 = 8192;

const STEERS: [(&str, bool); 2] = [("none", false), ("ntuple", true)];

/// `handler.state_dir`.
pub(super) fn state_dir(check: &mut Checker, value: &str) -> PathBuf {
    if !value.starts_with('/') {
        check.problem("handler.state_dir", quoted(value), "must be an absolute path, such as \"/run/feedhandler\"");
    }
    PathBuf::from(value)
}

/// `handler.subscriptions_file`.
pub(super) fn subscriptions_file(check: &mut Checker, value: Option<&str>) -> Option<PathBuf> {
    let value = value?;
    if !value.starts_with('/') || value.ends_with('/') {
        let reason = "must be an absolute path of a file, such as \"/var/lib/feedhandler/subscriptions.json\"";
        check.problem("handler.subscriptions_file", quoted(value), reason);
    }
    Some(PathBuf::from(value))
}

/// The values of one `[interface.nic]`; `at` is its path.
pub(super) fn settings(check: &mut Checker, at: &str, written: Option<&Nic>) -> NicPlan {
    let Some(nic) = written else { return NicPlan::default() };
    let mut number = |key: &str, value: Option<i64>, range, unit: &str| -> Option<u32> {
        value.map(|value| check.range(format!("{at}.{key}"), value, range, unit))
    };
    let plan = NicPlan {
        rx_ring: number("rx_ring", nic.rx_ring, 16..=65_536, "descriptors (`ethtool -g` shows the NIC's most)"),
        tx_ring: number("tx_ring", nic.tx_ring, 16..=65_536, "descriptors (`ethtool -g` shows the NIC's most)"),
        channels: number("channels", nic.channels, 1..=i64::from(MAX_QUEUES), "queues (`ethtool -l` shows the most)"),
        rx_usecs: number("rx_usecs", nic.rx_usecs, 0..=10_000, "microseconds"),
        adaptive_rx: nic.adaptive_rx,
        napi_defer_hard_irqs: number("napi_defer_hard_irqs", nic.napi_defer_hard_irqs, 0..=10_000, "polls"),
        gro_flush_timeout_ns: number(
            "gro_flush_timeout_ns",
            nic.gro_flush_timeout_ns,
            0..=1_000_000_000,
            "nanoseconds",
        ),
        napi_threaded: nic.napi_threaded,
        rx_vlan_strip: nic.rx_vlan_strip,
        gro: nic.gro,
        lro: nic.lro,
        irq_cores: nic.irq_cores.as_deref().map(|cores| irq_cores(check, at, cores)).unwrap_or_default(),
        flow_rules: Vec::new(),
    };
    check.choice(format!("{at}.steer"), nic.steer.as_deref(), &STEERS, false);
    if let (Some(true), Some(usecs)) = (plan.adaptive_rx, plan.rx_usecs) {
        let reason =
            "adaptive_rx = true lets the driver choose it: leave one of the two out, or set adaptive_rx = false";
        check.problem(format!("{at}.rx_usecs"), usecs, reason);
    }
    // Without a timeout nobody would poll again, so the kernel then does not defer at all.
    if let Some(polls @ 1..) = plan.napi_defer_hard_irqs
        && plan.gro_flush_timeout_ns.unwrap_or(0) == 0
    {
        let reason =
            "does nothing without gro_flush_timeout_ns above 0: set that too (such as 200000), or leave this out";
        check.problem(format!("{at}.napi_defer_hard_irqs"), polls, reason);
    }
    plan
}

fn irq_cores(check: &mut Checker, at: &str, written: &[i64]) -> Vec<usize> {
    let key = format!("{at}.irq_cores");
    if written.is_empty() {
        check.problem(key, "[]", "interrupts need a core: name one or more that are no worker's, or leave the key out");
        return Vec::new();
    }
    let mut cores = Vec::new();
    for number in written {
        let core: usize = check.range(key.clone(), *number, 0..=MOST_CORES - 1, "(the number of a core)");
        if !cores.contains(&core) {
            cores.push(core);
        }
    }
    cores.sort_unstable();
    cores
}

/// What must hold between the NIC's settings and the rest; fills in the flow rules.
pub(super) fn together(check: &mut Checker, written: &[Interface], plan: &mut Plan, line_queues: &[QueuePlan]) {
    for (i, interface) in written.iter().enumerate() {
        let Some(nic) = &interface.nic else { continue };
        let at = format!("interface[{i}].nic");
        for core in &plan.interfaces[i].nic.irq_cores {
            if let Some(worker) = plan.workers.iter().find(|worker| worker.core == Some(*core)) {
                let reason = format!(
                    "worker `{}` is pinned to core {core}, which interrupts must leave alone: name other cores here, or \
                     move the worker",
                    worker.name
                );
                check.problem(format!("{at}.irq_cores"), format!("{:?}", plan.interfaces[i].nic.irq_cores), reason);
            }
        }
        tags(check, i, plan);
        if let Some(channels) = plan.interfaces[i].nic.channels {
            inactive_queues(check, &at, channels, i, plan, line_queues);
        }
        if nic.steer.as_deref() == Some("ntuple") {
            let rules = flow_rules(check, &at, i, plan, line_queues);
            plan.interfaces[i].nic.flow_rules = rules;
        }
    }
}

/// What the filter looks for must be what the NIC leaves in the frame, or tagged lines are silent.
fn tags(check: &mut Checker, index: usize, plan: &Plan) {
    let interface = &plan.interfaces[index];
    match interface.nic.rx_vlan_strip {
        Some(false) if interface.vlan_stripped => {
            let reason = "nic.rx_vlan_strip = false leaves the tags in, and the filter would look for frames without: set \
                          vlan_stripped = false, or nic.rx_vlan_strip = true";
            check.problem(format!("interface[{index}].vlan_stripped"), true, reason);
        }
        Some(true) if !interface.vlan_stripped => {
            let Some(line) = plan.lines.values().find(|line| line.interface == index && line.vlan != 0) else { return };
            let reason = format!(
                "takes the tags out that the filter looks for, and line {} of `{}` has vlan = {}: set it to false, or \
                 vlan_stripped = true on the interface",
                line.name, plan.channels[line.channel].name, line.vlan
            );
            check.problem(format!("interface[{index}].nic.rx_vlan_strip"), true, reason);
        }
        _ => {}
    }
}

/// A queue that `channels` leaves out never receives and cannot be bound.
fn inactive_queues(check: &mut Checker, at: &str, channels: u32, index: usize, plan: &Plan, line_queues: &[QueuePlan]) {
    let lines = plan
        .lines
        .values()
        .zip(line_queues)
        .map(|(line, queue)| (*queue, format!("line {} of `{}`", line.name, plan.channels[line.channel].name)));
    let destinations = plan
        .destinations
        .values()
        .map(|destination| (destination.queue, format!("destination `{}`", destination.name)));
    for (queue, user) in lines.chain(destinations) {
        if queue.interface == index && queue.queue >= channels {
            let reason = format!(
                "{user} is on queue {}, which would not be active: set channels to at least {}, or give it a queue below \
                 {channels}",
                queue.queue,
                queue.queue + 1
            );
            check.problem(format!("{at}.channels"), channels, reason);
        }
    }
}

fn flow_rules(
    check: &mut Checker,
    at: &str,
    index: usize,
    plan: &Plan,
    line_queues: &[QueuePlan],
) -> Vec<FlowRulePlan> {
    let lines = plan.lines.values().zip(line_queues).filter(|(line, _)| line.interface == index);
    let rules: Vec<FlowRulePlan> =
        lines.map(|(line, queue)| FlowRulePlan { group: line.group, vlan: line.vlan, queue: queue.queue }).collect();
    let reason = if plan.interfaces[index].mode == Mode::Socket {
        "mode `socket` knows no queues to steer to: leave it out, or set another mode"
    } else if rules.is_empty() {
        "no line comes in on this interface: leave it out"
    } else if any_two(&rules, |rule, other| rule.vlan == other.vlan) {
        "two lines take one group, port and VLAN, each from a source of its own, on different queues, and a rule does not \
         look at the source: give them the same queue"
    } else if any_two(&rules, |rule, tagged| rule.vlan == 0 && tagged.vlan != 0) {
        "two lines take one group and port, tagged and untagged, on different queues, and a rule without VLAN takes both: \
         give them the same queue"
    } else {
        return rules;
    };
    check.problem(format!("{at}.steer"), quoted("ntuple"), reason);
    Vec::new()
}

/// Whether two lines of one group are on different queues, and their rules would take each other's packets.
fn any_two(rules: &[FlowRulePlan], meet: impl Fn(&FlowRulePlan, &FlowRulePlan) -> bool) -> bool {
    let clash = |a: &FlowRulePlan, b: &FlowRulePlan| a.group == b.group && a.queue != b.queue && meet(a, b);
    rules.iter().any(|rule| rules.iter().any(|other| clash(rule, other)))
}
