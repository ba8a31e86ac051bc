//! Line arbitration: one ordered stream out of copies that each may lose, double and reorder.
//!
//! Sees sequences, never payload. [`Arbiter::classify`] judges a packet by its header and changes nothing; the channel
//! then validates the packet and tells the arbiter what it did with it. Rules: MoldUDP64 receiver algorithm; lines need
//! not cut packets at the same messages, so everything is counted in messages.
//!
//! `expected` is the next message to deliver, `known` the end of what is known to exist; all that is missing lies
//! between them. A gap is opened when `known` jumps, so gaps are in the order of both sequence and age, and only the
//! first one's deadline matters.
#![forbid(unsafe_code)]

mod backfill;
mod claim;
mod course;
mod join;
mod sessions;
mod standstill;
mod types;

use std::collections::VecDeque;

use super::transport::PacketHeader;
use super::{LineRole, Session};
use crate::config::plan::StartAt;
use backfill::Backfill;
pub use claim::{Claim, UNPROVEN_JUMP, Witness};
use course::Course;
use join::Join;
pub use join::{Forsaken, JoinState};
use sessions::OLD_SESSIONS;
pub use types::{ArbiterCounts, Beginning, ChannelState, Deadlines, Gap, Verdict};

#[derive(Clone, Copy, Debug)]
struct OpenGap {
    from: u64,
    to: u64,
    opened_ns: u64,
    lost: bool,
}

/// The state of one channel's arbitration.
#[derive(Debug)]
pub struct Arbiter {
    deadlines: Deadlines,
    start: StartAt,
    session: Option<Session>,
    old_sessions: VecDeque<Session>,
    /// The session that was left because nobody heard of it any more, and its next message: it may come back.
    forsaken: Option<(Session, u64)>,
    expected: u64,
    known: u64,
    /// First sequence of the session that was to be delivered.
    first: u64,
    /// The number after the last message, as an end-of-session packet told it.
    end: Option<u64>,
    gaps: VecDeque<OpenGap>,
    gap_capacity: usize,
    /// What is missing before this message is asked for at once: somebody will not wait for the other line.
    hurried: u64,
    /// When the first packet was dropped for want of room, since something has been missing without a break.
    first_drop_ns: Option<u64>,
    /// What one packet said that waits for a second one.
    claim: Option<Claim>,
    /// The session was joined late, and what came before is being recovered.
    backfill: Option<Backfill>,
    /// Where each line is.
    courses: [Course; LineRole::ALL.len()],
    /// When a packet last came that goes on where the session is, and not again from its beginning.
    course_ns: u64,
    /// The session was joined late, and a snapshot takes the place of what came before.
    join: Join,
    last_seen_ns: u64,
    /// Silence is counted from here on at the earliest.
    alive_ns: u64,
    polled_ns: u64,
    stale: bool,
    counts: ArbiterCounts,
}

impl Arbiter {
    /// An arbiter that has seen nothing. Remembers `gap_capacity` gaps apart; beyond that they are counted as one.
    #[must_use]
    pub fn new(deadlines: Deadlines, start: StartAt, gap_capacity: usize) -> Self {
        Self {
            deadlines,
            start,
            session: None,
            old_sessions: VecDeque::with_capacity(OLD_SESSIONS),
            forsaken: None,
            expected: 0,
            known: 0,
            first: 0,
            end: None,
            gaps: VecDeque::with_capacity(gap_capacity + 2),
            gap_capacity,
            hurried: 0,
            first_drop_ns: None,
            claim: None,
            backfill: None,
            courses: Default::default(),
            course_ns: 0,
            join: Join::None,
            last_seen_ns: 0,
            alive_ns: 0,
            polled_ns: 0,
            stale: false,
            counts: ArbiterCounts::default(),
        }
    }

    /// Judges a packet by its header.
    #[inline]
    #[must_use]
    pub fn classify(&self, header: &PacketHeader, role: LineRole) -> Verdict {
        if self.session != Some(header.session) {
            // A retransmission may come at any time and of any session: it never begins one.
            return if matches!(role, LineRole::Recovery | LineRole::Snapshot)
                || self.old_sessions.contains(&header.session)
                || self.is_forsaken(&header.session) && !self.goes_on(header)
            {
                Verdict::OldSession
            } else if role == LineRole::Soup
                || matches!(self.state(), ChannelState::Unknown | ChannelState::Ended | ChannelState::Stale)
            {
                Verdict::NewSession
            } else {
                Verdict::Unproven
            };
        }
        match self.place(header) {
            Verdict::Hold | Verdict::Alive
                if header.sequence.saturating_sub(self.known) > UNPROVEN_JUMP && role != LineRole::Soup =>
            {
                Verdict::Unproven
            }
            verdict => verdict,
        }
    }

