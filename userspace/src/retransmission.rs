//! Retransmission: consumers that lost packets of our own output ask for them, by MoldUDP64 request packets.
//!
//! Each destination that is to have it has a [`Responder`]: a bounded store of what was sent, and limits. It knows no socket
//! and no clock. Around all of them is one thread with a kernel socket for each. From the workers come rings of copies of
//! what they send ([`Retained`]), emptied a thousand times a second: waking this thread would cost the worker a system call.
//! So whatever clients do costs this thread's time and nothing of the workers'. When requests come faster than they are
//! answered, they are left to the socket's buffer for a while, where the kernel drops what is too much. Destinations come and go
//! while the thread runs ([`Retransmission::add`], [`Retransmission::remove`]).
#![forbid(unsafe_code)]

mod limits;
mod responder;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use limits::{Limit, Limits};
pub use responder::{Refused, Responder};
pub use store::{Extent, Missing, Store};

use crate::beside::Work;
use crate::clock::monotonic_ns;
use crate::config::plan::Plan;
use crate::feed::transport::moldudp64::HEADER_BYTES;
use crate::metrics::RetransmissionCounts;
use crate::publish::{RETAIN_RING_BYTES, Retained, Retainer, retention};
use crate::worker::shared::WorkerShared;

/// How often the workers' rings are emptied while nobody asks.
const TICK: Duration = Duration::from_millis(1);

/// Packets that are taken out of a ring, and requests out of a socket, at a time: no stream makes another one wait long.
const MOST_PACKETS: usize = 4096;
const MOST_REQUESTS: usize = 256;

/// Longest UDP payload there is.
const LONGEST: usize = u16::MAX as usize;

/// Why a server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RetransmissionError {
    /// No socket with this address.
    #[error(
        "destination {destination}: cannot listen for requests on {address}: {error}; retransmission.address must be an \
         address of this host (`ip addr`) with a UDP port that nobody else uses (`ss -lun`)"
    )]
    Bind {
        /// Name of the destination.
        destination: String,
        /// The address.
        address: SocketAddrV4,
        /// What the kernel said.
        error: io::Error,
    },
}

/// One stream's server, with its socket bound.
#[derive(Debug)]
pub struct Server {
    /// Index into `Plan::destinations`.
    destination: usize,
    /// Index into `Plan::workers`.
    worker: usize,
    address: SocketAddrV4,
    socket: UdpSocket,
    /// What was sent.
    retained: Retained,
    responder: Responder,
}

/// Binds the socket of a destination's server; `None` if it has none. The second part is for its stream, which has what it
/// sends retained by it. `socket`: one that is bound to the address already, of a destination whose place it takes.
///
/// # Errors
/// An address that this host does not have, or a port that is taken.
pub fn prepare(
    plan: &Plan,
    index: usize,
    socket: Option<UdpSocket>,
) -> Result<Option<(Server, Retainer)>, RetransmissionError> {
    let destination = &plan.destinations[index];
    let Some(server) = &destination.retransmission else { return Ok(None) };
    let bind = || -> io::Result<UdpSocket> {
        let socket = socket.map_or_else(|| UdpSocket::bind(server.address), Ok)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let (address, name) = (server.address, &destination.name);
    let socket = bind().map_err(|error| RetransmissionError::Bind { destination: name.clone(), address, error })?;
    let (retainer, retained) = retention(RETAIN_RING_BYTES);
    let worker = plan.channels[destination.channel].worker;
    let responder = Responder::new(server, destination.payload_bytes);
    Ok(Some((Server { destination: index, worker, address, socket, retained, responder }, retainer)))
}

/// The servers of all streams.
#[derive(Debug)]
pub struct Retransmission {
    servers: Vec<Server>,
    /// Where the counters are published, by worker.
    shared: Vec<Arc<WorkerShared>>,
    buffer: Vec<u8>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, Default)]
struct Outlook {
    /// Copies are left in a ring.
    has_more: bool,
    /// Requests come that are not worth this thread's time: beyond a limit, or mostly refused.
    is_flooded: bool,
}

