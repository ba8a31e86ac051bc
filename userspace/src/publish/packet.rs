//! One MoldUDP64 packet under construction in a transmit frame.
#![forbid(unsafe_code)]

use crate::feed::Session;
use crate::feed::transport::moldudp64::{self, BLOCK_HEADER_BYTES, HEADER_BYTES};
use crate::net::PAYLOAD_OFFSET;
use crate::net::umem::{Frame, Frames};

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
    /// The count stays below [`END_OF_SESSION`](moldudp64::END_OF_SESSION) by itself: 65,535 blocks take more bytes than a datagram has.
    #[must_use]
    pub fn has_room(&self, body_bytes: usize, payload_bytes: usize) -> bool {
        self.len + BLOCK_HEADER_BYTES + body_bytes <= payload_bytes
    }

    /// Appends one block, of a notice and a body. The caller has checked [`Self::has_room`] for both together.
    pub fn push(&mut self, notice: &[u8], body: &[u8], frames: &Frames) {
        let at = PAYLOAD_OFFSET + self.len;
        let buffer = frames.buffer_mut(&mut self.frame);
        let block_bytes = notice.len() + body.len();
        let length = u16::try_from(block_bytes).expect("a block fits into a datagram");
        let (head, block) = buffer[at..at + BLOCK_HEADER_BYTES + block_bytes].split_at_mut(BLOCK_HEADER_BYTES);
        head.copy_from_slice(&length.to_be_bytes());
        // Nearly always there is no notice, and then this is one copy.
        let (front, rest) = block.split_at_mut(notice.len());
        if !notice.is_empty() {
            front.copy_from_slice(notice);
        }
        rest.copy_from_slice(body);
        self.len += BLOCK_HEADER_BYTES + block_bytes;
        self.count += 1;
        self.has_content |= block_bytes > 0;
    }

    /// True once a block with at least one byte was written.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// Writes the header; returns the frame and its UDP payload length in bytes.
    pub fn close(self, frames: &Frames) -> (Frame, usize) {
        let Self { frame, session, first_sequence, count, len, .. } = self;
        (write_header(frame, &session, first_sequence, count, frames), len)
    }

    /// Gives up the packet unsent.
    pub fn into_frame(self) -> Frame {
        self.frame
    }
}

/// Writes a header alone: a heartbeat (`count` 0) or an end of session; `next` is the next message number.
pub fn write_header(mut frame: Frame, session: &Session, next: u64, count: u16, frames: &Frames) -> Frame {
    let header = frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..].first_chunk_mut();
    moldudp64::write_header(header.expect("a frame holds a header"), session, next, count);
    frame
}
