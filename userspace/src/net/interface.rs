//! What the kernel knows of a network interface, read once at start.
//!
//! Addresses come from `getifaddrs`, which answers for the network namespace that the caller is in. Queue counts are only
//! in sysfs, whose mount may show another namespace; then they are unknown rather than wrong. So the MTU is not read there
//! but from a route.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rustix::net::sockopt::ip_mtu;
use socket2::{Domain, Protocol, Socket, Type};

use super::umem::{HOME, JUMBO_BYTES};
use crate::net::headers::{HEADER_BYTES, TAG_BYTES};

/// Ethernet header and two VLAN tags: what a frame holds beside what the MTU counts.
const LINK_BYTES: u32 = 14 + 2 * TAG_BYTES as u32;

/// IPv4 header without options, and UDP header.
const IP_UDP_BYTES: u32 = HEADER_BYTES as u32 - 14;

/// One interface, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// Ethernet address.
    pub mac: [u8; 6],
    /// First IPv4 address; `None` if it has none.
    pub ipv4: Option<Ipv4Addr>,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it has a carrier.
    pub has_carrier: bool,
    /// How often the carrier has come or gone since the link was made; `None` if sysfs does not show this namespace.
    pub carrier_changes: Option<u64>,
    /// Largest IP packet, bytes, at most 65535; `None` if the interface is down or knows no IPv4.
    pub mtu: Option<u32>,
    /// Active receive queues; `None` if sysfs does not show this namespace.
    pub rx_queues: Option<u32>,
    /// Active transmit queues; `None` if sysfs does not show this namespace.
    pub tx_queues: Option<u32>,
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No such interface in this network namespace.
    #[error("interface `{name}`: not there; this namespace has {}", present.join(", "))]
    Absent {
        /// Name asked for.
        name: String,
        /// Names that exist.
        present: Vec<String>,
    },
    /// Not an Ethernet interface.
    #[error("interface `{0}`: has no Ethernet address")]
    NotEthernet(String),
    /// No such queue.
    #[error(
        "interface `{name}`: {direction} queue {queue} is not active, {count} are (0 to {}): take one of these, or make more \
         active (`ethtool -L {name} combined {}`, or rx and tx, as `ethtool -l {name}` shows)",
        count - 1, queue + 1
    )]
    NoQueue {
        /// Interface name.
        name: String,
        /// `receive` or `transmit`.
        direction: &'static str,
        /// Queue asked for.
        queue: u32,
        /// Queues it has.
        count: u32,
    },
    /// A received packet could be longer than a frame, and packets over several frames cannot be had.
    #[error(
        "interface `{name}`: MTU {mtu} is too large for frame_bytes = {frame_bytes}, which takes up to {most} (one packet, one \
         frame), and {why}: lower it (`ip link set dev {name} mtu {most}`){}, or set mode = \"socket\"",
        larger_frame(*mtu, *frame_bytes)
    )]
    LargeMtu {
        /// Interface name.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// Bytes of the worker's frames.
        frame_bytes: u32,
        /// Largest MTU that fits.
        most: u32,
        /// Why a packet cannot lie in several.
        why: &'static str,
    },
    /// A received packet could be longer than the longest that is received in any way.
    #[error(
        "interface `{name}`: MTU {mtu} is too large, AF_XDP receives up to {} (over several frames): lower it (`ip link set dev \
         {name} mtu {}`), or set mode = \"socket\", which drops what is longer",
        most_mtu(JUMBO_BYTES),
        most_mtu(JUMBO_BYTES)
    )]
    HugeMtu {
        /// Interface name.
        name: String,
        /// Its MTU.
        mtu: u32,
    },
    /// Packets of a destination would be longer than the interface sends.
    #[error(
        "destination `{destination}`: payload_bytes = {payload_bytes} and {IP_UDP_BYTES} bytes of headers exceed the MTU {mtu} of \
         interface `{name}`: set payload_bytes = {} or less, or raise the MTU (`ip link set dev {name} mtu {}`)",
        mtu.saturating_sub(IP_UDP_BYTES), *payload_bytes as u32 + IP_UDP_BYTES
    )]
    SmallMtu {
        /// Interface name.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// Name of the destination.
        destination: String,
        /// Its largest UDP payload.
        payload_bytes: usize,
    },
    /// Nothing is plugged in, or it is down.
    #[error(
        "interface `{name}` has no carrier; bring it up (`ip link set dev {name} up`) and check the cable, or the other end \
         of a veth pair"
    )]
    NoCarrier {
        /// Interface name.
        name: String,
    },
    /// The list of interfaces could not be read.
    #[error("cannot list the network interfaces: {0}")]
    List(std::io::Error),
}

impl InterfaceError {
    /// Whether it says for certain that there is no such Ethernet interface.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::NotEthernet(_))
    }
}

