//! Test frames with the verdict that each must get, for both builds of the parser.
//!
//! The unit test in this crate runs them through the host build; the integration test `filter` runs the same through
//! the loaded program (BPF_PROG_TEST_RUN). The rules that the verdicts assume are [`RULES`].
#![forbid(unsafe_code)]

use std::vec;
use std::vec::Vec;

use crate::headers::{self, Parsed};
use crate::{GroupKey, GroupRule, Verdict};

const GROUP: [u8; 4] = [239, 10, 0, 1];
const PORT: u16 = 26400;
const SOURCE: [u8; 4] = [10, 1, 2, 3];

/// The rules under which the verdicts of [`table`] hold: the group untagged, in VLAN 100, and from one source only.
pub const RULES: [(GroupKey, GroupRule); 3] = [
    (GroupKey { dst_ip: GROUP, dst_port: PORT, vlan: 0 }, GroupRule { source_ip: [0; 4], line: 7, flags: 0 }),
    (GroupKey { dst_ip: GROUP, dst_port: PORT, vlan: 100 }, GroupRule { source_ip: [0; 4], line: 8, flags: 0 }),
    (GroupKey { dst_ip: GROUP, dst_port: PORT + 1, vlan: 0 }, GroupRule { source_ip: SOURCE, line: 1023, flags: 0 }),
];

/// One frame and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the frame is.
    pub name: &'static str,
    /// From the Ethernet header on, without FCS.
    pub frame: Vec<u8>,
    /// Verdict under [`RULES`] when the receive queue has a socket.
    pub verdict: Verdict,
    /// For a redirected frame: line, payload offset and payload length of the stamp.
    pub stamp: Option<(u16, u16, u16)>,
}

/// The decision of the XDP program, in user space: parse, rule, source. A socket is assumed.
///
/// # Errors
/// The verdict, when the frame passes.
pub fn decide(frame: &[u8]) -> Result<(Parsed, GroupRule), Verdict> {
    let parsed = headers::parse(frame)?;
    let (_, rule) = RULES.into_iter().find(|(key, _)| *key == parsed.key).ok_or(Verdict::PassNoRule)?;
    if rule.accepts(parsed.source_ip) { Ok((parsed, rule)) } else { Err(Verdict::PassWrongSource) }
}

/// Builds frames: a good one, but for what a test changes.
#[derive(Clone, Debug)]
struct Build {
    /// Tags, outermost first: TPID and TCI.
    tags: Vec<(u16, u16)>,
    ether_type: u16,
    version_and_ihl: u8,
    /// IPv4 options, a multiple of four bytes.
    options: Vec<u8>,
    /// Overrides the right one.
    total_len: Option<u16>,
    fragment: u16,
    protocol: u8,
    source: [u8; 4],
    group: [u8; 4],
    port: u16,
    /// Overrides the right one.
    udp_len: Option<u16>,
    payload: Vec<u8>,
    /// Bytes after the UDP datagram, inside the IP packet.
    slack: usize,
    /// Bytes after the IP packet.
    padding: usize,
}

impl Default for Build {
    fn default() -> Self {
        Self {
            tags: vec![],
            ether_type: 0x0800,
            version_and_ihl: 0x45,
            options: vec![],
            total_len: None,
            fragment: 0x4000,
            protocol: 17,
            source: SOURCE,
            group: GROUP,
            port: PORT,
            udp_len: None,
            payload: (0..40).collect(),
            slack: 0,
            padding: 0,
        }
    }
}

