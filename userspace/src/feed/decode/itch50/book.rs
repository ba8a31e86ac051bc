//! Messages that change the book or print a trade: market-by-order records.
#![forbid(unsafe_code)]

use std::ffi::c_char;

use dbn::flags::LAST;
use dbn::record::MboMsg;
use dbn::{FlagSet, UNDEF_ORDER_SIZE};

use super::messages::{OrderReplace, Stock};
use super::{Event, Itch50, price};
use crate::feed::decode::Records;
use crate::feed::orders::{Insert, MAX_SHARES, Order, Side};

const ADD: u8 = b'A';
const CANCEL: u8 = b'C';
const TRADE: u8 = b'T';
const FILL: u8 = b'F';

/// DBN's side of a resting order, or of the aggressor.
#[inline]
const fn side_char(side: Side) -> u8 {
    match side {
        Side::Bid => b'B',
        Side::Ask => b'A',
    }
}

#[inline]
const fn opposite(side: Side) -> Side {
    match side {
        Side::Bid => Side::Ask,
        Side::Ask => Side::Bid,
    }
}

/// What distinguishes one market-by-order record of an event from the others.
#[derive(Clone, Copy)]
struct Change {
    action: u8,
    order_id: u64,
    side: u8,
    wire_price: u32,
    size: u32,
    /// LAST or nothing.
    last: u8,
}

impl Itch50 {
    #[inline(always)]
    fn push(&self, event: &Event, change: Change, records: &mut Records) {
        records.push_mbo(&MboMsg {
            order_id: change.order_id,
            price: price(change.wire_price),
            size: change.size,
            flags: FlagSet::new(event.flags | change.last),
            action: change.action as c_char,
            side: change.side as c_char,
            ..event.mbo(self.publisher_id)
        });
    }

    #[inline]
    fn store(&mut self, event: &Event, reference: u64, order: Order) {
        if order.shares > MAX_SHARES {
            self.counts.saturated_sizes += 1;
        }
        match self.orders.insert(reference, order) {
            Insert::New => {}
            Insert::Replaced => {
                self.counts.duplicate_orders += 1;
                self.suspect(event.locate);
            }
            Insert::Full => {
                self.counts.orders_full += 1;
                self.suspect(event.locate);
            }
        }
    }

    #[inline]
    #[allow(clippy::too_many_arguments)] // the fields of A and F
    pub(super) fn add(
        &mut self,
        event: &Event,
        reference: u64,
        side: u8,
        shares: u32,
        stock: &Stock,
        wire_price: u32,
        records: &mut Records,
    ) {
        if !matches!(side, b'B' | b'S') {
            // Without a side it is not an order, and guessing one would make a wrong book.
            self.counts.decode_errors += 1;
            self.suspect(event.locate);
            return;
        }
        // Not a match with three arms: which side it is, is random, and a select cannot be mispredicted.
        let side = if side == b'B' { Side::Bid } else { Side::Ask };
        self.map(event, stock, records);
        self.store(event, reference, Order { side, price: wire_price, shares });
        let side = side_char(side);
        self.push(
            event,
            Change { action: ADD, order_id: reference, side, wire_price, size: shares, last: LAST },
            records,
        );
    }

    /// E, and C with `printed` = its price and whether it is printable.
    #[inline]
    pub(super) fn execute(
        &mut self,
        event: &Event,
        reference: u64,
        shares: u32,
        printed: Option<(u32, bool)>,
        records: &mut Records,
    ) {
        let Some(order) = self.orders.reduce(reference, shares) else { return self.unknown_order(event) };
        self.counts.excess_shares += u64::from(order.excess);
        let (trade_price, printable) = printed.unwrap_or((order.price, true));
        let side = side_char(order.side);
        let fill = Change { action: FILL, order_id: reference, side, wire_price: trade_price, size: shares, last: 0 };
        if printable {
            let aggressor = side_char(opposite(order.side));
            self.push(event, Change { action: TRADE, order_id: 0, side: aggressor, ..fill }, records);
        }
        self.push(event, fill, records);
        let cancel = Change { action: CANCEL, wire_price: order.price, size: order.removed, last: LAST, ..fill };
        self.push(event, cancel, records);
    }

    #[inline]
    pub(super) fn cancel(&mut self, event: &Event, reference: u64, shares: u32, records: &mut Records) {
        let Some(order) = self.orders.reduce(reference, shares) else { return self.unknown_order(event) };
        self.counts.excess_shares += u64::from(order.excess);
        self.push_cancel(event, reference, order.side, order.price, order.removed, LAST, records);
    }

    #[inline]
    pub(super) fn delete(&mut self, event: &Event, reference: u64, records: &mut Records) {
        let Some(order) = self.orders.remove(reference) else { return self.unknown_order(event) };
        self.push_cancel(event, reference, order.side, order.price, order.shares, LAST, records);
    }

    #[inline]
    pub(super) fn replace(&mut self, event: &Event, m: &OrderReplace, records: &mut Records) {
        // The new order's side is the old one's, so without the old one there is no new one either.
        let Some(old) = self.orders.remove(m.original_reference) else { return self.unknown_order(event) };
        self.push_cancel(event, m.original_reference, old.side, old.price, old.shares, 0, records);
        self.store(event, m.reference, Order { side: old.side, price: m.price, shares: m.shares });
        let side = side_char(old.side);
        let add = Change { action: ADD, order_id: m.reference, side, wire_price: m.price, size: m.shares, last: LAST };
        self.push(event, add, records);
    }

    #[inline]
    #[allow(clippy::too_many_arguments)] // one record's fields
    fn push_cancel(
        &self,
        event: &Event,
        order_id: u64,
        side: Side,
        wire_price: u32,
        size: u32,
        last: u8,
        records: &mut Records,
    ) {
        let side = side_char(side);
        self.push(event, Change { action: CANCEL, order_id, side, wire_price, size, last }, records);
    }

    /// P and Q: a print that no displayed order took part in.
    pub(super) fn trade(&mut self, event: &Event, shares: u64, stock: &Stock, wire_price: u32, records: &mut Records) {
        self.map(event, stock, records);
        let size = self.saturate(shares);
        let trade = Change { action: TRADE, order_id: 0, side: b'N', wire_price, size, last: LAST };
        self.push(event, trade, records);
    }

    /// A quantity as DBN has it: one below the value that means undefined, at most.
    pub(super) fn saturate(&mut self, quantity: u64) -> u32 {
        match u32::try_from(quantity) {
            Ok(size) if size != UNDEF_ORDER_SIZE => size,
            _ => {
                self.counts.saturated_sizes += 1;
                UNDEF_ORDER_SIZE - 1
            }
        }
    }
}
