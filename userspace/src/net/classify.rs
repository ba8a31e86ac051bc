//! The rules in user space, for frames that carry no metadata: the same parser and the same lookup as the XDP program.
#![forbid(unsafe_code)]

use xdp_ebpf::decide::{RuleLookup, decide};
use xdp_ebpf::headers::Parsed;
use xdp_ebpf::{GroupKey, GroupRule, SourceKey, Verdict};

use super::LineIndex;
use crate::metrics::DropReason;

/// Group rules, sorted by group and source for lookup: the one for any source is a group's first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<(GroupKey, GroupRule)>);

/// A UDP datagram of one of our lines, found in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// The line of the matching rule.
    pub line: LineIndex,
    /// Start of the UDP payload, bytes from the start of the frame.
    pub payload_offset: u16,
    /// Length of the UDP payload, bytes; it lies within the frame.
    pub payload_len: u16,
}

impl Rules {
    /// A table of these rules; of two with the same group and source the later one counts.
    #[must_use]
    pub fn new(rules: &[(GroupKey, GroupRule)]) -> Self {
        let mut sorted = rules.to_vec();
        sorted.reverse();
        sorted.sort_by_key(place);
        sorted.dedup_by_key(|entry| place(entry));
        for i in 0..sorted.len() {
            let has_more = sorted.get(i + 1).is_some_and(|(next, _)| *next == sorted[i].0);
            sorted[i].1.flags = if has_more { GroupRule::MORE_SOURCES } else { 0 };
        }
        Self(sorted)
    }

    /// What the XDP program decides about a frame under these rules, but for the socket.
    ///
    /// # Errors
    /// As [`xdp_ebpf::decide::decide`].
    pub fn decide(&self, frame: &[u8], drop_unsubscribed: bool) -> Result<(Parsed, GroupRule), Verdict> {
        decide(frame, self, drop_unsubscribed)
    }

    /// Finds the datagram in an Ethernet frame, and its line.
    ///
    /// # Errors
    /// [`DropReason::NotUdp`] if there is no whole IPv4 multicast UDP datagram in it, [`DropReason::UnknownGroup`] if no
    /// rule takes its group or its source.
    pub fn classify(&self, frame: &[u8]) -> Result<Classified, DropReason> {
        let (parsed, rule) = self.decide(frame, false).map_err(|verdict| match verdict {
            Verdict::PassNoRule | Verdict::PassWrongSource => DropReason::UnknownGroup,
            _ => DropReason::NotUdp,
        })?;
        let Parsed { payload_offset, payload_len, .. } = parsed;
        Ok(Classified { line: rule.line, payload_offset, payload_len })
    }
}

impl RuleLookup for Rules {
    fn group(&self, key: GroupKey) -> Option<GroupRule> {
        let first = self.0.partition_point(|(other, _)| *other < key);
        self.0.get(first).filter(|(other, _)| *other == key).map(|(_, rule)| *rule)
    }

    fn source(&self, key: SourceKey) -> Option<GroupRule> {
        self.0.binary_search_by_key(&(key.group, key.source_ip), place).ok().map(|at| self.0[at].1)
    }
}

/// What rules are sorted by.
fn place((key, rule): &(GroupKey, GroupRule)) -> (GroupKey, [u8; 4]) {
    (*key, rule.source_ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::headers::{Header, Template};

    fn frame(group: &str, vlan: u16) -> Vec<u8> {
        let source = "10.0.0.1:1".parse().unwrap();
        let header = Header::multicast([2; 6], vlan, source, group.parse().unwrap(), 1).unwrap();
        let template = Template::new(&header);
        let mut frame = vec![0; template.len()];
        template.write(&mut frame, 3);
        frame.extend_from_slice(b"abc");
        frame
    }

    #[test]
    fn what_we_write_is_what_we_read_and_rules_choose_the_line() {
        let key = |vlan| GroupKey { dst_ip: [239, 1, 1, 1], dst_port: 5000, vlan };
        let rule = |line, source_ip| GroupRule { source_ip, line, flags: 0 };
        let rules = Rules::new(&[
            (key(0), rule(9, [0; 4])),
            (key(0), rule(1, [0; 4])),
            (key(7), rule(2, [10, 0, 0, 1])),
            (key(8), rule(3, [10, 0, 0, 2])),
        ]);
        let found = |line, payload_offset| Ok(Classified { line, payload_offset, payload_len: 3 });
        assert_eq!(rules.classify(&frame("239.1.1.1:5000", 0)), found(1, 42));
        assert_eq!(rules.classify(&frame("239.1.1.1:5000", 7)), found(2, 46));
        assert_eq!(rules.classify(&frame("239.1.1.1:5000", 8)), Err(DropReason::UnknownGroup), "wrong source");
        assert_eq!(rules.classify(&frame("239.1.1.1:5001", 0)), Err(DropReason::UnknownGroup));
        assert_eq!(rules.classify(&frame("239.1.1.1:5000", 0)[..44]), Err(DropReason::NotUdp), "truncated");
        assert_eq!(rules.classify(&[]), Err(DropReason::NotUdp));
    }

    #[test]
    fn a_source_has_its_own_rule_before_the_one_for_any() {
        let key = GroupKey { dst_ip: [239, 1, 1, 1], dst_port: 5000, vlan: 0 };
        let rule = |line, source_ip| (key, GroupRule { source_ip, line, flags: 0 });
        let line_of = |rules: &[_]| Rules::new(rules).classify(&frame("239.1.1.1:5000", 0)).map(|found| found.line);
        let (ours, other, any) = ([10, 0, 0, 1], [10, 0, 0, 2], [0; 4]);
        assert_eq!(line_of(&[rule(1, ours), rule(2, other)]), Ok(1));
        assert_eq!(line_of(&[rule(2, other), rule(1, ours)]), Ok(1));
        assert_eq!(line_of(&[rule(2, other), rule(3, [10, 0, 0, 3])]), Err(DropReason::UnknownGroup));
        assert_eq!(line_of(&[rule(1, ours), rule(4, any), rule(2, other)]), Ok(1));
        assert_eq!(line_of(&[rule(4, any), rule(2, other)]), Ok(4));
        assert_eq!(line_of(&[rule(1, ours), rule(5, ours)]), Ok(5), "the later one counts");
    }
}
