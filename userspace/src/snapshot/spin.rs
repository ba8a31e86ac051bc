//! One snapshot as it comes in: kept until it is complete, and then cut into packets.
//!
//! GLIMPSE 5.0: directory, trading states and displayed orders as TotalView-ITCH messages, then End of Snapshot (`G`) with the
//! sequence number at which it was taken: the live stream goes on with the message of that number.
#![forbid(unsafe_code)]

use crate::feed::Session;
use crate::feed::decode::itch50::messages::{self, ParseError};
use crate::feed::transport::moldudp64::{BLOCK_HEADER_BYTES, HEADER_BYTES, write_header};
use crate::net::handoff::HANDOFF_BYTES;
use crate::soup::packet::number_of;

/// Type of the End of Snapshot message, its length, and where its number is (20 characters).
const END: u8 = b'G';
const END_BYTES: usize = 21;

/// Longest message that a packet to the worker has room for, bytes; ITCH's longest has 50.
const MOST_BYTES: usize = HANDOFF_BYTES - HEADER_BYTES - BLOCK_HEADER_BYTES;

/// Bytes that a message of a snapshot has on average at most, its length included: an add with attribution has 42.
const MEAN_BYTES: u64 = 64;

/// Why a snapshot cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpinError {
    /// More messages than allowed, or more bytes than so many messages have.
    #[error("it has more messages than max_messages = {0}")]
    TooLong(u64),
    /// Shorter than its type requires, or longer than any message.
    #[error("message {number} of type {kind:?} has {bytes} bytes")]
    Length {
        /// Position in the snapshot, from 1.
        number: u64,
        /// Type byte.
        kind: char,
        /// Its length.
        bytes: usize,
    },
    /// An event, which changes a book or prints a trade: no snapshot has it.
    #[error("message {number} is of type {kind:?}, which is no part of a snapshot")]
    Event {
        /// Position in the snapshot, from 1.
        number: u64,
        /// Type byte.
        kind: char,
    },
    /// End of Snapshot without a number.
    #[error("its end has no number")]
    End,
    /// No instrument.
    #[error("it ends without having named an instrument")]
    Empty,
    /// The snapshot has more messages than there were before it.
    #[error("it has {messages} messages, but is of the time before message {next}")]
    Numbers {
        /// Messages of the snapshot.
        messages: u64,
        /// Number of the first message that it does not contain.
        next: u64,
    },
}

/// A snapshot that comes in.
#[derive(Debug)]
pub struct Spin {
    max_messages: u64,
    /// Messages, each behind its length (u16, big-endian): as a packet will have them.
    blocks: Vec<u8>,
    messages: u64,
    has_instrument: bool,
}

/// A snapshot that is complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    blocks: Vec<u8>,
    /// How many messages it has; fewer than [`Self::next`].
    pub messages: u64,
    /// Number of the first message that it does not contain.
    pub next: u64,
}

impl Spin {
    /// A snapshot of which nothing has come yet, and of which at most so many messages may come.
    #[must_use]
    pub fn new(max_messages: u64) -> Self {
        Self { max_messages, blocks: Vec::new(), messages: 0, has_instrument: false }
    }

