//! MoldUDP64 1.00 packets, written and read: the exchange's and the consumer's own framing.
//!
//! Source: Nasdaq, *MoldUDP64 Protocol Specification*, V 1.00. All integers big-endian.
#![forbid(unsafe_code)]

/// Bytes of the packet header: session 10, sequence 8, count 2.
pub const HEADER_BYTES: usize = 20;

/// Count field of an end-of-session packet.
pub const END_OF_SESSION: u16 = 0xFFFF;

/// Largest payload that fits into one Ethernet frame of 1,500 bytes.
pub const MAX_PAYLOAD_BYTES: usize = 1472;

/// A session's name.
pub type Session = [u8; 10];

/// A packet under construction: one line's.
#[derive(Clone, Debug)]
pub struct Packet {
    bytes: Vec<u8>,
    first: u64,
    count: u16,
    most_bytes: usize,
}

impl Packet {
    /// An empty packet whose first message will be number `first`.
    #[must_use]
    pub fn new(session: &Session, first: u64) -> Self {
        Self::with_room(session, first, MAX_PAYLOAD_BYTES)
    }

    /// The same, of at most so many bytes.
    #[must_use]
    pub fn with_room(session: &Session, first: u64, most_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(most_bytes);
        bytes.extend_from_slice(session);
        bytes.extend_from_slice(&first.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        Self { bytes, first, count: 0, most_bytes }
    }

    /// True if the message fits as one more block.
    #[must_use]
    pub fn has_room(&self, message: &[u8]) -> bool {
        self.bytes.len() + 2 + message.len() <= self.most_bytes
    }

    /// Appends one message block.
    ///
    /// # Panics
    /// If it does not fit; see [`Self::has_room`].
    pub fn push(&mut self, message: &[u8]) {
        assert!(self.has_room(message), "a {}-byte message does not fit", message.len());
        let length = u16::try_from(message.len()).expect("shorter than a packet");
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(message);
        self.count += 1;
    }

    /// Number of message blocks so far.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The numbers of its messages.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<u64> {
        self.first..self.first + u64::from(self.count)
    }

    /// The finished UDP payload.
    #[must_use]
    pub fn into_payload(mut self) -> Vec<u8> {
        self.bytes[18..20].copy_from_slice(&self.count.to_be_bytes());
        self.bytes
    }
}

/// A heartbeat; `next` = last sent number + 1.
#[must_use]
pub fn heartbeat(session: &Session, next: u64) -> Vec<u8> {
    Packet::new(session, next).into_payload()
}

/// An end-of-session packet; `next` = last sent number + 1.
#[must_use]
pub fn end_of_session(session: &Session, next: u64) -> Vec<u8> {
    let mut bytes = heartbeat(session, next);
    bytes[18..20].copy_from_slice(&END_OF_SESSION.to_be_bytes());
    bytes
}

/// A packet as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Session name.
    pub session: Session,
    /// Number of the first message, or the next number for heartbeats and end of session.
    pub sequence: u64,
    /// True for an end-of-session packet.
    pub is_end: bool,
    /// The messages; empty for heartbeats and end of session.
    pub blocks: Vec<&'a [u8]>,
}

/// Reads a packet strictly: blocks fill the payload exactly.
///
/// # Errors
/// What is malformed, in words.
pub fn parse(payload: &[u8]) -> Result<View<'_>, String> {
    let Some((header, mut rest)) = payload.split_at_checked(HEADER_BYTES) else {
        return Err(format!("{} bytes are shorter than the MoldUDP64 header of {HEADER_BYTES}", payload.len()));
    };
    let session = header[..10].try_into().expect("ten bytes");
    let sequence = u64::from_be_bytes(header[10..18].try_into().expect("eight bytes"));
    let count = u16::from_be_bytes([header[18], header[19]]);
    let is_end = count == END_OF_SESSION;
    let mut blocks = Vec::new();
    for block in 0..if is_end { 0 } else { count } {
        let cut = rest
            .split_at_checked(2)
            .and_then(|(length, tail)| tail.split_at_checked(usize::from(u16::from_be_bytes([length[0], length[1]]))));
        let Some((message, tail)) = cut else {
            return Err(format!("block {block} of {count} runs past the payload of {} bytes", payload.len()));
        };
        blocks.push(message);
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are left after the last of {count} blocks", rest.len()));
    }
    if sequence == 0 && !blocks.is_empty() || sequence.checked_add(blocks.len() as u64).is_none() {
        return Err(format!("sequence {sequence} with {count} blocks is out of range"));
    }
    Ok(View { session, sequence, is_end, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn packets_have_the_bytes_of_the_specification() {
        let mut packet = Packet::new(b"SESSION001", 5);
        packet.push(b"abc");
        packet.push(b"");
        assert_eq!(packet.range(), 5..7);
        let want = bytes("53455353494f4e303031 0000000000000005 0002 0003616263 0000");
        assert_eq!(packet.into_payload(), want);
        let view = parse(&want).unwrap();
        assert_eq!((view.sequence, view.is_end, view.blocks), (5, false, vec![&b"abc"[..], b""]));
    }

    #[test]
    fn heartbeat_and_end_of_session() {
        let next = 14_757_723;
        let beat = heartbeat(b"000010059B", next);
        assert_eq!(beat, bytes("30303030313030353942 0000000000e12f5b 0000"));
        let end = end_of_session(b"000010059B", next);
        assert_eq!(end, bytes("30303030313030353942 0000000000e12f5b ffff"));
        assert!(parse(&end).unwrap().is_end && parse(&end).unwrap().blocks.is_empty());
        assert!(!parse(&beat).unwrap().is_end);
    }

    #[test]
    fn malformed_packets_are_refused() {
        let good = bytes("30303030313030353942 0000000000e12f5a 0001 0003 616263");
        assert!(parse(&good).is_ok());
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "{cut} bytes");
        }
        assert!(parse(&[&good[..], &[0]].concat()).unwrap_err().contains("1 bytes are left"));
        assert!(parse(&bytes("30303030313030353942 0000000000000000 0001 0000")).is_err());
        assert!(parse(&bytes("30303030313030353942 ffffffffffffffff 0001 0000")).is_err());
    }
}
