//! Multicast group memberships (IGMPv2/v3, RFC 3376), held by a kernel socket so that the kernel answers queriers.
#![forbid(unsafe_code)]

use std::io;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::{SteeringError, probe};

/// One joined group on one interface. Leaves when dropped, or when the process ends.
///
/// Each membership has its own socket: the kernel limits groups per socket (`net.ipv4.igmp_max_memberships`, 20). The
/// socket is not bound and never receives; it only keeps the switch forwarding the group to us.
#[derive(Debug)]
pub struct Membership {
    _socket: Socket,
    group: Ipv4Addr,
}

impl Membership {
    /// Joins `group` on `interface`; with a `source`, only that source's datagrams are asked for (source-specific).
    ///
    /// # Errors
    /// [`SteeringError::NoInterface`], or [`SteeringError::Join`] with the kernel's reason. A source-specific join needs
    /// an IPv4 address on the interface, one that no other interface has.
    pub fn join(group: Ipv4Addr, interface: &str, source: Option<Ipv4Addr>) -> Result<Self, SteeringError> {
        let index = probe::interface_index(interface)?;
        let failed = |source| SteeringError::Join { group, interface: interface.to_owned(), source };
        if !group.is_multicast() {
            let reason = "it is not a multicast address (224.0.0.0 to 239.255.255.255)";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(failed)?;
        match source {
            None => socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index)),
            // The source-specific option names the interface by its address.
            Some(source) => address_of(interface).and_then(|address| socket.join_ssm_v4(&source, &group, &address)),
        }
        .map_err(failed)?;
        Ok(Self { _socket: socket, group })
    }

    /// The joined group.
    #[must_use]
    pub const fn group(&self) -> Ipv4Addr {
        self.group
    }
}

/// The first IPv4 address of an interface.
fn address_of(interface: &str) -> io::Result<Ipv4Addr> {
    getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()))
        .ok_or_else(|| {
            let reason = "the interface has no IPv4 address, which a source-specific join needs";
            io::Error::new(io::ErrorKind::AddrNotAvailable, reason)
        })
}
