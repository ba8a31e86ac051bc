//! One MoldUDP64 packet under construction in a transmit frame.
#![forbid(unsafe_code)]

use crate::feed::Session;
use crate::net::PAYLOAD_OFFSET;
use crate::net::umem::{Frame, Frames};

/// Bytes of the MoldUDP64 downstream header: session, sequence, count (MoldUDP64 1.00, "Downstream Packet").
pub const HEADER_BYTES: usize = 20;

/// Bytes of a block's length field.
pub const LENGTH_BYTES: usize = 2;

/// `count` of an end-of-session packet.
pub const END_OF_SESSION: u16 = 0xFFFF;

/// A packet that still takes blocks. Closing it yields the frame and the payload length.
#[derive(Debug)]
pub struct OpenPacket {
    frame: Frame,
    session: Session,
    first_sequence: u64,
    count: u16,
    len: usize,
    has_content: bool,
}

impl OpenPacket {
    /// Starts a packet whose first block will be message `first_sequence`.
    #[must_use]
    pub fn new(frame: Frame, session: Session, first_sequence: u64) -> Self {
        Self { frame, session, first_sequence, count: 0, len: HEADER_BYTES, has_content: false }
    }

    /// True if message `sequence` of `session` is the one that comes next in this packet.
    #[must_use]
    pub fn continues(&self, session: &Session, sequence: u64) -> bool {
        self.first_sequence + u64::from(self.count) == sequence && self.session == *session
    }

    /// True if a block of `body_bytes` still fits below `payload_bytes`.
    ///
    /// The count stays below [`END_OF_SESSION`] by itself: 65,535 blocks take more bytes than a datagram has.
    #[must_use]
    pub fn has_room(&self, body_bytes: usize, payload_bytes: usize) -> bool {
        self.len + LENGTH_BYTES + body_bytes <= payload_bytes
    }

    /// Appends one block. The caller has checked [`Self::has_room`].
    pub fn push(&mut self, body: &[u8], frames: &Frames) {
        let at = PAYLOAD_OFFSET + self.len;
        let buffer = frames.buffer_mut(&mut self.frame);
        let length = u16::try_from(body.len()).expect("a block fits into a datagram");
        buffer[at..at + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        buffer[at + LENGTH_BYTES..at + LENGTH_BYTES + body.len()].copy_from_slice(body);
        self.len += LENGTH_BYTES + body.len();
        self.count += 1;
        self.has_content |= !body.is_empty();
    }

    /// True once a block with at least one byte was written.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// Writes the header; returns the frame and its UDP payload length in bytes.
    #[must_use]
    pub fn close(self, frames: &Frames) -> (Frame, usize) {
        let Self { frame, session, first_sequence, count, len, .. } = self;
        (write_header(frame, &session, first_sequence, count, frames), len)
    }

    /// Gives up the packet unsent.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        self.frame
    }
}

/// Writes a header alone: a heartbeat (`count` 0) or an end of session; `next` is the next message number.
#[must_use]
pub fn write_header(mut frame: Frame, session: &Session, next: u64, count: u16, frames: &Frames) -> Frame {
    let header = &mut frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + HEADER_BYTES];
    header[..10].copy_from_slice(session);
    header[10..18].copy_from_slice(&next.to_be_bytes());
    header[18..].copy_from_slice(&count.to_be_bytes());
    frame
}