impl Interface {
    /// Reads an interface by name. One that is down, or without carrier, is read too: see [`Self::has_carrier`].
    ///
    /// # Errors
    /// See [`InterfaceError`].
    pub fn read(name: &str) -> Result<Self, InterfaceError> {
        let mut present = Vec::new();
        let mut link = None;
        let mut ipv4 = None;
        for entry in getifaddrs().map_err(|errno| InterfaceError::List(errno.into()))? {
            let Some(address) = entry.address else { continue };
            if let Some(here) = address.as_link_addr() {
                if entry.interface_name == name {
                    link = Some((here.ifindex() as u32, here.addr(), entry.flags));
                }
                present.push(entry.interface_name);
            } else if let Some(here) = address.as_sockaddr_in().filter(|_| entry.interface_name == name) {
                ipv4 = ipv4.or(Some(here.ip()));
            }
        }
        let Some((index, mac, flags)) = link else {
            return Err(InterfaceError::Absent { name: name.to_owned(), present });
        };
        let mac = mac.ok_or_else(|| InterfaceError::NotEthernet(name.to_owned()))?;
        let folder = sysfs_folder(name, index);
        let (rx_queues, tx_queues) = folder.as_deref().map_or((None, None), queue_counts);
        let changes = folder.and_then(|folder| std::fs::read_to_string(folder.join("carrier_changes")).ok());
        Ok(Self {
            name: name.to_owned(),
            index,
            mac,
            ipv4,
            is_up: flags.contains(InterfaceFlags::IFF_UP),
            // IFF_RUNNING is the operational state; IFF_LOWER_UP is not in what getifaddrs reports.
            has_carrier: flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING),
            carrier_changes: changes.and_then(|text| text.trim().parse().ok()),
            mtu: mtu(name).ok(),
            rx_queues,
            tx_queues,
        })
    }

    /// Refuses an interface that could neither receive nor send.
    ///
    /// # Errors
    /// [`InterfaceError::NoCarrier`].
    pub fn check_carrier(&self) -> Result<(), InterfaceError> {
        if self.has_carrier { Ok(()) } else { Err(InterfaceError::NoCarrier { name: self.name.clone() }) }
    }

    /// Whether a received packet might not fit into one frame. False if the MTU is unknown.
    #[must_use]
    pub fn exceeds_frame(&self, frame_bytes: u32) -> bool {
        self.mtu.is_some_and(|mtu| mtu > most_mtu(frame_bytes))
    }

    /// Refuses an MTU with which a received packet might not fit (AF_XDP; kernel sockets only need room for the datagram):
    /// into one frame, if packets over several cannot be had, of which `single` says why; else into a jumbo buffer. True if
    /// the MTU is unknown.
    ///
    /// # Errors
    /// [`InterfaceError::LargeMtu`], [`InterfaceError::HugeMtu`].
    pub fn check_frame(&self, frame_bytes: u32, single: Option<&'static str>) -> Result<(), InterfaceError> {
        let name = || self.name.clone();
        match (self.mtu, single) {
            (Some(mtu), _) if mtu > most_mtu(JUMBO_BYTES) => Err(InterfaceError::HugeMtu { name: name(), mtu }),
            (Some(mtu), Some(why)) if self.exceeds_frame(frame_bytes) => {
                Err(InterfaceError::LargeMtu { name: name(), mtu, frame_bytes, most: most_mtu(frame_bytes), why })
            }
            _ => Ok(()),
        }
    }

    /// Refuses payloads that the interface could only send in fragments, or not at all. True if the MTU is unknown. (A VLAN
    /// tag does not count: Ethernet has room for it beside the MTU.)
    ///
    /// # Errors
    /// [`InterfaceError::SmallMtu`].
    pub fn check_payload(&self, destination: &str, payload_bytes: usize) -> Result<(), InterfaceError> {
        let needed = payload_bytes + IP_UDP_BYTES as usize;
        match self.mtu {
            Some(mtu) if needed > mtu as usize => Err(InterfaceError::SmallMtu {
                name: self.name.clone(),
                mtu,
                destination: destination.to_owned(),
                payload_bytes,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the interface has a receive (`rx`) or transmit queue of this number; true if the number is unknown.
    ///
    /// # Errors
    /// [`InterfaceError::NoQueue`] if it has fewer.
    pub fn check_queue(&self, queue: u32, rx: bool) -> Result<(), InterfaceError> {
        let (direction, count) = if rx { ("receive", self.rx_queues) } else { ("transmit", self.tx_queues) };
        match count {
            Some(count) if queue >= count => {
                Err(InterfaceError::NoQueue { name: self.name.clone(), direction, queue, count })
            }
            _ => Ok(()),
        }
    }
}

/// Largest MTU whose packets fit into frames of this size, with Ethernet header and two tags.
pub(crate) fn most_mtu(frame_bytes: u32) -> u32 {
    frame_bytes.saturating_sub(HOME as u32 + LINK_BYTES)
}

/// A remedy, where there are larger frames and they suffice.
fn larger_frame(mtu: u32, frame_bytes: u32) -> &'static str {
    if frame_bytes < 4096 && mtu <= most_mtu(4096) { ", set frame_bytes = 4096" } else { "" }
}

/// MTU of the route that a socket on the interface takes to its own link (224.0.0.1, all hosts). Nothing is sent.
fn mtu(name: &str) -> std::io::Result<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.connect(&std::net::SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), 9).into())?;
    Ok(ip_mtu(&socket)?)
}

