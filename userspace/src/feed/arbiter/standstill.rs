//! A worker that was kept from running: another thread on its core, a stopped machine.
#![forbid(unsafe_code)]

use super::Arbiter;

impl Arbiter {
    /// For the last `still_ns` nanoseconds nobody could be heard or asked for anything: they count for no deadline.
    pub fn stood_still(&mut self, still_ns: u64, now_ns: u64) {
        let later = |since_ns: u64| since_ns.saturating_add(still_ns).min(now_ns);
        self.gaps.iter_mut().for_each(|gap| gap.opened_ns = later(gap.opened_ns));
        self.first_drop_ns = self.first_drop_ns.map(later);
        self.alive_ns = later(self.alive_ns.max(self.last_seen_ns));
        if let Some(backfill) = &mut self.backfill {
            backfill.stood_still(later);
        }
        self.join.stood_still(later);
        self.polled_ns = now_ns;
    }
}
