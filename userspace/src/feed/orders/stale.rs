//! Clearing without writing: blocks of buckets that still hold the orders of an earlier session.
#![forbid(unsafe_code)]

use super::OrderStore;
use super::bucket::Bucket;

/// Buckets that are stale, and emptied, together: 1 KiB, which takes less than a cache miss or two.
pub(super) const BLOCK_BUCKETS: usize = 16;

impl OrderStore {
    #[inline(always)]
    pub(super) fn is_stale(&self, bucket: usize) -> bool {
        self.stale_count > 0 && self.stale[bucket / BLOCK_BUCKETS]
    }

    /// Empties the block of a bucket that is to be written, if it is stale.
    #[inline(always)]
    pub(super) fn freshen(&mut self, bucket: usize) {
        if self.is_stale(bucket) {
            self.empty_block(bucket / BLOCK_BUCKETS);
        }
    }

    #[cold]
    fn empty_block(&mut self, block: usize) {
        let start = block * BLOCK_BUCKETS;
        let end = (start + BLOCK_BUCKETS).min(self.buckets.len());
        self.buckets[start..end].fill(Bucket::default());
        self.stale[block] = false;
        self.stale_count -= 1;
    }

    /// Removes all orders, by marking every block as stale.
    pub fn clear(&mut self) {
        if self.len > 0 {
            self.stale.fill(true);
            self.stale_count = self.stale.len();
            self.len = 0;
        }
    }
}
