//! Canaries: kernel sockets that must stay empty.
//!
//! While the filter redirects a line's frames, none of them reaches the kernel's network stack. A canary listens there
//! for the line's group and port: what it hears, the filter let pass though it had a rule to redirect it — the rule or the
//! program is gone, the socket's slot in the XSKMAP is empty, the frames come in on a queue without a socket, or they are
//! fragments. Each of these is silence for the worker, and silence is what a quiet market sounds like, too.
//!
//! It joins nothing itself: the kernel gives it whatever the line's membership makes the host accept, and nothing once
//! that has gone. Its receive buffer holds a datagram or two, so that it costs nothing when all frames pass; those that the
//! buffer had no room for are counted by the kernel. Other sockets on the group get their copies as before.
//!
//! It cannot tell what a program of this host sends to the group by the same interface. Deaf in these cases: a line with a VLAN tag, whose frames the kernel hands to the VLAN interface or drops; and a strict
//! `rp_filter` on an interface that has no route back to the source.
#![forbid(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

use super::{SteeringError, probe};
use crate::net::socket::dropped_count;

/// What passed the filter before its rule was in force may still be on its way through the kernel for so long,
/// nanoseconds: a backlog of packets on a busy core.
pub const SETTLE_NS: u64 = 50_000_000;

/// Datagrams taken per poll at most; the buffer holds fewer.
const DRAIN: usize = 64;

/// A socket that must stay empty.
#[derive(Debug)]
pub struct Canary {
    socket: Socket,
    index: u32,
    source: Option<Ipv4Addr>,
    /// When what it hears begins to count.
    settled_ns: u64,
    is_settled: bool,
    /// The kernel's wrapping drop counter when it was last read.
    dropped: u32,
}

impl Canary {
    /// Listens for a group that is being redirected: to be opened after the filter's rule is in force, and dropped before
    /// the rule goes. With a `source`, only for that source's datagrams. `now_ns` is CLOCK_MONOTONIC, here and below.
    ///
    /// # Errors
    /// [`SteeringError::NoInterface`]; [`SteeringError::Canary`], mostly because another program has the port to itself.
    pub fn open(
        interface: &str,
        group: SocketAddrV4,
        source: Option<Ipv4Addr>,
        now_ns: u64,
    ) -> Result<Self, SteeringError> {
        let index = probe::interface_index(interface)?;
        let failed = |source| SteeringError::Canary { group, interface: interface.to_owned(), source };
        let socket = listen(interface, group).map_err(failed)?;
        Ok(Self { socket, index, source, settled_ns: now_ns + SETTLE_NS, is_settled: false, dropped: 0 })
    }

    /// Forgives what comes within the next [`SETTLE_NS`]: for whoever is about to take the program, a socket or a rule
    /// away for a moment.
    pub fn settle(&mut self, now_ns: u64) {
        (self.settled_ns, self.is_settled) = (now_ns + SETTLE_NS, false);
    }

    /// Datagrams that the filter should have redirected since the last call. Never blocks; one system call if there are
    /// none.
    ///
    /// Of a source-specific line those that found the buffer full count only if no other source is among the rest.
    pub fn poll(&mut self, now_ns: u64) -> u64 {
        let (mut ours, mut others) = (0, 0);
        let mut byte = [MaybeUninit::uninit()];
        for _ in 0..DRAIN {
            match self.socket.recv_from(&mut byte) {
                Ok((_, from))
                    if self.source.is_none() || from.as_socket_ipv4().map(|from| *from.ip()) == self.source =>
                {
                    ours += 1;
                }
                Ok(_) => others += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // A full buffer held something, so without any there is nothing new.
        if (ours, others) != (0, 0)
            && let Ok(dropped) = dropped_count(&self.socket)
        {
            let more = u64::from(dropped.wrapping_sub(self.dropped));
            self.dropped = dropped;
            ours += if others == 0 { more } else { 0 };
        }
        let counts = self.is_settled;
        self.is_settled |= now_ns >= self.settled_ns;
        if counts { ours } else { 0 }
    }

    /// Index that the interface had when this was opened. One that was made again has another, and the canary hears
    /// nothing of it: open a new one.
    #[must_use]
    pub const fn interface_index(&self) -> u32 {
        self.index
    }
}

fn listen(interface: &str, group: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Whoever else wants the group on this host gets his copy beside us.
    socket.set_reuse_address(true)?;
    // The kernel makes its minimum of it, and always takes one datagram.
    socket.set_recv_buffer_size(0)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // Not joined, so it takes what others joined for the address that it is bound to.
    socket.set_multicast_all_v4(true)?;
    socket.bind(&group.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::steering::Memberships;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 78, 1);
    const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

    /// Sends small datagrams to the group over the loopback.
    fn send(from: Ipv4Addr, to: SocketAddrV4, count: usize) {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.bind(&SocketAddrV4::new(from, 0).into()).unwrap();
        socket.set_multicast_if_v4(&HERE).unwrap();
        for _ in 0..count {
            socket.send_to(&[0; 100], &to.into()).unwrap();
        }
    }

    fn free_port() -> u16 {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn everything_is_counted_once_it_has_settled() {
        let to = SocketAddrV4::new(GROUP, free_port());
        let mut any = Canary::open("lo", to, None, 0).unwrap();
        let mut here = Canary::open("lo", to, Some(HERE), 0).unwrap();
        let mut poll = |now_ns| [any.poll(now_ns), here.poll(now_ns)];
        assert_eq!(poll(SETTLE_NS), [0, 0]);
        send(HERE, to, 3);
        assert_eq!(poll(SETTLE_NS), [0, 0], "the host has not joined the group");
        let memberships = Memberships::default();
        let lease = memberships.join(GROUP, "lo", None).unwrap();
        send(HERE, to, 1);
        assert_eq!(poll(SETTLE_NS), [1, 1]);
        assert_eq!(poll(SETTLE_NS), [0, 0]);
        send(HERE, to, 100);
        assert_eq!(poll(SETTLE_NS), [100, 100], "with those that the buffer had no room for");
        send(Ipv4Addr::new(127, 0, 0, 2), to, 100);
        assert_eq!(poll(SETTLE_NS), [100, 0], "another source");
        any.settle(SETTLE_NS);
        send(HERE, to, 1);
        assert_eq!(any.poll(2 * SETTLE_NS), 0, "forgiven");
        send(HERE, to, 1);
        assert_eq!([any.poll(2 * SETTLE_NS), here.poll(0)], [1, 2]);
        drop(lease);
        send(HERE, to, 1);
        assert_eq!([any.poll(2 * SETTLE_NS), here.poll(0)], [0, 0], "it holds no membership itself");
    }

    #[test]
    fn a_port_that_somebody_has_to_himself_is_an_error_that_says_so() {
        let other = UdpSocket::bind("0.0.0.0:0").unwrap();
        let to = SocketAddrV4::new(GROUP, other.local_addr().unwrap().port());
        let error = Canary::open("lo", to, None, 0).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot watch the kernel's stack for {to} on `lo`: ")), "{error}");
    }
}
