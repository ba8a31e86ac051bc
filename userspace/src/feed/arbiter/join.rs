//! A late start by a snapshot: whose place its messages take, and from where on the live stream is delivered.
//!
//! The session's first packet had not its first message. Nothing is delivered until a snapshot is there as a whole; live
//! packets are held meanwhile, however far behind the first they begin. A snapshot says which message is the first that it
//! does not contain (`next`). Its own messages then take the numbers that end there, so that the output stays one sequence:
//! nobody has seen those messages, and nobody will. Gaps are kept from `next` on only: what lies before it is not missing.
#![forbid(unsafe_code)]

use super::{Arbiter, Backfill, OpenGap};
use crate::feed::arbiter::Verdict;
use crate::feed::transport::PacketHeader;

/// A snapshot that has been announced as complete, and of which nothing came for so long, is not waited for any more,
/// nanoseconds. The thread that hands it over has all of it in memory.
const ARRIVAL_NS: u64 = 5_000_000_000;

/// How a late start by a snapshot stands. The numbers are those of the exported metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum JoinState {
    /// None is wanted: the channel begins otherwise, or has seen its first message.
    None = 0,
    /// A snapshot is waited for.
    Awaited = 1,
    /// One is complete and on its way.
    Arriving = 2,
    /// It was delivered, and the live stream behind it.
    Joined = 3,
    /// None came in time, or it broke off: the channel began with what was there.
    GivenUp = 4,
}

impl JoinState {
    /// The inverse of `as u64`; what is no state is [`JoinState::None`].
    #[must_use]
    pub const fn from_value(value: u64) -> Self {
        match value {
            1 => Self::Awaited,
            2 => Self::Arriving,
            3 => Self::Joined,
            4 => Self::GivenUp,
            _ => Self::None,
        }
    }
}

/// What became of a snapshot that is not waited for any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forsaken {
    /// Nothing of it was delivered: the session is joined late, and its books are unknown.
    Late,
    /// It broke off: these of its messages (from, to) are lost.
    Broken(u64, u64),
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Join {
    #[default]
    None,
    Awaited {
        /// The time of the first poll, nanoseconds.
        since_ns: Option<u64>,
        give_up_ns: u64,
    },
    Arriving {
        next: u64,
        has_begun: bool,
        /// The message that was expected next when it was last polled, and when that last moved, nanoseconds.
        expected: u64,
        progress_ns: u64,
    },
    Joined,
    GivenUp,
}

impl Join {
    pub(super) fn stood_still(&mut self, later: impl Fn(u64) -> u64) {
        match self {
            Self::Awaited { since_ns, .. } => *since_ns = since_ns.map(later),
            Self::Arriving { progress_ns, .. } => *progress_ns = later(*progress_ns),
            Self::None | Self::Joined | Self::GivenUp => {}
        }
    }
}

impl Arbiter {
    /// How a late start by a snapshot stands.
    #[must_use]
    pub fn join_state(&self) -> JoinState {
        match self.join {
            Join::None => JoinState::None,
            Join::Awaited { .. } => JoinState::Awaited,
            Join::Arriving { .. } => JoinState::Arriving,
            Join::Joined => JoinState::Joined,
            Join::GivenUp => JoinState::GivenUp,
        }
    }

    /// Whether live packets wait for a snapshot, or for the rest of it.
    #[inline]
    #[must_use]
    pub fn is_joining(&self) -> bool {
        matches!(self.join, Join::Awaited { .. } | Join::Arriving { .. })
    }

    /// Whether what is delivered next has no number yet.
    #[must_use]
    pub fn is_unnumbered(&self) -> bool {
        matches!(self.join, Join::Awaited { .. } | Join::Arriving { has_begun: false, .. })
    }

