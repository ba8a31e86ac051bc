//! The headers that we write in front of a UDP payload: Ethernet II, optionally 802.1Q, IPv4 (RFC 791), UDP (RFC 768).
//!
//! Everything but the lengths is known when a destination is registered, so the headers are a template, and sending is a
//! copy and three fields. The IPv4 checksum is kept as a partial sum to which only the total length is added. The UDP
//! checksum is 0, which for IPv4 means "none" (RFC 768): the Ethernet FCS covers the wire, and a checksum would read the
//! whole payload once more. Packets are never fragmented (DF), so the identification may stay 0 (RFC 6864).
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

/// Bytes of an 802.1Q tag.
pub const TAG_BYTES: usize = 4;

/// Bytes in front of the payload without a VLAN tag.
pub const HEADER_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;

/// Longest headers: with a VLAN tag.
pub const MAX_HEADER_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// Where an output stream is sent, and as whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// MAC address of the sending interface.
    pub source_mac: [u8; 6],
    /// MAC address of the group or of the next hop.
    pub dest_mac: [u8; 6],
    /// VLAN id to tag with; 0 = untagged.
    pub vlan: u16,
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Destination address and port.
    pub dest: SocketAddrV4,
    /// IP time to live.
    pub ttl: u8,
}

impl Header {
    /// A header to a multicast group, whose MAC address follows from its IP address.
    ///
    /// `None` if `dest` is not a multicast address: a unicast next hop must be resolved, see [`Header::dest_mac`].
    #[must_use]
    pub fn multicast(
        source_mac: [u8; 6],
        vlan: u16,
        source: SocketAddrV4,
        dest: SocketAddrV4,
        ttl: u8,
    ) -> Option<Self> {
        let dest_mac = multicast_mac(*dest.ip())?;
        Some(Self { source_mac, dest_mac, vlan, source, dest, ttl })
    }
}

/// The MAC address of an IPv4 multicast group: 01:00:5e and the low 23 bits (RFC 1112, section 6.4).
#[must_use]
pub fn multicast_mac(group: Ipv4Addr) -> Option<[u8; 6]> {
    let [_, b, c, d] = group.octets();
    group.is_multicast().then_some([0x01, 0x00, 0x5e, b & 0x7f, c, d])
}

/// The headers of one destination, ready but for the lengths.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: [u8; MAX_HEADER_BYTES],
    len: usize,
    /// Ones' complement sum of the IPv4 header with total length and checksum 0, not folded.
    ip_sum: u32,
}

impl Template {
    /// The template of a header.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        let mut bytes = [0; MAX_HEADER_BYTES];
        bytes[..6].copy_from_slice(&header.dest_mac);
        bytes[6..12].copy_from_slice(&header.source_mac);
        let mut at = 12;
        if header.vlan != 0 {
            bytes[at..at + 2].copy_from_slice(&0x8100_u16.to_be_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&(header.vlan & 0x0fff).to_be_bytes());
            at += TAG_BYTES;
        }
        bytes[at..at + 2].copy_from_slice(&0x0800_u16.to_be_bytes());
        at += 2;

        let ip = &mut bytes[at..at + IPV4_BYTES];
        ip[0] = 0x45; // version 4, 5 words
        ip[6] = 0x40; // don't fragment
        ip[8] = header.ttl;
        ip[9] = 17; // UDP
        ip[12..16].copy_from_slice(&header.source.ip().octets());
        ip[16..20].copy_from_slice(&header.dest.ip().octets());
        let ip_sum = ip.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        at += IPV4_BYTES;

