//! The ABI between the XDP program and user space, and the one header parser that both sides use.
//!
//! Everything here is `no_std`, fixed-size and free of padding: the bytes that the kernel side writes are the bytes
//! that user space reads. Sizes are asserted at compile time.
//!
//! Integers are in host byte order: both sides run on the same host. Conversions to and from bytes are here, so that
//! neither side needs to reinterpret memory.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "frames"))]
extern crate std;

pub mod decide;
#[cfg(any(test, feature = "frames"))]
pub mod frames;
pub mod headers;
mod verdict;

pub use verdict::Verdict;

/// Most lines (A and B copies of channels) that one loaded program can tell apart: the length of the per-line counters.
pub const MAX_LINES: u32 = 1024;

/// Most receive queues of one interface that can have an AF_XDP socket: the length of the XSKMAP.
pub const MAX_QUEUES: u32 = 128;

/// Most group rules of one loaded program; and most rules for further sources of a group.
pub const MAX_RULES: u32 = 1024;

/// Key of a group rule: where a datagram is addressed to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// IPv4 destination address, octets in wire order.
    pub dst_ip: [u8; 4],
    /// UDP destination port, host byte order.
    pub dst_port: u16,
    /// VLAN id of the outermost tag that has one, host byte order; 0 for an untagged (or priority-tagged) frame, and
    /// where the NIC took the tag away before XDP.
    pub vlan: u16,
}

impl GroupKey {
    /// The key as it lies in the map, host byte order.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        let [a, b, c, d] = self.dst_ip;
        let [port_0, port_1] = self.dst_port.to_ne_bytes();
        let [vlan_0, vlan_1] = self.vlan.to_ne_bytes();
        [a, b, c, d, port_0, port_1, vlan_0, vlan_1]
    }
}

/// Key of a rule for one more source of a group.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey {
    /// Where the datagram is addressed to.
    pub group: GroupKey,
    /// IPv4 source address, octets in wire order.
    pub source_ip: [u8; 4],
}

impl SourceKey {
    /// The key as it lies in the map, host byte order.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 12] {
        let [a, b, c, d, e, f, g, h] = self.group.to_bytes();
        let [source_0, source_1, source_2, source_3] = self.source_ip;
        [a, b, c, d, e, f, g, h, source_0, source_1, source_2, source_3]
    }
}

/// What to do with a datagram that matches a [`GroupKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupRule {
    /// The only accepted IPv4 source address, octets in wire order; all zero accepts any source.
    pub source_ip: [u8; 4],
    /// Line number, stamped into [`FrameMeta::line`]; below [`MAX_LINES`].
    pub line: u16,
    /// [`Self::MORE_SOURCES`], or 0. Whoever fills the maps sets it.
    pub flags: u16,
}

impl GroupRule {
    /// Other sources of the group have rules of their own, under a [`SourceKey`]. Such a rule comes before one for any
    /// source.
    pub const MORE_SOURCES: u16 = 1;

    /// Whether the rule names this very source.
    #[inline(always)]
    #[must_use]
    pub const fn is_for(&self, source_ip: [u8; 4]) -> bool {
        u32::from_ne_bytes(self.source_ip) == u32::from_ne_bytes(source_ip)
    }

    /// Whether the rule takes datagrams from this source.
    #[inline(always)]
    #[must_use]
    pub const fn accepts(&self, source_ip: [u8; 4]) -> bool {
        u32::from_ne_bytes(self.source_ip) == 0 || self.is_for(source_ip)
    }

    /// The rule as it lies in the map, host byte order.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        let [a, b, c, d] = self.source_ip;
        let [line_0, line_1] = self.line.to_ne_bytes();
        let [flags_0, flags_1] = self.flags.to_ne_bytes();
        [a, b, c, d, line_0, line_1, flags_0, flags_1]
    }
}

/// What the XDP program writes directly in front of a redirected frame (`bpf_xdp_adjust_meta`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameMeta {
    /// CLOCK_MONOTONIC (`bpf_ktime_get_ns`) when the program had matched the frame's rule, nanoseconds.
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

impl FrameMeta {
    /// Size of the stamp, bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// Reads the stamp as the program wrote it.
    #[inline]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, line_0, line_1, offset_0, offset_1, len_0, len_1, cookie_0, cookie_1] = bytes;
        Self {
            received_ns: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            line: u16::from_ne_bytes([line_0, line_1]),
            payload_offset: u16::from_ne_bytes([offset_0, offset_1]),
            payload_len: u16::from_ne_bytes([len_0, len_1]),
            cookie: u16::from_ne_bytes([cookie_0, cookie_1]),
        }
    }
}

/// Per-line counters, one set per CPU.
///
/// Three `u64` in field order, so that the map can also be read as `[u64; 3]`.
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
    assert!(size_of::<SourceKey>() == 12);
    assert!(size_of::<GroupRule>() == 8);
    assert!(size_of::<FrameMeta>() == 16);
    assert!(size_of::<LineStats>() == 24);
};