    /// The place of a packet of the current session that is believed.
    #[inline]
    #[must_use]
    pub fn place(&self, header: &PacketHeader) -> Verdict {
        if header.count == 0 {
            Verdict::Alive
        } else if self.is_joining() {
            self.place_joining(header)
        } else if header.end() <= self.expected {
            Verdict::Duplicate
        } else if header.sequence > self.expected {
            Verdict::Hold
        } else {
            let skip = self.expected - header.sequence;
            Verdict::Deliver { skip: u16::try_from(skip).expect("less than the packet's count") }
        }
    }

    /// A packet of the session arrived on line A or B. True if the channel was stale until now.
    #[inline]
    pub fn seen(&mut self, header: &PacketHeader, role: LineRole, received_ns: u64) -> bool {
        self.last_seen_ns = self.last_seen_ns.max(received_ns);
        self.note_course(header, role, received_ns);
        std::mem::take(&mut self.stale) && self.ended().is_none()
    }

    /// Messages up to `to` are delivered (or lost): the next one is `to`.
    #[inline]
    pub fn advance(&mut self, to: u64) {
        self.expected = to;
        if to > self.known {
            self.known = to;
            // The session goes on after its end: the end was not one.
            self.end = None;
        }
        while let Some(gap) = self.gaps.front().filter(|gap| gap.to <= to) {
            if gap.lost {
                self.counts.gaps_lost += 1;
            } else {
                self.counts.gaps_closed += 1;
            }
            self.gaps.pop_front();
        }
    }

    /// Messages `sequence..end` exist and are kept; everything before `sequence` exists, too.
    pub fn ahead(&mut self, sequence: u64, end: u64, received_ns: u64) {
        if sequence > self.known {
            self.open(self.known, sequence, received_ns);
        }
        if end > self.known {
            self.known = end;
            self.end = None;
        }
    }

    /// Everything before `sequence` exists, and nothing more if the session ends there.
    pub fn next_is(&mut self, sequence: u64, ends: bool, received_ns: u64) {
        self.ahead(sequence, sequence, received_ns);
        if ends && sequence == self.known {
            self.end = Some(sequence);
        }
    }

    fn open(&mut self, from: u64, to: u64, opened_ns: u64) {
        // A packet that waited for the worker may be old; that something is missing is known since now only, and nobody has
        // been asked for it yet.
        let opened_ns = opened_ns.max(self.polled_ns);
        if self.gaps.len() >= self.gap_capacity
            && let Some(last) = self.gaps.back_mut()
        {
            last.to = to;
            return;
        }
        self.gaps.push_back(OpenGap { from, to, opened_ns, lost: false });
        self.counts.gaps_opened += 1;
    }

    /// A retransmission was delivered.
    pub fn answered(&mut self) {
        if let Some(backfill) = &mut self.backfill {
            backfill.answered();
        }
    }

    /// A packet that is ahead was dropped for want of room: when its turn comes, it will be missing.
    pub fn dropped(&mut self, received_ns: u64) {
        self.first_drop_ns.get_or_insert(received_ns);
    }

    /// Finds a gap again that is not on the list, because packets were dropped that had been known (hold buffer full).
    /// `nearest` is the first held sequence. Call it after every delivery and hold.
    ///
    /// Such a gap is as old as the first drop, and so is every further one until nothing is missing. Were it to wait
    /// anew for `give_up`, the buffer would overflow again meanwhile, and one lost message would become a loss without
    /// end.
    #[inline]
    pub fn settle(&mut self, nearest: Option<u64>, now_ns: u64) {
        if !self.is_joining() {
            self.settle_at(self.expected, nearest, now_ns);
        }
    }

    /// The same for what is missing from `expected` on.
    #[inline]
    fn settle_at(&mut self, expected: u64, nearest: Option<u64>, now_ns: u64) {
        if expected >= self.known {
            self.first_drop_ns = None;
            return;
        }
        let next_gap = self.gaps.front().map_or(self.known, |gap| gap.from);
        if next_gap > expected {
            let to = nearest.unwrap_or(self.known).min(next_gap);
            let opened_ns = self.first_drop_ns.unwrap_or(now_ns);
            self.gaps.push_front(OpenGap { from: expected, to, opened_ns, lost: false });
            self.counts.gaps_opened += 1;
        }
    }

