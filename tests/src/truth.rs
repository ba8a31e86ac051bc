//! What must come out: the DBN records of each ITCH message, from a book of its own.
//!
//! Sources: *TotalView-ITCH 5.0*, order book rules; DBN version 3 as Databento documents it for XNAS.ITCH. Written apart
//! from the handler's decoder and sharing nothing with it, so that one mistake is not made twice.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::itch::{Body, Message, Symbol};

/// DBN prices have 9 decimals, ITCH prices 4.
const PRICE_SCALE: i64 = 100_000;

/// Largest quantity that DBN's 32 bits hold; the next value means undefined.
const MAX_SIZE: u32 = u32::MAX - 1;

/// One expected record, without the fields that all records of a message share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `MboMsg`.
    Mbo {
        /// Order reference; 0 for trades.
        order_id: u64,
        /// Units of 1e-9.
        price: i64,
        /// Shares; for `C` those removed.
        size: u32,
        /// `A`, `C`, `T` or `F`.
        action: u8,
        /// `B`, `A` or `N`.
        side: u8,
        /// Whether it is the message's last record.
        is_last: bool,
    },
    /// `StatusMsg`.
    Status {
        /// DBN status action.
        action: u16,
        /// DBN status reason.
        reason: u16,
        /// `Y`, `N` or `~`.
        is_trading: u8,
        /// `Y`, `N` or `~`.
        is_quoting: u8,
        /// `Y`, `N` or `~`.
        is_short_sell_restricted: u8,
    },
    /// `ImbalanceMsg`. Prices in units of 1e-9.
    Imbalance {
        /// Reference price.
        reference: i64,
        /// Near price.
        near: i64,
        /// Far price.
        far: i64,
        /// Paired shares.
        paired: u32,
        /// Imbalance shares.
        shares: u32,
        /// `B`, `A` or `N`.
        side: u8,
        /// Cross type.
        auction_type: u8,
        /// Price variation.
        variation: u8,
    },
    /// `SymbolMappingMsg`: this symbol is the record's instrument id.
    Mapping {
        /// Space-padded.
        stock: Symbol,
    },
    /// `InstrumentDefMsg`.
    Definition {
        /// Space-padded.
        stock: Symbol,
        /// Round lot, shares.
        round_lot: i32,
    },
}

/// An order in a book, in DBN's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookOrder {
    /// `B` or `A`.
    pub side: u8,
    /// Units of 1e-9.
    pub price: i64,
    /// Shares left.
    pub size: u32,
}

/// All live orders by (instrument, order reference).
pub type Book = BTreeMap<(u32, u64), BookOrder>;

/// Price levels by (instrument, side, price): shares and number of orders.
pub type Levels = BTreeMap<(u32, u8, i64), (u64, u32)>;

/// The price levels of a book.
#[must_use]
pub fn levels(book: &Book) -> Levels {
    let mut levels = Levels::new();
    for ((instrument, _), order) in book {
        let level = levels.entry((*instrument, order.side, order.price)).or_default();
        level.0 += u64::from(order.size);
        level.1 += 1;
    }
    levels
}

#[derive(Clone, Copy, Debug)]
struct Order {
    locate: u16,
    side: u8,
    price: i64,
    size: u32,
}

/// The book of one session and what follows from its messages.
#[derive(Debug, Default)]
pub struct Truth {
    orders: HashMap<u64, Order>,
    mapped: HashSet<u16>,
    /// Mapped in an earlier session only: the book of that one is cleared when the id gets its new meaning.
    mapped_before: HashSet<u16>,
    suspect: HashSet<u16>,
    /// The messages are a snapshot's: whoever had a book before must clear it first.
    is_snapshot: bool,
    expected: Vec<Expected>,
}

impl Truth {
    /// The book of the session that follows this one.
    #[must_use]
    pub fn following(self) -> Self {
        let mapped_before = self.mapped_before.union(&self.mapped).copied().collect();
        Self { mapped_before, ..Self::default() }
    }

