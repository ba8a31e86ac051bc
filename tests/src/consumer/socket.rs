//! The consumer's socket.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// Room for about a second of a busy stream; beyond the system's limit, so it is forced, which needs CAP_NET_ADMIN.
const BUFFER_BYTES: usize = 64 << 20;

/// UTC now, nanoseconds since the epoch.
#[must_use]
pub fn utc_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(elapsed.as_nanos()).expect("before 2554")
}

/// A UDP socket that has joined one group.
#[derive(Debug)]
pub struct Receiver {
    socket: UdpSocket,
    buffer: Vec<u8>,
    /// How the kernel's table names the socket.
    inode: String,
}

impl Receiver {
    /// Joins `group` on the interface with the address `interface`, in the calling thread's network namespace.
    ///
    /// # Errors
    /// If a step fails; the error names it.
    pub fn join(group: SocketAddrV4, interface: Ipv4Addr) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).context("UDP socket")?;
        socket.set_reuse_address(true)?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)
            .context("SO_RCVBUFFORCE (needs CAP_NET_ADMIN)")?;
        socket.bind(&group.into()).with_context(|| format!("bind to {group}"))?;
        socket.join_multicast_v4(group.ip(), &interface).with_context(|| format!("join {group} on {interface}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let socket: UdpSocket = socket.into();
        let link = std::fs::read_link(format!("/proc/thread-self/fd/{}", socket.as_raw_fd()))?;
        let inode = link.to_string_lossy().trim_start_matches("socket:[").trim_end_matches(']').to_owned();
        Ok(Self { socket, buffer: vec![0; 65_536], inode })
    }

    /// The socket, for options of its own.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Waits up to 20 ms for a payload; `None` if none came. The time is UTC at the return of the receive call.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn receive(&mut self) -> Result<Option<(&[u8], u64)>> {
        match self.socket.recv(&mut self.buffer) {
            Ok(length) => Ok(Some((&self.buffer[..length], utc_ns()))),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => Ok(None),
            Err(e) => Err(e).context("receive of the consumer"),
        }
    }

    /// Payloads that the kernel dropped because the socket's buffer was full: the figure that SO_RXQ_OVFL reports, read
    /// from the kernel's table of sockets. Only valid on a thread in the socket's namespace.
    ///
    /// # Errors
    /// If the table cannot be read or does not have the socket.
    pub fn dropped(&self) -> Result<u64> {
        let table = std::fs::read_to_string("/proc/thread-self/net/udp").context("/proc/net/udp")?;
        let row = table
            .lines()
            .skip(1)
            .map(|row| row.split_ascii_whitespace().collect::<Vec<_>>())
            .find(|row| row.get(9) == Some(&self.inode.as_str()))
            .with_context(|| format!("no socket {} in /proc/net/udp of this namespace", self.inode))?;
        row.last().and_then(|drops| drops.parse().ok()).context("drops in /proc/net/udp")
    }
}
