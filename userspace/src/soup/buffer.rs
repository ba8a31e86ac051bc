//! Bytes as they come from a connection, and the packets in them.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;

use super::packet::{self, Malformed};

/// Room for the longest packet and as much again, so that a read rarely finds less than a packet's room.
const BUFFER_BYTES: usize = 2 * packet::MAX_PACKET_BYTES;

/// What has been read and not yet taken. Never grows: whoever does not take packets has no room to read into.
pub struct Buffer {
    bytes: Box<[u8]>,
    /// What is not yet taken.
    filled: Range<usize>,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { bytes: vec![0; BUFFER_BYTES].into_boxed_slice(), filled: 0..0 }
    }
}

impl Buffer {
    /// Where to read into; say with [`Buffer::filled`] how much it was. Never empty unless a whole packet waits to be taken.
    pub fn space(&mut self) -> &mut [u8] {
        // Moves at most one packet's beginning for every packet's length that was read.
        if self.filled.is_empty() || self.bytes.len() - self.filled.end < packet::MAX_PACKET_BYTES {
            self.bytes.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        &mut self.bytes[self.filled.end..]
    }

    /// So many bytes of [`Buffer::space`] were read.
    ///
    /// # Panics
    /// If there was not so much space.
    pub fn filled(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes.len() - self.filled.end, "more than there was space for");
        self.filled.end += bytes;
    }

    /// Takes the next whole packet: its type and where its payload is, for [`Buffer::payload`].
    ///
    /// # Errors
    /// [`Malformed::Empty`]; where the next packet begins is then unknown for good.
    pub fn take(&mut self) -> Result<Option<(u8, Range<usize>)>, Malformed> {
        let Some((kind, payload)) = packet::split(&self.bytes[self.filled.clone()])? else { return Ok(None) };
        let start = self.filled.start + packet::HEADER_BYTES;
        let end = start + payload.len();
        self.filled.start = end;
        Ok(Some((kind, start..end)))
    }

    /// The payload of the packet that was taken last, until [`Buffer::space`] is called.
    #[must_use]
    pub fn payload(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[place]
    }

    /// Bytes that wait, whole packets or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("filled", &self.filled).finish_non_exhaustive()
    }
}
