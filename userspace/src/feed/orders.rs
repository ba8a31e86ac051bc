//! Order store: order reference → side, price, shares.
//!
//! What costs is the cache miss, so an order takes exactly one: a bucket is one cache line of four orders, and
//! [`OrderStore::prefetch`] loads it while other messages are decoded. A bucket that is full passes orders on to the
//! next ones. How many it passed on is counted within it, so that a search stops at the first bucket that passed none
//! on, and removing an order needs no moving of others.
//!
//! The store is allocated and written once at start and never grows. A change of sessions must not write it as a whole,
//! hundreds of megabytes while packets wait: it marks blocks of buckets as stale. A stale block is as good as empty to a
//! search, and is emptied when the first order of the new session is stored in it.
#![forbid(unsafe_code)]

mod bucket;
mod stale;

use super::prefetch;
pub use bucket::MAX_SHARES;
use bucket::{BUCKET_ORDERS, Bucket, MANY_PASSED};
use stale::BLOCK_BUCKETS;

/// Places for each order of the capacity. With three, one order in a hundred is not in its own bucket when the store is
/// full; with two it is one in twenty, and each of them costs a cache miss that nobody asked for ahead.
const PLACES_PER_ORDER: usize = 3;

/// Buckets that a search looks at, at most. At this load a longer run does not occur with exchange-assigned references.
const PROBE_LIMIT: usize = 32;

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

/// Where a live order is.
#[derive(Clone, Copy)]
struct Found {
    home: usize,
    bucket: usize,
    place: usize,
}

/// Fixed-size hash table of orders.
#[derive(Debug)]
pub struct OrderStore {
    buckets: Vec<Bucket>,
    /// By block: whether it still holds orders of before the last [`Self::clear`].
    stale: Vec<bool>,
    /// How many blocks are stale.
    stale_count: usize,
    len: usize,
    capacity: usize,
}

impl OrderStore {
    /// A store for `capacity` orders.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let bucket_count = capacity.saturating_mul(PLACES_PER_ORDER).div_ceil(BUCKET_ORDERS).max(1);
        let mut buckets = Vec::with_capacity(bucket_count);
        prefetch::advise_huge_pages(buckets.spare_capacity_mut());
        // Writes every page, so that none is faulted in later.
        buckets.resize(bucket_count, Bucket::default());
        let stale = vec![false; bucket_count.div_ceil(BLOCK_BUCKETS)];
        Self { buckets, stale, stale_count: 0, len: 0, capacity }
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

    #[inline(always)]
    fn find(&self, reference: u64) -> Option<Found> {
        let home = self.home(reference);
        if self.is_stale(home) {
            return None;
        }
        let bucket = &self.buckets[home];
        match bucket.position(reference) {
            Some(place) => Some(Found { home, bucket: home, place }),
            None if bucket.passed() == 0 => None,
            None => self.find_behind(home, reference),
        }
    }

    #[cold]
    fn find_behind(&self, home: usize, reference: u64) -> Option<Found> {
        let mut at = self.after(home);
        for _ in 1..PROBE_LIMIT {
            if self.is_stale(at) {
                return None;
            }
            let bucket = &self.buckets[at];
            if let Some(place) = bucket.position(reference) {
                return Some(Found { home, bucket: at, place });
            }
            if bucket.passed() == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Stores an order. One of no shares is not live and is not stored.
    #[inline]
    pub fn insert(&mut self, reference: u64, order: Order) -> Insert {
        if let Some(found) = self.find(reference) {
            self.replace(found, reference, order);
            return Insert::Replaced;
        }
        if order.shares == 0 {
            return Insert::New;
        }
        if self.len >= self.capacity {
            return Insert::Full;
        }
        let home = self.home(reference);
        self.freshen(home);
        let bucket = &mut self.buckets[home];
        match bucket.first_free() {
            Some(place) => bucket.put(place, reference, order),
            None => {
                if !self.insert_behind(home, reference, order) {
                    return Insert::Full;
                }
            }
        }
        self.len += 1;
        Insert::New
    }

    #[cold]
    fn replace(&mut self, found: Found, reference: u64, order: Order) {
        if order.shares == 0 {
            self.vacate(found);
        } else {
            self.buckets[found.bucket].put(found.place, reference, order);
        }
    }

    /// Stores an order whose bucket is full in the next one that is not; false if there is none within reach.
    #[cold]
    fn insert_behind(&mut self, home: usize, reference: u64, order: Order) -> bool {
        let mut at = home;
        for _ in 1..PROBE_LIMIT.min(self.buckets.len()) {
            at = self.after(at);
            self.freshen(at);
            if let Some(place) = self.buckets[at].first_free() {
                self.buckets[at].put(place, reference, order);
                self.for_each_passed(home, at, |passed| (passed + 1).min(MANY_PASSED));
                return true;
            }
        }
        false
    }

    /// Changes the count of every bucket from `home` up to, not including, `bucket`.
    fn for_each_passed(&mut self, home: usize, bucket: usize, change: impl Fn(u32) -> u32) {
        let mut at = home;
        while at != bucket {
            let passed = self.buckets[at].passed();
            self.buckets[at].set_passed(change(passed));
            at = self.after(at);
        }
    }

    /// Empties a place. Nothing else moves.
    #[inline]
    fn vacate(&mut self, found: Found) {
        self.buckets[found.bucket].empty(found.place);
        self.len -= 1;
        if found.bucket != found.home {
            self.for_each_passed(
                found.home,
                found.bucket,
                |passed| {
                    if passed == MANY_PASSED { passed } else { passed - 1 }
                },
            );
        }
    }

    /// Takes shares off an order; one with none left is removed. `None` if there is no such order.
    #[inline]
    pub fn reduce(&mut self, reference: u64, shares: u32) -> Option<Reduction> {
        let found = self.find(reference)?;
        let bucket = &mut self.buckets[found.bucket];
        let order = bucket.order(found.place);
        let removed = shares.min(order.shares);
        if removed == order.shares {
            self.vacate(found);
        } else {
            bucket.reduce(found.place, removed);
        }
        Some(Reduction { side: order.side, price: order.price, removed, excess: shares > removed })
    }

    /// Removes an order. `None` if there is no such order.
    #[inline]
    pub fn remove(&mut self, reference: u64) -> Option<Order> {
        let found = self.find(reference)?;
        let order = self.buckets[found.bucket].order(found.place);
        self.vacate(found);
        Some(order)
    }

    /// A live order.
    #[must_use]
    pub fn get(&self, reference: u64) -> Option<Order> {
        self.find(reference).map(|found| self.buckets[found.bucket].order(found.place))
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

#[cfg(test)]
mod tests;
