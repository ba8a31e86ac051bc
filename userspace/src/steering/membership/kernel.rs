//! What the kernel says of its memberships: /proc/net/igmp of the caller's network namespace.
//!
//! Not /proc/net/mcfilter: the kernel empties its rows of an interface that is down, and fills them again with it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::steering::probe;

/// The IGMP version that the kernel speaks on an interface.
///
/// V3 unless `net.ipv4.conf.{all,<interface>}.force_igmp_version` says otherwise or a querier of an older version was
/// heard lately (RFC 3376 §7.2.1). Only V3 can ask for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IgmpVersion {
    /// RFC 1112.
    V1,
    /// RFC 2236.
    V2,
    /// RFC 3376.
    V3,
}

impl IgmpVersion {
    /// 1, 2 or 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }

    /// The version in force on an interface by a text of the form of /proc/net/igmp; `None` if it is not listed.
    #[must_use]
    pub fn listed(igmp: &str, index: u32) -> Option<Self> {
        KernelTable::parse(igmp).version(index)
    }

    /// The version that `force_igmp_version` prescribes for an interface, by itself or for all, of which the kernel takes
    /// the lower; `None` = none, the kernel follows the querier. `proc` is /proc.
    #[must_use]
    pub fn forced(proc: &Path, interface: &str) -> Option<Self> {
        let conf = proc.join("sys/net/ipv4/conf");
        let read = |name: &str| fs::read_to_string(conf.join(name).join("force_igmp_version")).ok();
        [interface, "all"].iter().filter_map(|name| Self::of_number(read(name)?.trim().parse().ok()?)).min()
    }

    const fn of_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            _ => None,
        }
    }
}

/// The IGMP version in force on an interface of the caller's network namespace; `None` if the kernel lists no such
/// interface.
///
/// # Errors
/// When /proc/net/igmp cannot be read.
pub fn igmp_version(interface: &str) -> io::Result<Option<IgmpVersion>> {
    let table = KernelTable::read()?;
    Ok(probe::interface_index(interface).ok().and_then(|index| table.version(index)))
}

/// Number of the version that `force_igmp_version` prescribes for an interface of this process's network namespace, see
/// [`IgmpVersion::forced`].
#[must_use]
pub fn forced_igmp_version(interface: &str) -> Option<u8> {
    IgmpVersion::forced(Path::new("/proc"), interface).map(IgmpVersion::number)
}

// Not /proc/net, which is the namespace of the process's main thread.
const IGMP: &str = "/proc/thread-self/net/igmp";

/// The table at one moment.
#[derive(Debug, Default)]
pub(super) struct KernelTable {
    versions: HashMap<u32, IgmpVersion>,
    /// Sockets (and others) that hold a group, by interface index and group.
    users: HashMap<(u32, Ipv4Addr), usize>,
}

impl KernelTable {
    /// Reads it.
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(IGMP)?))
    }

    fn parse(igmp: &str) -> Self {
        let mut table = Self::default();
        let mut index = None;
        for row in igmp.lines().skip(1) {
            let mut words = row.split_ascii_whitespace();
            if !row.starts_with('\t') {
                index = words.next().and_then(|word| word.parse().ok());
                table.versions.extend(index.zip(version(row)));
                continue;
            }
            // The kernel prints the address as the number that its big-endian bytes are on this host.
            let group = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
            let users = words.next().and_then(|word| word.parse().ok());
            if let (Some(index), Some(group), Some(users)) = (index, group, users) {
                table.users.insert((index, Ipv4Addr::from(group.to_ne_bytes())), users);
            }
        }
        table
    }

    /// Sockets that hold a group on an interface.
    pub(super) fn users(&self, index: u32, group: Ipv4Addr) -> usize {
        self.users.get(&(index, group)).copied().unwrap_or(0)
    }

    /// The version in force on an interface.
    pub(super) fn version(&self, index: u32) -> Option<IgmpVersion> {
        self.versions.get(&index).copied()
    }
}

/// Of an interface's row: index, name and a colon, count, version.
fn version(row: &str) -> Option<IgmpVersion> {
    IgmpVersion::of_number(row.split_ascii_whitespace().next_back()?.strip_prefix('V')?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 10, 0, 1);

    #[test]
    fn the_kernels_table_is_read_as_it_writes_it() {
        let igmp = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                    1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
                    27\tfh-in-0123456:     2      V2\n\t\t\t\t01000AEF     3 0:00000000\t\t1\n\
                    \t\t\t\t010000E0     1 0:00000000\t\t0\n";
        let table = KernelTable::parse(igmp);
        assert_eq!(
            [table.version(1), table.version(27), table.version(2)],
            [Some(IgmpVersion::V3), Some(IgmpVersion::V2), None]
        );
        assert_eq!([table.users(27, GROUP), table.users(1, GROUP)], [3, 0]);
        // Nothing that it might write instead is misread, or worse.
        let noise = KernelTable::parse("x\n\t\n\t\t\t\tZZ 1\n3\n\t\t\t\t01000AEF x\n");
        assert!(noise.users.is_empty() && noise.versions.is_empty());
    }

    #[test]
    fn the_lower_of_two_forced_versions_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        let force = |name: &str, version: &str| {
            let conf = proc.join("sys/net/ipv4/conf").join(name);
            fs::create_dir_all(&conf).unwrap();
            fs::write(conf.join("force_igmp_version"), format!("{version}\n")).unwrap();
        };
        let forced = || IgmpVersion::forced(proc, "ens1.7");
        assert_eq!(forced(), None);
        force("all", "0");
        force("ens1.7", "2");
        assert_eq!(forced(), Some(IgmpVersion::V2));
        force("all", "1");
        assert_eq!(forced(), Some(IgmpVersion::V1));
        force("ens1.7", "nonsense");
        assert_eq!(forced(), Some(IgmpVersion::V1));
    }

    #[test]
    fn this_hosts_loopback_speaks_igmp() {
        assert!(igmp_version("lo").unwrap().is_some());
        assert_eq!(igmp_version("fh-none").unwrap(), None);
    }
}
