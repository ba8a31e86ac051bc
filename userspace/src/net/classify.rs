//! The rules in user space, for frames that carry no metadata: the same parser and the same lookup as the XDP program.
#![forbid(unsafe_code)]

use xdp_ebpf::headers::{Parsed, parse};
use xdp_ebpf::{GroupKey, GroupRule};

use super::LineIndex;
use crate::metrics::DropReason;

/// Group rules, sorted for lookup.
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
    /// A table of these rules; of two with the same key the later one counts.
    #[must_use]
    pub fn new(rules: &[(GroupKey, GroupRule)]) -> Self {
        let mut sorted = rules.to_vec();
        sorted.reverse();
        sorted.sort_by_key(|(key, _)| *key);
        sorted.dedup_by_key(|(key, _)| *key);
        Self(sorted)
    }

    /// Finds the datagram in an Ethernet frame, and its line.
    ///
    /// # Errors
    /// [`DropReason::NotUdp`] if there is no whole IPv4 multicast UDP datagram in it, [`DropReason::UnknownGroup`] if no
    /// rule takes its group or its source.
    pub fn classify(&self, frame: &[u8]) -> Result<Classified, DropReason> {
        let Parsed { key, source_ip, payload_offset, payload_len } = parse(frame).map_err(|_| DropReason::NotUdp)?;
        let at = self.0.binary_search_by_key(&key, |(key, _)| *key).map_err(|_| DropReason::UnknownGroup)?;
        let rule = self.0[at].1;
        if !rule.accepts(source_ip) {
            return Err(DropReason::UnknownGroup);
        }
        Ok(Classified { line: rule.line, payload_offset, payload_len })
    }
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
}
