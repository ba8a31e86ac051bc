//! Order store: order reference → side, price, shares.
//!
//! What costs is the cache miss, so an order takes exactly one: a bucket is one cache line of four orders, and
//! [`OrderStore::prefetch`] loads it while other messages are decoded. A bucket that is full passes orders on to the
//! next ones. How many orders passed over a bucket is counted beside it, so that a search stops at the first bucket
//! that nothing passed, and removing an order needs no moving of others.
//!
//! The store is allocated and written once at start, at half load, and never grows.
#![forbid(unsafe_code)]

use super::prefetch;

/// Orders in one bucket: 64 bytes.
const BUCKET_ORDERS: usize = 4;

/// Buckets that a search looks at, at most. At half load a longer run does not occur with exchange-assigned references.
const PROBE_LIMIT: usize = 32;

/// The side is the top bit of the share count; a venue's largest order is far below it.
const SELL: u32 = 1 << 31;

/// Most shares of one order that can be kept.
pub const MAX_SHARES: u32 = SELL - 1;

/// Side of a resting order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Buy.
    Bid,
    /// Sell.
    Ask,
}

/// What the store knows of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its side.
    pub side: Side,
    /// Its price, as on the wire.
    pub price: u32,
    /// Shares left.
    pub shares: u32,
}

/// What an execution or cancel did to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduction {
    /// Side of the order.
    pub side: Side,
    /// Price of the order.
    pub price: u32,
    /// Shares taken off: what was asked, or all that were left.
    pub removed: u32,
    /// More was asked than was left.
    pub excess: bool,
}

/// What became of an order that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// Stored.
    New,
    /// Stored in the place of a live order with the same reference.
    Replaced,
    /// Not stored: the store is full.
    Full,
}

/// 16 bytes; no shares = empty.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Slot {
    reference: u64,
    shares_and_side: u32,
    price: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Bucket([Slot; BUCKET_ORDERS]);

const _: () = assert!(size_of::<Bucket>() == 64);

/// Fixed-size hash table of orders.
#[derive(Debug)]
pub struct OrderStore {
    buckets: Vec<Bucket>,
    /// Orders that live behind a bucket because it was full when they came. At most
    /// `PROBE_LIMIT * BUCKET_ORDERS` = 128, so a byte is enough.
    passed: Vec<u8>,
    len: usize,
    capacity: usize,
}