impl Build {
    fn bytes(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let udp_len = 8 + self.payload.len();
        let total_len = self.total_len.unwrap_or((header_len + udp_len + self.slack) as u16);
        let udp_len = self.udp_len.unwrap_or(udp_len as u16);

        let mut frame = vec![0x01, 0x00, 0x5e, self.group[1] & 0x7f, self.group[2], self.group[3]];
        frame.extend([2, 0, 0, 0, 0, 1]);
        for (tpid, tci) in &self.tags {
            frame.extend(tpid.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame.extend(self.ether_type.to_be_bytes());
        frame.extend([self.version_and_ihl, 0]);
        frame.extend(total_len.to_be_bytes());
        frame.extend([0x12, 0x34]);
        frame.extend(self.fragment.to_be_bytes());
        frame.extend([16, self.protocol, 0, 0]);
        frame.extend(self.source);
        frame.extend(self.group);
        frame.extend(&self.options);
        frame.extend(30000_u16.to_be_bytes());
        frame.extend(self.port.to_be_bytes());
        frame.extend(udp_len.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(&self.payload);
        frame.resize(frame.len() + self.slack + self.padding, 0xee);
        frame
    }
}

fn redirected(name: &'static str, build: &Build, line: u16, payload_offset: u16) -> Case {
    let stamp = Some((line, payload_offset, build.payload.len() as u16));
    Case { name, frame: build.bytes(), verdict: Verdict::Redirected, stamp }
}

fn passes(name: &'static str, frame: Vec<u8>, verdict: Verdict) -> Case {
    Case { name, frame, verdict, stamp: None }
}

/// All cases. Frames below 14 bytes are among them: the kernel's test run does not take those.
#[must_use]
pub fn table() -> Vec<Case> {
    let mut cases = accepted();
    cases.extend(not_ours());
    cases.extend(fragments());
    cases.extend(truncated());
    cases.extend(lying());
    cases
}

fn accepted() -> Vec<Case> {
    let good = Build::default();
    let tagged = Build { tags: vec![(0x8100, 100)], ..good.clone() };
    let padded = Build { payload: vec![1, 2, 3], padding: 15, ..good.clone() };
    vec![
        redirected("untagged", &good, 7, 42),
        redirected("VLAN 100", &tagged, 8, 46),
        redirected("VLAN 100 with priority bits", &Build { tags: vec![(0x8100, 0xe064)], ..good.clone() }, 8, 46),
        redirected("priority tag (VLAN 0)", &Build { tags: vec![(0x8100, 0xa000)], ..good.clone() }, 7, 46),
        redirected("service tag only", &Build { tags: vec![(0x88a8, 100)], ..good.clone() }, 8, 46),
        redirected("QinQ, outer 100", &Build { tags: vec![(0x88a8, 100), (0x8100, 5)], ..good.clone() }, 8, 50),
        redirected(
            "IP options, 4 bytes",
            &Build { version_and_ihl: 0x46, options: vec![0x94, 4, 0, 0], ..good.clone() },
            7,
            46,
        ),
        redirected(
            "IP options, 40 bytes",
            &Build { version_and_ihl: 0x4f, options: vec![1; 40], ..good.clone() },
            7,
            82,
        ),
        redirected(
            "options behind two tags",
            &{
                let tags = vec![(0x8100, 100), (0x8100, 100)];
                Build { tags, version_and_ihl: 0x4f, options: vec![1; 40], ..good.clone() }
            },
            8,
            90,
        ),
        redirected("padded to 60 bytes", &padded, 7, 42),
        redirected("empty payload", &Build { payload: vec![], padding: 18, ..good.clone() }, 7, 42),
        redirected("bytes after the datagram inside the IP packet", &Build { slack: 9, ..good.clone() }, 7, 42),
        redirected("full MTU", &Build { payload: vec![0x55; 1472], ..good.clone() }, 7, 42),
        redirected("don't-fragment clear", &Build { fragment: 0, ..good.clone() }, 7, 42),
        redirected("the one accepted source", &Build { port: PORT + 1, ..good }, 1023, 42),
    ]
}

fn not_ours() -> Vec<Case> {
    let good = Build::default();
    let with = |ether_type| Build { ether_type, ..Build::default() }.bytes();
    vec![
        passes("ARP", with(0x0806), Verdict::PassArp),
        passes(
            "ARP in a VLAN",
            Build { tags: vec![(0x8100, 100)], ether_type: 0x0806, ..good.clone() }.bytes(),
            Verdict::PassArp,
        ),
        passes("IPv6", with(0x86dd), Verdict::PassIpv6),
        passes("LLDP", with(0x88cc), Verdict::PassOtherEtherType),
        passes("IEEE 802.3 length", with(0x0026), Verdict::PassOtherEtherType),
        passes("old QinQ ethertype", with(0x9100), Verdict::PassOtherEtherType),
        passes(
            "three tags",
            Build { tags: vec![(0x88a8, 100), (0x8100, 5), (0x8100, 6)], ..good.clone() }.bytes(),
            Verdict::PassTooManyTags,
        ),
        passes("IGMP", Build { protocol: 2, group: [224, 0, 0, 22], ..good.clone() }.bytes(), Verdict::PassNotUdp),
        passes("TCP", Build { protocol: 6, group: [10, 1, 1, 1], ..good.clone() }.bytes(), Verdict::PassNotUdp),
        passes("ICMP to our group", Build { protocol: 1, ..good.clone() }.bytes(), Verdict::PassNotUdp),
        passes("unicast", Build { group: [10, 1, 1, 1], ..good.clone() }.bytes(), Verdict::PassNotMulticast),
        passes("broadcast", Build { group: [255; 4], ..good.clone() }.bytes(), Verdict::PassNotMulticast),
        passes(
            "just below multicast",
            Build { group: [223, 255, 255, 255], ..good.clone() }.bytes(),
            Verdict::PassNotMulticast,
        ),
        passes(
            "just above multicast",
            Build { group: [240, 0, 0, 0], ..good.clone() }.bytes(),
            Verdict::PassNotMulticast,
        ),
        passes("other group", Build { group: [239, 10, 0, 2], ..good.clone() }.bytes(), Verdict::PassNoRule),
        passes("other port", Build { port: 26402, ..good.clone() }.bytes(), Verdict::PassNoRule),
        passes("other VLAN", Build { tags: vec![(0x8100, 101)], ..good.clone() }.bytes(), Verdict::PassNoRule),
        passes(
            "QinQ with our id inside",
            Build { tags: vec![(0x88a8, 5), (0x8100, 100)], ..good.clone() }.bytes(),
            Verdict::PassNoRule,
        ),
        passes(
            "other source",
            Build { port: PORT + 1, source: [10, 1, 2, 4], ..good }.bytes(),
            Verdict::PassWrongSource,
        ),
    ]
}

fn fragments() -> Vec<Case> {
    let good = Build::default();
    vec![
        passes("first fragment", Build { fragment: 0x2000, ..good.clone() }.bytes(), Verdict::PassFirstFragment),
        passes(
            "first fragment, UDP length of the whole",
            Build { fragment: 0x2000, udp_len: Some(3000), ..good.clone() }.bytes(),
            Verdict::PassFirstFragment,
        ),
        passes("middle fragment", Build { fragment: 0x2001, ..good.clone() }.bytes(), Verdict::PassLaterFragment),
        passes("last fragment", Build { fragment: 0x00b9, ..good.clone() }.bytes(), Verdict::PassLaterFragment),
        passes(
            "last fragment of one byte",
            Build { fragment: 0x1fff, total_len: Some(21), ..good }.bytes(),
            Verdict::PassLaterFragment,
        ),
    ]
}

/// The same tagged frame with options, cut behind and before each header.
fn truncated() -> Vec<Case> {
    let whole = Build {
        tags: vec![(0x88a8, 100), (0x8100, 5)],
        version_and_ihl: 0x46,
        options: vec![1, 1, 1, 0],
        ..Build::default()
    }
    .bytes();
    let cuts = [
        ("empty", 0),
        ("cut in the Ethernet addresses", 6),
        ("cut in the EtherType", 13),
        ("cut after the first EtherType", 14),
        ("cut in the first tag", 17),
        ("cut after the first tag", 18),
        ("cut in the second tag", 21),
        ("cut after the second tag", 22),
        ("cut after one byte of the IP header", 23),
        ("cut before the end of the fixed IP header", 41),
        ("cut before the IP options", 42),
        ("cut in the IP options", 45),
        ("cut before the UDP header", 46),
        ("cut in the UDP header", 53),
        ("cut before the payload", 54),
        ("cut one byte short", whole.len() - 1),
    ];
    cuts.into_iter().map(|(name, len)| passes(name, whole[..len].to_vec(), Verdict::PassTruncated)).collect()
}

fn lying() -> Vec<Case> {
    let good = Build::default();
    let udp_len = |len| Build { udp_len: Some(len), ..Build::default() }.bytes();
    let total_len = |len| Build { total_len: Some(len), ..Build::default() }.bytes();
    vec![
        passes("UDP length 0", udp_len(0), Verdict::PassBadUdpLength),
        passes("UDP length 7", udp_len(7), Verdict::PassBadUdpLength),
        passes("UDP length one beyond the IP packet", udp_len(49), Verdict::PassBadUdpLength),
        passes("UDP length 65535", udp_len(0xffff), Verdict::PassBadUdpLength),
        passes(
            "UDP length reaching into the padding",
            Build { udp_len: Some(50), padding: 20, ..good.clone() }.bytes(),
            Verdict::PassBadUdpLength,
        ),
        passes("IP total length without room for UDP", total_len(27), Verdict::PassBadUdpLength),
        passes("IP total length of the header alone", total_len(20), Verdict::PassBadUdpLength),
        passes("IP total length below the header", total_len(19), Verdict::PassBadIpHeader),
        passes("IP total length 0", total_len(0), Verdict::PassBadIpHeader),
        passes("IP total length one beyond the frame", total_len(69), Verdict::PassTruncated),
        passes("IP total length 65535", total_len(0xffff), Verdict::PassTruncated),
        passes("IHL 0", Build { version_and_ihl: 0x40, ..good.clone() }.bytes(), Verdict::PassBadIpHeader),
        passes("IHL 4", Build { version_and_ihl: 0x44, ..good.clone() }.bytes(), Verdict::PassBadIpHeader),
        passes(
            "IHL beyond the IP packet",
            Build { version_and_ihl: 0x4f, payload: vec![], ..good.clone() }.bytes(),
            Verdict::PassBadIpHeader,
        ),
        passes(
            "IP version 6 under the IPv4 EtherType",
            Build { version_and_ihl: 0x65, ..good }.bytes(),
            Verdict::PassBadIpHeader,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_gets_its_verdict() {
        for case in table() {
            let decided = decide(&case.frame);
            let verdict = decided.map_or_else(|verdict| verdict, |_| Verdict::Redirected);
            assert_eq!(verdict, case.verdict, "{}", case.name);
            let stamp = decided.ok().map(|(parsed, rule)| (rule.line, parsed.payload_offset, parsed.payload_len));
            assert_eq!(stamp, case.stamp, "{}", case.name);
        }
    }

    #[test]
    fn the_table_reaches_every_verdict_of_the_parser() {
        let table = table();
        for verdict in Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::PassNoSocket) {
            assert!(table.iter().any(|case| case.verdict == verdict), "no frame for {}", verdict.label());
        }
    }

    #[test]
    fn no_cut_of_any_frame_reads_past_its_end() {
        for case in table() {
            for len in 0..case.frame.len() {
                if let Ok((parsed, _)) = decide(&case.frame[..len]) {
                    let end = usize::from(parsed.payload_offset) + usize::from(parsed.payload_len);
                    assert!(end <= len, "{} cut to {len}", case.name);
                }
            }
        }
    }
}
