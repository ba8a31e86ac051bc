//! The host as a whole: kernel, privileges, memory, clock.
#![forbid(unsafe_code)]

use super::silence;
use crate::config::plan::{Mode, Plan};
use crate::doctor::files::Silence;
use crate::doctor::host::Host;
use crate::doctor::{Finding, Findings};
use crate::limits;
use crate::privilege::{self, Need};
use crate::steering::nic::cpu_list;
use rustix::thread::CapabilitySet;

pub(in crate::doctor) fn host(host: &Host, plan: Option<&Plan>) -> Vec<Finding> {
    let mut findings = Findings::about("host");
    let uses_xdp = plan.is_none_or(|plan| plan.interfaces.iter().any(|interface| interface.mode != Mode::Socket));
    if uses_xdp {
        kernel(&mut findings, host);
        bpf(&mut findings, host);
    } else {
        findings
            .ok("kernel", format!("Linux {}; every interface has mode \"socket\", which needs no XDP", host.release));
    }
    capabilities(&mut findings, host, plan);
    locked_memory(&mut findings, host, plan);
    open_files(&mut findings, host, plan);
    huge_pages(&mut findings, host, plan);
    clock(&mut findings, host);
    if plan.is_none() {
        isolation(&mut findings, host);
        governors(&mut findings, host);
    }
    if host.irqbalance {
        findings.warning(
            "irqbalance",
            "runs, and may move interrupts onto the workers' cores",
            "ban their cores (IRQBALANCE_BANNED_CPULIST in /etc/default/irqbalance), or `systemctl stop irqbalance`",
        );
    } else {
        findings.ok("irqbalance", "does not run: interrupts stay where they are put");
    }
    if let Some(bytes) = plan.and_then(receive_buffer_bytes) {
        receive_buffer(&mut findings, host, bytes);
    }
    findings.list
}

/// What the versions of the kernel brought that matters here.
fn kernel(findings: &mut Findings, host: &Host) {
    let found = format!("Linux {}", host.release);
    if host.version().is_none() {
        findings.warning("kernel", format!("cannot tell: `{found}` has no version"), "Linux 6.3 or newer is advised");
    } else if !host.is_since(5, 9) {
        let remedy =
            "install Linux 5.9 or newer: before it no bpf_link holds an XDP program, which would outlive a crash";
        findings.problem("kernel", found, remedy);
    } else if !host.is_since(5, 19) && host.unprivileged_bpf_disabled != Ok(0) {
        let remedy = "upgrade to 5.19 or newer: before it the control threads must keep CAP_BPF to switch lines";
        findings.warning("kernel", found, remedy);
    } else if !host.is_since(6, 3) {
        let remedy = "upgrade to 6.3 or newer to learn beforehand which XDP features a driver has";
        findings.warning("kernel", found, remedy);
    } else {
        let found = format!("{found}: bpf_link (5.9), maps without privileges (5.19), XDP features of drivers (6.3)");
        findings.ok("kernel", found);
    }
}