    /// The number after the newest message that is known to exist.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.known
    }

    /// The place of a live packet with messages meanwhile.
    #[cold]
    pub(super) fn place_joining(&self, header: &PacketHeader) -> Verdict {
        match self.join {
            Join::Arriving { next, .. } if header.end() <= next => Verdict::Duplicate,
            _ => Verdict::Hold,
        }
    }

    /// What was held was not all that came, and a new snapshot is about to be taken, which will be newer than all of it:
    /// begins anew with what comes from now on. False if nothing was dropped; else the caller forgets what it holds.
    pub fn forget(&mut self) -> bool {
        if !matches!(self.join, Join::Awaited { .. }) || self.first_drop_ns.is_none() {
            return false;
        }
        self.counts.gaps_closed += self.gaps.len() as u64;
        self.gaps.clear();
        self.first_drop_ns = None;
        (self.expected, self.first) = (self.known, self.known);
        true
    }

    /// A snapshot of all messages before `next` is complete. False if none is awaited, or if it is of a time that no line
    /// has shown yet: whoever believed it would take all that comes for old. What is held from before `next` is not needed
    /// any more; the caller then tells [`Self::settle_behind`] what is left.
    pub fn announce(&mut self, next: u64, now_ns: u64) -> bool {
        if !matches!(self.join, Join::Awaited { .. }) || !(2..=self.known).contains(&next) {
            return false;
        }
        while self.gaps.front().is_some_and(|gap| gap.to <= next) {
            self.gaps.pop_front();
            self.counts.gaps_closed += 1;
        }
        if let Some(gap) = self.gaps.front_mut() {
            gap.from = gap.from.max(next);
        }
        self.renew(now_ns);
        // Where the snapshot is older than the first packet, the gap between them is missing.
        self.expected = self.expected.min(next);
        self.join = Join::Arriving { next, has_begun: false, expected: self.expected, progress_ns: now_ns };
        true
    }

    /// Opens the gap between a snapshot and the live stream, if there is one; `nearest` is the first held sequence.
    pub fn settle_behind(&mut self, next: u64, nearest: Option<u64>, now_ns: u64) {
        if nearest.is_none_or(|nearest| nearest > next) {
            self.settle_at(next, nearest, now_ns);
        }
    }

    /// Whether these are the next messages of the snapshot that was announced, and, if so, whether they are its first.
    pub fn take_snapshot(&mut self, header: &PacketHeader) -> Option<bool> {
        let Join::Arriving { next, has_begun, .. } = &mut self.join else { return None };
        let follows = if *has_begun { header.sequence == self.expected } else { header.sequence < *next };
        if !follows || header.count == 0 || header.end() > *next {
            return None;
        }
        let is_first = !std::mem::replace(has_begun, true);
        if is_first {
            (self.expected, self.first) = (header.sequence, header.sequence);
        }
        Some(is_first)
    }

    /// Ends the join if all of the snapshot has been delivered.
    pub fn finish_join(&mut self) -> bool {
        let is_over = matches!(self.join, Join::Arriving { next, has_begun: true, .. } if next == self.expected);
        if is_over {
            self.join = Join::Joined;
            self.catch_up();
        }
        is_over
    }

    /// Tells the time. Whether the snapshot has taken too long.
    pub fn is_join_overdue(&mut self, now_ns: u64) -> bool {
        match &mut self.join {
            Join::Awaited { since_ns, give_up_ns } => {
                now_ns.saturating_sub(*since_ns.get_or_insert(now_ns)) >= *give_up_ns
            }
            Join::Arriving { expected, progress_ns, .. } => {
                if *expected != self.expected {
                    (*expected, *progress_ns) = (self.expected, now_ns);
                }
                now_ns.saturating_sub(*progress_ns) >= ARRIVAL_NS
            }
            Join::None | Join::Joined | Join::GivenUp => false,
        }
    }

    /// Goes on without the snapshot, from the first packet that came. `None` if none is waited for.
    pub fn forsake(&mut self, now_ns: u64) -> Option<Forsaken> {
        let forsaken = match self.join {
            Join::Awaited { .. } => Forsaken::Late,
            // What was held from before it is gone already.
            Join::Arriving { next, has_begun: false, .. } => {
                self.expected = next;
                Forsaken::Late
            }
            Join::Arriving { next, .. } => {
                let from = self.expected;
                self.counts.gaps_opened += 1;
                self.counts.gaps_lost += 1;
                self.counts.messages_lost = self.counts.messages_lost.saturating_add(next - from);
                self.expected = next;
                Forsaken::Broken(from, next)
            }
            Join::None | Join::Joined | Join::GivenUp => return None,
        };
        if forsaken == Forsaken::Late {
            self.first = self.expected;
        }
        self.join = Join::GivenUp;
        self.renew(now_ns);
        self.catch_up();
        Some(forsaken)
    }

    /// Nothing could be delivered until now: no gap is older.
    fn renew(&mut self, now_ns: u64) {
        let renew = |gap: &mut OpenGap| gap.opened_ns = gap.opened_ns.max(now_ns);
        self.gaps.iter_mut().for_each(renew);
        self.first_drop_ns = self.first_drop_ns.map(|first| first.max(now_ns));
    }

    /// What the hold buffer had no room for is recovered as the beginning of a session would be.
    fn catch_up(&mut self) {
        self.backfill = (self.deadlines.backfill_ns > 0).then(Backfill::default);
    }
}