    /// Applies the next message that a receiver got; returns the records that it must yield, in order.
    pub fn apply(&mut self, message: &Message) -> &[Expected] {
        self.expected.clear();
        let locate = message.locate;
        match message.body {
            Body::Add { reference, side, shares, stock, price }
            | Body::AddAttributed { reference, side, shares, stock, price, .. } => {
                self.map(locate, stock);
                self.add(locate, reference, if side == b'B' { b'B' } else { b'A' }, shares, scale(price), true);
            }
            Body::Executed { reference, shares, .. } => self.execute(locate, reference, shares, None),
            Body::ExecutedWithPrice { reference, shares, printable, price, .. } => {
                self.execute(locate, reference, shares, Some((scale(price), printable == b'Y')));
            }
            Body::Cancel { reference, shares } => self.cancel(locate, reference, shares, true),
            Body::Delete { reference } => self.cancel(locate, reference, u32::MAX, true),
            Body::Replace { original, reference, shares, price } => {
                if let Some(old) = self.orders.get(&original).copied() {
                    self.cancel(locate, original, u32::MAX, false);
                    self.add(locate, reference, old.side, shares, scale(price), true);
                } else {
                    self.suspect.insert(locate);
                }
            }
            Body::Trade { shares, stock, price, .. } => self.print(locate, stock, shares, scale(price)),
            Body::Cross { shares, stock, price, .. } => {
                if shares > 0 {
                    self.print(locate, stock, saturate(shares), scale(price));
                }
            }
            _ => self.apply_administrative(message),
        }
        &self.expected
    }

    /// Whether the messages that follow are a snapshot's.
    pub fn set_snapshot(&mut self, is_snapshot: bool) {
        self.is_snapshot = is_snapshot;
    }

    /// Whether something of this instrument was not understood before, so that its records must say so.
    #[must_use]
    pub fn is_suspect(&self, locate: u16) -> bool {
        self.suspect.contains(&locate)
    }

    /// The live orders.
    #[must_use]
    pub fn book(&self) -> Book {
        let entry = |(reference, o): (&u64, &Order)| {
            ((u32::from(o.locate), *reference), BookOrder { side: o.side, price: o.price, size: o.size })
        };
        self.orders.iter().map(entry).collect()
    }

    fn apply_administrative(&mut self, message: &Message) {
        let locate = message.locate;
        match message.body {
            Body::StockDirectory { stock, round_lot, .. } => {
                let is_first = self.mapped.insert(locate);
                self.tell_mapping(locate, stock, is_first);
                let round_lot = i32::try_from(round_lot).unwrap_or(i32::MAX);
                self.expected.push(Expected::Definition { stock, round_lot });
            }
            Body::TradingAction { stock, state, reason, .. } => {
                let (action, is_trading, is_quoting) = match state {
                    b'T' => (7, b'Y', b'Y'),
                    b'Q' => (3, b'N', b'Y'),
                    b'H' => (8, b'N', b'N'),
                    b'P' => (9, b'N', b'N'),
                    _ => return,
                };
                self.map(locate, stock);
                let reason = status_reason(&reason);
                let is_short_sell_restricted = b'~';
                self.expected.push(Expected::Status {
                    action,
                    reason,
                    is_trading,
                    is_quoting,
                    is_short_sell_restricted,
                });
            }
            Body::RegSho { stock, action } => {
                let is_short_sell_restricted = match action {
                    b'0' => b'N',
                    b'1' | b'2' => b'Y',
                    _ => return,
                };
                self.map(locate, stock);
                let (is_trading, is_quoting) = (b'~', b'~');
                self.expected.push(Expected::Status {
                    action: 14,
                    reason: 0,
                    is_trading,
                    is_quoting,
                    is_short_sell_restricted,
                });
            }
            Body::Imbalance { paired, shares, direction, stock, far, near, reference_price, cross_type, variation } => {
                self.map(locate, stock);
                self.expected.push(Expected::Imbalance {
                    reference: scale(reference_price),
                    near: scale(near),
                    far: scale(far),
                    paired: saturate(paired),
                    shares: saturate(shares),
                    side: if direction == b'B' { b'B' } else { [b'N', b'A'][usize::from(direction == b'S')] },
                    auction_type: cross_type,
                    variation,
                });
            }
            _ => {} // No record: system events, participants, circuit breakers, collars, broken trades and others.
        }
    }

