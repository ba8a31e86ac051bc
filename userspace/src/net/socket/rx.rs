//! Receiving from kernel sockets: one per line, so that the socket says which line a datagram belongs to.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;

use arrayvec::ArrayVec;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::{Arrived, SocketError, dropped_count, receive_batch, set_option, set_source_member};
use crate::clock;
use crate::config::plan::SocketPlan;
use crate::metrics::{DropCounts, DropReason, PortCounts};
use crate::net::busy_poll::BusyPoll;
use crate::net::interface::Interface;
use crate::net::umem::{BUFFER_START, Frame, Frames, Owner};
use crate::net::{BATCH, Batch, LineIndex, PAYLOAD_OFFSET, Received};

/// One line to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketLine {
    /// Its number.
    pub line: LineIndex,
    /// Group (or own unicast address) and port.
    pub group: SocketAddrV4,
    /// Interface to join on.
    pub interface: String,
    /// The only accepted source; `None` = any.
    pub source: Option<Ipv4Addr>,
    /// Whether to join at once; else with [`SocketRx::set_line`].
    pub subscribed: bool,
}

/// Options that all sockets of a port share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Busy polling.
    pub busy_poll: BusyPoll,
    /// SO_REUSEPORT: lets another process bind the same group and port. The kernel gives each datagram of a group to all
    /// of them.
    pub reuse_port: bool,
    /// Receive buffer of each socket, bytes. With CAP_NET_ADMIN beyond `net.core.rmem_max` too; without it the port goes on
    /// with what that allows, and logs it.
    pub receive_buffer_bytes: u32,
}

impl From<&SocketPlan> for SocketOptions {
    fn from(plan: &SocketPlan) -> Self {
        let SocketPlan { reuse_port, receive_buffer_bytes, .. } = *plan;
        Self { busy_poll: plan.into(), reuse_port, receive_buffer_bytes }
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { busy_poll: BusyPoll::default(), reuse_port: false, receive_buffer_bytes: 8 << 20 }
    }
}

/// The socket of one line.
#[derive(Debug)]
pub struct LineSocket {
    line: LineIndex,
    socket: Socket,
    group: SocketAddrV4,
    interface: Interface,
    source: Option<Ipv4Addr>,
    is_joined: bool,
    /// Receive buffer that the kernel granted.
    buffer_bytes: u32,
    /// The kernel's wrapping drop counter when it was last read.
    dropped: u32,
}

/// A receive port over kernel sockets.
#[derive(Debug)]
pub struct SocketRx {
    sockets: Vec<LineSocket>,
    /// Socket that is asked first next time, so that a busy one cannot starve the others.
    first: usize,
    /// Frames to receive into.
    ready: ArrayVec<Frame, BATCH>,
    arrived: ArrayVec<Arrived, BATCH>,
    /// What turns the kernel's CLOCK_REALTIME stamps into CLOCK_MONOTONIC.
    utc_offset_ns: u64,
    counts: PortCounts,
    drops: DropCounts,
}

impl SocketRx {
    /// Opens and binds a socket per line, and joins those that are subscribed. IP_MULTICAST_ALL is off, so a socket gets
    /// just the group that it joined, on the interface that it joined it on.
    ///
    /// # Errors
    /// See [`SocketError`]: which line, which step, and what the kernel said.
    pub fn new(lines: &[SocketLine], options: &SocketOptions) -> Result<Self, SocketError> {
        let sockets: Vec<LineSocket> =
            lines.iter().map(|line| LineSocket::open(line, options)).collect::<Result<_, _>>()?;
        if let Some(small) = sockets.iter().find(|socket| socket.buffer_bytes < options.receive_buffer_bytes) {
            small.warn_of_buffer(options);
        }
        Ok(Self {
            sockets,
            first: 0,
            ready: ArrayVec::new(),
            arrived: ArrayVec::new(),
            utc_offset_ns: clock::utc_offset_ns(),
            counts: PortCounts::default(),
            drops: DropCounts::default(),
        })
    }

    /// Makes room for so many sockets in all, so that adding them allocates nothing.
    pub fn make_room(&mut self, room: usize) {
        self.sockets.reserve_exact(room.saturating_sub(self.sockets.len()));
    }

