//! The one header parser: Ethernet II, 802.1Q/802.1ad tags, IPv4 (RFC 791), UDP (RFC 768).
//!
//! The XDP program runs it on the frame in the driver's buffer; user space runs the same code on frames that carry no
//! [`FrameMeta`](crate::FrameMeta) and on captures. Checksums are not verified here: the NIC and the Ethernet FCS cover
//! the wire, and a sender on the same host may leave them to be filled in later.
//!
//! VLAN tags are seen only if they are in the frame: a NIC that strips them (`ethtool -K DEV rxvlan off` stops it), or a
//! veth peer that keeps them beside the frame (`txvlan off` on the peer stops it), makes a tagged frame look untagged.
//! `vlan_stripped` in the configuration says that it is so.
//!
//! Of two tags the outermost with an id counts: a tag with id 0 carries a priority and no VLAN (IEEE 802.1Q 9.6), so the
//! one behind it says which VLAN it is. What is inside an outer id is the carrier's customer's own matter and is not
//! looked at. Id 4095 is reserved; no rule has it, so such a frame matches none.
//!
//! Lengths: the UDP length says where the payload ends. The frame may be longer (Ethernet pads to 60 bytes) and so may
//! the IP packet, but neither may be shorter.
#![forbid(unsafe_code)]

use crate::{GroupKey, Verdict};

const ETHERNET_BYTES: usize = 14;
const TAG_BYTES: usize = 4;
const IPV4_MIN_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_ARP: u16 = 0x0806;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
/// 802.1Q customer tag and 802.1ad service tag.
const ETHER_TYPE_CTAG: u16 = 0x8100;
const ETHER_TYPE_STAG: u16 = 0x88a8;

const PROTOCOL_UDP: u8 = 17;
const VLAN_ID_MASK: u16 = 0x0fff;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;

/// Bounds-checked access to a frame, from its Ethernet header on.
///
/// The kernel's verifier wants every access preceded by a comparison with the end of the packet; slices do the same
/// check in user space.
pub trait FrameBytes {
    /// The `N` bytes at `offset`, or `None` if the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Whether the frame is at least `len` bytes long.
    fn is_at_least(&self, len: usize) -> bool;
}

impl FrameBytes for [u8] {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn is_at_least(&self, len: usize) -> bool {
        self.len() >= len
    }
}

/// A whole UDP datagram to an IPv4 multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Where it is addressed to; what rules are looked up by.
    pub key: GroupKey,
    /// IPv4 source address, octets in wire order.
    pub source_ip: [u8; 4],
    /// Start of the UDP payload, bytes from the start of the frame.
    pub payload_offset: u16,
    /// Length of the UDP payload by the UDP header, bytes; the frame holds at least that much.
    pub payload_len: u16,
}

/// Finds the UDP datagram in a frame.
///
/// # Errors
/// The verdict for a frame that rules are not looked up for: not IPv4, not UDP, not multicast, a fragment, or malformed.
#[inline(always)]
pub fn parse<F: FrameBytes + ?Sized>(frame: &F) -> Result<Parsed, Verdict> {
    let (vlan, ip_offset) = ethernet(frame)?;
    let ip = ipv4(frame, ip_offset)?;

    let udp_offset = ip_offset + ip.header_bytes;
    let udp = frame.read::<UDP_BYTES>(udp_offset).ok_or(Verdict::PassTruncated)?;
    let udp_len = u16::from_be_bytes([udp[4], udp[5]]);
    if usize::from(udp_len) < UDP_BYTES || usize::from(udp_len) > ip.payload_bytes {
        return Err(Verdict::PassBadUdpLength);
    }
    Ok(Parsed {
        key: GroupKey { dst_ip: ip.dst, dst_port: u16::from_be_bytes([udp[2], udp[3]]), vlan },
        source_ip: ip.src,
        payload_offset: (udp_offset + UDP_BYTES) as u16,
        payload_len: udp_len - UDP_BYTES as u16,
    })
}

/// VLAN id (of the outermost tag that has one) and offset of the IPv4 header.
#[inline(always)]
fn ethernet<F: FrameBytes + ?Sized>(frame: &F) -> Result<(u16, usize), Verdict> {
    let mut ether_type = u16::from_be_bytes(frame.read::<2>(ETHERNET_BYTES - 2).ok_or(Verdict::PassTruncated)?);
    let mut offset = ETHERNET_BYTES;
    let mut vlan = 0;
    if is_tag(ether_type) {
        let outer = frame.read::<TAG_BYTES>(offset).ok_or(Verdict::PassTruncated)?;
        vlan = u16::from_be_bytes([outer[0], outer[1]]) & VLAN_ID_MASK;
        ether_type = u16::from_be_bytes([outer[2], outer[3]]);
        offset += TAG_BYTES;
        if is_tag(ether_type) {
            let inner = frame.read::<TAG_BYTES>(offset).ok_or(Verdict::PassTruncated)?;
            if vlan == 0 {
                vlan = u16::from_be_bytes([inner[0], inner[1]]) & VLAN_ID_MASK;
            }
            ether_type = u16::from_be_bytes([inner[2], inner[3]]);
            offset += TAG_BYTES;
        }
    }
    match ether_type {
        ETHER_TYPE_IPV4 => Ok((vlan, offset)),
        ETHER_TYPE_ARP => Err(Verdict::PassArp),
        ETHER_TYPE_IPV6 => Err(Verdict::PassIpv6),
        ETHER_TYPE_CTAG | ETHER_TYPE_STAG => Err(Verdict::PassTooManyTags),
        _ => Err(Verdict::PassOtherEtherType),
    }
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    ether_type == ETHER_TYPE_CTAG || ether_type == ETHER_TYPE_STAG
}

/// What the UDP part needs of an IPv4 header.
struct Ipv4 {
    header_bytes: usize,
    payload_bytes: usize,
    src: [u8; 4],
    dst: [u8; 4],
}

#[inline(always)]
fn ipv4<F: FrameBytes + ?Sized>(frame: &F, offset: usize) -> Result<Ipv4, Verdict> {
    let header = frame.read::<IPV4_MIN_BYTES>(offset).ok_or(Verdict::PassTruncated)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_bytes < IPV4_MIN_BYTES || total_bytes < header_bytes {
        return Err(Verdict::PassBadIpHeader);
    }
    if !frame.is_at_least(offset + total_bytes) {
        return Err(Verdict::PassTruncated);
    }
    if header[9] != PROTOCOL_UDP {
        return Err(Verdict::PassNotUdp);
    }
    if header[16] & 0xf0 != 0xe0 {
        return Err(Verdict::PassNotMulticast);
    }
    // Ports are in the first fragment only, and its UDP length speaks of more than it holds: neither can be used.
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & FRAGMENT_OFFSET_MASK != 0 {
        return Err(Verdict::PassLaterFragment);
    }
    if fragment & MORE_FRAGMENTS != 0 {
        return Err(Verdict::PassFirstFragment);
    }
    Ok(Ipv4 {
        header_bytes,
        payload_bytes: total_bytes - header_bytes,
        src: [header[12], header[13], header[14], header[15]],
        dst: [header[16], header[17], header[18], header[19]],
    })
}
