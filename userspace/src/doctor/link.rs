//! What the kernel and the driver tell of one network interface.
#![forbid(unsafe_code)]

use std::path::Path;

use aya::programs::loaded_programs;
use libbpf_rs::{Xdp as XdpQuery, XdpFlags};
use nix::ifaddrs::getifaddrs;

use super::files::{self, Files, Told};
use super::netlink;
use crate::net::interface::{Interface, InterfaceError};

/// One interface as it was found.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Name, address, state and queues.
    pub interface: Interface,
    /// Further IPv4 addresses included.
    pub address_count: usize,
    /// Whether sysfs shows this network namespace; without it, what it tells is unknown.
    pub is_in_sysfs: bool,
    /// Longest IP packet, bytes.
    pub mtu: Told<u32>,
    /// Mbit/s.
    pub speed_mbps: Option<u32>,
    /// Name, version and bus of the driver; `None` for a virtual interface.
    pub driver: Option<Driver>,
    /// NUMA node of the device.
    pub node: Option<usize>,
    /// Interrupts of the device, and the CPUs that each goes to.
    pub interrupts: Vec<(u32, Vec<usize>)>,
    /// What the driver can do for XDP; `None` if the kernel does not tell.
    pub abilities: Option<XdpAbilities>,
    /// Offloads that are on; `None` if the kernel does not tell.
    pub offloads: Option<Vec<String>>,
    /// The XDP program that is attached.
    pub attached: Option<Attached>,
    /// IGMP version that is spoken, such as `V3`.
    pub igmp: Option<String>,
    /// `force_igmp_version`, the stronger of the interface's and all interfaces'.
    pub forced_igmp: u64,
    /// `rp_filter`, likewise.
    pub rp_filter: u64,
    /// The bridge that the interface is a port of, or is.
    pub bridge: Option<Bridge>,
}

/// A device's driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Driver {
    pub name: String,
    pub version: Option<String>,
    pub bus: Option<String>,
}

/// XDP abilities of a driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct XdpAbilities {
    /// Native XDP with the basic actions.
    pub native: bool,
    /// XDP_REDIRECT from native programs.
    pub redirect: bool,
    /// Zero-copy AF_XDP sockets.
    pub zero_copy: bool,
    /// Packets longer than a buffer.
    pub multi_buffer: bool,
    /// A receive timestamp of the NIC, or of the driver, that the program can ask for.
    pub receive_time: bool,
}

/// An XDP program that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub id: u32,
    /// `native`, `skb` or `offloaded`.
    pub mode: &'static str,
    /// Its name; the kernel tells it to root only.
    pub name: Option<String>,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bridge {
    pub name: String,
    pub snoops: bool,
    pub is_querier: bool,
}

impl Link {
    /// Reads an interface of the caller's network namespace.
    pub(super) fn read(files: &Files, name: &str) -> Result<Self, InterfaceError> {
        let mut interface = Interface::read(name)?;
        let folder = files.sys.join("class/net").join(name);
        let is_in_sysfs = files::number(&folder.join("ifindex")) == Ok(interface.index);
        // The operational state follows the carrier with a delay of a second and more on a busy host.
        let is_dormant = files::text(&folder.join("operstate")).is_ok_and(|state| state == "dormant");
        let has_carrier = files::number(&folder.join("carrier")) == Ok(1_u8);
        interface.has_carrier |= is_in_sysfs && interface.is_up && has_carrier && !is_dormant;
        let device = folder.join("device");
        let of_all = |key: &str| {
            let value = |name| files.interface_sysctl(name, key).unwrap_or_default();
            value("all").max(value(name))
        };
        let (index, addresses) = (interface.index, address_count(name));
        Ok(Self {
            interface,
            address_count: addresses,
            is_in_sysfs,
            mtu: files::number(&folder.join("mtu")),
            // -1 where the driver does not know.
            speed_mbps: files::number::<i64>(&folder.join("speed")).ok().and_then(|speed| u32::try_from(speed).ok()),
            driver: driver(files, &device),
            node: files::number::<i64>(&device.join("numa_node")).ok().and_then(|node| usize::try_from(node).ok()),
            interrupts: interrupts(files, &device),
            abilities: netlink::xdp_abilities(index),
            offloads: netlink::active_offloads(index),
            attached: attached(index),
            igmp: igmp_version(&files::text(&files.proc.join("net/igmp")).unwrap_or_default(), index),
            forced_igmp: of_all("force_igmp_version"),
            rp_filter: of_all("rp_filter"),
            bridge: bridge(files, name),
        })
    }
}