    /// Receives from one more socket.
    ///
    /// # Errors
    /// The socket itself, if there is no room for it.
    pub fn add(&mut self, socket: LineSocket) -> Result<(), LineSocket> {
        if self.sockets.len() == self.sockets.capacity() {
            return Err(socket);
        }
        self.sockets.push(socket);
        Ok(())
    }

    /// Whether it has a socket of this line.
    #[must_use]
    pub fn has(&self, line: LineIndex) -> bool {
        self.sockets.iter().any(|socket| socket.line == line)
    }

    /// Takes the socket of a line out. What it has received and was not taken before is lost.
    pub fn remove(&mut self, line: LineIndex) -> Option<LineSocket> {
        let at = self.sockets.iter().position(|socket| socket.line == line)?;
        // Notes what the kernel dropped: the socket will not be asked again.
        if let Ok(dropped) = dropped_count(&self.sockets[at].socket) {
            self.counts.kernel_rx_dropped += self.sockets[at].count_dropped(dropped);
        }
        Some(self.sockets.swap_remove(at))
    }

    /// See [`crate::net::RxPort::set_line`].
    ///
    /// # Errors
    /// What the kernel said to the join or leave.
    pub fn set_line(&mut self, line: LineIndex, enabled: bool) -> io::Result<()> {
        self.sockets.iter_mut().filter(|socket| socket.line == line).try_for_each(|socket| socket.set_joined(enabled))
    }

    /// See [`crate::net::RxPort::receive`]. The time of arrival is the kernel's own stamp (SO_TIMESTAMPNS), converted
    /// with the offset between the clocks as of the last [`Self::update_kernel_counts`].
    pub fn receive(&mut self, frames: &Frames, batch: &mut Batch) {
        let before = batch.len();
        let mut arrived_count = 0;
        for step in 0..self.sockets.len() {
            let room = batch.remaining_capacity().min(self.ready.len());
            if room == 0 {
                break;
            }
            let index = (self.first + step) % self.sockets.len();
            // The newest frames, so that taking them out moves no others.
            let from = self.ready.len() - room;
            let result = receive_batch(&self.sockets[index].socket, frames, &mut self.ready[from..], &mut self.arrived);
            match result {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => self.counts.kick_errors += 1,
            }
            arrived_count += self.arrived.len();
            self.take_arrived(frames, index, from, batch);
        }
        self.first = if self.sockets.is_empty() { 0 } else { (self.first + 1) % self.sockets.len() };
        self.counts.frames += arrived_count as u64;
        match batch.len() - before {
            0 if arrived_count == 0 => self.counts.empty_polls += 1,
            _ => self.counts.batches += 1,
        }
    }

    /// Moves what arrived into the batch: datagram i lies in frame `from + i`.
    fn take_arrived(&mut self, frames: &Frames, index: usize, from: usize, batch: &mut Batch) {
        // The counter only grows, so the newest datagram has all that the others say.
        let Some(newest) = self.arrived.last() else { return };
        let socket = &mut self.sockets[index];
        let line = socket.line;
        self.counts.kernel_rx_dropped += newest.dropped.map_or(0, |dropped| socket.count_dropped(dropped));
        let now = clock::monotonic_ns();
        let taken = self.ready.drain(from..from + self.arrived.len());
        for (frame, arrived) in taken.zip(self.arrived.drain(..)) {
            frames.assign(&frame, Owner::User);
            let start = BUFFER_START + PAYLOAD_OFFSET;
            if arrived.is_truncated || !frames.set_packet(&frame, start, arrived.len) {
                self.drops.add(DropReason::TooLong);
                frames.free(frame);
                continue;
            }
            // A stepped clock could put the arrival into the future; nothing arrives after now.
            let stamped = arrived.utc_ns.map(|utc_ns| utc_ns.wrapping_sub(self.utc_offset_ns));
            let received_ns = stamped.map_or(now, |stamped| stamped.min(now));
            batch.push(Received { frame, payload_offset: 0, payload_len: arrived.len as u16, line, received_ns });
        }
    }

    /// See [`crate::net::RxPort::refill`].
    pub fn refill(&mut self, frames: &Frames) {
        while !self.ready.is_full() && frames.free_count() > frames.reserve() {
            let Some(frame) = frames.alloc() else { break };
            frames.assign(&frame, Owner::Rx);
            self.ready.push(frame);
        }
    }

    /// See [`crate::net::RxPort::counts`].
    #[must_use]
    pub fn counts(&self) -> &PortCounts {
        &self.counts
    }

