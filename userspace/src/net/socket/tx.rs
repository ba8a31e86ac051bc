//! Sending over kernel sockets: one per destination, connected, so that a batch needs no addresses.
#![forbid(unsafe_code)]

use std::io;

use arrayvec::ArrayVec;
use socket2::{Domain, Protocol, Socket, Type};

use super::{SocketError, send_batch};
use crate::metrics::{DropCounts, DropReason, PortCounts};
use crate::net::headers::Header;
use crate::net::umem::{BUFFER_START, Frame, Frames, Owner};
use crate::net::{BATCH, PAYLOAD_OFFSET, Received};

/// System calls in a row that may send nothing before a packet is dropped.
const IDLE_CALLS: u32 = 8;

#[derive(Debug)]
struct Queued {
    destination: usize,
    frame: Frame,
}

/// The socket of one destination, connected to it.
#[derive(Debug)]
pub struct SocketDestination(Socket);

impl SocketDestination {
    /// Opens, binds and connects a socket that sends by this interface, whatever the routes say. The kernel writes the
    /// link-layer addresses itself. Own packets are not looped back (IP_MULTICAST_LOOP off).
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn open(interface: &str, header: Header) -> Result<Self, SocketError> {
        let Header { vlan, source, dest, ttl, .. } = header;
        if vlan != 0 {
            return Err(SocketError::Vlan { dest, vlan });
        }
        let refused = |step: &'static str| move |source| SocketError::Refused { address: dest, step, source };
        let socket =
            Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(refused("cannot make a socket"))?;
        let configure = || -> io::Result<()> {
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.set_multicast_ttl_v4(u32::from(ttl))?;
            socket.set_ttl_v4(u32::from(ttl.max(1)))?;
            socket.set_multicast_loop_v4(false)
        };
        configure().map_err(refused("cannot set socket options"))?;
        socket
            .bind(&source.into())
            .map_err(refused("cannot bind the source (is it an address of the interface, and the port free?)"))?;
        socket.connect(&dest.into()).map_err(refused("cannot connect"))?;
        Ok(Self(socket))
    }
}

/// A transmit port over kernel sockets.
#[derive(Debug)]
pub struct SocketTx {
    interface: String,
    /// By number; `None` where there is no such destination (any more).
    sockets: Vec<Option<SocketDestination>>,
    queued: ArrayVec<Queued, BATCH>,
    counts: PortCounts,
    drops: DropCounts,
}

impl SocketTx {
    /// A port that sends by this interface, whatever the routes say.
    #[must_use]
    pub fn new(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            sockets: Vec::new(),
            queued: ArrayVec::new(),
            counts: PortCounts::default(),
            drops: DropCounts::default(),
        }
    }

    /// See [`crate::net::TxPort::add_destination`] and [`SocketDestination::open`].
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn add_destination(&mut self, header: Header) -> Result<usize, SocketError> {
        self.sockets.push(Some(SocketDestination::open(&self.interface, header)?));
        Ok(self.sockets.len() - 1)
    }

    /// The destinations' places, by number.
    pub(in crate::net) fn places(&mut self) -> &mut Vec<Option<SocketDestination>> {
        &mut self.sockets
    }

    /// See [`crate::net::TxPort::send`].
    ///
    /// # Errors
    /// [`DropReason::BadBounds`] if the payload does not fit its frame, [`DropReason::Removed`] if there is no such
    /// destination.
    pub fn send(
        &mut self,
        frames: &Frames,
        frame: Frame,
        payload_bytes: usize,
        destination: usize,
    ) -> Result<(), DropReason> {
        self.enqueue(frames, frame, BUFFER_START + PAYLOAD_OFFSET, payload_bytes, destination)
    }

    /// See [`crate::net::TxPort::forward`].
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn forward(&mut self, frames: &Frames, received: Received, destination: usize) -> Result<(), DropReason> {
        let Received { frame, payload_offset, payload_len, .. } = received;
        let start = frames.packet_start(&frame) + usize::from(payload_offset);
        self.enqueue(frames, frame, start, usize::from(payload_len), destination)
    }

    fn enqueue(
        &mut self,
        frames: &Frames,
        frame: Frame,
        payload_start: usize,
        payload_bytes: usize,
        destination: usize,
    ) -> Result<(), DropReason> {
        let refused = match self.sockets.get(destination) {
            Some(Some(_)) if frames.set_packet(&frame, payload_start, payload_bytes) => None,
            Some(Some(_)) => Some(DropReason::BadBounds),
            _ => Some(DropReason::Removed),
        };
        if let Some(reason) = refused {
            self.drops.add(reason);
            frames.free(frame);
            return Err(reason);
        }
        if self.queued.is_full() {
            self.flush(frames);
        }
        frames.assign(&frame, Owner::Tx);
        self.queued.push(Queued { destination, frame });
        Ok(())
    }

    /// See [`crate::net::TxPort::flush`]. Packets of one destination that follow each other go in one system call.
    pub fn flush(&mut self, frames: &Frames) {
        if self.queued.is_empty() {
            return;
        }
        self.counts.batches += 1;
        let Self { sockets, queued, counts, drops, .. } = self;
        let mut rest = &queued[..];
        while let Some(first) = rest.first() {
            let run = rest.iter().take_while(|packet| packet.destination == first.destination).count();
            match sockets.get(first.destination) {
                Some(Some(SocketDestination(socket))) => send_run(socket, frames, &rest[..run], counts, drops),
                _ => unreachable!("a destination goes only after a flush"),
            }
            rest = &rest[run..];
        }
        for Queued { frame, .. } in queued.drain(..) {
            frames.free(frame);
        }
    }

    /// See [`crate::net::TxPort::reclaim`]: the kernel copied what it sent, so there is nothing to wait for.
    pub fn reclaim(&mut self, _frames: &Frames) {}

    /// See [`crate::net::TxPort::counts`].
    #[must_use]
    pub fn counts(&self) -> &PortCounts {
        &self.counts
    }

    /// See [`crate::net::TxPort::drops`].
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        &self.drops
    }

    /// See [`crate::net::TxPort::frames_held`].
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.queued.len()
    }

    /// See [`crate::net::TxPort::update_kernel_counts`]: the kernel has none for these.
    pub fn update_kernel_counts(&mut self) {}
}

/// Sends packets of one destination. One that the kernel does not take is dropped and counted, the rest goes on.
fn send_run(socket: &Socket, frames: &Frames, mut packets: &[Queued], counts: &mut PortCounts, drops: &mut DropCounts) {
    let mut idle = 0;
    while !packets.is_empty() {
        counts.kicks += 1;
        let reason = match send_batch(socket, frames, packets.iter().map(|packet| &packet.frame)) {
            Ok(sent) => {
                counts.frames += sent as u64;
                packets = &packets[sent..];
                idle = 0;
                continue;
            }
            Err(error) => match error.raw_os_error() {
                // Also what an earlier unicast packet met (ECONNREFUSED): reported once, says nothing about this one.
                Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR | libc::ECONNREFUSED) if idle < IDLE_CALLS => {
                    idle += 1;
                    counts.tx_retries += 1;
                    continue;
                }
                Some(libc::EAGAIN | libc::ENOBUFS) => DropReason::TxFull,
                _ => {
                    counts.kick_errors += 1;
                    DropReason::TxError
                }
            },
        };
        drops.add(reason);
        packets = &packets[1..];
        idle = 0;
    }
}
