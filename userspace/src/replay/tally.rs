//! What replay counts of the delivered messages.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::books::Books;
use crate::config::plan::TransportKind;
use crate::feed::transport::{PacketHeader, blocks, check_blocks};
use crate::feed::{Block, BlockSink, ChannelIndex, Session};

/// Counts of one line, before arbitration.
#[derive(Debug, Default)]
pub(super) struct LineTally {
    pub(super) messages: u64,
    pub(super) first_sequence: Option<u64>,
    pub(super) last_sequence: Option<u64>,
    pub(super) by_type: BTreeMap<char, u64>,
}

impl LineTally {
    /// Counts a packet if it is whole; the channel counts what is malformed.
    pub(super) fn packet(&mut self, transport: TransportKind, payload: &[u8]) {
        let Ok(header) = PacketHeader::parse(transport, payload) else { return };
        if header.count == 0 || check_blocks(transport, payload, header.count).is_err() {
            return;
        }
        for message in blocks(transport, payload, header.count) {
            *self.by_type.entry(message_type(message)).or_default() += 1;
        }
        self.messages += u64::from(header.count);
        let last = header.end() - 1;
        self.first_sequence = Some(self.first_sequence.map_or(header.sequence, |first| first.min(header.sequence)));
        self.last_sequence = Some(self.last_sequence.map_or(last, |newest| newest.max(last)));
    }
}

/// One session of a channel: what was delivered of it.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub struct SessionTally {
    /// First delivered sequence.
    pub first_sequence: u64,
    /// Last delivered sequence.
    pub last_sequence: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Messages given up.
    pub lost: u64,
}

/// Counts of one channel, after arbitration.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sessions: BTreeMap<String, SessionTally>,
    pub(super) by_type: BTreeMap<char, u64>,
    pub(super) by_record: BTreeMap<&'static str, u64>,
    pub(super) books: Books,
}

impl BlockSink for Tally {
    fn block(&mut self, block: &Block<'_>) {
        let session = self.sessions.entry(String::from_utf8_lossy(block.session).into_owned()).or_default();
        if session.messages == 0 {
            session.first_sequence = block.sequence;
        }
        session.last_sequence = block.sequence;
        session.messages += 1;
        *self.by_type.entry(message_type(block.message)).or_default() += 1;
        let mut rest = block.records;
        while let Some((&words, _)) = rest.split_first() {
            let Some((record, tail)) = rest.split_at_checked(usize::from(words) * 4) else { break };
            *self.by_record.entry(record_kind(record)).or_default() += 1;
            self.books.apply(record);
            rest = tail;
        }
    }

    fn lost(&mut self, _channel: ChannelIndex, session: &Session, from: u64, to: u64) {
        self.sessions.entry(String::from_utf8_lossy(session).into_owned()).or_default().lost += to - from;
    }

    fn end_of_session(&mut self, _channel: ChannelIndex, _session: &Session, _next: u64) {}
}

/// The type byte; `-` for a message without any bytes.
fn message_type(message: &[u8]) -> char {
    message.first().map_or('-', |byte| char::from(*byte))
}

/// Name of a DBN record by its rtype (DBN 3, `rtype`) and, for MBO, its action.
fn record_kind(record: &[u8]) -> &'static str {
    match (record.get(1), record.get(38)) {
        (Some(&dbn::rtype::MBO), Some(b'A')) => "mbo add",
        (Some(&dbn::rtype::MBO), Some(b'C')) => "mbo cancel",
        (Some(&dbn::rtype::MBO), Some(b'F')) => "mbo fill",
        (Some(&dbn::rtype::MBO), Some(b'T')) => "mbo trade",
        (Some(&dbn::rtype::MBO), _) => "mbo other",
        (Some(&dbn::rtype::STATUS), _) => "status",
        (Some(&dbn::rtype::IMBALANCE), _) => "imbalance",
        (Some(&dbn::rtype::INSTRUMENT_DEF), _) => "instrument definition",
        (Some(&dbn::rtype::SYMBOL_MAPPING), _) => "symbol mapping",
        _ => "other",
    }
}