    /// Messages so far.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Takes the next message; the number of the first message that the snapshot does not contain, if this was its end.
    ///
    /// # Errors
    /// What makes all of it useless.
    pub fn push(&mut self, message: &[u8]) -> Result<Option<u64>, SpinError> {
        let number = self.messages + 1;
        let kind = message.first().map_or('\0', |kind| char::from(*kind));
        let bytes = message.len();
        if message.first() == Some(&END) {
            if bytes < END_BYTES {
                return Err(SpinError::Length { number, kind, bytes });
            }
            let next = number_of(&message[1..END_BYTES]).ok_or(SpinError::End)?;
            return Ok(Some(next));
        }
        match messages::parse(message) {
            Err(ParseError::UnknownType(_)) if (1..=MOST_BYTES).contains(&bytes) => {}
            Err(_) => return Err(SpinError::Length { number, kind, bytes }),
            Ok(_) if bytes > MOST_BYTES => return Err(SpinError::Length { number, kind, bytes }),
            Ok(_) if matches!(message[0], b'E' | b'C' | b'X' | b'D' | b'U' | b'P' | b'Q' | b'B') => {
                return Err(SpinError::Event { number, kind });
            }
            Ok(_) => self.has_instrument |= message[0] == b'R',
        }
        let total = self.blocks.len() + BLOCK_HEADER_BYTES + bytes;
        if number > self.max_messages || total as u64 > self.max_messages * MEAN_BYTES {
            return Err(SpinError::TooLong(self.max_messages));
        }
        let length = u16::try_from(bytes).expect("at most MOST_BYTES");
        self.blocks.extend_from_slice(&length.to_be_bytes());
        self.blocks.extend_from_slice(message);
        self.messages = number;
        Ok(None)
    }

    /// The snapshot whose end said `next`.
    ///
    /// # Errors
    /// It has no instrument, or more messages than can have been before that number.
    pub fn finish(self, next: u64) -> Result<Snapshot, SpinError> {
        let Self { blocks, messages, .. } = self;
        if !self.has_instrument {
            return Err(SpinError::Empty);
        }
        if messages >= next {
            return Err(SpinError::Numbers { messages, next });
        }
        Ok(Snapshot { blocks, messages, next })
    }
}

/// Messages are cut so that a packet's records fit into about one output packet each way; a directory message yields ten
/// times the bytes of an order.
const DIRECTORY_COST: u64 = 10;

