//! DBN version 3 records, read byte by byte at their documented offsets and compared with what is expected.
//!
//! Source: DBN encoding, version 3 (Databento). All integers little-endian. The reading is this crate's own, on purpose.
#![forbid(unsafe_code)]

use std::fmt::Write;

use crate::truth::Expected;

const FLAG_LAST: u8 = 0x80;
const FLAG_SNAPSHOT: u8 = 0x20;
const FLAG_BAD_TS_RECV: u8 = 0x08;
const FLAG_MAYBE_BAD_BOOK: u8 = 0x04;

/// Record types and their sizes in bytes.
pub const MBO: (u8, usize) = (0xA0, 56);
/// `StatusMsg`.
pub const STATUS: (u8, usize) = (0x12, 40);
/// `InstrumentDefMsg`.
pub const DEFINITION: (u8, usize) = (0x13, 520);
/// `ImbalanceMsg`.
pub const IMBALANCE: (u8, usize) = (0x14, 112);
/// `SymbolMappingMsg`.
pub const MAPPING: (u8, usize) = (0x16, 176);
/// `SystemMsg`.
pub const SYSTEM: (u8, usize) = (0x17, 320);

/// What all records of one message share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// DBN publisher.
    pub publisher_id: u16,
    /// Instrument id.
    pub instrument: u32,
    /// Exchange time, UTC nanoseconds.
    pub ts_event: u64,
    /// Low 32 bits of the message's sequence number.
    pub sequence: u32,
    /// Whether a loss came before.
    pub is_bad_book: bool,
    /// Whether the message is a snapshot's.
    pub is_snapshot: bool,
}

/// A system record: what the stream says of itself. It belongs to no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// DBN publisher.
    pub publisher_id: u16,
    /// UTC nanoseconds.
    pub ts_event: u64,
    /// The text.
    pub text: String,
    /// `SystemCode`; 255 = none that fits.
    pub code: u8,
}

/// One record's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a>(&'a [u8]);

macro_rules! read {
    ($($name:ident: $int:ty),+) => {$(
        fn $name(&self, at: usize) -> $int {
            <$int>::from_le_bytes(self.0[at..at + size_of::<$int>()].try_into().expect("within the record"))
        }
    )+};
}

impl<'a> Record<'a> {
    read!(u16: u16, u32: u32, u64: u64, i32: i32, i64: i64);

    /// Cuts the next record off a block.
    ///
    /// # Errors
    /// If the length field is impossible.
    pub fn cut(block: &mut &'a [u8]) -> Result<Self, String> {
        let length = usize::from(block[0]) * 4;
        if length < 16 {
            return Err(format!("a record claims a length of {length} bytes"));
        }
        let (record, rest) = block
            .split_at_checked(length)
            .ok_or_else(|| format!("a record of {length} bytes in the last {} bytes of a block", block.len()))?;
        *block = rest;
        Ok(Self(record))
    }

    /// Record type.
    #[must_use]
    pub fn rtype(&self) -> u8 {
        self.0[1]
    }

    /// Its length, bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no record is empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Instrument id.
    #[must_use]
    pub fn instrument(&self) -> u32 {
        self.u32(4)
    }

    fn byte(&self, at: usize) -> u8 {
        self.0[at]
    }

