//! Test frames with the verdict that each must get, for both builds of the parser.
//!
//! The unit test in this crate runs them through the host build; the integration test `filter` runs the same through
//! the loaded program (BPF_PROG_TEST_RUN). The rules that the verdicts assume are [`RULES`].
#![forbid(unsafe_code)]

use std::vec;
use std::vec::Vec;

use build::Build;

use crate::decide::{self, RuleLookup};
use crate::headers::Parsed;
use crate::{GroupKey, GroupRule, SourceKey, Verdict};

mod build;

const GROUP: [u8; 4] = [239, 10, 0, 1];
const PORT: u16 = 26400;
const SOURCE: [u8; 4] = [10, 1, 2, 3];

const SECOND_SOURCE: [u8; 4] = [10, 1, 2, 9];

const fn rule(port: u16, vlan: u16, source_ip: [u8; 4], line: u16) -> (GroupKey, GroupRule) {
    (GroupKey { dst_ip: GROUP, dst_port: port, vlan }, GroupRule { source_ip, line, flags: 0 })
}

/// The rules under which the verdicts of [`table`] hold: the group untagged and in VLAN 100, on the next port from one
/// source only, on the one after it from two sources, each a line of its own, and on the last from any source with one
/// source apart.
pub const RULES: [(GroupKey, GroupRule); 7] = [
    rule(PORT, 0, [0; 4], 7),
    rule(PORT, 100, [0; 4], 8),
    rule(PORT + 1, 0, SOURCE, 1023),
    rule(PORT + 2, 0, SOURCE, 20),
    rule(PORT + 2, 0, SECOND_SOURCE, 21),
    rule(PORT + 3, 0, SOURCE, 31),
    rule(PORT + 3, 0, [0; 4], 30),
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
    /// The same where unsubscribed multicast is dropped.
    pub verdict_dropping: Verdict,
    /// For a redirected frame: line, payload offset and payload length of the stamp.
    pub stamp: Option<(u16, u16, u16)>,
}

/// [`RULES`], looked up in the plainest way.
#[derive(Clone, Copy, Debug)]
struct Naive;

impl RuleLookup for Naive {
    fn group(&self, key: GroupKey) -> Option<GroupRule> {
        let of_group = || RULES.into_iter().filter(|(other, _)| *other == key).map(|(_, rule)| rule);
        let first = of_group().min_by_key(|rule| rule.source_ip)?;
        let flags = if of_group().count() > 1 { GroupRule::MORE_SOURCES } else { 0 };
        Some(GroupRule { flags, ..first })
    }

    fn source(&self, key: SourceKey) -> Option<GroupRule> {
        let is_it = |(group, rule): &(GroupKey, GroupRule)| *group == key.group && rule.source_ip == key.source_ip;
        RULES.into_iter().find(is_it).map(|(_, rule)| rule)
    }
}

/// The decision of the XDP program under [`RULES`], in user space. A socket is assumed.
///
/// # Errors
/// The verdict, when the frame passes or is dropped.
pub fn decide(frame: &[u8], drop_unsubscribed: bool) -> Result<(Parsed, GroupRule), Verdict> {
    decide::decide(frame, &Naive, drop_unsubscribed)
}

fn redirected(name: &'static str, build: &Build, line: u16, payload_offset: u16) -> Case {
    let stamp = Some((line, payload_offset, build.payload.len() as u16));
    let verdict = Verdict::Redirected;
    Case { name, frame: build.bytes(), verdict, verdict_dropping: verdict, stamp }
}

fn passes(name: &'static str, frame: Vec<u8>, verdict: Verdict) -> Case {
    Case { name, frame, verdict, verdict_dropping: verdict, stamp: None }
}

/// Multicast without a rule: dropped where that is wanted.
fn unsubscribed(name: &'static str, build: &Build) -> Case {
    Case { verdict_dropping: Verdict::DropNoRule, ..passes(name, build.bytes(), Verdict::PassNoRule) }
}

fn wrong_source(name: &'static str, build: &Build) -> Case {
    Case { verdict_dropping: Verdict::DropWrongSource, ..passes(name, build.bytes(), Verdict::PassWrongSource) }
}

