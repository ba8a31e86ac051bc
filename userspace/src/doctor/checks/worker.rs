//! One worker: its core, what else runs there, and how far its NICs are.
#![forbid(unsafe_code)]

use crate::config::plan::{Idle, Mode, Plan, WorkerPlan};
use crate::doctor::host::{Cpu, Host};
use crate::doctor::link::Link;
use crate::doctor::{Facts, Finding, Findings};
use crate::steering::nic::cpu_list;

pub(in crate::doctor) fn worker(index: usize, plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let wanted = &plan.workers[index];
    let mut findings = Findings::about(format!("worker {}", wanted.name));
    match wanted.core {
        None => unpinned(&mut findings, wanted),
        Some(core) => match facts.host.cpus.get(&core) {
            None => findings.problem(
                "core",
                format!("{core}: there is no such CPU online"),
                format!("core = one of {}", cpu_list(&facts.host.cpus.keys().copied().collect::<Vec<_>>())),
            ),
            Some(cpu) => {
                isolation(&mut findings, core, &facts.host);
                siblings(&mut findings, core, cpu, plan);
                governor(&mut findings, core, cpu);
                distance(&mut findings, cpu, links(wanted, plan, facts));
                interrupts(&mut findings, core, links(wanted, plan, facts), plan);
            }
        },
    }
    frames(&mut findings, wanted, plan);
    findings.list
}

fn frames(findings: &mut Findings, wanted: &WorkerPlan, plan: &Plan) {
    let WorkerPlan { frame_count, frame_bytes, ref ports, .. } = *wanted;
    let locked = ports.iter().filter(|queue| plan.interfaces[queue.interface].mode != Mode::Socket).count();
    let pages = if wanted.huge_pages { "huge pages" } else { "normal pages" };
    let kind = match locked {
        0 => "not locked: kernel sockets".to_owned(),
        all if all == ports.len() => format!("locked, {pages}"),
        some => format!("those of {some} locked, {pages}"),
    };
    let each = if let [_] = ports[..] { "1 port".to_owned() } else { format!("each of {} ports", ports.len()) };
    let kib = ports.len() as u64 * u64::from(frame_count) * u64::from(frame_bytes) / 1024;
    findings.ok("frames", format!("{frame_count} of {frame_bytes} bytes for {each}, {kib} KiB, {kind}"));
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
    let list = cpu_list(&cpu.siblings);
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

fn interrupts(findings: &mut Findings, core: usize, links: Vec<(&str, &Link)>, plan: &Plan) {
    const CHECK: &str = "interrupts";
    let mut here = Vec::new();
    // Where irq_cores is set they go there at start, and that is no worker's core.
    let stays = |name: &str| plan.interfaces.iter().any(|plan| plan.name == name && plan.nic.irq_cores.is_empty());
    for (name, link) in links.into_iter().filter(|(name, _)| stays(name)) {
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
