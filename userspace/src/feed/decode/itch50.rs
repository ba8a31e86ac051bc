//! Nasdaq TotalView-ITCH 5.0 to DBN.
//!
//! The instrument id is the stock locate. Prices go from 4 decimals to units of 1e-9. Times of day become UTC by the
//! exchange's local midnight. The last market-by-order record of a message has the flag LAST; after an unrecovered loss or a late start,
//! or once an instrument had an event of an order that is not in the store, records have MAYBE_BAD_BOOK as well.
#![forbid(unsafe_code)]

mod book;
mod layout;
pub mod messages;
mod status;
mod symbols;
#[cfg(test)]
mod tests;

use std::ffi::c_char;

use dbn::record::{MboMsg, RecordHeader};
use dbn::{FlagSet, UNDEF_PRICE, rtype};

use super::Records;
use crate::feed::directory::Directory;
use crate::feed::midnights::Midnights;
use crate::feed::orders::OrderStore;
use crate::metrics::ChannelCounts;
use messages::{
    AddOrder, AddOrderAttributed, CrossTrade, Header, Imbalance, Message, OrderCancel, OrderDelete, OrderExecuted,
    OrderExecutedWithPrice, OrderReplace, ParseError, RegSho, StockDirectory, Trade, TradingAction,
};

/// Wire prices have 4 decimals, DBN prices 9.
const PRICE_SCALE: i64 = 100_000;

/// A stock locate is a `u16`.
const LOCATES: usize = 1 << 16;

/// A symbol mapping was sent in this session.
const MAPPED: u8 = 1;
/// The id had a meaning in an earlier session, or may have had one before a snapshot, so that its book must be cleared first.
const MAPPED_BEFORE: u8 = 2;
/// An event of an unknown order: the book may be wrong.
const SUSPECT: u8 = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    decode_errors: u64,
    unknown_types: u64,
    unknown_orders: u64,
    duplicate_orders: u64,
    excess_shares: u64,
    orders_full: u64,
    saturated_sizes: u64,
}

/// Decoder of one ITCH 5.0 channel.
#[derive(Debug)]
pub struct Itch50 {
    publisher_id: u16,
    orders: OrderStore,
    /// Flags by stock locate.
    instruments: Box<[u8; LOCATES]>,
    directory: Directory,
    midnights: Midnights,
    /// The day of the newest message: from its local midnight to the next, UTC nanoseconds.
    day: (u64, u64),
    /// MAYBE_BAD_BOOK after a loss or a late start, SNAPSHOT and BAD_TS_RECV in a snapshot, else nothing.
    channel_flags: u8,
    counts: Counts,
}

/// What the records of one message have in common.
#[derive(Clone, Copy, Debug)]
struct Event {
    locate: u16,
    ts_event: u64,
    ts_recv: u64,
    sequence: u32,
    /// MAYBE_BAD_BOOK, SNAPSHOT and BAD_TS_RECV, or nothing.
    flags: u8,
}

impl Event {
    /// A market-by-order record without its order.
    #[inline(always)]
    fn mbo(&self, publisher_id: u16) -> MboMsg {
        MboMsg {
            hd: self.header::<MboMsg>(rtype::MBO, publisher_id),
            order_id: 0,
            price: UNDEF_PRICE,
            size: 0,
            flags: FlagSet::new(self.flags),
            channel_id: 0,
            action: b'N' as c_char,
            side: b'N' as c_char,
            ts_recv: self.ts_recv,
            ts_in_delta: delta(self.ts_recv, self.ts_event),
            sequence: self.sequence,
        }
    }

    #[inline]
    fn header<R: dbn::record::HasRType>(&self, rtype: u8, publisher_id: u16) -> RecordHeader {
        RecordHeader::new::<R>(rtype, publisher_id, u32::from(self.locate), self.ts_event)
    }
}

