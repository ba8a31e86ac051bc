//! Sessions: how one begins, which were left, and which of those may come back.
#![forbid(unsafe_code)]

use super::backfill::Backfill;
use super::join::Join;
use super::{Arbiter, Beginning};
use crate::config::plan::StartAt;
use crate::feed::Session;
use crate::feed::transport::PacketHeader;

/// Sessions that are remembered as left, so that their late packets are never taken for a new session.
pub(super) const OLD_SESSIONS: usize = 8;

impl Arbiter {
    /// Begins the session of `header`. The caller has given up what was missing of the one before.
    ///
    /// The first session begins where the configuration says; every later one is seen from its start, message 1.
    pub fn begin(&mut self, header: &PacketHeader) -> Option<Beginning> {
        let first = match (self.session, self.start, self.forsaken) {
            (None, StartAt::Now | StartAt::Snapshot { .. }, _) => header.sequence.max(1),
            (_, _, Some((session, next))) if session == header.session => next,
            _ => 1,
        };
        if let (None, StartAt::Snapshot { give_up_ns }) = (self.session, self.start)
            && first > 1
        {
            self.join = Join::Awaited { since_ns: None, give_up_ns };
        }
        let left = self.session.replace(header.session);
        let is_restart = left == Some(header.session);
        if let Some(left) = left {
            assert!(self.expected == self.known, "a session is left with messages neither delivered nor lost");
            if !is_restart {
                self.leave(left, header.session);
            }
        }
        (self.expected, self.known, self.first) = (first, first, first);
        let is_late = header.sequence > first && self.deadlines.backfill_ns > 0;
        self.backfill = is_late.then(Backfill::default);
        self.end = None;
        self.hurried = 0;
        self.first_drop_ns = None;
        self.stale = false;
        self.begin_courses();
        self.counts.sessions += u64::from(!is_restart);
        self.counts.restarts += u64::from(is_restart);
        match (is_restart, first) {
            (true, _) => Some(Beginning::Restarted),
            (false, 1) => Some(Beginning::New),
            (false, _) if self.is_joining() => None,
            (false, _) => Some(Beginning::Late),
        }
    }

    /// Remembers a session that is left for another. One that ended, or that lines went on with, is never taken up again; one
    /// that had fallen silent is, when it turns out that what came instead was a stray.
    fn leave(&mut self, left: Session, next_session: Session) {
        let forsaken = self.forsaken.take().map(|(session, _)| session).filter(|session| *session != next_session);
        let may_return = self.stale && self.ended().is_none();
        if may_return {
            self.forsaken = Some((left, self.expected));
        }
        for old in [forsaken, Some(left).filter(|_| !may_return)].into_iter().flatten() {
            if self.old_sessions.len() == OLD_SESSIONS {
                self.old_sessions.pop_front();
            }
            self.old_sessions.push_back(old);
        }
    }

    /// Whether a session was left because nobody heard of it any more.
    pub(super) fn is_forsaken(&self, session: &Session) -> bool {
        self.forsaken.is_some_and(|(forsaken, _)| forsaken == *session)
    }

    /// Whether a packet brings something new of the session that was forsaken: one that is only repeated does not.
    pub(super) fn goes_on(&self, header: &PacketHeader) -> bool {
        header.count > 0 && self.forsaken.is_some_and(|(_, next)| header.end() > next)
    }
}