/// Interfaces with a device behind them, by sysfs.
pub(super) fn physical(files: &Files) -> Vec<String> {
    let folder = files.sys.join("class/net");
    files::names(&folder).into_iter().filter(|name| folder.join(name).join("device").exists()).collect()
}

fn address_count(name: &str) -> usize {
    let is_ours = |entry: &nix::ifaddrs::InterfaceAddress| {
        entry.interface_name == name && entry.address.is_some_and(|address| address.as_sockaddr_in().is_some())
    };
    getifaddrs().map_or(0, |entries| entries.filter(is_ours).count())
}

fn driver(files: &Files, device: &Path) -> Option<Driver> {
    let name = files::link_name(&device.join("driver"))?;
    // Drivers of the kernel's own tree have the kernel's version.
    let version = files::text(&files.sys.join("module").join(&name).join("version")).ok();
    Some(Driver { name, version, bus: files::link_name(&device.join("subsystem")) })
}

/// Those of the device; a virtio device has those of the PCI function above it.
fn interrupts(files: &Files, device: &Path) -> Vec<(u32, Vec<usize>)> {
    let Ok(device) = device.canonicalize() else { return Vec::new() };
    let folders = [Some(device.as_path()), device.parent()];
    let mut numbers = folders.into_iter().flatten().map(|folder| files::names(&folder.join("msi_irqs")));
    let numbers = numbers.find(|numbers| !numbers.is_empty()).unwrap_or_default();
    let affinity = |number: u32| {
        let folder = files.proc.join("irq").join(number.to_string());
        let list = |name| files::cpu_list(&folder.join(name)).ok().filter(|cpus| !cpus.is_empty());
        list("effective_affinity_list").or_else(|| list("smp_affinity_list"))
    };
    numbers.iter().filter_map(|number| number.parse().ok()).filter_map(|n| Some((n, affinity(n)?))).collect()
}

fn attached(index: u32) -> Option<Attached> {
    let null = std::fs::File::open("/dev/null").ok()?;
    // The query does not look at the program; the type wants one.
    let query = XdpQuery::new(std::os::fd::AsFd::as_fd(&null));
    let answer = query.query(index.cast_signed(), XdpFlags::NONE).ok()?;
    let by_mode = [(answer.drv_prog_id, "native"), (answer.skb_prog_id, "skb"), (answer.hw_prog_id, "offloaded")];
    let (id, mode) = by_mode.into_iter().find(|(id, _)| *id != 0)?;
    let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    Some(Attached { id, mode, name: program.and_then(|program| program.name_as_str().map(str::to_owned)) })
}

/// The version in the interface's line of /proc/net/igmp: index, name, number of groups, version.
fn igmp_version(table: &str, index: u32) -> Option<String> {
    let own = table
        .lines()
        .filter(|line| !line.starts_with('\t'))
        .find(|line| line.split_whitespace().next().and_then(|number| number.parse().ok()) == Some(index))?;
    Some(own.split_whitespace().next_back()?.to_owned())
}

fn bridge(files: &Files, name: &str) -> Option<Bridge> {
    let class = files.sys.join("class/net");
    let of = |name: &str| {
        let folder = class.join(name).join("bridge");
        let snoops: u32 = files::number(&folder.join("multicast_snooping")).ok()?;
        let querier: u32 = files::number(&folder.join("multicast_querier")).unwrap_or_default();
        Some(Bridge { name: name.to_owned(), snoops: snoops != 0, is_querier: querier != 0 })
    };
    of(name).or_else(|| of(&files::link_name(&class.join(name).join("master"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_igmp_version_is_the_interfaces_own() {
        let table = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                     1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
                     4\tens1f0    :     1      V2\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
        assert_eq!(igmp_version(table, 4).as_deref(), Some("V2"));
        assert_eq!(igmp_version(table, 5), None);
        assert_eq!(igmp_version("", 1), None);
    }
}
