//! How packets come and go: ports that receive datagrams into frames and transmit frames to destinations.
//!
//! Every port kind uses the same move-only [`Frame`]s from the worker's one [`Frames`] pool, so that the worker is the
//! same over AF_XDP, kernel sockets and memory. This module knows no protocol above UDP.
//!
//! No port allocates after it was made, and none fails on the data path: what cannot be used is freed and counted.
// `forbid` would reach into umem, xsk and socket, which need it.
#![deny(unsafe_code)]

use arrayvec::ArrayVec;

pub mod busy_poll;
pub mod capture;
mod classify;
pub mod handoff;
pub mod headers;
pub mod interface;
pub mod memory;
mod port;
pub mod socket;
pub mod umem;
pub mod xsk;

use crate::metrics::{DropCounts, DropReason, PortCounts};

pub use classify::Rules;
pub use headers::Header;
pub use port::{Outlets, Port, TxDestination};
pub use umem::{Frame, Frames};

/// Most datagrams that one receive call returns.
pub const BATCH: usize = 64;

/// Where in [`Frames::buffer_mut`] a UDP payload is built: in front of it is room for the headers, and it is just where
/// the payload of a received datagram without VLAN tag and IP options lies.
pub const PAYLOAD_OFFSET: usize = 106;

/// Index of a line in the plan; the same number is in the BPF rule and in [`xdp_ebpf::FrameMeta::line`].
pub type LineIndex = u16;

/// One received datagram, still in the frame that it came in.
#[derive(Debug)]
pub struct Received {
    /// The frame; whoever takes it out of the batch owns it.
    pub frame: Frame,
    /// Start of the UDP payload within the frame's data, bytes.
    pub payload_offset: u16,
    /// Length of the UDP payload, bytes; bounds were checked against the frame.
    pub payload_len: u16,
    /// The line whose group it was sent to.
    pub line: LineIndex,
    /// CLOCK_MONOTONIC of its arrival (XDP entry, or the kernel's receive stamp for sockets), nanoseconds.
    pub received_ns: u64,
}

/// The datagrams of one receive call, oldest first.
pub type Batch = ArrayVec<Received, BATCH>;

/// Copies a datagram that lies elsewhere into a free frame and appends it; one that is longer than a frame is dropped. The
/// caller has seen that there are free frames.
fn copy_in(
    frames: &Frames,
    batch: &mut Batch,
    drops: &mut DropCounts,
    payload: &[u8],
    line: LineIndex,
    received_ns: u64,
) {
    let mut frame = frames.alloc().expect("the caller has seen that there are free frames");
    if payload.len() > frames.payload_capacity() {
        drops.add(DropReason::TooLong);
        return frames.free(frame);
    }
    frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload.len()].copy_from_slice(payload);
    assert!(frames.set_packet(&frame, umem::BUFFER_START + PAYLOAD_OFFSET, payload.len()), "it fits");
    batch.push(Received { frame, payload_offset: 0, payload_len: payload.len() as u16, line, received_ns });
}

/// Does the same for every kind of port.
macro_rules! each_port {
    ($port:expr, $kind:ident, $inner:ident => $call:expr) => {
        match $port {
            $kind::Xsk($inner) => $call,
            $kind::Socket($inner) => $call,
            $kind::Memory($inner) => $call,
        }
    };
}

/// The same for sources, of which there is one kind more.
macro_rules! each_source {
    ($port:expr, $inner:ident => $call:expr) => {
        match $port {
            RxPort::Xsk($inner) => $call,
            RxPort::Socket($inner) => $call,
            RxPort::Memory($inner) => $call,
            RxPort::Handoff($inner) => $call,
        }
    };
}

/// A source of datagrams.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a worker has a handful, made at start and never moved")]
pub enum RxPort {
    /// An AF_XDP socket.
    Xsk(xsk::XskRx),
    /// Kernel sockets.
    Socket(socket::SocketRx),
    /// Datagrams injected by a test, a bench or a replay.
    Memory(memory::MemoryRx),
    /// Datagrams that another thread hands over: answers of retransmission servers.
    Handoff(handoff::HandoffRx),
}

impl RxPort {
    /// Appends what has arrived, as far as `batch` has room. Frames that hold nothing usable are freed and counted.
    pub fn receive(&mut self, frames: &Frames, batch: &mut Batch) {
        each_source!(self, port => port.receive(frames, batch));
    }

    /// Gives the port free frames to receive into. Called once per duty cycle.
    pub fn refill(&mut self, frames: &Frames) {
        each_source!(self, port => port.refill(frames));
    }

