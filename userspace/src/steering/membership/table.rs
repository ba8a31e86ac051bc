//! Who has a lease of what, and whether the kernel holds it.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::kernel::{IgmpVersion, KernelTable};
use super::link::Link;
use super::{MembershipEvent, MembershipKey};
use crate::net::socket::set_source_member;
use crate::steering::{SteeringError, probe};

/// All memberships, and what was last seen of their interfaces.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<MembershipKey, Entry>,
    links: HashMap<String, Link>,
    /// Version in force, and whether it is below V3 under a source-specific membership.
    versions: HashMap<String, (IgmpVersion, bool)>,
    is_unreadable: bool,
}

/// One membership.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) leases: usize,
    held: Option<Held>,
    /// Why it is not held, once that was said.
    pub(super) missing: Option<String>,
}

/// The kernel limits groups per socket (`net.ipv4.igmp_max_memberships`, 20): each has its own. The socket is not bound
/// and never receives; it only keeps the switch forwarding the group to us.
#[derive(Debug)]
struct Held {
    _socket: Socket,
    index: u32,
}

impl Entry {
    pub(super) const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn is_held_on(&self, index: u32) -> bool {
        self.held.as_ref().is_some_and(|held| held.index == index)
    }

    /// Leaves and joins; without an index the interface is not there.
    pub(super) fn join(&mut self, key: &MembershipKey, index: Option<u32>) -> Result<(), SteeringError> {
        // First: the kernel reports what nobody held before, and must not count one of ours twice.
        self.held = None;
        let none = || SteeringError::NoInterface { interface: key.interface.clone() };
        let refused = |source| SteeringError::Join { group: key.group, interface: key.interface.clone(), source };
        self.held = Some(Held::join(key, index.ok_or_else(none)?).map_err(refused)?);
        self.missing = None;
        Ok(())
    }

    /// As [`Self::join`]; an error is news only once.
    pub(super) fn join_or_say(
        &mut self,
        key: &MembershipKey,
        index: Option<u32>,
    ) -> Result<(), Option<MembershipEvent>> {
        self.join(key, index).map_err(|error| {
            let reason = error.to_string();
            let is_news = self.missing.replace(reason.clone()).is_none();
            is_news.then(|| MembershipEvent::Missing { key: key.clone(), reason })
        })
    }
}

impl Held {
    fn join(key: &MembershipKey, index: u32) -> io::Result<Self> {
        if !key.group.is_multicast() {
            let reason = "it is not a multicast address (224.0.0.0 to 239.255.255.255)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        match key.source {
            None => socket.join_multicast_v4_n(&key.group, &InterfaceIndexOrAddress::Index(index))?,
            Some(source) => set_source_member(socket.as_fd(), index, key.group, source, true)?,
        }
        Ok(Self { _socket: socket, index })
    }
}

impl Table {
    /// The index of every interface that is there.
    pub(super) fn indices(&self) -> BTreeMap<String, u32> {
        let mut indices = BTreeMap::new();
        let mut last = "";
        for key in self.entries.keys().filter(|key| std::mem::replace(&mut last, &key.interface) != key.interface) {
            if let Ok(index) = probe::interface_index(&key.interface) {
                indices.insert(key.interface.clone(), index);
            }
        }
        indices
    }

    /// An interface's link; a new one if it is another than last time.
    pub(super) fn link(&mut self, interface: &str, index: u32) -> &mut Link {
        if self.links.get(interface).is_none_or(|link| link.index() != index) {
            self.links.insert(interface.to_owned(), Link::new(interface, index));
        }
        self.links.get_mut(interface).expect("it was there, or was put there")
    }

    /// What the kernel does not hold.
    pub(super) fn lost(
        &mut self,
        indices: &BTreeMap<String, u32>,
        events: &mut Vec<MembershipEvent>,
    ) -> Vec<MembershipKey> {
        if self.entries.is_empty() {
            return Vec::new();
        }
        let mut kernel = KernelTable::read();
        if kernel.as_ref().is_ok_and(|kernel| !self.absent(indices, Some(kernel)).is_empty()) {
            // The kernel writes a long table piece by piece, and a row can slip through between two: a healthy membership
            // must not be left for that.
            kernel = KernelTable::read();
        }
        let lost = self.absent(indices, kernel.as_ref().ok());
        match kernel {
            Ok(kernel) => {
                self.is_unreadable = false;
                self.compare_versions(&kernel, indices, events);
            }
            Err(error) if !std::mem::replace(&mut self.is_unreadable, true) => {
                events.push(MembershipEvent::Unreadable(error.to_string()));
            }
            Err(_) => {}
        }
        lost
    }

    /// What `kernel` does not hold; without it, what was joined on an interface that is gone.
    fn absent(&self, indices: &BTreeMap<String, u32>, kernel: Option<&KernelTable>) -> Vec<MembershipKey> {
        let mut ours: HashMap<(u32, Ipv4Addr), usize> = HashMap::new();
        for (key, held) in self.entries.iter().filter_map(|(key, entry)| Some((key, entry.held.as_ref()?))) {
            *ours.entry((held.index, key.group)).or_default() += 1;
        }
        let is_held = |key: &MembershipKey, entry: &Entry| {
            let Some(&index) = indices.get(&key.interface).filter(|index| entry.is_held_on(**index)) else {
                return false;
            };
            kernel.is_none_or(|kernel| kernel.users(index, key.group) >= ours[&(index, key.group)])
        };
        self.entries.iter().filter(|(key, entry)| !is_held(key, entry)).map(|(key, _)| key.clone()).collect()
    }

    fn compare_versions(
        &mut self,
        kernel: &KernelTable,
        indices: &BTreeMap<String, u32>,
        events: &mut Vec<MembershipEvent>,
    ) {
        for (interface, &index) in indices {
            let Some(version) = kernel.version(index) else { continue };
            let on_it = |key: &&MembershipKey| key.interface == *interface && key.source.is_some();
            let source_specific = self.entries.keys().filter(on_it).count();
            let is_blunt = version < IgmpVersion::V3 && source_specific > 0;
            let before = self.versions.insert(interface.clone(), (version, is_blunt));
            let (version_before, was_blunt) = before.unwrap_or((IgmpVersion::V3, false));
            if version != version_before || (is_blunt && !was_blunt) {
                events.push(MembershipEvent::Version { interface: interface.clone(), version, source_specific });
            }
        }
    }
}