        bytes[at..at + 2].copy_from_slice(&header.source.port().to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&header.dest.port().to_be_bytes());
        Self { bytes, len: at + UDP_BYTES, ip_sum }
    }

    /// Bytes of the headers: [`HEADER_BYTES`] or [`MAX_HEADER_BYTES`].
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "headers are never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Writes the headers of a packet with `payload_bytes` of payload into `out`, which has just their length.
    ///
    /// # Panics
    /// If `out` has another length, or the payload does not fit an IPv4 packet.
    pub fn write(&self, out: &mut [u8], payload_bytes: usize) {
        let udp_bytes = (UDP_BYTES + payload_bytes) as u32;
        let ip_bytes = udp_bytes + IPV4_BYTES as u32;
        assert!(ip_bytes <= u32::from(u16::MAX), "payload of {payload_bytes} bytes");
        out.copy_from_slice(&self.bytes[..self.len]);
        let ip = self.len - UDP_BYTES - IPV4_BYTES;
        out[ip + 2..ip + 4].copy_from_slice(&(ip_bytes as u16).to_be_bytes());
        out[ip + 10..ip + 12].copy_from_slice(&(!fold(self.ip_sum + ip_bytes)).to_be_bytes());
        let udp = self.len - UDP_BYTES;
        out[udp + 4..udp + 6].copy_from_slice(&(udp_bytes as u16).to_be_bytes());
    }
}

/// Folds a sum of 16-bit words into 16 bits, carries added back (RFC 1071).
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(vlan: u16) -> Header {
        let source = SocketAddrV4::new(Ipv4Addr::new(10, 1, 2, 3), 30_000);
        let dest = SocketAddrV4::new(Ipv4Addr::new(239, 200, 0, 1), 30_001);
        Header::multicast([2, 0, 0, 0, 0, 1], vlan, source, dest, 8).unwrap()
    }

    /// The checksum by definition: the ones' complement sum of a correct header is all ones.
    fn is_correct(ip: &[u8]) -> bool {
        let mut sum: u64 = ip.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(word[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum == 0xffff
    }

    #[test]
    fn an_untagged_header_is_what_the_standards_say() {
        let template = Template::new(&header(0));
        let mut out = [0xaa; HEADER_BYTES];
        template.write(&mut out, 100);
        let expected = [
            0x01, 0x00, 0x5e, 0x48, 0x00, 0x01, 2, 0, 0, 0, 0, 1, 0x08, 0x00, // Ethernet; 200 & 0x7f = 0x48
            0x45, 0, 0, 128, 0, 0, 0x40, 0, 8, 17, out[24], out[25], 10, 1, 2, 3, 239, 200, 0, 1, // IPv4
            0x75, 0x30, 0x75, 0x31, 0, 108, 0, 0, // UDP
        ];
        assert_eq!(out, expected);
        assert!(is_correct(&out[14..34]));
    }

    #[test]
    fn a_tagged_header_has_the_tag_and_is_otherwise_the_same() {
        let (mut plain, mut tagged) = ([0; HEADER_BYTES], [0; MAX_HEADER_BYTES]);
        Template::new(&header(0)).write(&mut plain, 9);
        Template::new(&header(0x123)).write(&mut tagged, 9);
        assert_eq!(tagged[12..16], [0x81, 0x00, 0x01, 0x23]);
        assert_eq!((&tagged[..12], &tagged[16..]), (&plain[..12], &plain[12..]));
    }

    #[test]
    fn only_groups_have_a_group_mac() {
        assert_eq!(multicast_mac(Ipv4Addr::new(239, 255, 1, 2)), Some([1, 0, 0x5e, 0x7f, 1, 2]));
        assert_eq!(multicast_mac(Ipv4Addr::new(10, 0, 0, 1)), None);
    }

    proptest! {
        #[test]
        fn the_checksum_is_right_for_every_address_and_length(
            source: [u8; 4], dest: [u8; 4], ttl: u8, vlan in 0_u16..4095, payload in 0_usize..=65_507,
        ) {
            let header = Header {
                source: SocketAddrV4::new(source.into(), 1),
                dest: SocketAddrV4::new(dest.into(), 2),
                ttl, vlan, ..header(0)
            };
            let template = Template::new(&header);
            let mut out = vec![0; template.len()];
            template.write(&mut out, payload);
            let ip = template.len() - 28;
            prop_assert!(is_correct(&out[ip..ip + 20]));
        }
    }
}
