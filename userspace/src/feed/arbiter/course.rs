//! Where each line is in the session: which one speaks for it, and whether its numbers begin again.
//!
//! A sender that restarts may go on under the same session name with message 1. By their numbers its packets are
//! duplicates, and would be dropped until they reach what was delivered before. What tells them from a line that lags or
//! repeats: the line had been further itself (or had been silent), it goes up again from the beginning, and nobody goes on
//! where the session was: for the time that makes a channel stale, or, when both lines began again, for the time of a
//! doubt, during which both go on from the beginning. Lines that are alive say a heartbeat more often than a channel gets
//! stale. A restart within the first few messages of a session is not seen.
#![forbid(unsafe_code)]

use super::Arbiter;
use crate::feed::LineRole;
use crate::feed::transport::PacketHeader;

/// A line begins again with one of these numbers, and must have been further by as many; the first packets may be lost.
pub(super) const BEGINNING: u64 = 256;

/// How far it may go on at a time after that, messages: it may lose some.
const SLACK: u64 = 1 << 14;

/// One line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Course {
    /// The number after the highest that it has said of the session.
    reached: u64,
    /// The same since it began again with the first messages; 0 = it did not.
    again: u64,
    /// When it began again, nanoseconds.
    again_ns: u64,
    /// When it last said something of the session in force, nanoseconds, at least 1; 0 = never.
    spoke_ns: u64,
}

impl Arbiter {
    /// A session begins, or its numbers do.
    pub(super) fn begin_courses(&mut self) {
        self.courses = Default::default();
        self.course_ns = self.last_seen_ns;
    }

    /// Another line takes a role.
    pub fn renew_course(&mut self, role: LineRole) {
        self.courses[role as usize] = Course::default();
    }

    /// A packet of the session in force came on a line.
    #[inline]
    pub(super) fn note_course(&mut self, header: &PacketHeader, role: LineRole, received_ns: u64) {
        let course = &mut self.courses[role as usize];
        course.spoke_ns = received_ns.max(1);
        if header.end() >= self.expected {
            course.reached = course.reached.max(header.end());
            course.again = 0;
            self.course_ns = self.course_ns.max(received_ns);
        }
    }

    /// Whether a packet that says nothing new is one of a sender that restarted; see above.
    #[inline]
    pub fn restarts(&mut self, header: &PacketHeader, role: LineRole, received_ns: u64) -> bool {
        header.end() < self.expected && self.begins_again(header, role, received_ns)
    }

    fn begins_again(&mut self, header: &PacketHeader, role: LineRole, received_ns: u64) -> bool {
        let quiet_ns = received_ns.saturating_sub(self.course_ns);
        let is_far = header.sequence <= BEGINNING && self.expected - header.end() >= BEGINNING;
        let course = &mut self.courses[role as usize];
        let again = match (course.again, course.reached) {
            (1.., _) => header.sequence <= course.again.saturating_add(SLACK),
            // One that was silent until now could be far behind the other, if that one is alive.
            (0, 0) => is_far && quiet_ns >= self.deadlines.doubt_ns,
            (0, reached) => is_far && reached >= header.end() + BEGINNING,
        };
        if !again {
            course.again = 0;
            course.reached = course.reached.max(header.end());
            self.course_ns = self.course_ns.max(received_ns);
            return false;
        }
        if course.again == 0 {
            course.again_ns = received_ns;
        }
        course.again = course.again.max(header.end()).max(1);
        let both = [LineRole::A, LineRole::B].iter().all(|role| {
            let Course { again, again_ns, .. } = self.courses[*role as usize];
            again > 0 && received_ns.saturating_sub(again_ns) >= self.deadlines.doubt_ns
        });
        let patience_ns = if both { self.deadlines.doubt_ns } else { self.deadlines.stale_ns };
        patience_ns > 0 && quiet_ns >= patience_ns
    }

    /// Whether another line speaks for the session in force.
    pub(super) fn is_other_alive(&self, role: LineRole, now_ns: u64) -> bool {
        [LineRole::A, LineRole::B].iter().filter(|other| **other != role).any(|other| {
            let spoke_ns = self.courses[*other as usize].spoke_ns;
            spoke_ns > 0 && now_ns.saturating_sub(spoke_ns) < self.deadlines.stale_ns
        })
    }
}
