//! The mapping to DBN, message by message, and real messages.
#![forbid(unsafe_code)]

mod golden;
mod mapping;

use dbn::decode::{DecodeRecordRef, dbn::RecordDecoder};
use dbn::record::SymbolMappingMsg;
use dbn::{Record, SType};

use super::*;

/// 2023-08-22 00:00 New York.
const MIDNIGHT: u64 = 1_692_676_800_000_000_000;

/// Builds a message: type, locate 7, tracking 0, time 1 µs, then the fields.
fn message(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    [&[kind, 0, 7, 0, 0, 0, 0, 0, 0, 3, 0xE8][..], &fields.concat()].concat()
}

fn add(reference: u64, side: u8, shares: u32, price: u32) -> Vec<u8> {
    message(b'A', &[&reference.to_be_bytes(), &[side], &shares.to_be_bytes(), b"TEST    ", &price.to_be_bytes()])
}

/// A decoder and what it last produced.
struct Rig {
    itch: Itch50,
    records: Records,
    sequence: u64,
}

impl Rig {
    fn new() -> Self {
        Self { itch: Itch50::new(2, 100, Midnights::new(vec![MIDNIGHT])), records: Records::new(), sequence: 0 }
    }

    /// Decodes a message, received 3 µs after midnight; returns its records as text.
    fn decode(&mut self, message: &[u8]) -> String {
        self.sequence += 1;
        self.records.clear();
        self.itch.prefetch(message);
        self.itch.decode(message, self.sequence, MIDNIGHT + 3_000, &mut self.records);
        describe(&self.records, self.sequence as u32)
    }

    fn counts(&self) -> ChannelCounts {
        let mut counts = ChannelCounts::default();
        self.itch.add_counts(&mut counts);
        counts
    }
}

/// The records, read back by the `dbn` crate, one word each; checks what all of them must have.
fn describe(records: &Records, sequence: u32) -> String {
    let mut decoder = RecordDecoder::new(records.bytes());
    let mut words = Vec::new();
    while let Some(record) = decoder.decode_record_ref().unwrap() {
        let header = record.header();
        assert_eq!((header.publisher_id, header.instrument_id), (2, 7));
        assert_eq!(header.ts_event, MIDNIGHT + 1_000);
        if let Some(mbo) = record.get::<MboMsg>() {
            assert_eq!((mbo.sequence, mbo.ts_in_delta, mbo.ts_recv), (sequence, 2_000, MIDNIGHT + 3_000));
            let price = if mbo.price == UNDEF_PRICE { -1 } else { mbo.price / PRICE_SCALE };
            words.push(format!(
                "{}{}#{} {}@{} {:02x}",
                mbo.action as u8 as char,
                mbo.side as u8 as char,
                mbo.order_id,
                mbo.size,
                price,
                mbo.flags.raw()
            ));
        } else if let Some(mapping) = record.get::<SymbolMappingMsg>() {
            let (from, to) = (mapping.stype_in_symbol().unwrap(), mapping.stype_out_symbol().unwrap());
            assert_eq!((mapping.stype_in, mapping.stype_out), (SType::RawSymbol as u8, SType::InstrumentId as u8));
            words.push(format!("{from}={to}"));
        } else {
            words.push(format!("{:?}", record.rtype().unwrap()));
        }
    }
    assert_eq!(words.len(), usize::from(records.count()));
    words.join(", ")
}
