//! Retransmission: consumers that lost packets of our own output ask for them, by MoldUDP64 request packets.
//!
//! Each destination that is to have it has a [`Responder`]: a bounded store of what was sent, and limits. It knows no socket
//! and no clock. Around all of them is one thread with a kernel socket for each. From the workers come rings of copies of
//! what they send ([`Retained`]), emptied a thousand times a second: waking this thread would cost the worker a system call.
//! So whatever clients do costs this thread's time and nothing of the workers'. When requests come faster than they are
//! answered, they are left to the socket's buffer for a while, where the kernel drops what is too much.
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

use crate::beside::Beside;
use crate::clock::monotonic_ns;
use crate::config::plan::Plan;
use crate::feed::transport::moldudp64::HEADER_BYTES;
use crate::publish::{RETAIN_RING_BYTES, Retained, retention};
use crate::worker::Worker;
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

/// The bound sockets of a plan, by destination.
#[derive(Debug)]
pub struct Sockets(Vec<(usize, UdpSocket)>);

impl Sockets {
    /// Binds a socket for every destination that has a server.
    ///
    /// # Errors
    /// An address that this host does not have, or a port that is taken.
    pub fn bind(plan: &Plan) -> Result<Self, RetransmissionError> {
        let mut sockets = Vec::new();
        for (index, destination) in plan.destinations.iter() {
            let Some(server) = &destination.retransmission else { continue };
            let bind = || -> io::Result<UdpSocket> {
                let socket = UdpSocket::bind(server.address)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            let failed = |error| RetransmissionError::Bind {
                destination: destination.name.clone(),
                address: server.address,
                error,
            };
            sockets.push((index, bind().map_err(failed)?));
        }
        Ok(Self(sockets))
    }
}

/// The thread's end of what connects it with the worker of a destination.
#[derive(Debug)]
pub struct Ends {
    /// Index into `Plan::destinations`.
    pub destination: usize,
    /// What was sent.
    pub retained: Retained,
    /// Where the counters are published.
    pub shared: Arc<WorkerShared>,
}

/// Connects the streams of a worker that have a server; before the worker runs.
pub fn connect(plan: &Plan, index: usize, worker: &mut Worker, shared: &Arc<WorkerShared>) -> Vec<Ends> {
    let mut ends = Vec::new();
    for (destination, wanted) in plan.destinations.iter() {
        if wanted.retransmission.is_some() && plan.channels[wanted.channel].worker == index {
            let (retainer, retained) = retention(RETAIN_RING_BYTES);
            worker.retain(destination, retainer);
            ends.push(Ends { destination, retained, shared: Arc::clone(shared) });
        }
    }
    ends
}

/// One stream's server.
#[derive(Debug)]
struct Server {
    socket: UdpSocket,
    ends: Ends,
    responder: Responder,
}

/// The servers of all streams, before they run.
#[derive(Debug)]
pub struct Retransmission {
    servers: Vec<Server>,
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
    /// The servers of a plan, from its sockets and the workers' ends.
    #[must_use]
    pub fn new(plan: &Plan, sockets: Sockets, mut ends: Vec<Ends>) -> Self {
        let mut servers = Vec::new();
        for (destination, socket) in sockets.0 {
            let wanted = &plan.destinations[destination];
            let ends = ends.iter().position(|ends| ends.destination == destination).map(|at| ends.swap_remove(at));
            if let (Some(server), Some(ends)) = (&wanted.retransmission, ends) {
                servers.push(Server { socket, ends, responder: Responder::new(server, wanted.payload_bytes) });
            }
        }
        Self { servers, buffer: vec![0; LONGEST] }
    }

    /// Starts the thread; `None` if no destination has a server.
    ///
    /// # Errors
    /// The system's, if it has no thread for us.
    pub fn start(mut self) -> io::Result<Option<Beside>> {
        if self.servers.is_empty() {
            return Ok(None);
        }
        let thread = Beside::repeat("retransmission", move || {
            let outlook = self.cycle(monotonic_ns());
            self.wait(outlook);
        })?;
        Ok(Some(thread))
    }

    /// Takes what was sent, then answers what is asked.
    fn cycle(&mut self, now_ns: u64) -> Outlook {
        let mut outlook = Outlook::default();
        for server in &mut self.servers {
            outlook.has_more |= server.take_sent(&mut self.buffer);
            outlook.is_flooded |= server.take_requests(now_ns);
            let Ends { destination, shared, .. } = &server.ends;
            shared.retransmission[*destination].store(&server.responder.counts().values());
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

impl Server {
    /// Takes copies of what was sent; whether more are left.
    fn take_sent(&mut self, buffer: &mut [u8]) -> bool {
        for _ in 0..MOST_PACKETS {
            let Some(length) = self.ends.retained.next(buffer) else { return false };
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
