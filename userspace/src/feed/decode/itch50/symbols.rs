//! Which symbol a stock locate stands for: told once per session, before the instrument's first record.
#![forbid(unsafe_code)]

use std::ffi::c_char;

use dbn::record::{MboMsg, SymbolMappingMsg};
use dbn::{SType, rtype};

use super::messages::Stock;
use super::{Event, Itch50, MAPPED, MAPPED_BEFORE};
use crate::feed::decode::Records;

impl Itch50 {
    /// Maps the locate to its symbol if this session has not yet.
    #[inline]
    pub(super) fn map(&mut self, event: &Event, stock: &Stock, records: &mut Records) {
        if self.instruments[usize::from(event.locate)] & MAPPED == 0 {
            self.push_mapping(event, stock, records);
        }
    }

    #[cold]
    pub(super) fn push_mapping(&mut self, event: &Event, stock: &Stock, records: &mut Records) {
        let mut mapping = SymbolMappingMsg {
            hd: event.header::<SymbolMappingMsg>(rtype::SYMBOL_MAPPING, self.publisher_id),
            stype_in: SType::RawSymbol as u8,
            stype_out: SType::InstrumentId as u8,
            ..SymbolMappingMsg::default()
        };
        copy_symbol(&mut mapping.stype_in_symbol, stock);
        let mut digits = [0; 5];
        copy_symbol(&mut mapping.stype_out_symbol, decimal(event.locate, &mut digits));
        records.push(&mapping);
        let flags = &mut self.instruments[usize::from(event.locate)];
        if *flags & MAPPED_BEFORE != 0 {
            *flags &= !MAPPED_BEFORE;
            records.push_mbo(&MboMsg { action: b'R' as c_char, ..event.mbo(self.publisher_id) });
        }
        *flags |= MAPPED;
    }
}

/// Copies a space-padded text without its padding; the rest stays NUL.
pub(super) fn copy_symbol<const N: usize>(into: &mut [c_char; N], text: &[u8]) {
    let text = text.trim_ascii_end();
    for (to, from) in into[..N - 1].iter_mut().zip(text) {
        *to = *from as c_char;
    }
}

/// A number as text, without allocation.
fn decimal(mut number: u16, digits: &mut [u8; 5]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}