fn bpf(findings: &mut Findings, host: &Host) {
    if host.has_af_xdp {
        findings.ok("AF_XDP", "the kernel has it");
    } else {
        let remedy = "take a kernel with CONFIG_XDP_SOCKETS=y, or mode = \"socket\"";
        findings.problem("AF_XDP", "the kernel is built without", remedy);
    }
    if host.has_btf {
        findings.ok("BTF", "/sys/kernel/btf/vmlinux is there");
    } else {
        let remedy = "the program loads without; to inspect it with bpftool take a kernel with CONFIG_DEBUG_INFO_BTF=y";
        findings.warning("BTF", "the kernel has no type information", remedy);
    }
    const PATH: &str = "net.core.bpf_jit_enable";
    match host.jit {
        Ok(0) => findings.warning(
            "BPF JIT",
            "off: the XDP program is interpreted, several times slower for each packet",
            "`sysctl -w net.core.bpf_jit_enable=1`, and the same in /etc/sysctl.d",
        ),
        Ok(2) => findings.warning(
            "BPF JIT",
            "on, and writes every compiled program to the kernel's log (2 = debugging)",
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Ok(_) => findings.ok("BPF JIT", "on"),
        Err(why @ Silence::Absent) => {
            let remedy = "outside of any network namespace `sysctl net.core.bpf_jit_enable` tells; else the kernel lacks CONFIG_BPF_JIT";
            findings.warning("BPF JIT", silence(why, PATH), remedy);
        }
        Err(why) => findings.warning("BPF JIT", silence(why, PATH), "run the doctor as root"),
    }
}

fn capabilities(findings: &mut Findings, host: &Host, plan: Option<&Plan>) {
    const CHECK: &str = "capabilities";
    let Some(plan) = plan else {
        let names = privilege::names(privilege::KEEPER & !CapabilitySet::IPC_LOCK);
        let missing = privilege::names(privilege::KEEPER & !CapabilitySet::IPC_LOCK & !host.capabilities);
        return match missing.is_empty() {
            true => findings.ok(CHECK, format!("has {}", names.join(" "))),
            false => findings.warning(
                CHECK,
                format!("this process lacks {}, which XDP needs", missing.join(" ")),
                "run the doctor as the handler will run: as root, or with AmbientCapabilities= of its unit",
            ),
        };
    };
    let needs = privilege::needs(plan);
    let missing = privilege::missing(&needs, host.capabilities);
    let list = |needs: &[Need]| needs.iter().map(Need::name).collect::<Vec<_>>().join(" ");
    if needs.is_empty() {
        findings.ok(CHECK, "this plan needs none");
    } else if missing.is_empty() {
        findings.ok(CHECK, format!("has what this plan needs: {}", list(&needs)));
    } else {
        let why = missing.iter().map(|need| format!("{} ({})", need.name(), need.why)).collect::<Vec<_>>().join(", ");
        let remedy = format!("start as root, or grant it to the service: AmbientCapabilities={}", list(&needs));
        findings.problem(CHECK, format!("this process lacks {why}"), remedy);
    }
}

fn locked_memory(findings: &mut Findings, host: &Host, plan: Option<&Plan>) {
    const CHECK: &str = "locked memory";
    let needed: u64 = plan.map_or(0, |plan| (0..plan.workers.len()).map(|n| privilege::umem_bytes(plan, n)).sum());
    let need = format!("frames take {}", mebibytes(needed));
    if plan.is_some() && needed == 0 {
        return findings.ok(CHECK, "none is needed: no interface uses AF_XDP");
    }
    if host.capabilities.contains(CapabilitySet::IPC_LOCK) {
        let found =
            if needed > 0 { format!("{need}; no limit with CAP_IPC_LOCK") } else { "no limit: CAP_IPC_LOCK".into() };
        return findings.ok(CHECK, found);
    }
    match host.memlock {
        None => findings.ok(CHECK, "unlimited"),
        Some(limit) if needed > limit => findings.problem(
            CHECK,
            format!("{need}, and the limit is {}", mebibytes(limit)),
            "grant CAP_IPC_LOCK, raise the limit (LimitMEMLOCK=infinity in the unit, `ulimit -l`), or lower frame_count",
        ),
        Some(limit) if needed > 0 => findings.ok(CHECK, format!("{need} of a limit of {}", mebibytes(limit))),
        // 16 MiB: a worker with the default number of frames.
        Some(limit) if limit < 16 << 20 => findings.warning(
            CHECK,
            format!("the limit is {}, and one worker with default frames takes 16 MiB", mebibytes(limit)),
            "grant CAP_IPC_LOCK, or raise the limit (LimitMEMLOCK=infinity in the unit, `ulimit -l`)",
        ),
        Some(limit) => findings.ok(CHECK, format!("the limit is {}", mebibytes(limit))),
    }
}

fn open_files(findings: &mut Findings, host: &Host, plan: Option<&Plan>) {
    const CHECK: &str = "open files";
    let Some(limit) = host.open_files.hard else { return findings.ok(CHECK, "no limit") };
    let Some(needed) = plan.map(limits::needed_files) else {
        return findings.ok(CHECK, format!("the limit is {limit}"));
    };
    if needed > limit {
        let remedy = format!("LimitNOFILE={needed} in the unit, or `ulimit -Hn {needed}` before the start");
        findings.problem(CHECK, format!("this plan opens up to {needed}, and the hard limit is {limit}"), remedy);
    } else {
        findings.ok(CHECK, format!("this plan opens up to {needed}, of a limit of {limit}"));
    }
}

fn mebibytes(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    }
}

fn huge_pages(findings: &mut Findings, host: &Host, plan: Option<&Plan>) {
    const CHECK: &str = "huge pages";
    let bytes = |plan: &Plan| -> u64 {
        let on = (0..plan.workers.len()).filter(|worker| plan.workers[*worker].huge_pages);
        on.map(|worker| privilege::umem_bytes(plan, worker)).sum()
    };
    let needed = plan.map_or(0, bytes);
    match host.huge_pages {
        Ok(pages) => {
            let size = mebibytes(pages.page_bytes);
            let wanted = needed.div_ceil(pages.page_bytes.max(1));
            let found = format!("{} of {} reserved pages of {size} are free", pages.free, pages.total);
            if wanted > pages.free {
                let remedy = format!(
                    "`sysctl -w vm.nr_hugepages={}` (best at boot: hugepages= on the kernel's command line), or \
                     huge_pages = false",
                    pages.total + wanted - pages.free
                );
                findings.problem(CHECK, format!("{found}; this plan needs {wanted}"), remedy);
            } else if wanted > 0 {
                findings.ok(CHECK, format!("{found}; this plan needs {wanted}"));
            } else {
                let found = if pages.total == 0 { "none reserved, and none asked for".into() } else { found };
                findings.ok(CHECK, found);
            }
        }
        Err(why) if needed > 0 => {
            findings.problem(CHECK, silence(why, "HugePages in /proc/meminfo"), "set huge_pages = false")
        }
        Err(_) => findings.ok(CHECK, "the kernel has none, and none is asked for"),
    }
    match host.transparent.as_deref() {
        Ok("always") => findings.warning(
            "transparent huge pages",
            "always: khugepaged may stop a worker to collapse its memory",
            "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`, or transparent_hugepage=madvise at boot",
        ),
        Ok(word) => findings.ok("transparent huge pages", word),
        Err(_) => findings.ok("transparent huge pages", "the kernel has none"),
    }
}