    /// Switches a line on or off where that is the port's own doing: kernel sockets join and leave. AF_XDP ports are
    /// steered from outside, memory ports have nothing to switch. Rare; may make a system call.
    ///
    /// # Errors
    /// What the kernel said to the join.
    pub fn set_line(&mut self, line: LineIndex, enabled: bool) -> std::io::Result<()> {
        match self {
            Self::Socket(port) => port.set_line(line, enabled),
            Self::Xsk(_) | Self::Memory(_) | Self::Handoff(_) => Ok(()),
        }
    }

    /// Exchanges the rules for frames that the filter could not stamp, where the port has such rules (AF_XDP).
    pub fn swap_rules(&mut self, rules: &mut Rules) {
        if let Self::Xsk(port) = self {
            port.swap_rules(rules);
        }
    }

    /// The port's counters.
    #[must_use]
    pub fn counts(&self) -> &PortCounts {
        each_source!(self, port => port.counts())
    }

    /// Frames that were freed instead of returned, by reason.
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        each_source!(self, port => port.drops())
    }

    /// Frames lent to the port: in the fill and RX rings, in the kernel's hands, or waiting inside the port.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        each_source!(self, port => port.frames_held())
    }

    /// Reads the kernel's own counters into [`Self::counts`]. A system call or two: for housekeeping, not for each cycle.
    pub fn update_kernel_counts(&mut self) {
        each_source!(self, port => port.update_kernel_counts());
    }
}

/// A way out.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a worker has a handful, made at start and never moved")]
pub enum TxPort {
    /// An AF_XDP socket.
    Xsk(xsk::XskTx),
    /// Kernel sockets.
    Socket(socket::SocketTx),
    /// Kept in memory for a test or a bench.
    Memory(memory::MemoryTx),
}

impl TxPort {
    /// Registers a destination behind those that are there, before the worker starts; the answer is its number in
    /// [`Self::send`]. Where numbers are given, see [`Self::put_destination`].
    ///
    /// # Errors
    /// Kernel sockets: the socket could not be made or bound. The other kinds never fail.
    pub fn add_destination(&mut self, header: Header) -> Result<usize, socket::SocketError> {
        match self {
            Self::Xsk(port) => Ok(port.add_destination(&header)),
            Self::Socket(port) => port.add_destination(header),
            Self::Memory(port) => Ok(port.add_destination()),
        }
    }

    /// Queues a packet whose payload was built at [`PAYLOAD_OFFSET`]. It leaves with [`Self::flush`] at the latest.
    ///
    /// # Errors
    /// Why it was dropped; the frame was freed and the drop counted.
    pub fn send(
        &mut self,
        frames: &Frames,
        frame: Frame,
        payload_bytes: usize,
        destination: usize,
    ) -> Result<(), DropReason> {
        each_port!(self, TxPort, port => port.send(frames, frame, payload_bytes, destination))
    }

    /// Queues a received datagram, moved out in its own frame with its headers rewritten. The payload is not copied unless
    /// the headers in front of it are not of the length that the destination needs.
    ///
    /// # Errors
    /// Why it was dropped; the frame was freed and the drop counted.
    pub fn forward(&mut self, frames: &Frames, received: Received, destination: usize) -> Result<(), DropReason> {
        each_port!(self, TxPort, port => port.forward(frames, received, destination))
    }

    /// Submits what is queued and sees that the kernel sends it: a bounded number of system calls. What it does not take
    /// stays queued for the next flush (AF_XDP) or is dropped and counted (kernel sockets).
    pub fn flush(&mut self, frames: &Frames) {
        each_port!(self, TxPort, port => port.flush(frames));
    }

    /// Makes the next flush try whatever failed before: the port is about to go.
    pub fn insist(&mut self) {
        if let Self::Xsk(port) = self {
            port.insist();
        }
    }

    /// Takes frames back that were sent.
    pub fn reclaim(&mut self, frames: &Frames) {
        each_port!(self, TxPort, port => port.reclaim(frames));
    }

    /// The port's counters.
    #[must_use]
    pub fn counts(&self) -> &PortCounts {
        each_port!(self, TxPort, port => port.counts())
    }

    /// Packets that were not sent, by reason.
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        each_port!(self, TxPort, port => port.drops())
    }

    /// Frames lent to the port: queued, in the TX and completion rings, or in the kernel's hands.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        each_port!(self, TxPort, port => port.frames_held())
    }

    /// Packets that were accepted and have not been completed.
    #[must_use]
    pub fn packets_held(&self) -> usize {
        match self {
            Self::Xsk(port) => port.frames_held() - port.prefilled_count(),
            Self::Socket(port) => port.frames_held(),
            Self::Memory(port) => port.frames_held(),
        }
    }

    /// Reads the kernel's own counters into [`Self::counts`]. A system call: for housekeeping, not for each cycle.
    pub fn update_kernel_counts(&mut self) {
        each_port!(self, TxPort, port => port.update_kernel_counts());
    }
}
