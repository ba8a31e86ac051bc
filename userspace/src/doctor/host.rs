//! What this host is and how it is set up.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space};

use super::files::{self, Files, Silence, Told};
use crate::limits::OpenFiles;
use crate::privilege;
use crate::steering::probe;

/// The host as it was found.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// Kernel release, such as `6.1.0-18-amd64`.
    pub release: String,
    /// Whether the kernel has AF_XDP sockets.
    pub has_af_xdp: bool,
    /// Whether the kernel has type information for BPF.
    pub has_btf: bool,
    /// `net.core.bpf_jit_enable`.
    pub jit: Told<u64>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Told<u64>,
    /// What this process may do.
    pub capabilities: CapabilitySet,
    /// Bytes that this process may lock; `None` = unlimited.
    pub memlock: Option<u64>,
    /// Files that this process may have open.
    pub open_files: OpenFiles,
    /// User of this process.
    pub uid: u32,
    /// Whether the program `ethtool` is in the PATH.
    pub has_ethtool: bool,
    /// Reserved huge pages: bytes of one, all, and free ones.
    pub huge_pages: Told<HugePages>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub transparent: Told<String>,
    /// CPUs that the scheduler leaves alone.
    pub isolated: Told<Vec<usize>>,
    /// CPUs without a tick.
    pub tickless: Told<Vec<usize>>,
    /// CPUs whose RCU callbacks run elsewhere.
    pub rcu_offloaded: Vec<usize>,
    /// Clock source in use.
    pub clock: Told<String>,
    /// Those that could be.
    pub clocks: Told<String>,
    /// Whether irqbalance runs.
    pub irqbalance: bool,
    /// `net.core.rmem_max`.
    pub rmem_max: Told<u64>,
    /// CPUs that are online.
    pub cpus: BTreeMap<usize, Cpu>,
}

/// The kernel's reserved huge pages of its default size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HugePages {
    pub page_bytes: u64,
    pub total: u64,
    pub free: u64,
}

/// One CPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Cpu {
    /// Other CPUs of the same core that are online.
    pub siblings: Vec<usize>,
    /// Frequency governor; `None` if its frequency is nobody's to choose.
    pub governor: Option<String>,
    /// NUMA node.
    pub node: Option<usize>,
}

impl Host {
    /// Reads everything, of this process and from these files.
    pub(super) fn read(files: &Files) -> Self {
        let system = files.sys.join("devices/system");
        let cpu = system.join("cpu");
        let clock = system.join("clocksource/clocksource0");
        let tickless = files::cpu_list(&cpu.join("nohz_full"));
        let mut rcu_offloaded = boot_cpus(files, "rcu_nocbs");
        // A CPU without a tick has its callbacks elsewhere, too.
        rcu_offloaded.extend(tickless.iter().flatten());
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            has_af_xdp: has_af_xdp(),
            has_btf: files.sys.join("kernel/btf/vmlinux").exists(),
            jit: global_sysctl(files, "net.core.bpf_jit_enable"),
            unprivileged_bpf_disabled: files.sysctl("kernel.unprivileged_bpf_disabled"),
            capabilities: capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective),
            memlock: privilege::limit(),
            open_files: OpenFiles::now(),
            uid: rustix::process::geteuid().as_raw(),
            has_ethtool: has_program("ethtool"),
            huge_pages: huge_pages(files),
            transparent: files::text(&files.sys.join("kernel/mm/transparent_hugepage/enabled"))
                .and_then(|text| chosen(&text).ok_or(Silence::Odd)),
            isolated: isolated(files),
            tickless,
            rcu_offloaded,
            clock: files::text(&clock.join("current_clocksource")),
            clocks: files::text(&clock.join("available_clocksource")),
            irqbalance: runs(files, "irqbalance"),
            rmem_max: global_sysctl(files, "net.core.rmem_max"),
            cpus: cpus(files),
        }
    }

    /// Major and minor number of the kernel's version; `None` if it has none.
    pub(super) fn version(&self) -> Option<(u32, u32)> {
        probe::kernel_version(&self.release)
    }

    /// Whether the kernel is this new; true if it does not say.
    pub(super) fn is_since(&self, major: u32, minor: u32) -> bool {
        self.version().is_none_or(|version| version >= (major, minor))
    }
}

