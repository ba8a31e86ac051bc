//! Multicast group memberships (IGMPv2/v3, RFC 3376), held by kernel sockets so that the kernel answers queriers.
//!
//! Counted: whoever needs a group takes a [`Lease`], and the kernel holds one membership for all leases of one
//! (interface, group, source). Two lines on one group (ports, VLANs) are two leases. An any-source and a source-specific
//! lease of one group are two memberships of two sockets, and the kernel asks the network for the union: for every
//! source as long as the any-source lease lives, and for that one source when it has gone.
//!
//! Only what is received is joined. A destination's group must not be joined on its output interface: the switch would
//! send our own stream, and everybody else's on that group, back to us; and sending needs no membership. A consumer on
//! this host that wants the group on some interface takes a lease like a line does.
//!
//! [`Memberships::check`] finds what the kernel lost (a link that was made again) or what the network may have forgotten (a
//! carrier that came back), and asks again.
#![forbid(unsafe_code)]

mod kernel;
mod link;
mod table;

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use kernel::{IgmpVersion, forced_igmp_version, igmp_version};

use super::{SteeringError, probe};
use table::{Entry, Table};

/// What a membership is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MembershipKey {
    /// Kernel name of the interface.
    pub interface: String,
    /// The group.
    pub group: Ipv4Addr,
    /// The only source that is asked for; `None` = any.
    pub source: Option<Ipv4Addr>,
}

impl fmt::Display for MembershipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on `{}`", self.group, self.interface)?;
        self.source.map_or(Ok(()), |source| write!(f, " from {source}"))
    }
}

/// Something that [`Memberships::check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// The kernel no longer held it (the link was made again) and holds it again.
    Rejoined(MembershipKey),
    /// The kernel does not hold it and refuses it. Said once; it is tried again at every check.
    Missing {
        /// What is missing.
        key: MembershipKey,
        /// Why: no such interface, mostly.
        reason: String,
    },
    /// The carrier came back: the groups were reported to the network again, which may have forgotten them.
    Reported {
        /// The interface.
        interface: String,
        /// Memberships on it.
        memberships: usize,
    },
    /// Another IGMP version is in force than before, or than V3 at first sight.
    Version {
        /// The interface.
        interface: String,
        /// The version.
        version: IgmpVersion,
        /// Source-specific memberships on the interface. Below V3 the network is asked for their groups from every
        /// source; what the other sources send is filtered on this host.
        source_specific: usize,
    },
    /// The kernel's table cannot be read, so that only a changed interface index shows a loss. Said once.
    Unreadable(String),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MembershipCounts {
    /// Memberships that the kernel holds for us.
    pub held: u64,
    /// Memberships that it does not, though somebody has a lease.
    pub missing: u64,
    /// Memberships that were lost and joined again.
    pub rejoined: u64,
    /// Memberships that were reported again after the carrier came back.
    pub reported: u64,
}

/// All memberships of this process. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Memberships(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Locked for as long as the kernel takes to join: never wait for it where answers are expected at once.
    table: Mutex<Table>,
    held: AtomicU64,
    rejoined: AtomicU64,
    reported: AtomicU64,
    missing: Mutex<Vec<(MembershipKey, String)>>,
}

/// A claim on a membership; the membership ends with its last lease, or with the process.
#[derive(Debug)]
pub struct Lease {
    key: MembershipKey,
    memberships: Memberships,
}

impl Lease {
    /// What it is for.
    #[must_use]
    pub const fn key(&self) -> &MembershipKey {
        &self.key
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut table = self.memberships.table();
        if let Some(entry) = table.entries.get_mut(&self.key) {
            entry.leases -= 1;
            if entry.leases == 0 {
                table.entries.remove(&self.key);
            }
        }
        self.memberships.publish(&table);
    }
}

impl Memberships {
    /// Asks for `group` on `interface`; with a `source`, only for that source's datagrams (source-specific, IGMPv3). The
    /// interface needs no address.
    ///
    /// # Errors
    /// [`SteeringError::NoInterface`], or [`SteeringError::Join`] with the kernel's reason.
    pub fn join(&self, group: Ipv4Addr, interface: &str, source: Option<Ipv4Addr>) -> Result<Lease, SteeringError> {
        let key = MembershipKey { interface: interface.to_owned(), group, source };
        let index = probe::interface_index(interface)?;
        let mut table = self.table();
        match table.entries.get_mut(&key) {
            Some(entry) => {
                if !entry.is_held_on(index) {
                    entry.join(&key, Some(index))?;
                }
                entry.leases += 1;
            }
            None => {
                let mut entry = Entry::default();
                entry.join(&key, Some(index))?;
                entry.leases = 1;
                table.entries.insert(key.clone(), entry);
            }
        }
        table.link(interface, index);
        self.publish(&table);
        Ok(Lease { key, memberships: self.clone() })
    }

    /// Joins again what the kernel no longer holds, and reports again what a switch may have forgotten with its link.
    ///
    /// To be called several times a second, by a thread in the network namespace in which was joined. Some tens of
    /// microseconds if all is well: a small file of /proc, and one of sysfs per interface.
    pub fn check(&self) -> Vec<MembershipEvent> {
        let mut table = self.table();
        let mut events = Vec::new();
        let indices = table.indices();
        let lost = table.lost(&indices, &mut events);
        for key in lost {
            let Some(entry) = table.entries.get_mut(&key) else { continue };
            match entry.join_or_say(&key, indices.get(&key.interface).copied()) {
                Ok(()) => {
                    self.0.rejoined.fetch_add(1, Relaxed);
                    events.push(MembershipEvent::Rejoined(key));
                }
                Err(news) => events.extend(news),
            }
        }
        for (interface, &index) in &indices {
            if table.link(interface, index).is_to_report(interface) {
                events.extend(self.report(&mut table, interface, index));
            }
        }
        self.publish(&table);
        events
    }

    /// What happened so far. Never waits for a join.
    #[must_use]
    pub fn counts(&self) -> MembershipCounts {
        MembershipCounts {
            held: self.0.held.load(Relaxed),
            missing: locked(&self.0.missing).len() as u64,
            rejoined: self.0.rejoined.load(Relaxed),
            reported: self.0.reported.load(Relaxed),
        }
    }

    /// What somebody has a lease of and the kernel does not hold, and why. Never waits for a join.
    #[must_use]
    pub fn missing(&self) -> Vec<(MembershipKey, String)> {
        locked(&self.0.missing).clone()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        locked(&self.0.table)
    }

    /// Lets those see it who do not wait for the table.
    fn publish(&self, table: &Table) {
        let held = table.entries.values().filter(|entry| entry.is_held()).count();
        self.0.held.store(held as u64, Relaxed);
        let missing = table.entries.iter().filter_map(|(key, entry)| Some((key.clone(), entry.missing.clone()?)));
        *locked(&self.0.missing) = missing.collect();
    }

    /// Leaves and joins what is on an interface: the only way to make the kernel report unasked.
    fn report(&self, table: &mut Table, interface: &str, index: u32) -> Vec<MembershipEvent> {
        let mut events = Vec::new();
        let mut memberships = 0;
        for (key, entry) in table.entries.iter_mut().filter(|(key, _)| key.interface == interface) {
            match entry.join_or_say(key, Some(index)) {
                Ok(()) => memberships += 1,
                Err(news) => events.extend(news),
            }
        }
        if memberships > 0 {
            self.0.reported.fetch_add(memberships as u64, Relaxed);
            events.push(MembershipEvent::Reported { interface: interface.to_owned(), memberships });
        }
        events
    }
}

/// What is behind these locks is whole after every statement.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
