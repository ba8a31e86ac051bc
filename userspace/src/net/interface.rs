//! What the kernel knows of a network interface, read once at start.
//!
//! Addresses come from `getifaddrs`, which answers for the network namespace that the caller is in. Queue counts are only
//! in sysfs, whose mount may show another namespace; then they are unknown rather than wrong.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

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
    /// Receive queues; `None` if sysfs does not show this namespace.
    pub rx_queues: Option<u32>,
    /// Transmit queues; `None` if sysfs does not show this namespace.
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
    #[error("interface `{name}`: no {direction} queue {queue}, it has {count} (0 to {}): `ethtool -l {name}`", count - 1)]
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
        let error = Interface::read("fh-none").unwrap_err().to_string();
        assert!(error.contains("fh-none") && error.contains("lo"), "{error}");
    }

    #[test]
    fn a_queue_that_is_not_there_is_refused() {
        let two = Interface { rx_queues: Some(2), tx_queues: None, ..Interface::read("lo").unwrap() };
        assert!(two.check_queue(1, true).is_ok());
        assert!(two.check_queue(9, false).is_ok(), "unknown is not refused");
        let error = two.check_queue(2, true).unwrap_err().to_string();
        assert_eq!(error, "interface `lo`: no receive queue 2, it has 2 (0 to 1): `ethtool -l lo`");
    }
}
