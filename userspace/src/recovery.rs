//! Recovery: asks retransmission servers for what all lines have lost; answers re-enter the worker as one more line.
//!
//! The decisions are the [`Planner`]'s, one per channel, which knows no socket and no clock. Around it is one thread with
//! kernel sockets: one per channel and server, connected, so that the kernel drops what comes from anybody else. From the
//! workers come bounded queues of what is missing ([`Wanted`]); they are looked at a few thousand times a second while
//! something is missing, because waking this thread would cost the worker a system call. To the workers go rings of
//! datagrams ([`Handoff`]), each of which the worker reads as one more port. When the ring is full, answers wait in the
//! socket's buffer, and what does not fit there is lost and asked for again: no server can make a worker wait.
//!
//! Channels come and go while the thread runs ([`Recovery::add`], [`Recovery::remove`]).
#![forbid(unsafe_code)]

mod gaps;
mod parts;
mod planner;
mod servers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use gaps::GapSet;
pub use planner::{Ask, Planner, PlannerSettings, Rejected};

use crate::beside::{Handed, Work};
use crate::clock::monotonic_ns;
use crate::config::plan::{ChannelPlan, Plan, RecoveryPlan, TransportKind};
use crate::feed::ChannelIndex;
use crate::feed::transport::moldudp64;
use crate::metrics::RecoveryCounts;
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

/// The recovery of one channel, with its sockets open.
#[derive(Debug)]
pub struct Channel {
    index: usize,
    /// Index into `Plan::workers`.
    worker: usize,
    line: LineIndex,
    transport: TransportKind,
    planner: Planner,
    servers: Vec<Server>,
}

/// Opens the sockets of a channel; `None` if it has no servers. Needs no privilege.
///
/// # Errors
/// A source address that this host does not have.
pub fn prepare(plan: &Plan, index: usize) -> Result<Option<Channel>, RecoveryError> {
    let channel = &plan.channels[index];
    let Some(recovery) = &channel.recovery else { return Ok(None) };
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
    Ok(Some(Channel {
        index,
        worker: channel.worker,
        line: plan.recovery_line(index),
        transport: channel.transport,
        planner: Planner::new(planner_settings(channel, recovery)),
        servers,
    }))
}

/// The recovery of all channels that have servers.
#[derive(Debug)]
pub struct Recovery {
    channels: Vec<Channel>,
    ends: Vec<Ends>,
    /// What was said last of channels that are not here: one may come, and what it misses is told only once.
    unclaimed: BTreeMap<ChannelIndex, Wanted>,
}

impl Recovery {
    /// Of no channel yet; with the ends of every worker.
    #[must_use]
    pub fn new(ends: Vec<Ends>) -> Self {
        Self { channels: Vec::new(), ends, unclaimed: BTreeMap::new() }
    }

    /// Takes a channel on, in the place of the one of the same number if there is any. Best done when the worker has it.
    pub fn add(&mut self, mut channel: Channel, now_ns: u64) {
        self.take_wanted(now_ns);
        self.channels.retain(|known| known.index != channel.index);
        let said = ChannelIndex::try_from(channel.index).ok().and_then(|index| self.unclaimed.remove(&index));
        if let Some(Wanted { session, holes, .. }) = said {
            channel.planner.want(session, holes, now_ns);
        }
        self.channels.push(channel);
    }

    /// Lets a channel go: closes its sockets. To be done when the worker has it no more. Returns how many answers its worker
    /// was handed until now, with the worker's index.
    pub fn remove(&mut self, channel: usize, now_ns: u64) -> Option<Handed> {
        self.take_wanted(now_ns);
        if let Ok(index) = ChannelIndex::try_from(channel) {
            self.unclaimed.remove(&index);
        }
        let at = self.channels.iter().position(|known| known.index == channel)?;
        let worker = self.channels.remove(at).worker;
        let ends = self.ends.iter().find(|ends| ends.worker == worker)?;
        ends.shared.recovery[channel].store(&RecoveryCounts::default().values());
        Some(Handed { worker, datagrams: ends.answers.handed() })
    }

    /// Whether a worker has taken so many answers.
    #[must_use]
    pub fn is_taken(&self, handed: Handed) -> bool {
        self.ends.iter().all(|ends| ends.worker != handed.worker || ends.answers.taken() >= handed.datagrams)
    }

    /// Has everything that a channel misses asked for at once, of the next server; see [`Planner::hurry`]. Returns how many
    /// messages that are; `None` if the channel is not here.
    pub fn hurry(&mut self, channel: usize, now_ns: u64) -> Option<u64> {
        self.take_wanted(now_ns);
        let known = self.channels.iter_mut().find(|known| known.index == channel)?;
        Some(known.planner.hurry(now_ns))
    }

    /// Takes what the workers say.
    fn take_wanted(&mut self, now_ns: u64) {
        for ends in &mut self.ends {
            while let Ok(wanted) = ends.wanted.pop() {
                let index = usize::from(wanted.channel);
                let of_it = |known: &&mut Channel| known.index == index && known.worker == ends.worker;
                match self.channels.iter_mut().find(of_it) {
                    Some(known) => known.planner.want(wanted.session, wanted.holes, now_ns),
                    None => drop(self.unclaimed.insert(wanted.channel, wanted)),
                }
            }
        }
    }

    /// Takes what workers and servers say, and asks.
    fn cycle(&mut self, now_ns: u64) {
        self.take_wanted(now_ns);
        for channel in &mut self.channels {
            let Some(ends) = self.ends.iter_mut().find(|ends| ends.worker == channel.worker) else { continue };
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
        let has_room =
            |channel: &&Channel| self.ends.iter().any(|ends| ends.worker == channel.worker && ends.answers.has_room());
        let sockets = self.channels.iter().filter(has_room);
        let sockets = sockets.flat_map(|channel| &channel.servers).filter(|server| server.is_connected);
        let mut polled: Vec<PollFd<'_>> = sockets.map(|server| PollFd::new(&server.socket, PollFlags::IN)).collect();
        // Interrupted or not: what is there is seen in the next cycle.
        let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec }));
    }
}

impl Work for Recovery {
    const NAME: &'static str = "recovery";

    fn round(&mut self) {
        self.cycle(monotonic_ns());
        self.wait();
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
