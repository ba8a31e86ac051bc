//! Messages to records: one decoder per channel, chosen once.
#![forbid(unsafe_code)]

pub mod itch50;

use super::midnights::Midnights;
use crate::config::plan::DecoderKind;
use crate::metrics::ChannelCounts;
use itch50::Itch50;

/// Most bytes of records that one message yields: a symbol mapping (176), a clear (56) and a definition (520).
const RECORD_BYTES: usize = 1024;

/// The records of one message, concatenated.
#[derive(Debug)]
pub struct Records {
    bytes: Box<[u8; RECORD_BYTES]>,
    len: usize,
    count: u8,
}

impl Default for Records {
    fn default() -> Self {
        Self::new()
    }
}

impl Records {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Box::new([0; RECORD_BYTES]), len: 0, count: 0 }
    }

    /// Forgets all.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
        self.count = 0;
    }

    /// Appends a record.
    #[inline]
    pub fn push<R: AsRef<[u8]>>(&mut self, record: &R) {
        // The length is a constant of the type; taken from the type and not from the header, the copy is a few moves.
        let bytes = &record.as_ref()[..size_of::<R>()];
        self.bytes[self.len..self.len + size_of::<R>()].copy_from_slice(bytes);
        self.len += size_of::<R>();
        self.count += 1;
    }

    /// The records, concatenated.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Number of records.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u8 {
        self.count
    }
}

/// The decoder of a channel.
#[derive(Debug)]
pub enum Decoder {
    /// Nasdaq TotalView-ITCH 5.0.
    Itch50(Itch50),
}

impl Decoder {
    /// Makes the decoder and allocates all that it will use.
    #[must_use]
    pub fn new(kind: DecoderKind, publisher_id: u16, max_orders: usize, midnights: Midnights) -> Self {
        match kind {
            DecoderKind::Itch50 => Self::Itch50(Itch50::new(publisher_id, max_orders, midnights)),
        }
    }

    /// Starts loading what decoding `message` will need.
    #[inline]
    pub fn prefetch(&self, message: &[u8]) {
        match self {
            Self::Itch50(itch) => itch.prefetch(message),
        }
    }

    /// Appends the records of one message. `ts_recv` is UTC, nanoseconds.
    #[inline]
    pub fn decode(&mut self, message: &[u8], sequence: u64, ts_recv: u64, records: &mut Records) {
        match self {
            Self::Itch50(itch) => itch.decode(message, sequence, ts_recv, records),
        }
    }

    /// Messages were lost for good: books may be wrong until the session changes.
    pub fn lost(&mut self) {
        match self {
            Self::Itch50(itch) => itch.lost(),
        }
    }

    /// A session begins: every order and every mapping of the one before is void.
    pub fn begin_session(&mut self) {
        match self {
            Self::Itch50(itch) => itch.begin_session(),
        }
    }

    /// Fills in the decoder's part of a channel's counters.
    pub fn add_counts(&self, counts: &mut ChannelCounts) {
        match self {
            Self::Itch50(itch) => itch.add_counts(counts),
        }
    }
}
