//! One worker: its core, what else runs there, and how far its NICs are.
#![forbid(unsafe_code)]

use crate::config::plan::{Idle, Plan, WorkerPlan};
use crate::doctor::files::show_cpus;
use crate::doctor::host::{Cpu, Host};
use crate::doctor::link::Link;
use crate::doctor::{Facts, Finding, Findings};
use crate::privilege;

pub(in crate::doctor) fn worker(index: usize, plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let wanted = &plan.workers[index];
    let mut findings = Findings::about(format!("worker {}", wanted.name));
    match wanted.core {
        None => unpinned(&mut findings, wanted),
        Some(core) => match facts.host.cpus.get(&core) {
            None => findings.problem(
                "core",
                format!("{core}: there is no such CPU online"),
                format!("core = one of {}", show_cpus(&facts.host.cpus.keys().copied().collect::<Vec<_>>())),
            ),
            Some(cpu) => {
                isolation(&mut findings, core, &facts.host);
                siblings(&mut findings, core, cpu, plan);
                governor(&mut findings, core, cpu);
                distance(&mut findings, cpu, links(wanted, plan, facts));
                interrupts(&mut findings, core, links(wanted, plan, facts));
            }
        },
    }
    let bytes = privilege::umem_bytes(plan, index);
    let pages = if wanted.huge_pages { "huge pages" } else { "normal pages" };
    let kind = if bytes > 0 { format!("locked, {pages}") } else { "not locked: kernel sockets".to_owned() };
    let total = u64::from(wanted.frame_count) * u64::from(wanted.frame_bytes);
    findings
        .ok("frames", format!("{} of {} bytes, {} KiB, {kind}", wanted.frame_count, wanted.frame_bytes, total / 1024));
    findings.list
}

/// The interfaces of a worker that are there, each once.
fn links<'a>(wanted: &WorkerPlan, plan: &'a Plan, facts: &'a Facts) -> Vec<(&'a str, &'a Link)> {
    let mut found: Vec<(&str, &Link)> = Vec::new();
    for queue in wanted.rx.iter().chain(&wanted.tx) {
        let name = plan.interfaces[queue.interface].name.as_str();
        if let Some((_, Ok(link))) = facts.links.iter().find(|(other, _)| other == name)
            && found.iter().all(|(other, _)| *other != name)
        {
            found.push((name, link));
        }
    }
    found
}

fn unpinned(findings: &mut Findings, wanted: &WorkerPlan) {
    let spins = if wanted.idle == Idle::Spin { ", and it spins" } else { "" };
    findings.warning(
        "core",
        format!("not pinned{spins}: the scheduler moves it, and latency is higher and uneven"),
        "core = a CPU that is isolated, on the NIC's NUMA node",
    );
}

fn isolation(findings: &mut Findings, core: usize, host: &Host) {
    let has = |list: &[usize]| list.contains(&core);
    let parts = [
        (host.isolated.as_deref().is_ok_and(has), "isolcpus=managed_irq,domain,", "isolated"),
        (host.tickless.as_deref().is_ok_and(has), "nohz_full=", "without a tick"),
        (has(&host.rcu_offloaded), "rcu_nocbs=", "RCU elsewhere"),
    ];
    let (done, missing): (Vec<_>, Vec<_>) = parts.iter().partition(|(is, ..)| *is);
    let words = |parts: &[&(bool, &str, &'static str)]| parts.iter().map(|part| part.2).collect::<Vec<_>>().join(", ");
    if missing.is_empty() {
        return findings.ok("core", format!("{core}: {}", words(&done)));
    }
    let options = missing.iter().map(|part| format!("{}{core}", part.1)).collect::<Vec<_>>().join(" ");
    let only = if done.is_empty() { String::new() } else { format!("{}; ", words(&done)) };
    let found = format!("{core}: {only}not {}", words(&missing).replace(", ", ", not "));
    findings.warning(
        "core",
        found.replace("not RCU elsewhere", "RCU callbacks run on it"),
        format!("boot with {options}"),
    );
}

fn siblings(findings: &mut Findings, core: usize, cpu: &Cpu, plan: &Plan) {
    const CHECK: &str = "hyper-threads";
    let Some(first) = cpu.siblings.first() else { return findings.ok(CHECK, "the core is not shared") };
    let other = plan.workers.iter().find(|worker| worker.core.is_some_and(|core| cpu.siblings.contains(&core)));
    let list = show_cpus(&cpu.siblings);
    match other {
        Some(worker) => findings.warning(
            CHECK,
            format!("CPU {list} is the same core as {core}, and worker {} spins there", worker.name),
            "give each worker a physical core (lscpu -e)",
        ),
        None => findings.warning(
            CHECK,
            format!("CPU {list} is the same core as {core}: what runs there slows the worker down"),
            format!("`echo 0 > /sys/devices/system/cpu/cpu{first}/online`, or see that nothing runs on it"),
        ),
    }
}

fn governor(findings: &mut Findings, core: usize, cpu: &Cpu) {
    const CHECK: &str = "frequency governor";
    match cpu.governor.as_deref() {
        Some("performance") => findings.ok(CHECK, "performance"),
        Some(other) => {
            let remedy = format!("`cpupower -c {core} frequency-set -g performance`");
            findings.warning(CHECK, format!("{other} on core {core}"), remedy);
        }
        None => findings.ok(CHECK, "this host cannot change frequencies"),
    }
}

fn distance(findings: &mut Findings, cpu: &Cpu, links: Vec<(&str, &Link)>) {
    const CHECK: &str = "NUMA";
    let Some(node) = cpu.node else { return };
    let far: Vec<String> = links
        .iter()
        .filter_map(|(name, link)| {
            link.node.filter(|other| *other != node).map(|other| format!("{name} on node {other}"))
        })
        .collect();
    if far.is_empty() {
        findings.ok(CHECK, format!("node {node}, no interface is on another"));
    } else {
        let found = format!("the core is on node {node}, {}", far.join(", "));
        findings.warning(CHECK, found, "take a core of the NIC's node (/sys/class/net/…/device/local_cpulist)");
    }
}

fn interrupts(findings: &mut Findings, core: usize, links: Vec<(&str, &Link)>) {
    const CHECK: &str = "interrupts";
    let mut here = Vec::new();
    for (name, link) in links {
        let numbers = link.interrupts.iter().filter(|(_, cpus)| cpus.contains(&core));
        here.extend(numbers.map(|(number, _)| (name, *number)));
    }
    let Some((_, first)) = here.first() else { return findings.ok(CHECK, "none of its interfaces go to the core") };
    let list = here.iter().map(|(name, number)| format!("{number} ({name})")).collect::<Vec<_>>().join(", ");
    findings.warning(
        CHECK,
        format!("{list} may go to core {core}, where they stop the worker"),
        format!("`echo OTHER_CPUS > /proc/irq/{first}/smp_affinity_list` for each"),
    );
}
