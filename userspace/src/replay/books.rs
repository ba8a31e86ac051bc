//! Plain order books from MBO records: for the report only, never on the data path.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use dbn::rtype;

/// A resting order.
#[derive(Debug, Clone, Copy)]
struct Order {
    instrument: u32,
    is_bid: bool,
    price: i64,
    size: u32,
}

/// Price levels of one instrument: price (1e-9) to total size.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) symbol: String,
    pub(super) bids: BTreeMap<i64, u64>,
    pub(super) asks: BTreeMap<i64, u64>,
    pub(super) updates: u64,
}

/// All books of a channel.
#[derive(Debug, Default)]
pub(super) struct Books {
    orders: HashMap<u64, Order>,
    pub(super) books: HashMap<u32, Book>,
}

impl Books {
    /// Applies one record; only MBO adds and cancels change a book (DBN: fills and trades have no book effect).
    pub(super) fn apply(&mut self, record: &[u8]) {
        let Some(instrument) = field::<4>(record, 4).map(u32::from_le_bytes) else { return };
        match record[1] {
            rtype::SYMBOL_MAPPING => {
                // stype_in_symbol: NUL-padded text at offset 17.
                let symbol = record[17..].iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
                self.books.entry(instrument).or_default().symbol = symbol;
            }
            rtype::MBO => self.apply_mbo(instrument, record),
            _ => {}
        }
    }

    fn apply_mbo(&mut self, instrument: u32, record: &[u8]) {
        let (Some(id), Some(price), Some(size)) = (field(record, 16), field(record, 24), field(record, 32)) else {
            return;
        };
        let (id, price, size) = (u64::from_le_bytes(id), i64::from_le_bytes(price), u32::from_le_bytes(size));
        let book = self.books.entry(instrument).or_default();
        book.updates += 1;
        match record.get(38) {
            Some(b'A') => {
                let order = Order { instrument, is_bid: record.get(39) == Some(&b'B'), price, size };
                *book.side(order.is_bid).entry(price).or_default() += u64::from(size);
                self.orders.insert(id, order);
            }
            Some(b'C') => self.cancel(id, size),
            _ => {}
        }
    }

    fn cancel(&mut self, id: u64, size: u32) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        let removed = size.min(order.size);
        order.size -= removed;
        let (Order { instrument, is_bid, price, .. }, left) = (*order, order.size);
        if left == 0 {
            self.orders.remove(&id);
        }
        let side = self.books.entry(instrument).or_default().side(is_bid);
        if let Some(level) = side.get_mut(&price) {
            *level -= u64::from(removed);
            if *level == 0 {
                side.remove(&price);
            }
        }
    }
}

impl Book {
    fn side(&mut self, is_bid: bool) -> &mut BTreeMap<i64, u64> {
        if is_bid { &mut self.bids } else { &mut self.asks }
    }
}

fn field<const N: usize>(record: &[u8], at: usize) -> Option<[u8; N]> {
    record.get(at..at + N)?.try_into().ok()
}