fn clock(findings: &mut Findings, host: &Host) {
    const CHECK: &str = "clock source";
    const PATH: &str = "current_clocksource in /sys";
    let offered = host.clocks.as_ref().is_ok_and(|clocks| clocks.split_whitespace().any(|clock| clock == "tsc"));
    match host.clock.as_deref() {
        Ok("tsc" | "arch_sys_counter") => findings.ok(CHECK, host.clock.clone().unwrap_or_default()),
        Ok(name) => {
            // These are read without a system call; all others cost a microsecond and more, each time.
            let found = match name {
                "kvm-clock" | "hyperv_clocksource_tsc_page" => {
                    format!("{name}: that of a virtual machine, slower than tsc")
                }
                _ => format!("{name}: every reading is a system call, and each duty cycle reads it"),
            };
            let remedy = if offered {
                "`echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource`"
            } else {
                "see why the kernel distrusts the TSC (`dmesg | grep -i tsc`): firmware, or the hypervisor's settings"
            };
            findings.warning(CHECK, found, remedy);
        }
        Err(why) => findings.warning(CHECK, silence(*why, PATH), "mount sysfs at /sys"),
    }
}

fn isolation(findings: &mut Findings, host: &Host) {
    const CHECK: &str = "isolated CPUs";
    match &host.isolated {
        Ok(cpus) if !cpus.is_empty() => {
            let tickless = host.tickless.as_deref().map_or(String::new(), cpu_list);
            let tickless = if tickless.is_empty() { "none".to_owned() } else { tickless };
            findings.ok(CHECK, format!("{} (nohz_full: {tickless})", cpu_list(cpus)));
        }
        Ok(_) => findings.warning(
            CHECK,
            format!("none of {}: the scheduler puts other threads onto the workers' cores", host.cpus.len()),
            "boot with isolcpus=managed_irq,domain,CPUS nohz_full=CPUS rcu_nocbs=CPUS and pin the workers there (core)",
        ),
        Err(why) => findings.warning(CHECK, silence(*why, "/sys/devices/system/cpu/isolated"), "mount sysfs at /sys"),
    }
}

fn governors(findings: &mut Findings, host: &Host) {
    const CHECK: &str = "frequency governor";
    let slow: Vec<usize> = host
        .cpus
        .iter()
        .filter(|(_, cpu)| cpu.governor.as_deref().is_some_and(|governor| governor != "performance"))
        .map(|(number, _)| *number)
        .collect();
    if !slow.is_empty() {
        let found = format!("not `performance` on CPUs {}", cpu_list(&slow));
        findings.warning(CHECK, found, "`cpupower frequency-set -g performance`");
    } else if host.cpus.values().any(|cpu| cpu.governor.is_some()) {
        findings.ok(CHECK, "performance on all CPUs");
    } else {
        findings.ok(CHECK, "this host cannot change frequencies");
    }
}

/// The largest buffer that is asked for where lines come in over kernel sockets, or may.
fn receive_buffer_bytes(plan: &Plan) -> Option<u64> {
    let over_sockets = plan.lines.values().map(|line| &plan.interfaces[line.interface]);
    let over_sockets = over_sockets.filter(|interface| matches!(interface.mode, Mode::Socket | Mode::Auto));
    over_sockets.map(|interface| u64::from(interface.sockets.receive_buffer_bytes)).max()
}

fn receive_buffer(findings: &mut Findings, host: &Host, wanted: u64) {
    const CHECK: &str = "socket buffers";
    match host.rmem_max {
        Ok(most) if most >= wanted => findings.ok(CHECK, format!("net.core.rmem_max is {}", mebibytes(most))),
        Ok(_) if host.capabilities.contains(CapabilitySet::NET_ADMIN) => {
            findings.ok(CHECK, format!("{} each, beyond net.core.rmem_max with CAP_NET_ADMIN", mebibytes(wanted)));
        }
        Ok(most) => findings.warning(
            CHECK,
            format!(
                "net.core.rmem_max gives a socket {}, less than the {} asked for",
                mebibytes(most),
                mebibytes(wanted)
            ),
            format!("`sysctl -w net.core.rmem_max={wanted}`, and the same in /etc/sysctl.d; or grant CAP_NET_ADMIN"),
        ),
        Err(why) => {
            let remedy = format!("as root, outside of any network namespace: `sysctl -w net.core.rmem_max={wanted}`");
            findings.warning(CHECK, silence(why, "net.core.rmem_max"), remedy);
        }
    }
}