/// `received - sent`, saturated.
#[inline]
fn delta(received_ns: u64, sent_ns: u64) -> i32 {
    let delta = received_ns.wrapping_sub(sent_ns) as i64;
    delta.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

#[inline]
fn price(wire: u32) -> i64 {
    i64::from(wire) * PRICE_SCALE
}

impl Itch50 {
    /// Allocates the order store and the instrument table.
    #[must_use]
    pub fn new(publisher_id: u16, max_orders: usize, midnights: Midnights) -> Self {
        let instruments = vec![0; LOCATES].into_boxed_slice().try_into().expect("has that length");
        Self {
            publisher_id,
            orders: OrderStore::new(max_orders),
            instruments,
            directory: Directory::new(),
            midnights,
            day: (0, 0),
            channel_flags: 0,
            counts: Counts::default(),
        }
    }

    /// Starts loading the orders that a message names.
    #[inline]
    pub fn prefetch(&self, message: &[u8]) {
        // A, F, E, C, X, D and U all begin with an order reference; U has a second one.
        let Some((kind, Some(bytes))) = message.first().map(|kind| (kind, message.get(11..19))) else { return };
        if !matches!(kind, b'A' | b'F' | b'E' | b'C' | b'X' | b'D' | b'U') {
            return;
        }
        self.orders.prefetch(u64::from_be_bytes(bytes.try_into().expect("eight bytes")));
        if *kind == b'U'
            && let Some(bytes) = message.get(19..27)
        {
            self.orders.prefetch(u64::from_be_bytes(bytes.try_into().expect("eight bytes")));
        }
    }

    /// Appends the records of one message.
    ///
    /// One match on the type byte and no enum in between: which type comes next cannot be predicted, so it must be asked
    /// only once.
    #[inline]
    pub fn decode(&mut self, message: &[u8], sequence: u64, ts_recv: u64, records: &mut Records) {
        let Some(kind) = message.first() else { return };
        let at = (sequence, ts_recv);
        let complete = match *kind {
            AddOrder::TYPE => self.with(message, at, |itch, event, m: AddOrder| {
                itch.add(event, m.reference, m.side, m.shares, &m.stock, m.price, records);
            }),
            AddOrderAttributed::TYPE => self.with(message, at, |itch, event, m: AddOrderAttributed| {
                itch.add(event, m.reference, m.side, m.shares, &m.stock, m.price, records);
            }),
            OrderDelete::TYPE => {
                self.with(message, at, |itch, event, m: OrderDelete| itch.delete(event, m.reference, records))
            }
            OrderReplace::TYPE => {
                self.with(message, at, |itch, event, m: OrderReplace| itch.replace(event, &m, records))
            }
            OrderExecuted::TYPE => self.with(message, at, |itch, event, m: OrderExecuted| {
                itch.execute(event, m.reference, m.shares, None, records);
            }),
            OrderCancel::TYPE => {
                self.with(message, at, |itch, event, m: OrderCancel| itch.cancel(event, m.reference, m.shares, records))
            }
            _ => self.decode_rare(*kind, message, at, records),
        };
        self.counts.decode_errors += u64::from(!complete);
    }

    /// The types that make up a few messages in a hundred.
    #[inline(never)]
    fn decode_rare(&mut self, kind: u8, message: &[u8], at: (u64, u64), records: &mut Records) -> bool {
        match kind {
            OrderExecutedWithPrice::TYPE => self.with(message, at, |itch, event, m: OrderExecutedWithPrice| {
                itch.execute(event, m.reference, m.shares, Some((m.price, m.printable == b'Y')), records);
            }),
            Trade::TYPE => self.with(message, at, |itch, event, m: Trade| {
                itch.trade(event, u64::from(m.shares), &m.stock, m.price, records);
            }),
            CrossTrade::TYPE => self.with(message, at, |itch, event, m: CrossTrade| {
                if m.shares > 0 {
                    itch.trade(event, m.shares, &m.stock, m.price, records);
                }
            }),
            StockDirectory::TYPE => {
                self.with(message, at, |itch, event, m: StockDirectory| itch.directory(event, &m, records))
            }
            TradingAction::TYPE => {
                self.with(message, at, |itch, event, m: TradingAction| itch.trading_action(event, &m, records))
            }
            RegSho::TYPE => self.with(message, at, |itch, event, m: RegSho| itch.reg_sho(event, &m, records)),
            Imbalance::TYPE => self.with(message, at, |itch, event, m: Imbalance| itch.imbalance(event, &m, records)),
            // No record in this stream: DBN has none, or only consumers of the day's state want them.
            _ => match messages::parse(message) {
                Err(ParseError::UnknownType(_)) => {
                    self.counts.unknown_types += 1;
                    true
                }
                parsed => parsed.is_ok(),
            },
        }
    }

    /// Reads a message and gives it, with what its records have in common, to `apply`; false if it is too short.
    #[inline(always)]
    fn with<M: Message>(
        &mut self,
        message: &[u8],
        (sequence, ts_recv): (u64, u64),
        apply: impl FnOnce(&mut Self, &Event, M),
    ) -> bool {
        let Some((header, body)) = M::read(message) else { return false };
        let event = self.event(&header, sequence, ts_recv);
        apply(self, &event, body);
        true
    }

    #[inline(always)]
    fn event(&mut self, header: &Header, sequence: u64, ts_recv: u64) -> Event {
        if ts_recv < self.day.0 || ts_recv >= self.day.1 {
            self.day = self.midnights.around(ts_recv);
        }
        let suspect = self.instruments[usize::from(header.locate)] & SUSPECT != 0;
        Event {
            locate: header.locate,
            ts_event: self.day.0.wrapping_add(header.timestamp_ns),
            ts_recv,
            sequence: sequence as u32,
            flags: self.channel_flags | if suspect { dbn::flags::MAYBE_BAD_BOOK } else { 0 },
        }
    }

    /// See [`super::Decoder::lost`].
    pub fn lost(&mut self) {
        self.channel_flags = dbn::flags::MAYBE_BAD_BOOK;
    }

    /// See [`super::Decoder::snapshot`]. Its records say what they come of, and that their messages arrived at another time
    /// than the exchange's; each instrument's begin with a clear.
    pub fn snapshot(&mut self, begins: bool) {
        self.channel_flags = if begins { dbn::flags::SNAPSHOT | dbn::flags::BAD_TS_RECV } else { 0 };
        for flags in self.instruments.iter_mut() {
            if begins {
                *flags |= MAPPED_BEFORE;
            } else if *flags & MAPPED == 0 {
                *flags &= !MAPPED_BEFORE;
            }
        }
    }

    /// See [`super::Decoder::begin_session`].
    pub fn begin_session(&mut self) {
        self.channel_flags = 0;
        self.orders.clear();
        self.directory.begin_session();
        for flags in self.instruments.iter_mut() {
            *flags = if *flags & (MAPPED | MAPPED_BEFORE) == 0 { 0 } else { MAPPED_BEFORE };
        }
    }

    /// See [`super::Decoder::directory`].
    #[inline]
    #[must_use]
    pub fn symbols(&self) -> &Directory {
        &self.directory
    }

    /// See [`super::Decoder::add_counts`].
    pub fn add_counts(&self, counts: &mut ChannelCounts) {
        counts.decode_errors = self.counts.decode_errors;
        counts.unknown_types = self.counts.unknown_types;
        counts.unknown_orders = self.counts.unknown_orders;
        counts.duplicate_orders = self.counts.duplicate_orders;
        counts.excess_shares = self.counts.excess_shares;
        counts.orders_full = self.counts.orders_full;
        counts.saturated_sizes = self.counts.saturated_sizes;
        counts.orders_live = self.orders.len() as u64;
    }

    /// Counts an event of an order that is not in the store.
    #[cold]
    fn unknown_order(&mut self, event: &Event) {
        self.counts.unknown_orders += 1;
        self.suspect(event.locate);
    }

    #[cold]
    fn suspect(&mut self, locate: u16) {
        self.instruments[usize::from(locate)] |= SUSPECT;
    }
}