impl Snapshot {
    /// Cuts it into MoldUDP64 packets of the session, numbered so that the last message has the number before [`Self::next`].
    /// `each` gets a packet and what it costs, in orders; it says whether to go on.
    pub fn packets(&self, session: &Session, mut each: impl FnMut(&[u8], u64) -> bool) {
        let mut packet = [0; HANDOFF_BYTES];
        let mut sequence = self.next - self.messages;
        let mut rest = &self.blocks[..];
        while !rest.is_empty() {
            let (mut at, mut count, mut cost) = (HEADER_BYTES, 0_u16, 0);
            while let Some((length, _)) = rest.split_first_chunk::<BLOCK_HEADER_BYTES>() {
                let block = BLOCK_HEADER_BYTES + usize::from(u16::from_be_bytes(*length));
                if at + block > HANDOFF_BYTES {
                    break;
                }
                cost += if rest[BLOCK_HEADER_BYTES] == b'R' { DIRECTORY_COST } else { 1 };
                packet[at..at + block].copy_from_slice(&rest[..block]);
                rest = &rest[block..];
                (at, count) = (at + block, count + 1);
            }
            let header = packet.first_chunk_mut().expect("a packet has room for its header");
            write_header(header, session, sequence, count);
            if !each(&packet[..at], cost) {
                return;
            }
            sequence += u64::from(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::plan::TransportKind::MoldUdp64;
    use crate::feed::transport::{PacketHeader, blocks, check_blocks};

    fn message(kind: u8) -> Vec<u8> {
        let bytes = match kind {
            b'R' => 39,
            b'H' => 25,
            b'F' => 40,
            _ => 36,
        };
        let mut message = vec![b' '; bytes];
        message[0] = kind;
        message
    }

    fn end(text: &str) -> Vec<u8> {
        [b"G", text.as_bytes()].concat()
    }

    fn spin(kinds: &[u8]) -> Spin {
        let mut spin = Spin::new(1000);
        kinds.iter().for_each(|kind| assert_eq!(spin.push(&message(*kind)), Ok(None)));
        spin
    }

    #[test]
    fn the_end_has_its_number_padded_on_either_side() {
        let good = ["                  77", "77                  ", "00000000000000000077", "\0\0        77        "];
        for text in good {
            assert_eq!(spin(b"RH").push(&end(text)), Ok(Some(77)), "{text:?}");
        }
        for text in ["                    ", "7 7                 ", "-7                  ", "99999999999999999999"] {
            assert_eq!(spin(b"RH").push(&end(text)), Err(SpinError::End), "{text:?}");
        }
        assert_eq!(spin(b"RH").push(b"G77"), Err(SpinError::Length { number: 3, kind: 'G', bytes: 3 }));
    }

    #[test]
    fn what_is_no_part_of_a_snapshot_spoils_it() {
        for kind in *b"ECXDUPQB" {
            let mut event = vec![b' '; 64];
            event[0] = kind;
            let kind = char::from(kind);
            assert_eq!(spin(b"RA").push(&event), Err(SpinError::Event { number: 3, kind }));
        }
        for bytes in [0, 1, 35, MOST_BYTES + 1] {
            let mut add = vec![b' '; bytes];
            add.iter_mut().take(1).for_each(|kind| *kind = b'A');
            assert!(matches!(spin(b"R").push(&add), Err(SpinError::Length { number: 2, .. })), "{bytes}");
        }
        // A type that nobody knows yet changes no book.
        assert_eq!(spin(b"R").push(b"~unknown"), Ok(None));
        assert!(spin(b"R").push(&vec![b'~'; MOST_BYTES + 1]).is_err());
        assert_eq!(spin(b"HA").finish(100), Err(SpinError::Empty));
        assert_eq!(spin(b"RHA").finish(3), Err(SpinError::Numbers { messages: 3, next: 3 }));
        assert_eq!(spin(b"RHA").finish(0), Err(SpinError::Numbers { messages: 3, next: 0 }));
        assert!(spin(b"RHA").finish(4).is_ok());
    }

    #[test]
    fn it_may_not_be_longer_than_allowed() {
        let mut few = Spin::new(2);
        assert_eq!([few.push(&message(b'R')), few.push(&message(b'A'))], [Ok(None); 2]);
        assert_eq!(few.push(&message(b'A')), Err(SpinError::TooLong(2)));
        assert_eq!(few.push(&end("9                   ")), Ok(Some(9)), "its end is no message of it");
        let mut long = Spin::new(10);
        let outcomes: Vec<_> = (0..10).map(|_| long.push(&[b'~'; 200])).collect();
        assert_eq!(outcomes.iter().position(Result::is_err), Some(3), "640 bytes in all");
    }

    proptest! {
        /// Whatever it consists of, its packets are whole, in sequence, end before `next`, and hold just its messages.
        #[test]
        fn packets_hold_all_of_it_in_order(kinds in prop::collection::vec(prop::sample::select(b"RHAF".to_vec()), 0..400)) {
            let mut spin = Spin::new(1000);
            let sent: Vec<Vec<u8>> = [b'R'].into_iter().chain(kinds).enumerate().map(|(i, kind)| {
                let mut message = message(kind);
                message[5..9].copy_from_slice(&u32::try_from(i).unwrap().to_be_bytes());
                message
            }).collect();
            for message in &sent {
                prop_assert_eq!(spin.push(message), Ok(None));
            }
            let snapshot = spin.finish(10_000).unwrap();
            let (mut got, mut expected) = (Vec::new(), 10_000 - sent.len() as u64);
            snapshot.packets(b"SESSION001", |packet, cost| {
                let header = PacketHeader::parse(MoldUdp64, packet).unwrap();
                assert_eq!((header.sequence, check_blocks(MoldUdp64, packet, header.count)), (expected, Ok(0)));
                let messages: Vec<Vec<u8>> = blocks(MoldUdp64, packet, header.count).map(<[u8]>::to_vec).collect();
                let directory = messages.iter().filter(|message| message[0] == b'R').count() as u64;
                assert_eq!(cost, u64::from(header.count) + 9 * directory);
                expected = header.end();
                got.extend(messages);
                true
            });
            prop_assert_eq!(expected, 10_000);
            prop_assert_eq!(got, sent);
        }
    }
}