/// All cases. Frames below 14 bytes are among them: the kernel's test run does not take those.
#[must_use]
pub fn table() -> Vec<Case> {
    let mut cases = accepted();
    cases.extend(by_source());
    cases.extend(not_ours());
    cases.extend(without_rule());
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
            "QinQ, 100 within a priority tag",
            &Build { tags: vec![(0x88a8, 0x6000), (0x8100, 100)], ..good.clone() },
            8,
            50,
        ),
        redirected(
            "QinQ, a priority tag within 100",
            &Build { tags: vec![(0x88a8, 100), (0x8100, 0x6000)], ..good.clone() },
            8,
            50,
        ),
        redirected("two priority tags", &Build { tags: vec![(0x8100, 0xe000), (0x8100, 0)], ..good.clone() }, 7, 50),
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
        passes("just above multicast", Build { group: [240, 0, 0, 0], ..good }.bytes(), Verdict::PassNotMulticast),
    ]
}

/// The group with rules for several sources, and the one with a rule for any source beside one for a single source.
fn by_source() -> Vec<Case> {
    let of = |port, source| Build { port, source, ..Build::default() };
    vec![
        redirected("the first of two sources", &of(PORT + 2, SOURCE), 20, 42),
        redirected("the second of two sources", &of(PORT + 2, SECOND_SOURCE), 21, 42),
        wrong_source("neither of two sources", &of(PORT + 2, [10, 1, 2, 10])),
        redirected("a source apart", &of(PORT + 3, SOURCE), 31, 42),
        redirected("any source beside one apart", &of(PORT + 3, SECOND_SOURCE), 30, 42),
        wrong_source("other source", &of(PORT + 1, [10, 1, 2, 4])),
    ]
}

/// Whole datagrams to groups that no rule has. What is for the link itself is never dropped.
fn without_rule() -> Vec<Case> {
    let good = Build::default();
    let tagged = |tags| Build { tags, ..Build::default() };
    let link_local = |group, port| Build { group, port, ..Build::default() }.bytes();
    vec![
        unsubscribed("other group", &Build { group: [239, 10, 0, 2], ..good.clone() }),
        unsubscribed("other port", &Build { port: PORT + 9, ..good.clone() }),
        unsubscribed("other VLAN", &tagged(vec![(0x8100, 101)])),
        unsubscribed("the reserved VLAN id", &tagged(vec![(0x8100, 4095)])),
        unsubscribed("the reserved VLAN id around ours", &tagged(vec![(0x88a8, 4095), (0x8100, 100)])),
        unsubscribed("QinQ with our id inside", &tagged(vec![(0x88a8, 5), (0x8100, 100)])),
        unsubscribed("the first group behind those of the link", &Build { group: [224, 0, 1, 0], ..good }),
        passes("mDNS", link_local([224, 0, 0, 251], 5353), Verdict::PassNoRule),
        passes("PTP peer delay", link_local([224, 0, 0, 107], 319), Verdict::PassNoRule),
        passes("the last group of the link", link_local([224, 0, 0, 255], PORT), Verdict::PassNoRule),
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
            for (dropping, wanted) in [(false, case.verdict), (true, case.verdict_dropping)] {
                let decided = decide(&case.frame, dropping);
                let verdict = decided.map_or_else(|verdict| verdict, |_| Verdict::Redirected);
                assert_eq!(verdict, wanted, "{}, dropping: {dropping}", case.name);
                let stamp = decided.ok().map(|(parsed, rule)| (rule.line, parsed.payload_offset, parsed.payload_len));
                assert_eq!(stamp, case.stamp, "{}", case.name);
            }
        }
    }

    #[test]
    fn the_table_reaches_every_verdict_of_the_parser() {
        let table = table();
        for verdict in Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::PassNoSocket) {
            let reaches = |case: &Case| case.verdict == verdict || case.verdict_dropping == verdict;
            assert!(table.iter().any(reaches), "no frame for {}", verdict.label());
        }
    }

    /// Control traffic, fragments and broken frames are the kernel's whatever the policy.
    #[test]
    fn only_whole_multicast_datagrams_without_a_rule_can_be_dropped() {
        for case in table() {
            let may_drop = matches!(case.verdict, Verdict::PassNoRule | Verdict::PassWrongSource);
            assert!(may_drop || case.verdict_dropping == case.verdict, "{}", case.name);
            assert!(!case.verdict.is_drop(), "{}", case.name);
        }
    }

    #[test]
    fn no_cut_of_any_frame_reads_past_its_end() {
        for case in table() {
            for len in 0..case.frame.len() {
                if let Ok((parsed, _)) = decide(&case.frame[..len], true) {
                    let end = usize::from(parsed.payload_offset) + usize::from(parsed.payload_len);
                    assert!(end <= len, "{} cut to {len}", case.name);
                }
            }
        }
    }
}