impl OrderStore {
    /// A store for `capacity` orders.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        // Half load: with it only a few orders in a hundred are not in their own bucket.
        let bucket_count = capacity.div_ceil(BUCKET_ORDERS / 2).max(1);
        let mut buckets = Vec::with_capacity(bucket_count);
        prefetch::advise_huge_pages(buckets.spare_capacity_mut());
        // Writes every page, so that none is faulted in later.
        buckets.resize(bucket_count, Bucket::default());
        Self { buckets, passed: vec![0; bucket_count], len: 0, capacity }
    }

    /// The bucket where an order belongs.
    #[inline]
    fn home(&self, reference: u64) -> usize {
        // Fibonacci hashing spreads consecutive references evenly; the high half of the product scales the hash to the
        // number of buckets without a division.
        let hash = reference.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// Starts loading the bucket of an order that will be needed soon.
    #[inline]
    pub fn prefetch(&self, reference: u64) {
        prefetch::line(&self.buckets[self.home(reference)]);
    }

    /// Bucket and slot of a live order.
    #[inline]
    fn find(&self, reference: u64) -> Option<(usize, usize)> {
        let mut bucket = self.home(reference);
        for _ in 0..PROBE_LIMIT {
            if let Some(slot) = position(&self.buckets[bucket], reference) {
                return Some((bucket, slot));
            }
            if self.passed[bucket] == 0 {
                return None;
            }
            bucket = self.after(bucket);
        }
        None
    }

    /// Stores an order. One of no shares is not live and is not stored.
    #[inline]
    pub fn insert(&mut self, reference: u64, order: Order) -> Insert {
        let shares = order.shares.min(MAX_SHARES);
        let side = if order.side == Side::Ask { SELL } else { 0 };
        let slot = Slot { reference, shares_and_side: shares | side, price: order.price };
        let replaced = match self.find(reference) {
            Some((bucket, old)) if shares > 0 => {
                self.buckets[bucket].0[old] = slot;
                return Insert::Replaced;
            }
            Some((bucket, old)) => {
                self.vacate(bucket, old);
                Insert::Replaced
            }
            None => Insert::New,
        };
        if shares == 0 {
            return replaced;
        }
        if self.len >= self.capacity {
            return Insert::Full;
        }
        let home = self.home(reference);
        let mut bucket = home;
        for _ in 0..PROBE_LIMIT.min(self.buckets.len()) {
            if let Some(free) = first_free(&self.buckets[bucket]) {
                self.buckets[bucket].0[free] = slot;
                self.len += 1;
                self.pass(home, bucket, 1);
                return Insert::New;
            }
            bucket = self.after(bucket);
        }
        Insert::Full
    }

    /// Adds `by` to the count of every bucket from `home` up to, not including, `bucket`.
    #[inline]
    fn pass(&mut self, home: usize, bucket: usize, by: i8) {
        let mut passed = home;
        while passed != bucket {
            self.passed[passed] = self.passed[passed].wrapping_add_signed(by);
            passed = self.after(passed);
        }
    }

    /// Empties a slot.
    #[inline]
    fn vacate(&mut self, bucket: usize, slot: usize) {
        let home = self.home(self.buckets[bucket].0[slot].reference);
        self.buckets[bucket].0[slot] = Slot::default();
        self.len -= 1;
        self.pass(home, bucket, -1);
    }

    /// Takes shares off an order; one with none left is removed. `None` if there is no such order.
    #[inline]
    pub fn reduce(&mut self, reference: u64, shares: u32) -> Option<Reduction> {
        let (bucket, slot) = self.find(reference)?;
        let live = &mut self.buckets[bucket].0[slot];
        let order = live.order();
        let removed = shares.min(order.shares);
        // The side bit stays.
        live.shares_and_side -= removed;
        if removed == order.shares {
            self.vacate(bucket, slot);
        }
        Some(Reduction { side: order.side, price: order.price, removed, excess: shares > removed })
    }

    /// Removes an order. `None` if there is no such order.
    #[inline]
    pub fn remove(&mut self, reference: u64) -> Option<Order> {
        let (bucket, slot) = self.find(reference)?;
        let order = self.buckets[bucket].0[slot].order();
        self.vacate(bucket, slot);
        Some(order)
    }

    /// A live order.
    #[must_use]
    pub fn get(&self, reference: u64) -> Option<Order> {
        self.find(reference).map(|(bucket, slot)| self.buckets[bucket].0[slot].order())
    }

    /// Removes all orders. Writes the whole store: for the change of sessions only.
    pub fn clear(&mut self) {
        if self.len > 0 {
            self.buckets.fill(Bucket::default());
            self.passed.fill(0);
            self.len = 0;
        }
    }

    /// Live orders.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no order is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Slot {
    #[inline]
    fn order(&self) -> Order {
        let side = if self.shares_and_side & SELL == 0 { Side::Bid } else { Side::Ask };
        Order { side, price: self.price, shares: self.shares_and_side & !SELL }
    }
}

/// The slot with a live order of this reference. Compares all four without a branch: which one it is, is random.
#[inline]
fn position(bucket: &Bucket, reference: u64) -> Option<usize> {
    let mut matches = 0u32;
    for (i, slot) in bucket.0.iter().enumerate() {
        matches |= u32::from(slot.reference == reference && slot.shares_and_side & !SELL != 0) << i;
    }
    (matches != 0).then(|| matches.trailing_zeros() as usize)
}

#[inline]
fn first_free(bucket: &Bucket) -> Option<usize> {
    let mut free = 0u32;
    for (i, slot) in bucket.0.iter().enumerate() {
        free |= u32::from(slot.shares_and_side & !SELL == 0) << i;
    }
    (free != 0).then(|| free.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests;
