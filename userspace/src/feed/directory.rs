//! Which symbol an instrument id stands for, as far as the session has told.
#![forbid(unsafe_code)]

use std::ffi::c_char;

use dbn::record::{RecordHeader, SymbolMappingMsg};
use dbn::{SType, rtype};

/// A symbol, left-justified and space-padded.
pub type Symbol = [u8; 8];

/// An instrument id is a stock locate, a `u16`.
pub(crate) const IDS: usize = 1 << 16;

/// What no exchange lists.
const UNKNOWN: Symbol = [b' '; 8];

/// The symbols of one channel, by instrument id.
///
/// Written where a mapping is decoded, read where a route meets an instrument for the first time: nothing on the way of most
/// messages. 520 KiB, all of it touched when it is made.
#[derive(Debug)]
pub struct Directory {
    symbols: Box<[Symbol; IDS]>,
    /// A bit per instrument whose symbol is known.
    known: Box<[u64; IDS / 64]>,
    session: u32,
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Directory {
    /// Without any symbol. Allocates all that it will use.
    ///
    /// # Panics
    /// Never: the length is that of the type.
    #[must_use]
    pub fn new() -> Self {
        let symbols = vec![UNKNOWN; IDS].into_boxed_slice().try_into().expect("has that length");
        let known = vec![0; IDS / 64].into_boxed_slice().try_into().expect("has that length");
        Self { symbols, known, session: 0 }
    }

    /// The instrument's symbol, if the session has said it.
    #[must_use]
    pub fn symbol(&self, id: u16) -> Option<&Symbol> {
        Some(&self.symbols[usize::from(id)]).filter(|symbol| **symbol != UNKNOWN)
    }

    /// The ids of which [`Self::symbol`] is known, a bit each from the lowest of the first word on.
    pub(crate) fn known(&self) -> &[u64; IDS / 64] {
        &self.known
    }

    /// Which session the symbols are of: another number, other instruments. It says nothing else.
    #[inline]
    #[must_use]
    pub fn session(&self) -> u32 {
        self.session
    }

    /// The session says which symbol an id stands for.
    pub fn set(&mut self, id: u16, symbol: &Symbol) {
        self.symbols[usize::from(id)] = *symbol;
        let (word, bit) = (&mut self.known[usize::from(id) / 64], 1 << (id % 64));
        *word = if *symbol == UNKNOWN { *word & !bit } else { *word | bit };
    }

    /// A session begins: all ids are given anew.
    pub fn begin_session(&mut self) {
        self.symbols.fill(UNKNOWN);
        self.known.fill(0);
        self.session = self.session.wrapping_add(1);
    }
}

/// The record that tells a consumer what an instrument id stands for.
#[must_use]
pub fn symbol_mapping(publisher_id: u16, id: u16, ts_event: u64, symbol: &Symbol) -> SymbolMappingMsg {
    let mut mapping = SymbolMappingMsg {
        hd: RecordHeader::new::<SymbolMappingMsg>(rtype::SYMBOL_MAPPING, publisher_id, id.into(), ts_event),
        stype_in: SType::RawSymbol as u8,
        stype_out: SType::InstrumentId as u8,
        ..SymbolMappingMsg::default()
    };
    copy_symbol(&mut mapping.stype_in_symbol, symbol);
    let mut digits = [0; 5];
    copy_symbol(&mut mapping.stype_out_symbol, decimal(id, &mut digits));
    mapping
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_what_has_a_symbol() {
        let mut directory = Directory::new();
        let agrees = |directory: &Directory| {
            let known = |id: u16| directory.known()[usize::from(id) / 64] >> (id % 64) & 1 == 1;
            (0..=u16::MAX).all(|id| known(id) == directory.symbol(id).is_some())
        };
        for id in (0..=u16::MAX).step_by(37).chain([63, 64, u16::MAX]) {
            directory.set(id, b"AAPL    ");
        }
        directory.set(74, b"        ");
        assert!(agrees(&directory) && directory.symbol(74).is_none() && directory.symbol(37).is_some());
        directory.begin_session();
        assert!(agrees(&directory));
    }

    #[test]
    fn a_symbol_is_known_until_the_session_is_over() {
        let mut directory = Directory::new();
        assert_eq!(directory.symbol(7), None);
        directory.set(7, b"AAPL    ");
        directory.set(u16::MAX, b"ZZZZZZZZ");
        assert_eq!((directory.symbol(7), directory.symbol(8)), (Some(b"AAPL    "), None));
        assert_eq!(directory.symbol(u16::MAX), Some(b"ZZZZZZZZ"));
        let session = directory.session();
        directory.begin_session();
        assert_eq!((directory.symbol(7), directory.symbol(u16::MAX)), (None, None));
        assert_ne!(directory.session(), session);
    }
}
