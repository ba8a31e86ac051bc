//! A late start: what came before the first packet is recovered, and takes its time.
//!
//! Its gap is not given up by age, for as long as retransmissions close it from the front, and what is dropped meanwhile for
//! want of room in the hold buffer is recovered in the same way, until nothing is missing once. Messages that no server has,
//! while it answers for what follows them, are given up alone.
#![forbid(unsafe_code)]

use super::Arbiter;

/// A backfill outlives a silence of so many times `give_up`: a server that is being restarted, or rests after failures, must
/// not cost the whole beginning of a session.
const SILENT_GIVE_UPS: u64 = 20;

/// How a backfill goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backfill {
    /// The time of the first poll, nanoseconds.
    began_ns: Option<u64>,
    /// The message that was expected next when it was last polled.
    expected: u64,
    /// When that last moved, nanoseconds.
    progress_ns: u64,
    /// Whether anything of it ever came.
    is_answered: bool,
}

impl Backfill {
    /// How long a silence is borne, nanoseconds. Live messages that would be dropped meanwhile are worth more than a beginning
    /// that nobody has answered for yet.
    pub(super) fn patience_ns(&self, give_up_ns: u64, has_room: bool) -> u64 {
        if has_room || self.is_answered { give_up_ns.saturating_mul(SILENT_GIVE_UPS) } else { give_up_ns }
    }

    pub(super) fn answered(&mut self) {
        self.is_answered = true;
    }

    pub(super) fn stood_still(&mut self, later: impl Fn(u64) -> u64) {
        self.began_ns = self.began_ns.map(&later);
        if self.progress_ns > 0 {
            self.progress_ns = later(self.progress_ns);
        }
    }
}

impl Arbiter {
    /// The time of the newest progress of a backfill, nanoseconds; 0 if there is none. Ends it when nothing is missing, or
    /// when it has taken too long: what is still missing then is as old as it is.
    pub(super) fn poll_backfill(&mut self, now_ns: u64) -> u64 {
        // While the first packet waits for its witness nothing is known to be missing yet.
        let is_missing = self.is_missing() || self.claim.is_some();
        let Some(backfill) = &mut self.backfill else { return 0 };
        let began_ns = *backfill.began_ns.get_or_insert(now_ns);
        if !is_missing || now_ns.saturating_sub(began_ns) >= self.deadlines.backfill_ns {
            self.backfill = None;
            return 0;
        }
        if backfill.expected != self.expected {
            backfill.expected = self.expected;
            backfill.progress_ns = now_ns;
        }
        backfill.progress_ns
    }
}