    /// Declares the hole in front of `nearest` lost and returns it; `None` if nothing is missing.
    ///
    /// The caller drains what then follows, and calls again until the gap is passed.
    pub fn lose(&mut self, nearest: Option<u64>) -> Option<(u64, u64)> {
        let gap = self.gaps.front_mut()?;
        gap.lost = true;
        let (from, to) = (self.expected, nearest.unwrap_or(u64::MAX).min(gap.to));
        assert!(from < to, "a gap that is open has something missing");
        self.counts.messages_lost = self.counts.messages_lost.saturating_add(to - from);
        self.advance(to);
        Some((from, to))
    }

    /// Tells the time, and of the hold buffer the first held sequence and whether it `has_room`. Returns up to where messages
    /// are to be given up now, if any are.
    pub fn poll(&mut self, now_ns: u64, nearest: Option<u64>, has_room: bool) -> Option<u64> {
        self.polled_ns = now_ns;
        let silence_ns = now_ns.saturating_sub(self.last_seen_ns.max(self.alive_ns));
        if self.session.is_some() && self.deadlines.stale_ns > 0 && silence_ns >= self.deadlines.stale_ns {
            self.stale = true;
        }
        if self.is_joining() {
            return None;
        }
        let progress_ns = self.poll_backfill(now_ns);
        let gap = self.gaps.front()?;
        let waiting_ns = now_ns.saturating_sub(gap.opened_ns.max(progress_ns));
        if waiting_ns < self.deadlines.give_up_ns {
            return None;
        }
        if let Some(backfill) = &self.backfill {
            // What lies behind was answered: no server has just these, and the rest goes on.
            if let Some(nearest) = nearest.filter(|nearest| *nearest < gap.to) {
                return Some(nearest);
            }
            if waiting_ns < backfill.patience_ns(self.deadlines.give_up_ns, has_room) {
                return None;
            }
            // Nobody answers: what else is missing is not waited for anew.
            self.backfill = None;
        }
        Some(gap.to)
    }

    /// The first hole; `nearest` is the first held sequence.
    #[must_use]
    pub fn gap(&self, nearest: Option<u64>) -> Option<Gap> {
        let gap = self.gaps.front()?;
        Some(Gap {
            session: self.session?,
            from: gap.from.max(self.expected),
            to: nearest.filter(|nearest| *nearest > gap.from).unwrap_or(u64::MAX).min(gap.to),
            opened_ns: gap.opened_ns,
            wants_recovery: self.wants_recovery(gap),
        })
    }

    /// Has all that is missing now asked for at once.
    pub fn hurry(&mut self) {
        self.hurried = self.known;
    }

    /// Whether the other line had its time to fill the gap, or nobody waits for it.
    fn wants_recovery(&self, gap: &OpenGap) -> bool {
        gap.from < self.hurried || self.polled_ns.saturating_sub(gap.opened_ns) >= self.deadlines.gap_timeout_ns
    }

    /// What is missing and to be asked for, as ranges (from, to), ascending. Held packets may lie in them.
    pub fn wanted(&self) -> impl Iterator<Item = (u64, u64)> {
        let wanted = self.gaps.iter().filter(|gap| self.wants_recovery(gap));
        wanted.map(|gap| (gap.from.max(self.expected), gap.to))
    }

    /// Whether a retransmission says more than that messages which are known to exist are these. What nobody else has
    /// announced, or that a session ends, is not for a retransmission server to say.
    #[must_use]
    pub fn exceeds(&self, header: &PacketHeader) -> bool {
        header.count == 0 || header.end() > self.known
    }

    /// State of the channel.
    #[must_use]
    pub fn state(&self) -> ChannelState {
        if self.session.is_none() {
            ChannelState::Unknown
        } else if self.ended().is_some() {
            ChannelState::Ended
        } else if self.stale {
            ChannelState::Stale
        } else if self.is_joining() {
            ChannelState::Backfill
        } else if self.gaps.is_empty() {
            ChannelState::Live
        } else if self.expected == self.first || self.backfill.is_some() {
            ChannelState::Backfill
        } else {
            ChannelState::Gap
        }
    }

    /// The number after the session's last message, once all before it is delivered or lost.
    #[inline]
    #[must_use]
    pub fn ended(&self) -> Option<u64> {
        self.end.filter(|end| *end == self.expected && !self.is_joining())
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// The next message to deliver; 0 before the first packet.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// Whether anything known to exist is missing.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.expected < self.known
    }

    /// The session's first message that was to be delivered: above 1 after a late start.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Gap and session counters.
    #[must_use]
    pub fn counts(&self) -> &ArbiterCounts {
        &self.counts
    }
}

#[cfg(test)]
mod tests;
