//! Recovery: asks retransmission servers for what all lines have lost; answers re-enter the worker as one more line.
//!
//! The decisions are the [`Planner`]'s, one per channel, which knows no socket and no clock. Around it is one thread with
//! kernel sockets: one per channel and server, connected, so that the kernel drops what comes from anybody else. From the
//! workers come bounded queues of what is missing ([`Wanted`]); they are looked at a few thousand times a second while
//! something is missing, because waking this thread would cost the worker a system call. To the workers go rings of
//! datagrams ([`Handoff`]), each of which the worker reads as one more port. When the ring is full, answers wait in the
//! socket's buffer, and what does not fit there is lost and asked for again: no server can make a worker wait.
#![forbid(unsafe_code)]

mod gaps;
mod parts;
mod planner;
mod servers;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use gaps::GapSet;
pub use planner::{Ask, Planner, PlannerSettings, Rejected};

use crate::beside::Beside;
use crate::clock::monotonic_ns;
use crate::config::plan::{ChannelPlan, Plan, RecoveryPlan, TransportKind};
use crate::feed::transport::moldudp64;
use crate::net::LineIndex;
use crate::net::handoff::Handoff;
use crate::worker::shared::{Wanted, WorkerShared};

/// Frames of a worker's port for answers.
pub const FRAMES: u32 = 256;

/// Answers that wait for a worker at most.
pub const ANSWERS: usize = 256;

/// Reports of what is missing that wait for the thread at most; with the queue full the worker repeats itself.
pub const WANTED_QUEUE: usize = 64;

/// How often the workers' queues are looked at while nothing is missing, and while something is, nanoseconds.
const IDLE_NS: i64 = 500_000;
const BUSY_NS: i64 = 100_000;

/// No datagram is longer, bytes.
const LONGEST_ANSWER: usize = 65_535;

/// Datagrams that are thrown away when a socket is connected late: as many as its buffer has room for.
const MOST_STRANGERS: usize = 4096;

/// Datagrams that are taken from a socket at a time: a server that floods must leave time for the others.
const MOST_AT_A_TIME: usize = 64;

/// Why the recovery of a channel cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// No socket with this source address.
    #[error(
        "channel {channel}: cannot send requests from {address}: {error}; recovery.source must be an address of this host \
         (`ip addr`), or be left out"
    )]
    Source {
        /// Name of the channel.
        channel: String,
        /// The address.
        address: Ipv4Addr,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The thread's ends of what connects it with one worker.
#[derive(Debug)]
pub struct Ends {
    /// Index into `Plan::workers`.
    pub worker: usize,
    /// What is missing.
    pub wanted: rtrb::Consumer<Wanted>,
    /// Answers.
    pub answers: Handoff,
    /// Where the counters are published.
    pub shared: Arc<WorkerShared>,
}

/// The request packet (MoldUDP64: 20 bytes) of a request.
#[must_use]
pub fn request_packet(transport: TransportKind, ask: &Ask) -> [u8; moldudp64::HEADER_BYTES] {
    match transport {
        TransportKind::MoldUdp64 => {
            let mut packet = [0; moldudp64::HEADER_BYTES];
            moldudp64::write_header(&mut packet, &ask.session, ask.sequence, ask.count);
            packet
        }
    }
}

/// The planner's settings of a channel.
#[must_use]
pub fn planner_settings(channel: &ChannelPlan, recovery: &RecoveryPlan) -> PlannerSettings {
    PlannerSettings {
        transport: channel.transport,
        servers: recovery.servers.len(),
        timeout_ns: recovery.request_timeout_ms * 1_000_000,
        requests_per_second: recovery.requests_per_second,
        outstanding: recovery.outstanding_requests,
    }
}

/// One server's socket.
#[derive(Debug)]
struct Server {
    address: SocketAddrV4,
    socket: UdpSocket,
    /// The route may come later than we do.
    is_connected: bool,
}

impl Server {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        if !self.is_connected {
            self.socket.connect(SocketAddr::V4(self.address))?;
            self.is_connected = true;
            // What came while anybody could send to it. A flood is cut off: what is left was not asked for.
            let mut strangers = [0; 1];
            for _ in 0..MOST_STRANGERS {
                if self.socket.recv(&mut strangers).is_err() {
                    break;
                }
            }
        }
        self.socket.send(packet).map(drop)
    }
}

/// The recovery of one channel.
#[derive(Debug)]
struct Channel {
    index: usize,
    /// Index into `Recovery::ends`.
    ends: usize,
    line: LineIndex,
    transport: TransportKind,
    planner: Planner,
    servers: Vec<Server>,
}

