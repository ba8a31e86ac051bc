//! The content of a GLIMPSE snapshot: what a late joiner must know of a day at any point of it.
//!
//! Source: Nasdaq, *GLIMPSE*, version 5.0: directory, then trading states, then displayed orders with their remaining shares,
//! then End of Snapshot with the number of the first message that it does not contain. Its own book, from the exchange's own
//! messages.
#![forbid(unsafe_code)]

pub mod server;

use std::collections::{BTreeMap, HashMap};

use crate::itch::{Body, Message, Symbol};

/// One displayed order.
#[derive(Clone, Copy, Debug)]
struct Order {
    /// Orders are told in the order in which they came to their places.
    rank: u64,
    locate: u16,
    stock: Symbol,
    side: u8,
    shares: u32,
    price: u32,
    mpid: Option<[u8; 4]>,
    timestamp_ns: u64,
}

/// The exchange's state of a day, as a snapshot tells it.
#[derive(Clone, Debug, Default)]
pub struct Glimpse {
    /// By locate: the newest of each.
    directory: BTreeMap<u16, Message>,
    states: BTreeMap<u16, Message>,
    restrictions: BTreeMap<u16, Message>,
    orders: HashMap<u64, Order>,
    applied: u64,
}

impl Glimpse {
    /// Applies the day's next message.
    pub fn apply(&mut self, message: &Message) {
        self.applied += 1;
        let (locate, timestamp_ns, rank) = (message.locate, message.timestamp_ns, self.applied);
        let mut add = |reference, stock, side, shares, price, mpid| {
            let order = Order { rank, locate, stock, side, shares, price, mpid, timestamp_ns };
            self.orders.insert(reference, order);
        };
        match message.body {
            Body::StockDirectory { .. } => drop(self.directory.insert(locate, *message)),
            Body::TradingAction { .. } => drop(self.states.insert(locate, *message)),
            Body::RegSho { .. } => drop(self.restrictions.insert(locate, *message)),
            Body::Add { reference, side, shares, stock, price } => add(reference, stock, side, shares, price, None),
            Body::AddAttributed { reference, side, shares, stock, price, mpid } => {
                add(reference, stock, side, shares, price, Some(mpid));
            }
            Body::Executed { reference, shares, .. }
            | Body::ExecutedWithPrice { reference, shares, .. }
            | Body::Cancel { reference, shares } => self.reduce(reference, shares),
            Body::Delete { reference } => self.reduce(reference, u32::MAX),
            Body::Replace { original, reference, shares, price } => {
                if let Some(Order { locate, stock, side, mpid, .. }) = self.orders.remove(&original) {
                    let order = Order { rank, locate, stock, side, shares, price, mpid, timestamp_ns };
                    self.orders.insert(reference, order);
                }
            }
            _ => {}
        }
    }

    fn reduce(&mut self, reference: u64, shares: u32) {
        let Some(order) = self.orders.get_mut(&reference) else { return };
        order.shares = order.shares.saturating_sub(shares);
        if order.shares == 0 {
            self.orders.remove(&reference);
        }
    }

    /// Number of the first message that has not been applied.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.applied + 1
    }

    /// The messages of a snapshot taken now, without its end.
    #[must_use]
    pub fn spin(&self) -> Vec<Message> {
        let mut orders: Vec<(&u64, &Order)> = self.orders.iter().collect();
        orders.sort_unstable_by_key(|(_, order)| order.rank);
        let orders = orders.into_iter().map(|(reference, order)| {
            let Order { locate, stock, side, shares, price, mpid, timestamp_ns, .. } = *order;
            let reference = *reference;
            let body = match mpid {
                None => Body::Add { reference, side, shares, stock, price },
                Some(mpid) => Body::AddAttributed { reference, side, shares, stock, price, mpid },
            };
            Message { locate, tracking: 0, timestamp_ns, body }
        });
        let states = self.directory.values().chain(self.states.values()).chain(self.restrictions.values());
        states.copied().chain(orders).collect()
    }

    /// The same as bytes, with its end: what Sequenced Data packets hold.
    #[must_use]
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let bytes = |message: &Message| {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            bytes
        };
        let mut messages: Vec<Vec<u8>> = self.spin().iter().map(bytes).collect();
        messages.push(end(self.next()));
        messages
    }
}

/// End of Snapshot: the live stream goes on with message `next`.
#[must_use]
pub fn end(next: u64) -> Vec<u8> {
    format!("G{next:>20}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::{Day, DaySettings};
    use crate::truth::Truth;

    #[test]
    fn at_any_point_a_snapshot_gives_the_books_of_the_day_and_is_shorter_than_it() {
        let settings = DaySettings { messages: 6_000, instruments: 20, live_orders: 300, ..DaySettings::default() };
        let (mut glimpse, mut truth) = (Glimpse::default(), Truth::default());
        let mut counts = [0; 2];
        for (number, message) in (1..).zip(Day::new(&settings)) {
            glimpse.apply(&message);
            truth.apply(&message);
            if number % 97 == 0 {
                let spin = glimpse.spin();
                let mut joined = Truth::default();
                for message in &spin {
                    joined.apply(message);
                }
                assert_eq!(joined.book(), truth.book(), "after {number}");
                assert!((spin.len() as u64) < glimpse.next() && glimpse.next() == number + 1);
                counts = [counts[0] + 1, counts[1].max(spin.len())];
            }
        }
        assert!(counts[0] > 50 && counts[1] > 300, "{counts:?}");
        assert_eq!(end(77), *b"G                  77");
    }
}
