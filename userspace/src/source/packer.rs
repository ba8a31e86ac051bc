//! Messages of a stream as the packets of a line: MoldUDP64's, under the stream's own session and numbers.
#![forbid(unsafe_code)]

use crate::feed::Session;
use crate::feed::transport::moldudp64::{BLOCK_HEADER_BYTES, HEADER_BYTES, MAX_COUNT, write_header};
use crate::net::handoff::HANDOFF_BYTES;

/// Longest message that fits a packet.
pub const MESSAGE_BYTES: usize = HANDOFF_BYTES - HEADER_BYTES - BLOCK_HEADER_BYTES;

/// The packet under construction.
#[derive(Debug)]
pub struct Packer {
    bytes: Vec<u8>,
    first: u64,
    count: u16,
}

impl Default for Packer {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(HANDOFF_BYTES);
        bytes.resize(HEADER_BYTES, 0);
        Self { bytes, first: 0, count: 0 }
    }
}

impl Packer {
    /// Appends a message; false if it must begin another packet: there is no room, or it does not follow the last one.
    ///
    /// # Panics
    /// For a message longer than [`MESSAGE_BYTES`].
    pub fn push(&mut self, sequence: u64, message: &[u8]) -> bool {
        assert!(message.len() <= MESSAGE_BYTES, "longer than a packet");
        if self.count == 0 {
            self.first = sequence;
        }
        let has_room = self.bytes.len() + BLOCK_HEADER_BYTES + message.len() <= HANDOFF_BYTES;
        if !has_room || self.count == MAX_COUNT || sequence != self.first + u64::from(self.count) {
            return false;
        }
        let length = u16::try_from(message.len()).expect("at most a packet");
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(message);
        self.count += 1;
        true
    }

    /// Finishes the packet, if it has messages, and begins the next.
    pub fn take(&mut self, session: &Session, hand: impl FnOnce(&[u8])) {
        if self.count == 0 {
            return;
        }
        let header = self.bytes.first_chunk_mut().expect("it has room for the header");
        write_header(header, session, self.first, self.count);
        hand(&self.bytes);
        self.bytes.truncate(HEADER_BYTES);
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::feed::transport::moldudp64::{Blocks, check_blocks, parse_header};

    const SESSION: Session = *b"SESS01    ";

    #[test]
    fn the_longest_message_fits_and_fills_a_packet() {
        let mut packer = Packer::default();
        assert!(packer.push(7, &[1; MESSAGE_BYTES]) && !packer.push(8, b""));
        let mut lens = Vec::new();
        packer.take(&SESSION, |payload| lens.push(payload.len()));
        packer.take(&SESSION, |payload| lens.push(payload.len()));
        assert_eq!(lens, [HANDOFF_BYTES], "an empty packet is none");
        assert!(packer.push(8, b"") && !packer.push(10, b"") && packer.push(9, b""));
    }

    proptest! {
        /// Every message comes out once, under its number, in packets that the transport takes.
        #[test]
        fn packs_what_it_is_given(lens in prop::collection::vec((0..1450_usize, any::<bool>()), 1..60), first in 1..1_000_000_u64) {
            let mut packer = Packer::default();
            let mut packets: Vec<Vec<u8>> = Vec::new();
            let mut sequence = first;
            let mut given = Vec::new();
            for (len, is_skipped) in lens {
                sequence += u64::from(is_skipped);
                let message = vec![len as u8; len];
                if !packer.push(sequence, &message) {
                    packer.take(&SESSION, |payload| packets.push(payload.to_vec()));
                    prop_assert!(packer.push(sequence, &message));
                }
                given.push((sequence, message));
                sequence += 1;
            }
            packer.take(&SESSION, |payload| packets.push(payload.to_vec()));
            let mut got = Vec::new();
            for packet in &packets {
                let header = parse_header(packet).unwrap();
                prop_assert_eq!(check_blocks(packet, header.count), Ok(0));
                prop_assert!(packet.len() <= HANDOFF_BYTES && header.session == SESSION);
                got.extend((header.sequence..).zip(Blocks::new(packet, header.count).map(<[u8]>::to_vec)));
            }
            prop_assert_eq!(got, given);
        }
    }
}
