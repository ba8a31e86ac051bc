//! What the kernel and the driver tell of one network interface.
#![forbid(unsafe_code)]

use std::path::Path;

use nix::ifaddrs::getifaddrs;

use super::files::{self, Files, Told};
use super::netlink;
use crate::net::interface::{Interface, InterfaceError};
use crate::steering::{IgmpVersion, nic, probe};

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
    /// Queues that the driver can have at most; `None` if it does not tell.
    pub most_queues: Option<u32>,
    /// What the driver can do for XDP; `None` if the kernel does not tell.
    pub abilities: Option<XdpAbilities>,
    /// Offloads; `None` if the kernel does not tell.
    pub offloads: Option<Offloads>,
    /// The XDP program that is attached.
    pub attached: Option<Attached>,
    /// IGMP version that is spoken.
    pub igmp: Option<IgmpVersion>,
    /// `force_igmp_version`, of the interface or of all.
    pub forced_igmp: Option<IgmpVersion>,
    /// `rp_filter`, the stronger of the interface's and all interfaces'.
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

/// Offloads, by the kernel's names (those of `ethtool -k` differ for some).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offloads {
    /// Those that are on.
    pub on: Vec<String>,
    /// Those that can be switched.
    pub changeable: Vec<String>,
}

impl Offloads {
    /// Whether one is on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.on.iter().any(|on| on == name)
    }

    /// Whether one is so, or can be made so.
    pub(super) fn can_be(&self, name: &str, on: bool) -> bool {
        self.is_on(name) == on || self.changeable.iter().any(|changeable| changeable == name)
    }
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
        let rp_filter = |name| files.interface_sysctl(name, "rp_filter").unwrap_or_default();
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
            most_queues: netlink::most_queues(index),
            abilities: netlink::xdp_abilities(index),
            offloads: netlink::offloads(index),
            attached: attached(index),
            igmp: IgmpVersion::listed(&files::text(&files.proc.join("net/igmp")).unwrap_or_default(), index),
            forced_igmp: IgmpVersion::forced(&files.proc, name),
            rp_filter: rp_filter("all").max(rp_filter(name)),
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

/// Those that the driver has taken, and where they go.
fn interrupts(files: &Files, device: &Path) -> Vec<(u32, Vec<usize>)> {
    let affinity = |number: u32| {
        let folder = files.proc.join("irq").join(number.to_string());
        let list = |name| files::cpu_list(&folder.join(name)).ok().filter(|cpus| !cpus.is_empty());
        list("effective_affinity_list").or_else(|| list("smp_affinity_list"))
    };
    let irqs = nic::irqs(device, &files.proc).unwrap_or_default();
    irqs.into_iter().filter_map(|(number, _)| Some((number, affinity(number)?))).collect()
}

fn attached(index: u32) -> Option<Attached> {
    let [_, native, skb, offloaded] = probe::attached_ids(index).ok()?;
    let by_mode = [(native, "native"), (skb, "skb"), (offloaded, "offloaded")];
    let (id, mode) = by_mode.into_iter().find(|(id, _)| *id != 0)?;
    Some(Attached { id, mode, name: probe::program_name(id) })
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
