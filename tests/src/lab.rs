//! Network namespaces and veth pairs for tests and the demo; always removed again.
//!
//! Every [`Namespace`] removes itself when dropped. For what Drop does not see: [`remove_all`] is for panic hooks and
//! second signals, and [`sweep`] removes what a killed process left behind.
#![forbid(unsafe_code)]

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// All names begin with it; the pid and a counter follow, so that labs of other processes are never touched.
const PREFIX: &str = "fh-";

/// Where iproute2 keeps named namespaces.
const NAMESPACES: &str = "/run/netns";

/// How long a link may take to get a carrier.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(5);

static COUNTER: AtomicU32 = AtomicU32::new(0);
static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn live() -> std::sync::MutexGuard<'static, Vec<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One network namespace; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace `fh-ROLE-PID-COUNTER` with loopback up and without IPv6, whose own traffic (neighbour and router
    /// solicitations) would be in the way of exact counts.
    ///
    /// # Errors
    /// If a step fails, for instance without root.
    pub fn new(role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{role}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Relaxed));
        run("ip", &["netns", "add", &name]).context("making network namespaces needs root")?;
        live().push(name.clone());
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        namespace.enter(|| {
            let off = Path::new("/proc/sys/net/ipv6/conf/all/disable_ipv6");
            if off.exists() { std::fs::write(off, "1").context("disable_ipv6") } else { Ok(()) }
        })??;
        Ok(namespace)
    }

    /// Its name, for `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace.
    ///
    /// # Errors
    /// If it fails; with what it printed.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        run("ip", &[&["-n", &self.name], arguments].concat())
    }

    /// A command that will run in the namespace. Its process id is the program's own.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a closure on a new thread inside the namespace and waits for it. Sockets that it makes stay there.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// If the closure panics.
    pub fn enter<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_thread_to(&self.name)?;
                Ok(closure())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Groups that are joined on an interface, as the kernel says it in /proc/net/igmp.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn joined_groups(&self, interface: &str) -> Result<Vec<Ipv4Addr>> {
        let table = self.enter(|| std::fs::read_to_string("/proc/thread-self/net/igmp"))??;
        Ok(groups_of(&table, interface))
    }

    fn wait_for_carrier(&self, interface: &str) -> Result<()> {
        let deadline = Instant::now() + CARRIER_TIMEOUT;
        while !self.ip(&["link", "show", "dev", interface])?.contains("LOWER_UP") {
            ensure!(Instant::now() < deadline, "{interface} in {} has no carrier", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
        live().retain(|name| *name != self.name);
    }
}

/// Moves the calling thread into a namespace, for good.
///
/// # Errors
/// If there is no such namespace, or the kernel refuses.
pub fn move_thread_to(name: &str) -> Result<()> {
    let file = File::open(Path::new(NAMESPACES).join(name)).with_context(|| format!("namespace {name}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter namespace {name}"))
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Name of the interface.
    pub name: &'a str,
    /// Its address; /24.
    pub address: Ipv4Addr,
}

/// Connects two namespaces with a veth pair, both ends up, addressed and with a carrier.
///
/// Checksum offload is off, since frames that the kernel sends would otherwise carry partial checksums into XDP; GRO is on,
/// because that is what makes a veth peer take frames that XDP sends.
///
/// # Errors
/// If a step fails; the error names it.
pub fn connect(ends: [End<'_>; 2]) -> Result<()> {
    connect_queues(ends, None)
}

/// As [`connect`], with so many receive and transmit queues at both ends. What one end sends on a transmit queue (as an
/// AF_XDP socket on that queue does) comes in at the other end on the receive queue of that number.
///
/// # Errors
/// As [`connect`].
pub fn connect_queues(ends: [End<'_>; 2], queues: Option<u32>) -> Result<()> {
    let [a, b] = ends;
    let (namespace_a, namespace_b) = (a.namespace.name(), b.namespace.name());
    let count = queues.map(|count| count.to_string());
    let queues = count.as_deref().map(|count| vec!["numrxqueues", count, "numtxqueues", count]).unwrap_or_default();
    let near = [&["link", "add", a.name, "netns", namespace_a][..], &queues].concat();
    let far = [&["type", "veth", "peer", "name", b.name, "netns", namespace_b][..], &queues].concat();
    run("ip", &[near, far].concat())?;
    for end in ends {
        let address = format!("{}/24", end.address);
        end.namespace.ip(&["addr", "add", &address, "dev", end.name])?;
        let offloads = ["-K", end.name, "tx", "off", "tso", "off", "gso", "off", "gro", "on"];
        let mut ethtool = end.namespace.command(Path::new("ethtool"));
        output(ethtool.args(offloads))?;
        end.namespace.ip(&["link", "set", end.name, "up"])?;
    }
    for end in ends {
        end.namespace.wait_for_carrier(end.name)?;
    }
    Ok(())
}

/// Removes every namespace that this process still has. For panic hooks and signals, where Drop does not run.
pub fn remove_all() {
    for name in std::mem::take(&mut *live()) {
        remove(&name);
    }
}

/// Removes namespaces of ours whose process is dead, and ends what still runs in them. Returns their names.
pub fn sweep() -> Vec<String> {
    let mut swept = Vec::new();
    for entry in std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&name);
            swept.push(name);
        }
    }
    swept
}

/// The process that made a namespace, by its name; `None` if it is not one of ours.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.rsplit('-');
    let counter: Option<u32> = parts.next()?.parse().ok();
    counter?;
    let pid = parts.next()?.parse().ok()?;
    parts.next().map(|_role| pid)
}

/// Removes one namespace. Processes that still run in it are ended first: they would keep it alive without a name.
fn remove(name: &str) {
    let pids = run("ip", &["netns", "pids", name]).unwrap_or_default();
    for pid in pids.split_ascii_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
        // A thread of ours may be inside; it leaves on its own.
        if pid != rustix::process::getpid() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    // Somebody else may have swept it a moment ago.
    let exists = || Path::new(NAMESPACES).join(name).exists();
    if let Err(error) = run("ip", &["netns", "delete", name])
        && exists()
    {
        eprintln!("namespace {name} is left behind: {error:#}");
    }
}

fn groups_of(igmp: &str, interface: &str) -> Vec<Ipv4Addr> {
    let mut groups = Vec::new();
    let mut is_ours = false;
    for line in igmp.lines().skip(1) {
        if line.starts_with('\t') {
            let group = line.split_ascii_whitespace().next().and_then(|hex| u32::from_str_radix(hex, 16).ok());
            // The kernel prints the address as the number that its big-endian bytes are on this host.
            groups.extend(group.filter(|_| is_ours).map(|group| Ipv4Addr::from(group.to_ne_bytes())));
        } else {
            is_ours = line.split(['\t', ' ', ':']).any(|word| word == interface);
        }
    }
    groups
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    output(Command::new(program).args(arguments))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests;
