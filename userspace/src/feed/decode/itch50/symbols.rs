//! Which symbol a stock locate stands for: told once per session, before the instrument's first record.
#![forbid(unsafe_code)]

use std::ffi::c_char;

use dbn::record::MboMsg;

use super::messages::Stock;
use super::{Event, Itch50, MAPPED, MAPPED_BEFORE};
use crate::feed::decode::Records;
use crate::feed::directory::symbol_mapping;

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
        let mapping = symbol_mapping(self.publisher_id, event.locate, event.ts_event, stock);
        records.push(&mapping);
        self.directory.set(event.locate, stock);
        let flags = &mut self.instruments[usize::from(event.locate)];
        if *flags & MAPPED_BEFORE != 0 {
            *flags &= !MAPPED_BEFORE;
            records.push_mbo(&MboMsg { action: b'R' as c_char, ..event.mbo(self.publisher_id) });
        }
        *flags |= MAPPED;
    }
}