    /// See [`crate::net::RxPort::drops`].
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        &self.drops
    }

    /// See [`crate::net::RxPort::frames_held`].
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.ready.len()
    }

    /// See [`crate::net::RxPort::update_kernel_counts`].
    pub fn update_kernel_counts(&mut self) {
        self.utc_offset_ns = clock::utc_offset_ns();
        for socket in &mut self.sockets {
            if let Ok(dropped) = dropped_count(&socket.socket) {
                self.counts.kernel_rx_dropped += socket.count_dropped(dropped);
            }
        }
    }
}

impl LineSocket {
    /// Opens and binds the socket of a line, and joins if the line is subscribed.
    ///
    /// # Errors
    /// As [`SocketRx::new`].
    pub fn open(line: &SocketLine, options: &SocketOptions) -> Result<Self, SocketError> {
        let SocketLine { line, group, ref interface, source, subscribed } = *line;
        let interface = Interface::read(interface)?;
        let refused = |step: &'static str| move |source| SocketError::Refused { address: group, step, source };
        let socket =
            Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(refused("cannot make a socket"))?;
        let buffer_bytes = configure(&socket, options).map_err(refused("cannot set socket options"))?;
        let busy_poll = options.busy_poll.set(&socket);
        busy_poll.map_err(|source| SocketError::BusyPoll { address: group, source })?;
        socket.bind(&group.into()).map_err(refused("cannot bind"))?;
        let mut opened = Self { line, socket, group, interface, source, is_joined: false, buffer_bytes, dropped: 0 };
        opened.set_joined(subscribed).map_err(refused("cannot join the group"))?;
        Ok(opened)
    }

    /// Receive buffer that the kernel granted, bytes.
    #[must_use]
    pub fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Logs that the kernel granted less than the receive buffer that was asked for, if it did.
    fn warn_of_buffer(&self, options: &SocketOptions) {
        if self.buffer_bytes < options.receive_buffer_bytes {
            tracing::warn!(
                interface = %self.interface.name,
                wanted_bytes = options.receive_buffer_bytes,
                granted_bytes = self.buffer_bytes,
                "receive buffer smaller than receive_buffer_bytes: raise net.core.rmem_max, or give CAP_NET_ADMIN"
            );
        }
    }

    fn set_joined(&mut self, joined: bool) -> io::Result<()> {
        let group = self.group.ip();
        if joined == self.is_joined || !group.is_multicast() {
            return Ok(());
        }
        let index = InterfaceIndexOrAddress::Index(self.interface.index);
        match self.source {
            Some(source) => {
                set_source_member(self.socket.as_fd(), self.interface.index, *group, source, joined)?;
            }
            None if joined => self.socket.join_multicast_v4_n(group, &index)?,
            None => self.socket.leave_multicast_v4_n(group, &index)?,
        }
        self.is_joined = joined;
        Ok(())
    }

    /// How many more the socket has dropped, if its wrapping counter said `dropped` at some moment: what a datagram says
    /// that waited in the buffer may be older than what is known.
    fn count_dropped(&mut self, dropped: u32) -> u64 {
        let more = dropped.wrapping_sub(self.dropped);
        if more > u32::MAX / 2 {
            return 0;
        }
        self.dropped = dropped;
        u64::from(more)
    }
}

/// Sets what all sockets of a port have in common; the answer is the receive buffer that the kernel granted, bytes.
///
/// Not set: UDP_GRO, off unless asked for, which would put several datagrams into one buffer; and hardware stamps
/// (SO_TIMESTAMPING), which count on the NIC's own clock, whose offset to ours nobody knows without a PTP daemon.
fn configure(socket: &Socket, options: &SocketOptions) -> io::Result<u32> {
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    socket.set_multicast_all_v4(false)?;
    let buffer = options.receive_buffer_bytes.min(i32::MAX as u32 / 2);
    // Without the privilege, as much as rmem_max allows.
    set_option(socket.as_fd(), libc::SO_RCVBUFFORCE, buffer as i32)
        .or_else(|_| socket.set_recv_buffer_size(buffer as usize))?;
    set_option(socket.as_fd(), libc::SO_TIMESTAMPNS, 1)?;
    set_option(socket.as_fd(), libc::SO_RXQ_OVFL, 1)?;
    // The kernel answers twice what was asked for: it counts its own overhead in (socket(7)).
    Ok(u32::try_from(socket.recv_buffer_size()? / 2).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