    /// A symbol is mapped before the first record of its instrument.
    fn map(&mut self, locate: u16, stock: Symbol) {
        if self.mapped.insert(locate) {
            self.tell_mapping(locate, stock, true);
        }
    }

    fn tell_mapping(&mut self, locate: u16, stock: Symbol, is_first: bool) {
        self.expected.push(Expected::Mapping { stock });
        // The book of an earlier session, or what anybody had before a snapshot.
        if self.mapped_before.remove(&locate) || (is_first && self.is_snapshot) {
            let (action, side, price) = (b'R', b'N', i64::MAX);
            self.expected.push(Expected::Mbo { order_id: 0, price, size: 0, action, side, is_last: false });
        }
    }

    fn add(&mut self, locate: u16, reference: u64, side: u8, size: u32, price: i64, is_last: bool) {
        if self.orders.insert(reference, Order { locate, side, price, size }).is_some() {
            self.suspect.insert(locate);
        }
        self.expected.push(Expected::Mbo { order_id: reference, price, size, action: b'A', side, is_last });
    }

    fn cancel(&mut self, locate: u16, reference: u64, shares: u32, is_last: bool) {
        let Some(order) = self.orders.get_mut(&reference) else {
            self.suspect.insert(locate);
            return;
        };
        let size = shares.min(order.size);
        order.size -= size;
        let Order { side, price, size: left, .. } = *order;
        if left == 0 {
            self.orders.remove(&reference);
        }
        self.expected.push(Expected::Mbo { order_id: reference, price, size, action: b'C', side, is_last });
    }

    fn execute(&mut self, locate: u16, reference: u64, size: u32, printed: Option<(i64, bool)>) {
        let Some(Order { side, price, .. }) = self.orders.get(&reference).copied() else {
            self.suspect.insert(locate);
            return;
        };
        let (price, is_printable) = printed.unwrap_or((price, true));
        let fill = |action, order_id, side| Expected::Mbo { order_id, price, size, action, side, is_last: false };
        if is_printable {
            self.expected.push(fill(b'T', 0, if side == b'B' { b'A' } else { b'B' }));
        }
        self.expected.push(fill(b'F', reference, side));
        self.cancel(locate, reference, size, true);
    }

    fn print(&mut self, locate: u16, stock: Symbol, size: u32, price: i64) {
        self.map(locate, stock);
        self.expected.push(Expected::Mbo { order_id: 0, price, size, action: b'T', side: b'N', is_last: true });
    }
}

fn scale(price: u32) -> i64 {
    i64::from(price) * PRICE_SCALE
}

fn saturate(quantity: u64) -> u32 {
    u32::try_from(quantity).unwrap_or(MAX_SIZE).min(MAX_SIZE)
}

/// DBN's reasons by Nasdaq's codes; those without a counterpart are 0.
fn status_reason(code: &[u8; 4]) -> u16 {
    #[rustfmt::skip]
    const REASONS: [(&[u8], u16); 31] = [
        (b"T1", 30), (b"T2", 31), (b"T3", 32), (b"C3", 33), (b"T5", 50), (b"T7", 50), (b"LUDP", 50), (b"LUDS", 50),
        (b"T6", 10), (b"H11", 10), (b"C11", 10), (b"T8", 90), (b"T12", 70), (b"H4", 12), (b"C4", 12), (b"H9", 13),
        (b"H10", 14), (b"R1", 15), (b"R2", 16), (b"R4", 17), (b"R9", 18), (b"C9", 18), (b"O1", 60), (b"M1", 100),
        (b"IPO1", 110), (b"MWC1", 120), (b"MWC2", 121), (b"MWC3", 122), (b"MWC0", 123), (b"MWCQ", 124), (b"M2", 130),
    ];
    let code = code.trim_ascii_end();
    REASONS.iter().find(|(name, _)| *name == code).map_or(0, |(_, reason)| *reason)
}

#[cfg(test)]
mod tests;