impl Retransmission {
    /// Of no destination yet; publishes counters here, by worker.
    #[must_use]
    pub fn new(shared: Vec<Arc<WorkerShared>>) -> Self {
        Self { servers: Vec::new(), shared, buffer: vec![0; LONGEST] }
    }

    /// Takes a destination on, in the place of the one of the same number if there is any.
    pub fn add(&mut self, server: Server) {
        self.remove(server.destination);
        self.servers.push(server);
    }

    /// Lets a destination go: closes its socket and forgets what it has sent.
    pub fn remove(&mut self, destination: usize) {
        if let Some(at) = self.servers.iter().position(|server| server.destination == destination) {
            let worker = self.servers.remove(at).worker;
            if let Some(shared) = self.shared.get(worker) {
                shared.retransmission[destination].store(&RetransmissionCounts::default().values());
            }
        }
    }

    /// The socket that is bound to this address, for a server in the place of the one that has it.
    #[must_use]
    pub fn socket(&self, address: SocketAddrV4) -> Option<UdpSocket> {
        let server = self.servers.iter().find(|server| server.address == address)?;
        server.socket.try_clone().ok()
    }

    /// Takes what was sent, then answers what is asked.
    fn cycle(&mut self, now_ns: u64) -> Outlook {
        let mut outlook = Outlook::default();
        for server in &mut self.servers {
            outlook.has_more |= server.take_sent(&mut self.buffer);
            outlook.is_flooded |= server.take_requests(now_ns);
            if let Some(shared) = self.shared.get(server.worker) {
                shared.retransmission[server.destination].store(&server.responder.counts().values());
            }
        }
        outlook
    }

    /// Waits for a request, or until the rings are to be emptied again.
    fn wait(&self, outlook: Outlook) {
        if outlook.has_more {
            return;
        }
        if outlook.is_flooded {
            // Whoever floods is not to have this core for it: what comes meanwhile waits, or is dropped by the kernel.
            return std::thread::sleep(TICK);
        }
        let mut polled: Vec<PollFd<'_>> =
            self.servers.iter().map(|server| PollFd::new(&server.socket, PollFlags::IN)).collect();
        let tv_nsec = i64::from(TICK.subsec_nanos());
        // Interrupted or not: what is there is seen in the next cycle.
        let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec }));
    }
}

impl Work for Retransmission {
    const NAME: &'static str = "retransmission";

    fn round(&mut self) {
        let outlook = self.cycle(monotonic_ns());
        self.wait(outlook);
    }
}

impl Server {
    /// Takes copies of what was sent; whether more are left.
    fn take_sent(&mut self, buffer: &mut [u8]) -> bool {
        for _ in 0..MOST_PACKETS {
            let Some(length) = self.retained.next(buffer) else { return false };
            self.responder.retain(&buffer[..length]);
        }
        true
    }

    /// Answers requests; whether they are a flood.
    fn take_requests(&mut self, now_ns: u64) -> bool {
        // Longer than a request, so that what is too long is seen to be.
        let mut request = [0; HEADER_BYTES + 1];
        let (mut refused, mut is_over_limit) = (0, false);
        for _ in 0..MOST_REQUESTS {
            let (length, client) = match self.socket.recv_from(&mut request) {
                Ok((length, SocketAddr::V4(client))) => (length, client),
                Ok(_) => continue,
                // Most often there is nothing more. What an earlier answer met on its way (ICMP) is told to nobody here.
                Err(_) => break,
            };
            match self.responder.request(*client.ip(), &request[..length], now_ns) {
                Ok(answer) => {
                    if self.socket.send_to(answer, client).is_err() {
                        self.responder.not_sent();
                    }
                }
                Err(reason) => {
                    refused += 1;
                    is_over_limit |= matches!(reason, Refused::Overload | Refused::ClientOverload);
                }
            }
        }
        is_over_limit || refused >= MOST_REQUESTS / 2
    }
}
