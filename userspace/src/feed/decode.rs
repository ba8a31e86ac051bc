//! Messages to records: one decoder per channel, chosen once.
#![forbid(unsafe_code)]

pub mod itch50;

use dbn::record::{MboMsg, RecordHeader};

use super::directory::Directory;
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

    /// Appends a market-by-order record: the same bytes as [`Self::push`], for the record that nearly all messages yield.
    ///
    /// Written field by field. A copy of the struct would read back, as one word, bytes that were written one by one just
    /// before, which the processor cannot forward from its store buffer: it costs more than all the rest of decoding.
    #[inline(always)]
    pub fn push_mbo(&mut self, record: &MboMsg) {
        const LENGTH: usize = size_of::<MboMsg>();
        let out: &mut [u8; LENGTH] =
            self.bytes[self.len..].first_chunk_mut().expect("room for all of a message's records");
        let head = &record.hd;
        let words = [(LENGTH / RecordHeader::LENGTH_MULTIPLIER) as u8, head.rtype].map(u64::from);
        let head_word =
            words[0] | words[1] << 8 | u64::from(head.publisher_id) << 16 | u64::from(head.instrument_id) << 32;
        let marks = [record.flags.raw(), record.channel_id, record.action as u8, record.side as u8].map(u64::from);
        let marks = marks[0] | marks[1] << 8 | marks[2] << 16 | marks[3] << 24;
        let mut put = |at: usize, word: u64| out[at..at + 8].copy_from_slice(&word.to_le_bytes());
        put(0, head_word);
        put(8, head.ts_event);
        put(16, record.order_id);
        put(24, record.price as u64);
        put(32, u64::from(record.size) | marks << 32);
        put(40, record.ts_recv);
        put(48, u64::from(record.ts_in_delta as u32) | u64::from(record.sequence) << 32);
        self.len += LENGTH;
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

    /// Messages were lost for good, or a session is joined late: books may be wrong until the session changes.
    pub fn lost(&mut self) {
        match self {
            Self::Itch50(itch) => itch.lost(),
        }
    }

    /// What follows is a snapshot of books that a consumer may have had otherwise before; or follows the snapshot.
    pub fn snapshot(&mut self, begins: bool) {
        match self {
            Self::Itch50(itch) => itch.snapshot(begins),
        }
    }

    /// A session begins: every order and every mapping of the one before is void.
    pub fn begin_session(&mut self) {
        match self {
            Self::Itch50(itch) => itch.begin_session(),
        }
    }

    /// The symbols of the session.
    #[inline]
    #[must_use]
    pub fn directory(&self) -> &Directory {
        match self {
            Self::Itch50(itch) => itch.symbols(),
        }
    }

    /// Fills in the decoder's part of a channel's counters.
    pub fn add_counts(&self, counts: &mut ChannelCounts) {
        match self {
            Self::Itch50(itch) => itch.add_counts(counts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dbn::{FlagSet, rtype};

    #[test]
    fn a_record_written_by_fields_is_the_record() {
        let record = MboMsg {
            hd: RecordHeader::new::<MboMsg>(rtype::MBO, 0x0102, 0x0304_0506, 0x0708_090A_0B0C_0D0E),
            order_id: 0xF1F2_F3F4_F5F6_F7F8,
            price: -0x0102_0304_0506_0708,
            size: 0xE1E2_E3E4,
            flags: FlagSet::new(0xA4),
            channel_id: 0xC5,
            action: -3,
            side: 0x42,
            ts_recv: 0x1112_1314_1516_1718,
            ts_in_delta: -0x0102_0304,
            sequence: 0xD1D2_D3D4,
        };
        let (mut by_fields, mut whole) = (Records::new(), Records::new());
        for _ in 0..3 {
            by_fields.push_mbo(&record);
            whole.push(&record);
        }
        assert_eq!((by_fields.bytes(), by_fields.count()), (whole.bytes(), whole.count()));
    }
}