/// The interface's folder in sysfs, if that shows the interface with this index.
fn sysfs_folder(name: &str, index: u32) -> Option<PathBuf> {
    let folder = Path::new("/sys/class/net").join(name);
    let shown = std::fs::read_to_string(folder.join("ifindex")).ok()?;
    (shown.trim().parse() == Ok(index)).then_some(folder)
}

/// Receive and transmit queues.
fn queue_counts(folder: &Path) -> (Option<u32>, Option<u32>) {
    let count = |prefix: &str| {
        let queues = std::fs::read_dir(folder.join("queues")).ok()?;
        let named = queues.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        u32::try_from(named.count()).ok().filter(|count| *count > 0)
    };
    (count("rx-"), count("tx-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_read_and_an_absent_interface_is_named() {
        let loopback = Interface::read("lo").unwrap();
        assert_eq!((loopback.index, loopback.mac), (1, [0; 6]));
        // Its MTU is 65536; an IP packet has one byte less.
        assert_eq!(loopback.mtu, Some(65_535));
        let error = Interface::read("fh-none").unwrap_err().to_string();
        assert!(error.contains("fh-none") && error.contains("lo"), "{error}");
    }

    #[test]
    fn a_queue_that_is_not_there_is_refused() {
        let two = Interface { rx_queues: Some(2), tx_queues: None, ..Interface::read("lo").unwrap() };
        assert!(two.check_queue(1, true).is_ok());
        assert!(two.check_queue(9, false).is_ok(), "unknown is not refused");
        let error = two.check_queue(2, true).unwrap_err().to_string();
        assert!(error.starts_with("interface `lo`: receive queue 2 is not active, 2 are (0 to 1): "), "{error}");
        assert!(error.contains("`ethtool -L lo combined 3`"), "{error}");
    }

    #[test]
    fn an_mtu_fits_its_frames_and_payloads_fit_an_mtu() {
        let with = |mtu| Interface { mtu, ..Interface::read("lo").unwrap() };
        for (mtu, frame_bytes, single, says) in [
            (1500, 2048, true, None),
            (1706, 2048, true, None),
            (1707, 2048, false, None),
            (
                1707,
                2048,
                true,
                Some(
                    "takes up to 1706 (one packet, one frame), and so it is: lower it (`ip link set dev lo mtu 1706`), set frame_bytes = 4096, or",
                ),
            ),
            (3754, 4096, true, None),
            (9000, 4096, true, Some("mtu 3754`), or set mode = \"socket\"")),
            (9000, 2048, true, Some("mtu 1706`), or set mode")),
            (9898, 2048, false, None),
            (
                9899,
                4096,
                false,
                Some("AF_XDP receives up to 9898 (over several frames): lower it (`ip link set dev lo mtu 9898`), or"),
            ),
            (9899, 4096, true, Some("up to 9898")),
        ] {
            let single = single.then_some("so it is");
            let result = with(Some(mtu)).check_frame(frame_bytes, single).map_err(|error| error.to_string());
            match says {
                None => assert_eq!(result, Ok(()), "{mtu} in {frame_bytes}"),
                Some(says) => assert!(result.as_ref().is_err_and(|error| error.contains(says)), "{result:?}"),
            }
        }
        assert!(with(Some(1707)).exceeds_frame(2048) && !with(Some(1706)).exceeds_frame(2048));
        assert!(!with(None).exceeds_frame(2048));
        assert!(with(Some(1500)).check_payload("out", 1472).is_ok());
        assert!(with(None).check_payload("out", 1472).is_ok() && with(None).check_frame(2048, Some("")).is_ok());
        let error = with(Some(1499)).check_payload("out", 1472).unwrap_err().to_string();
        assert!(
            error.starts_with("destination `out`: payload_bytes = 1472 and 28 bytes of headers exceed the MTU 1499")
        );
        assert!(error.contains("set payload_bytes = 1471 or less") && error.contains("mtu 1500`"), "{error}");
    }
}