    /// The text of a NUL-padded field.
    fn text(&self, at: usize, length: usize) -> &'a [u8] {
        let field = &self.0[at..at + length];
        &field[..field.iter().position(|b| *b == 0).unwrap_or(length)]
    }

    /// Receive time, UTC nanoseconds, of the types that have one.
    #[must_use]
    pub fn ts_recv(&self) -> Option<u64> {
        match (self.rtype(), self.0.len()) {
            MBO => Some(self.u64(40)),
            STATUS | DEFINITION | IMBALANCE => Some(self.u64(16)),
            _ => None,
        }
    }

    /// The fields of a `SystemMsg`, if it is one.
    #[must_use]
    pub fn system(&self) -> Option<System> {
        ((self.rtype(), self.0.len()) == SYSTEM).then(|| System {
            publisher_id: self.u16(2),
            ts_event: self.u64(8),
            text: String::from_utf8_lossy(self.text(16, 303)).into_owned(),
            code: self.byte(319),
        })
    }

    /// Order id, action, side, price and size, if it is an `MboMsg`.
    #[must_use]
    pub fn mbo(&self) -> Option<(u64, u8, u8, i64, u32)> {
        ((self.rtype(), self.0.len()) == MBO)
            .then(|| (self.u64(16), self.byte(38), self.byte(39), self.i64(24), self.u32(32)))
    }

    /// Compares all fields but the receive time.
    ///
    /// # Errors
    /// Every field that differs, in words.
    pub fn check(&self, expected: &Expected, shared: &Shared) -> Result<(), String> {
        let (rtype, size) = match expected {
            Expected::Mbo { .. } => MBO,
            Expected::Status { .. } => STATUS,
            Expected::Imbalance { .. } => IMBALANCE,
            Expected::Mapping { .. } => MAPPING,
            Expected::Definition { .. } => DEFINITION,
        };
        if (self.rtype(), self.0.len()) != (rtype, size) {
            return Err(format!(
                "record type {:#04x} of {} bytes instead of {rtype:#04x} of {size}",
                self.rtype(),
                self.0.len()
            ));
        }
        let mut wrong = Differences(String::new());
        wrong.compare("publisher_id", self.u16(2), shared.publisher_id);
        wrong.compare("instrument_id", self.instrument(), shared.instrument);
        wrong.compare("ts_event", self.u64(8), shared.ts_event);
        self.check_body(expected, shared, &mut wrong);
        if wrong.0.is_empty() { Ok(()) } else { Err(wrong.0) }
    }

    fn check_body(&self, expected: &Expected, shared: &Shared, wrong: &mut Differences) {
        match *expected {
            Expected::Mbo { order_id, price, size, action, side, is_last } => {
                wrong.compare("order_id", self.u64(16), order_id);
                wrong.compare("price", self.i64(24), price);
                wrong.compare("size", self.u32(32), size);
                let bad_book = if shared.is_bad_book { FLAG_MAYBE_BAD_BOOK } else { 0 };
                let snapshot = if shared.is_snapshot { FLAG_SNAPSHOT | FLAG_BAD_TS_RECV } else { 0 };
                wrong.compare("flags", self.byte(36), bad_book | snapshot | if is_last { FLAG_LAST } else { 0 });
                wrong.compare("channel_id", self.byte(37), 0);
                wrong.compare_char("action", self.byte(38), action);
                wrong.compare_char("side", self.byte(39), side);
                let delta = i128::from(self.u64(40)) - i128::from(shared.ts_event);
                let delta = delta.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32;
                wrong.compare("ts_in_delta", self.i32(48), delta);
                wrong.compare("sequence", self.u32(52), shared.sequence);
            }
            Expected::Status { action, reason, is_trading, is_quoting, is_short_sell_restricted } => {
                wrong.compare("action", self.u16(24), action);
                wrong.compare("reason", self.u16(26), reason);
                wrong.compare("trading_event", self.u16(28), 0);
                wrong.compare_char("is_trading", self.byte(30), is_trading);
                wrong.compare_char("is_quoting", self.byte(31), is_quoting);
                wrong.compare_char("is_short_sell_restricted", self.byte(32), is_short_sell_restricted);
            }
            Expected::Imbalance { reference, near, far, paired, shares, side, auction_type, variation } => {
                wrong.compare("ref_price", self.i64(24), reference);
                wrong.compare("cont_book_clr_price", self.i64(40), near);
                wrong.compare("auct_interest_clr_price", self.i64(48), far);
                for (name, at) in [("ssr_filling_price", 56), ("ind_match_price", 64), ("upper_collar", 72)] {
                    wrong.compare(name, self.i64(at), i64::MAX);
                }
                wrong.compare("paired_qty", self.u32(88), paired);
                wrong.compare("total_imbalance_qty", self.u32(92), shares);
                wrong.compare("market_imbalance_qty", self.u32(96), u32::MAX);
                wrong.compare_char("auction_type", self.byte(104), auction_type);
                wrong.compare_char("side", self.byte(105), side);
                wrong.compare_char("significant_imbalance", self.byte(110), variation);
            }
            Expected::Mapping { stock } => {
                wrong.compare("stype_in", self.byte(16), 1);
                wrong.compare_text("stype_in_symbol", self.text(17, 71), stock.trim_ascii_end());
                wrong.compare("stype_out", self.byte(88), 0);
                wrong.compare_text("stype_out_symbol", self.text(89, 71), shared.instrument.to_string().as_bytes());
            }
            Expected::Definition { stock, round_lot } => {
                wrong.compare("raw_instrument_id", self.u64(112), u64::from(shared.instrument));
                wrong.compare("min_lot_size_round_lot", self.i32(168), round_lot);
                wrong.compare("strike_price", self.i64(104), i64::MAX);
                wrong.compare_text("currency", self.text(224, 4), b"USD");
                wrong.compare_text("raw_symbol", self.text(238, 71), stock.trim_ascii_end());
                wrong.compare_char("instrument_class", self.byte(487), b'K');
                wrong.compare_char("security_update_action", self.byte(493), b'A');
            }
        }
    }
}

/// Collects differences as text.
struct Differences(String);

impl Differences {
    fn compare<T: PartialEq + std::fmt::Display>(&mut self, field: &str, is: T, want: T) {
        if is != want {
            let comma = if self.0.is_empty() { "" } else { ", " };
            write!(self.0, "{comma}{field} {is} instead of {want}").expect("writing to a string");
        }
    }

    fn compare_char(&mut self, field: &str, is: u8, want: u8) {
        self.compare(field, is.escape_ascii().to_string(), want.escape_ascii().to_string());
    }

    fn compare_text(&mut self, field: &str, is: &[u8], want: &[u8]) {
        self.compare(field, is.escape_ascii().to_string(), want.escape_ascii().to_string());
    }
}

#[cfg(test)]
pub(crate) mod tests;