/// The recovery of all channels that have servers, before it runs.
#[derive(Debug)]
pub struct Recovery {
    channels: Vec<Channel>,
    ends: Vec<Ends>,
}

impl Recovery {
    /// Opens the sockets of a plan's channels. Needs no privilege.
    ///
    /// # Errors
    /// A source address that this host does not have.
    pub fn new(plan: &Plan, ends: Vec<Ends>) -> Result<Self, RecoveryError> {
        let mut channels = Vec::new();
        for (index, channel) in plan.channels.iter() {
            let Some(recovery) = &channel.recovery else { continue };
            let Some(ends) = ends.iter().position(|ends| ends.worker == channel.worker) else { continue };
            let source = recovery.source.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let open = |address: &SocketAddrV4| -> io::Result<Server> {
                let socket = UdpSocket::bind(SocketAddrV4::new(source, 0))?;
                socket.set_nonblocking(true)?;
                let is_connected = socket.connect(SocketAddr::V4(*address)).is_ok();
                Ok(Server { address: *address, socket, is_connected })
            };
            let servers = recovery.servers.iter().map(open).collect::<io::Result<_>>();
            let servers = servers.map_err(|error| {
                let channel = channel.name.clone();
                RecoveryError::Source { channel, address: source, error }
            })?;
            channels.push(Channel {
                index,
                ends,
                line: plan.recovery_line(index),
                transport: channel.transport,
                planner: Planner::new(planner_settings(channel, recovery)),
                servers,
            });
        }
        Ok(Self { channels, ends })
    }

    /// Starts the thread; `None` if no channel has a server.
    ///
    /// # Errors
    /// The system's, if it has no thread for us.
    pub fn start(mut self) -> io::Result<Option<Beside>> {
        if self.channels.is_empty() {
            return Ok(None);
        }
        let thread = Beside::repeat("recovery", move || {
            self.cycle(monotonic_ns());
            self.wait();
        })?;
        Ok(Some(thread))
    }

    /// Takes what workers and servers say, and asks.
    fn cycle(&mut self, now_ns: u64) {
        for (index, ends) in self.ends.iter_mut().enumerate() {
            while let Ok(Wanted { channel, session, holes }) = ends.wanted.pop() {
                let of_it = |known: &&mut Channel| known.index == usize::from(channel) && known.ends == index;
                if let Some(known) = self.channels.iter_mut().find(of_it) {
                    known.planner.want(session, holes, now_ns);
                }
            }
        }
        for channel in &mut self.channels {
            let ends = &mut self.ends[channel.ends];
            channel.take_answers(&mut ends.answers, now_ns);
            channel.ask(now_ns);
            ends.shared.recovery[channel.index].store(&channel.planner.counts().values());
        }
    }

    /// Waits for an answer, or until the workers' queues are to be looked at again.
    fn wait(&self) {
        let is_busy = self.channels.iter().any(|channel| channel.planner.is_busy());
        let tv_nsec = if is_busy { BUSY_NS } else { IDLE_NS };
        // While a ring is full, what waits in a socket is no reason to wake up.
        let sockets = self.channels.iter().filter(|channel| self.ends[channel.ends].answers.has_room());
        let sockets = sockets.flat_map(|channel| &channel.servers).filter(|server| server.is_connected);
        let mut polled: Vec<PollFd<'_>> = sockets.map(|server| PollFd::new(&server.socket, PollFlags::IN)).collect();
        // Interrupted or not: what is there is seen in the next cycle.
        let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec }));
    }
}

impl Channel {
    fn take_answers(&mut self, answers: &mut Handoff, now_ns: u64) {
        let mut buffer = [0; LONGEST_ANSWER];
        for (index, server) in self.servers.iter_mut().enumerate().filter(|(_, server)| server.is_connected) {
            for _ in 0..MOST_AT_A_TIME {
                if !answers.has_room() {
                    return;
                }
                match server.socket.recv(&mut buffer) {
                    Ok(len) => {
                        let payload = &buffer[..len];
                        if self.planner.answer(index, payload, now_ns).is_ok()
                            && !parts::each(self.transport, payload, |part| answers.hand(self.line, part, now_ns))
                        {
                            self.planner.not_handed();
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP message: nobody listens there.
                    Err(_) => self.planner.refused(index, now_ns),
                }
            }
        }
    }

    fn ask(&mut self, now_ns: u64) {
        while let Some(ask) = self.planner.next(now_ns) {
            let packet = request_packet(self.transport, &ask);
            if self.servers[ask.server].send(&packet).is_err() {
                self.planner.refused(ask.server, now_ns);
            }
        }
    }
}
