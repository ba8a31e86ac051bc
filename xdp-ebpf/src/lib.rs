//! The ABI between the XDP program and user space, and the one header parser that both sides use.
//!
//! Everything here is `no_std`, fixed-size and free of padding: the bytes that the kernel side writes are the bytes
//! that user space reads. Sizes are asserted at compile time.
#![no_std]
#![forbid(unsafe_code)]

pub mod headers;

/// Most lines (A and B copies of channels) that one loaded program can tell apart: the length of the per-line counters.
pub const MAX_LINES: u32 = 1024;

/// Most receive queues of one interface that can have an AF_XDP socket: the length of the XSKMAP.
pub const MAX_QUEUES: u32 = 128;

/// Key of a group rule: where a datagram is addressed to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// IPv4 destination address, octets in wire order.
    pub dst_ip: [u8; 4],
    /// UDP destination port, host byte order.
    pub dst_port: u16,
    /// VLAN id of the outermost tag, host byte order; 0 for an untagged (or priority-tagged) frame.
    pub vlan: u16,
}

/// What to do with a datagram that matches a [`GroupKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupRule {
    /// The only accepted IPv4 source address, octets in wire order; all zero accepts any source.
    pub source_ip: [u8; 4],
    /// Line number, stamped into [`FrameMeta::line`]; below [`MAX_LINES`].
    pub line: u16,
    /// Reserved, zero.
    pub flags: u16,
}

/// What the XDP program writes directly in front of a redirected frame (`bpf_xdp_adjust_meta`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameMeta {
    /// CLOCK_MONOTONIC (`bpf_ktime_get_ns`) when the program saw the frame, nanoseconds.
    pub received_ns: u64,
    /// Line number of the matching rule.
    pub line: u16,
    /// Offset of the UDP payload from the start of the frame, bytes.
    pub payload_offset: u16,
    /// Length of the UDP payload by the UDP header, bytes.
    pub payload_len: u16,
    /// The cookie given to this loaded instance; anything else means that the metadata is not ours.
    pub cookie: u16,
}

/// Per-line counters, one set per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineStats {
    /// Frames redirected for this line.
    pub packets: u64,
    /// Bytes of those frames, headers included.
    pub bytes: u64,
    /// CLOCK_MONOTONIC of the newest of them, nanoseconds; 0 = never.
    pub last_seen_ns: u64,
}

const _: () = {
    assert!(size_of::<GroupKey>() == 8);
    assert!(size_of::<GroupRule>() == 8);
    assert!(size_of::<FrameMeta>() == 16);
    assert!(size_of::<LineStats>() == 24);
};
