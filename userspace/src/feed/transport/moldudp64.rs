//! MoldUDP64: Nasdaq, *MoldUDP64 Protocol Specification*, version 1.00. All integers are big-endian.
#![forbid(unsafe_code)]

use super::{PacketHeader, PacketKind};
use crate::feed::Session;
use crate::metrics::DropReason;

/// Session (10), sequence (8), message count (2).
pub const HEADER_BYTES: usize = 20;

/// The length in front of each message block; it does not count itself.
pub const BLOCK_HEADER_BYTES: usize = 2;

/// The message count of a heartbeat.
pub const HEARTBEAT: u16 = 0;

/// The message count of an end-of-session packet.
pub const END_OF_SESSION: u16 = 0xFFFF;

/// Most messages of one packet: the next count means end of session.
pub const MAX_COUNT: u16 = END_OF_SESSION - 1;

/// Reads the header ("Downstream Packet").
///
/// # Errors
/// [`DropReason::TruncatedHeader`] below 20 bytes; [`DropReason::TruncatedBlocks`] for more messages than can follow;
/// [`DropReason::BadSequence`] for sequence 0 with messages (numbering
/// starts at 1), or when the sequence after the last message would not fit a `u64`.
#[inline]
pub fn parse_header(payload: &[u8]) -> Result<PacketHeader, DropReason> {
    let header: &[u8; HEADER_BYTES] = payload.first_chunk().ok_or(DropReason::TruncatedHeader)?;
    let mut session: Session = [0; 10];
    session.copy_from_slice(&header[..10]);
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&header[10..18]);
    let sequence = u64::from_be_bytes(sequence);
    let (kind, count) = match u16::from_be_bytes([header[18], header[19]]) {
        HEARTBEAT => (PacketKind::Heartbeat, 0),
        END_OF_SESSION => (PacketKind::EndOfSession, 0),
        count => (PacketKind::Data, count),
    };
    // A lying count is seen before anything is made of it.
    if usize::from(count) * BLOCK_HEADER_BYTES > payload.len() - HEADER_BYTES {
        return Err(DropReason::TruncatedBlocks);
    }
    if (sequence == 0 && count > 0) || sequence.checked_add(u64::from(count)).is_none() {
        return Err(DropReason::BadSequence);
    }
    Ok(PacketHeader { session, sequence, count, kind })
}

/// Writes a header: `count` is a number of messages, [`HEARTBEAT`] or [`END_OF_SESSION`].
pub fn write_header(header: &mut [u8; HEADER_BYTES], session: &Session, sequence: u64, count: u16) {
    header[..10].copy_from_slice(session);
    header[10..18].copy_from_slice(&sequence.to_be_bytes());
    header[18..].copy_from_slice(&count.to_be_bytes());
}

/// Walks the blocks; see [`super::check_blocks`].
///
/// # Errors
/// [`DropReason::TruncatedBlocks`] if the payload ends before block `count` does.
#[inline]
pub fn check_blocks(payload: &[u8], count: u16) -> Result<usize, DropReason> {
    let mut rest = payload.get(HEADER_BYTES..).ok_or(DropReason::TruncatedHeader)?;
    for _ in 0..count {
        rest = split_block(rest).ok_or(DropReason::TruncatedBlocks)?.1;
    }
    Ok(rest.len())
}

/// The first block's message, and what follows it.
#[inline]
fn split_block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<BLOCK_HEADER_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// The messages of a packet, in order. Ends early where the payload does, so it never panics.
#[derive(Clone, Debug)]
pub struct Blocks<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Blocks<'a> {
    /// The first `count` blocks of `payload`, which starts with the packet header.
    #[must_use]
    pub fn new(payload: &'a [u8], count: u16) -> Self {
        Self { rest: payload.get(HEADER_BYTES..).unwrap_or_default(), left: count }
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (message, rest) = split_block(self.rest)?;
        self.rest = rest;
        Some(message)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u64, count: u16, tail: &[u8]) -> Vec<u8> {
        let mut bytes = [0; HEADER_BYTES];
        write_header(&mut bytes, b"SESSION001", sequence, count);
        [&bytes[..], tail].concat()
    }

    #[test]
    fn reads_the_constructed_vector_of_two_blocks_one_of_them_empty() {
        let bytes = packet(5, 2, &[0, 3, b'a', b'b', b'c', 0, 0]);
        let header = parse_header(&bytes).unwrap();
        assert_eq!(header, PacketHeader { session: *b"SESSION001", sequence: 5, count: 2, kind: PacketKind::Data });
        assert_eq!(header.end(), 7);
        assert_eq!(check_blocks(&bytes, 2), Ok(0));
        assert_eq!(Blocks::new(&bytes, 2).collect::<Vec<_>>(), [&b"abc"[..], b""]);
    }

    #[test]
    fn a_header_without_messages_is_a_heartbeat_or_the_end() {
        let kind = |count| parse_header(&packet(9, count, &[])).map(|header| (header.kind, header.count, header.end()));
        assert_eq!(kind(0), Ok((PacketKind::Heartbeat, 0, 9)));
        assert_eq!(kind(0xFFFF), Ok((PacketKind::EndOfSession, 0, 9)));
    }

    #[test]
    fn short_headers_and_impossible_sequences_are_malformed() {
        for length in 0..HEADER_BYTES {
            assert_eq!(parse_header(&packet(1, 0, &[])[..length]), Err(DropReason::TruncatedHeader));
        }
        assert_eq!(parse_header(&packet(0, 1, &[0, 0])), Err(DropReason::BadSequence));
        assert_eq!(parse_header(&packet(u64::MAX, 1, &[0, 0])), Err(DropReason::BadSequence));
        assert!(parse_header(&packet(u64::MAX - 1, 1, &[0, 0])).is_ok());
        assert!(parse_header(&packet(0, 0, &[])).is_ok());
    }

    #[test]
    fn a_count_or_length_beyond_the_payload_rejects_the_whole_packet() {
        let two = [0, 1, b'x', 0, 2, b'y', b'z'];
        assert_eq!(check_blocks(&packet(1, 2, &two), 2), Ok(0));
        for cut in 0..two.len() {
            assert_eq!(check_blocks(&packet(1, 2, &two[..cut]), 2), Err(DropReason::TruncatedBlocks), "cut {cut}");
        }
        assert_eq!(check_blocks(&packet(1, 3, &two), 3), Err(DropReason::TruncatedBlocks));
        assert_eq!(check_blocks(&packet(1, MAX_COUNT, &two), MAX_COUNT), Err(DropReason::TruncatedBlocks));
    }

    #[test]
    fn bytes_after_the_last_block_are_told_not_refused() {
        assert_eq!(check_blocks(&packet(1, 1, &[0, 1, b'x', 9, 9, 9]), 1), Ok(3));
    }
}
