//! One cache line of orders.
#![forbid(unsafe_code)]

use super::{Order, Side};

/// Orders in one bucket: 64 bytes.
pub(super) const BUCKET_ORDERS: usize = 4;

/// Top bit of a share count: the order's side.
const SELL: u32 = 1 << 31;

/// Next bit of a share count: one bit of the bucket's count of orders that were passed on.
const PASSED: u32 = 1 << 30;

/// The share count proper.
const SHARES: u32 = PASSED - 1;

/// Most shares of one order that can be kept; a venue's largest order is far below it.
pub const MAX_SHARES: u32 = SHARES;

/// Largest count of passed orders that four bits hold. A bucket that reaches it keeps it: searches then go on for
/// nothing, but none stops too early.
pub(super) const MANY_PASSED: u32 = 15;

/// Four orders in one cache line; a place without shares is empty.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    references: [u64; BUCKET_ORDERS],
    /// Side, one bit of the count of passed orders, shares.
    shares: [u32; BUCKET_ORDERS],
    prices: [u32; BUCKET_ORDERS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// The place of a live order. Compares all four without a branch: which one it is, is random.
    #[inline]
    pub fn position(&self, reference: u64) -> Option<usize> {
        let mut matches = 0u32;
        for i in 0..BUCKET_ORDERS {
            matches |= u32::from((self.references[i] == reference) & (self.shares[i] & SHARES != 0)) << i;
        }
        (matches != 0).then(|| matches.trailing_zeros() as usize)
    }

    #[inline]
    pub fn first_free(&self) -> Option<usize> {
        let mut free = 0u32;
        for i in 0..BUCKET_ORDERS {
            free |= u32::from(self.shares[i] & SHARES == 0) << i;
        }
        (free != 0).then(|| free.trailing_zeros() as usize)
    }

    /// Orders that live behind this bucket because it was full when they came.
    #[inline]
    pub fn passed(&self) -> u32 {
        let mut passed = 0;
        for i in 0..BUCKET_ORDERS {
            passed |= (self.shares[i] & PASSED) >> (30 - i);
        }
        passed
    }

    pub fn set_passed(&mut self, passed: u32) {
        for i in 0..BUCKET_ORDERS {
            self.shares[i] = (self.shares[i] & !PASSED) | ((passed >> i & 1) << 30);
        }
    }

    #[inline]
    pub fn order(&self, place: usize) -> Order {
        let side = if self.shares[place] & SELL == 0 { Side::Bid } else { Side::Ask };
        Order { side, price: self.prices[place], shares: self.shares[place] & SHARES }
    }

    #[inline]
    pub fn put(&mut self, place: usize, reference: u64, order: Order) {
        let side = if order.side == Side::Ask { SELL } else { 0 };
        self.references[place] = reference;
        self.shares[place] = self.shares[place] & PASSED | side | order.shares.min(MAX_SHARES);
        self.prices[place] = order.price;
    }

    #[inline]
    pub fn empty(&mut self, place: usize) {
        self.shares[place] &= PASSED;
    }

    /// Takes off fewer shares than there are.
    #[inline]
    pub fn reduce(&mut self, place: usize, shares: u32) {
        // Less than the share count, so the bits above it stay.
        self.shares[place] -= shares;
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.shares.iter().all(|shares| shares & SHARES == 0)
    }
}
