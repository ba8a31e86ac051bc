//! What the arbiter is told and what it answers.
#![forbid(unsafe_code)]

use crate::feed::Session;

/// State of a channel. The numbers are those of the exported metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ChannelState {
    /// No packet yet.
    Unknown = 0,
    /// The beginning of the session is still missing and nothing of it was delivered.
    Backfill = 1,
    /// Everything known to exist was delivered (or given up).
    Live = 2,
    /// Messages are missing.
    Gap = 3,
    /// All lines are silent, not even heartbeats.
    Stale = 4,
    /// The session ended and is complete.
    Ended = 5,
}

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With its first message.
    New,
    /// After its first message: what came before is unknown.
    Late,
    /// With a snapshot of what came before.
    Joined,
    /// The sender restarted: the same session, and its numbers begin again.
    Restarted,
}

/// The missing messages that the channel waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Session they belong to.
    pub session: Session,
    /// First missing message.
    pub from: u64,
    /// One past the last missing message of this hole; there may be further ones behind it.
    pub to: u64,
    /// CLOCK_MONOTONIC when they were found missing, nanoseconds.
    pub opened_ns: u64,
    /// The other line had its time: a retransmission should be asked for.
    pub wants_recovery: bool,
}

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In sequence: deliver it without its first `skip` messages.
    Deliver {
        /// Messages at the front that were delivered already.
        skip: u16,
    },
    /// All of its messages were delivered already.
    Duplicate,
    /// Ahead of a gap: keep it.
    Hold,
    /// Has no messages: only tells the next sequence.
    Alive,
    /// Of a session that was left, or of one that only a live line may begin.
    OldSession,
    /// Of a session not seen before, and there is none that is alive.
    NewSession,
    /// Says what one packet alone does not prove: see [`Arbiter::witness`](super::Arbiter::witness).
    Unproven,
}

/// When a gap is acted upon. Nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Age of a gap at which recovery is wanted.
    pub gap_timeout_ns: u64,
    /// Age of a gap at which it is declared lost.
    pub give_up_ns: u64,
    /// How long lines go on as if nothing was before what one packet alone said counts as a stray.
    pub doubt_ns: u64,
    /// Silence of all lines that makes the channel stale; 0 = never.
    pub stale_ns: u64,
    /// How long the beginning of a session, missed by a late start, may take to be recovered; 0 = as any other gap.
    pub backfill_ns: u64,
}

/// Gaps counted. Opened = closed + lost + open now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArbiterCounts {
    /// Gaps seen.
    pub gaps_opened: u64,
    /// Gaps filled completely.
    pub gaps_closed: u64,
    /// Gaps given up, wholly or in part.
    pub gaps_lost: u64,
    /// Messages given up.
    pub messages_lost: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Times that the numbers of a session began again.
    pub restarts: u64,
}