/// A setting of the whole host that only its first network namespace shows. From another one it is read on a thread that
/// goes there for it, if it may.
fn global_sysctl(files: &Files, name: &str) -> Told<u64> {
    let here = files.sysctl(name);
    if here != Err(Silence::Absent) {
        return here;
    }
    let at = |pid: u32| {
        let namespace = File::open(files.proc.join(pid.to_string()).join("ns/net")).ok()?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).ok()?;
        files.sysctl(name).ok()
    };
    // The first process is there, and most often the shell that ran `ip netns exec`.
    let there = || std::iter::once(1).chain(ancestors(files)).find_map(at);
    std::thread::scope(|scope| scope.spawn(there).join()).ok().flatten().ok_or(Silence::Absent)
}

/// The process that started this one, the one that started that, and so on.
fn ancestors(files: &Files) -> impl Iterator<Item = u32> {
    const MOST: usize = 32;
    let parent = |of: &str| {
        let status = files::text(&files.proc.join(of).join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok().filter(|pid| *pid > 1)
    };
    std::iter::successors(parent("self"), move |pid| parent(&pid.to_string())).take(MOST)
}

/// A refusal for lack of privileges says that there is something to refuse.
fn has_af_xdp() -> bool {
    !matches!(socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None), Err(Errno::AFNOSUPPORT))
}

/// By the kernel's command line, and by control groups (a partition of kind `isolated`).
fn isolated(files: &Files) -> Told<Vec<usize>> {
    let mut cpus = files::cpu_list(&files.sys.join("devices/system/cpu/isolated"))?;
    cpus.extend(files::cpu_list(&files.sys.join("fs/cgroup/cpuset.cpus.isolated")).unwrap_or_default());
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// The CPUs that an option of the kernel's command line names.
fn boot_cpus(files: &Files, option: &str) -> Vec<usize> {
    let line = files::text(&files.proc.join("cmdline")).unwrap_or_default();
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(option)?.strip_prefix('='));
    value.and_then(files::parse_cpus).unwrap_or_default()
}

fn huge_pages(files: &Files) -> Told<HugePages> {
    let text = files::text(&files.proc.join("meminfo"))?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
    };
    // A kernel without huge pages has none of these lines.
    let page_kib = value("Hugepagesize").ok_or(Silence::Absent)?;
    Ok(HugePages {
        page_bytes: page_kib.saturating_mul(1024),
        total: value("HugePages_Total").unwrap_or_default(),
        free: value("HugePages_Free").unwrap_or_default(),
    })
}

/// The word in brackets of a choice such as `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// Whether a program is where this process would look for it.
fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| access(folder.join(name), Access::EXEC_OK).is_ok())
}

/// Whether a process of this name runs.
fn runs(files: &Files, name: &str) -> bool {
    let is_process = |entry: &String| entry.bytes().all(|byte| byte.is_ascii_digit());
    let mut processes = files::names(&files.proc).into_iter().filter(is_process);
    processes.any(|process| files::text(&files.proc.join(process).join("comm")).is_ok_and(|comm| comm == name))
}

fn cpus(files: &Files) -> BTreeMap<usize, Cpu> {
    let folder = files.sys.join("devices/system/cpu");
    let online = files::cpu_list(&folder.join("online")).unwrap_or_default();
    let read = |cpu: usize| {
        let own = folder.join(format!("cpu{cpu}"));
        let siblings = files::cpu_list(&own.join("topology/thread_siblings_list")).unwrap_or_default();
        let node = files::names(&own).iter().find_map(|name| name.strip_prefix("node")?.parse().ok());
        Cpu {
            siblings: siblings.into_iter().filter(|sibling| *sibling != cpu && online.contains(sibling)).collect(),
            governor: files::text(&own.join("cpufreq/scaling_governor")).ok(),
            node,
        }
    };
    online.iter().map(|cpu| (*cpu, read(*cpu))).collect()
}
