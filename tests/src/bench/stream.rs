//! An endless ITCH 5.0 day in its steady state: a fixed number of live orders, messages in the proportions of a real day.
//!
//! 45 % A and F, 40 % D, 7 % U, 5 % E and C, 2 % X, 1 % P. Which live order an event hits is uniformly random, so that
//! nothing but its own prefetching helps an order store: on a real day most deletes hit young orders, which is kinder.
#![forbid(unsafe_code)]

use feedhandler::feed::Session;
use feedhandler::feed::transport::moldudp64::{self, HEADER_BYTES};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Session of the stream.
pub const SESSION: Session = *b"BENCH00001";

/// UDP payload that packets are filled up to, bytes.
pub const PAYLOAD_BYTES: usize = 1472;

/// Instruments of the day, locates from 1.
const INSTRUMENTS: u16 = 8_000;

#[derive(Clone, Copy)]
struct Live {
    reference: u64,
    locate: u16,
    shares: u32,
}

/// The generator.
pub struct Stream {
    random: ChaCha8Rng,
    live: Vec<Live>,
    target: usize,
    next_reference: u64,
    time_ns: u64,
    sequence: u64,
    /// The next message: it did not fit into the last packet any more.
    message: Vec<u8>,
    /// Live orders before `message`.
    sent_live: usize,
}

impl Stream {
    /// A day that will have `live` orders; it starts with none.
    #[must_use]
    pub fn new(live: usize, seed: u64) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            live: Vec::with_capacity(live + 1),
            target: live,
            next_reference: 1,
            time_ns: 34_200_000_000_000,
            sequence: 1,
            message: Vec::with_capacity(64),
            sent_live: 0,
        }
    }

    /// Orders that are live once every packet so far is applied.
    #[must_use]
    pub fn live(&self) -> usize {
        self.sent_live
    }

    /// Whether the day has reached its steady state.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        self.live.len() >= self.target
    }

    /// Appends the next MoldUDP64 packet, filled with messages; returns their number.
    pub fn packet(&mut self, bytes: &mut Vec<u8>) -> u16 {
        self.packet_of(bytes, u16::MAX)
    }

    /// As [`Self::packet`], with at most `most` messages.
    pub fn packet_of(&mut self, bytes: &mut Vec<u8>, most: u16) -> u16 {
        let start = bytes.len();
        bytes.resize(start + HEADER_BYTES, 0);
        let mut count = 0;
        if self.message.is_empty() {
            self.next_message();
        }
        while count < most && bytes.len() - start + 2 + self.message.len() <= PAYLOAD_BYTES {
            bytes.extend_from_slice(&(self.message.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&self.message);
            count += 1;
            self.next_message();
        }
        let header = bytes[start..].first_chunk_mut().expect("resized by that much");
        moldudp64::write_header(header, &SESSION, self.sequence, count);
        self.sequence += u64::from(count);
        count
    }

    fn next_message(&mut self) {
        self.time_ns += self.random.random_range(100..4_000);
        self.message.clear();
        self.sent_live = self.live.len();
        if !self.is_steady() && self.live.len() + 1 < self.target {
            return self.add();
        }
        match self.random.random_range(0..1000) {
            0..450 => self.balanced(true),
            450..850 => self.balanced(false),
            850..920 => self.replace(),
            920..970 => self.execute(),
            970..990 => self.cancel(),
            _ => self.trade(),
        }
    }

    /// An add or a delete; the other one where the number of live orders has drifted.
    fn balanced(&mut self, add: bool) {
        let drift = self.target / 1000 + 1;
        if self.live.len() + drift < self.target || (add && self.live.len() < self.target + drift) {
            self.add();
        } else {
            self.delete();
        }
    }

    fn header(&mut self, kind: u8, locate: u16) {
        self.message.push(kind);
        self.message.extend_from_slice(&locate.to_be_bytes());
        self.message.extend_from_slice(&[0, 0]);
        self.message.extend_from_slice(&self.time_ns.to_be_bytes()[2..]);
    }

    fn field(&mut self, bytes: &[u8]) {
        self.message.extend_from_slice(bytes);
    }

    fn stock(&mut self, locate: u16) {
        let symbol = format!("S{locate:<7}");
        self.field(symbol.as_bytes());
    }

    fn price(&mut self) -> [u8; 4] {
        (self.random.random_range(1_000..50_000u32) * 100).to_be_bytes()
    }

    fn new_order(&mut self, locate: u16) -> Live {
        self.next_reference += self.random.random_range(1..8);
        let shares = self.random.random_range(1..20u32) * 100;
        let live = Live { reference: self.next_reference, locate, shares };
        self.live.push(live);
        live
    }

    fn any(&mut self) -> usize {
        self.random.random_range(0..self.live.len())
    }

    fn add(&mut self) {
        let locate = self.random.random_range(1..=INSTRUMENTS);
        let attributed = self.random.random_range(0..25) == 0;
        let side = if self.random.random() { b'B' } else { b'S' };
        let order = self.new_order(locate);
        self.header(if attributed { b'F' } else { b'A' }, locate);
        self.field(&order.reference.to_be_bytes());
        self.field(&[side]);
        self.field(&order.shares.to_be_bytes());
        self.stock(locate);
        let price = self.price();
        self.field(&price);
        if attributed {
            self.field(b"MPID");
        }
    }

    fn delete(&mut self) {
        let index = self.any();
        let order = self.live.swap_remove(index);
        self.header(b'D', order.locate);
        self.field(&order.reference.to_be_bytes());
    }

    fn replace(&mut self) {
        let index = self.any();
        let old = self.live.swap_remove(index);
        let new = self.new_order(old.locate);
        self.header(b'U', old.locate);
        self.field(&old.reference.to_be_bytes());
        self.field(&new.reference.to_be_bytes());
        self.field(&new.shares.to_be_bytes());
        let price = self.price();
        self.field(&price);
    }

    fn execute(&mut self) {
        let index = self.any();
        let order = self.live[index];
        let shares = if self.random.random_range(0..5) > 0 { order.shares } else { order.shares.div_ceil(2) };
        let with_price = self.random.random_range(0..50) == 0;
        self.header(if with_price { b'C' } else { b'E' }, order.locate);
        self.field(&order.reference.to_be_bytes());
        self.field(&shares.to_be_bytes());
        let match_number = self.sequence.to_be_bytes();
        self.field(&match_number);
        if with_price {
            self.field(b"Y");
            let price = self.price();
            self.field(&price);
        }
        self.take(index, shares);
    }

    fn cancel(&mut self) {
        let index = self.any();
        let order = self.live[index];
        let shares = order.shares.div_ceil(2);
        self.header(b'X', order.locate);
        self.field(&order.reference.to_be_bytes());
        self.field(&shares.to_be_bytes());
        self.take(index, shares);
    }

    fn take(&mut self, index: usize, shares: u32) {
        self.live[index].shares -= shares;
        if self.live[index].shares == 0 {
            self.live.swap_remove(index);
        }
    }

    fn trade(&mut self) {
        let locate = self.random.random_range(1..=INSTRUMENTS);
        self.header(b'P', locate);
        self.field(&[0; 8]);
        self.field(b"B");
        self.field(&100u32.to_be_bytes());
        self.stock(locate);
        let price = self.price();
        self.field(&price);
        let match_number = self.sequence.to_be_bytes();
        self.field(&match_number);
    }
}
