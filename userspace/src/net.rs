//! How packets come and go: ports that receive datagrams into frames and transmit frames to destinations.
//!
//! Every port kind uses the same move-only [`Frame`](umem::Frame)s from the worker's one [`Frames`](umem::Frames) pool,
//! so that the worker is the same over AF_XDP, kernel sockets and memory. This module knows no protocol above UDP.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

pub mod capture;
pub mod memory;
pub mod socket;
pub mod umem;
pub mod xsk;

use umem::Frame;

/// Most datagrams that one receive call returns.
pub const BATCH: usize = 64;

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
    /// CLOCK_MONOTONIC of its arrival (XDP entry, or the receive call for kernel sockets), nanoseconds.
    pub received_ns: u64,
}

/// The datagrams of one receive call, oldest first.
pub type Batch = ArrayVec<Received, BATCH>;

/// One datagram as the feed stages see it.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The line whose group it was sent to.
    pub line: LineIndex,
    /// UDP payload.
    pub payload: &'a [u8],
    /// CLOCK_MONOTONIC of its arrival, nanoseconds.
    pub received_ns: u64,
}
