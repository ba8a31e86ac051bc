//! Builds test frames.
#![forbid(unsafe_code)]

use std::vec;
use std::vec::Vec;

use super::{GROUP, PORT, SOURCE};

/// Builds frames: a good one, but for what a test changes.
#[derive(Clone, Debug)]
pub(super) struct Build {
    /// Tags, outermost first: TPID and TCI.
    pub(super) tags: Vec<(u16, u16)>,
    pub(super) ether_type: u16,
    pub(super) version_and_ihl: u8,
    /// IPv4 options, a multiple of four bytes.
    pub(super) options: Vec<u8>,
    /// Overrides the right one.
    pub(super) total_len: Option<u16>,
    pub(super) fragment: u16,
    pub(super) protocol: u8,
    pub(super) source: [u8; 4],
    pub(super) group: [u8; 4],
    pub(super) port: u16,
    /// Overrides the right one.
    pub(super) udp_len: Option<u16>,
    pub(super) payload: Vec<u8>,
    /// Bytes after the UDP datagram, inside the IP packet.
    pub(super) slack: usize,
    /// Bytes after the IP packet.
    pub(super) padding: usize,
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
    pub(super) fn bytes(&self) -> Vec<u8> {
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
