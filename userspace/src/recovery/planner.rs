//! The planner of one channel: what to ask for, of which server, when; and which answers are to be believed.
//!
//! It knows no socket and no clock. The worker says what is missing ([`Planner::want`]), [`Planner::next`] says what to ask,
//! [`Planner::answer`] judges what came. What is missing and neither asked for nor just answered is asked for, nearest first.
//!
//! A retransmission server has no signature and no sequence of its own: an answer is believed if it comes from a server that
//! was asked for just these messages, and brings no more than it was asked for. That it tells the truth about what they
//! contain nobody can check.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::gaps::GapSet;
use super::servers::Servers;
use crate::config::plan::TransportKind;
use crate::feed::Session;
use crate::feed::transport::{self, PacketHeader};
use crate::metrics::RecoveryCounts;

/// Messages that a first request asks for; later ones as many as answers were seen to hold.
const FIRST_MESSAGES: u64 = 32;

/// Messages that no packet of an Ethernet frame can hold more of: each takes 2 bytes at least.
const MOST_MESSAGES: u64 = 726;

/// An answer may be so many timeouts late and still be used.
const LATE_TIMEOUTS: u64 = 8;

/// Requests that are remembered, answered or not: beyond that late answers are not waited for.
const MOST_PENDING: usize = 1024;

/// How servers are asked.
#[derive(Clone, Copy, Debug)]
pub struct PlannerSettings {
    /// Framing.
    pub transport: TransportKind,
    /// How many servers there are.
    pub servers: usize,
    /// How long an answer is waited for, nanoseconds.
    pub timeout_ns: u64,
    /// Requests per second at most.
    pub requests_per_second: u32,
    /// Requests that wait for an answer at most.
    pub outstanding: usize,
}

/// One request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which server.
    pub server: usize,
    /// Session of the messages.
    pub session: Session,
    /// First message.
    pub sequence: u64,
    /// Number of messages: 1 to 726.
    pub count: u16,
}

/// Why a datagram from a server is not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// No whole packet.
    Malformed,
    /// Of another session than the one that is missing something.
    Session,
    /// Without messages.
    Empty,
    /// Nobody asked for it.
    Unasked,
    /// All of its messages came otherwise meanwhile.
    Superfluous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An answer is waited for.
    Asked,
    /// None is waited for any more, but it would be used.
    Late,
    /// Handed to the worker, which has not said yet that it has it.
    Answered,
}

#[derive(Clone, Debug)]
struct Pending {
    messages: Range<u64>,
    server: usize,
    asked_ns: u64,
    /// When the state ends, nanoseconds.
    due_ns: u64,
    state: State,
}

/// The planner of one channel.
#[derive(Clone, Debug)]
pub struct Planner {
    settings: PlannerSettings,
    session: Option<Session>,
    /// As the worker said last.
    wanted: GapSet,
    pending: Vec<Pending>,
    servers: Servers,
    /// Messages to ask each server for at a time.
    pieces: Vec<u64>,
    /// When the next request is within the budget, nanoseconds.
    budget_ns: u64,
    counts: RecoveryCounts,
}

impl Planner {
    /// A planner that nothing is wanted of.
    #[must_use]
    pub fn new(settings: PlannerSettings) -> Self {
        Self {
            settings,
            session: None,
            wanted: GapSet::default(),
            pending: Vec::new(),
            servers: Servers::new(settings.servers, settings.timeout_ns),
            pieces: vec![FIRST_MESSAGES; settings.servers],
            budget_ns: 0,
            counts: RecoveryCounts::default(),
        }
    }

    /// What is missing now, all of it. What was asked for and is not missing any more is cancelled.
    pub fn want(&mut self, session: Session, holes: impl IntoIterator<Item = (u64, u64)>, now_ns: u64) {
        if self.session != Some(session) {
            self.session = Some(session);
            self.pending.clear();
        }
        self.wanted.clear();
        holes.into_iter().for_each(|(from, to)| self.wanted.insert(from..to));
        let late_ns = now_ns + LATE_TIMEOUTS * self.settings.timeout_ns;
        for pending in self.pending.iter_mut().filter(|pending| pending.state == State::Asked) {
            if self.wanted.overlap(&pending.messages) == 0 {
                (pending.state, pending.due_ns) = (State::Late, late_ns);
                self.counts.cancelled += 1;
            }
        }
    }

    /// Somebody will not wait: all that is missing is asked for anew from now on, of the next server, whatever was asked for
    /// already or answered a moment ago, and whichever server was to rest. Returns how many messages are missing, as the worker
    /// told last.
    ///
    /// Requests per second are the venue's to say: the first of them go at once, as far as the budget has them, and the others
    /// as it allows.
    pub fn hurry(&mut self, now_ns: u64) -> u64 {
        let missing = self.wanted.count();
        if missing == 0 {
            return 0;
        }
        let late_ns = now_ns + LATE_TIMEOUTS * self.settings.timeout_ns;
        self.pending.retain(|pending| pending.state != State::Answered);
        for pending in self.pending.iter_mut().filter(|pending| pending.state == State::Asked) {
            (pending.state, pending.due_ns) = (State::Late, late_ns);
        }
        self.servers.advance();
        missing
    }

    /// Whether anything is missing.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The request to send now, if any. Call it until it says `None`.
    pub fn next(&mut self, now_ns: u64) -> Option<Ask> {
        self.expire(now_ns);
        let session = self.session?;
        let asked = self.pending.iter().filter(|pending| pending.state == State::Asked).count();
        if self.wanted.is_empty() || asked >= self.settings.outstanding {
            return None;
        }
        let interval_ns = 1_000_000_000 / u64::from(self.settings.requests_per_second.max(1));
        // As many as may be outstanding may also be sent at once, if there was nothing to send before.
        let burst_ns = interval_ns * (self.settings.outstanding as u64 - 1);
        if self.budget_ns > now_ns + burst_ns {
            return None;
        }
        let mut free = self.wanted.clone();
        for pending in self.pending.iter().filter(|pending| pending.state != State::Late) {
            free.remove(&pending.messages);
        }
        let hole = self.next_hole(free)?;
        let (server, is_other) = self.servers.pick(now_ns)?;
        self.budget_ns = self.budget_ns.max(now_ns) + interval_ns;
        let messages = hole.start..hole.end.min(hole.start.saturating_add(self.pieces[server]));
        let is_again = self
            .pending
            .iter()
            .any(|before| before.messages.start < messages.end && messages.start < before.messages.end);
        self.counts.requests += 1;
        self.counts.retries += u64::from(is_again);
        self.counts.failovers += u64::from(is_other);
        if self.pending.len() >= MOST_PENDING
            && let Some(oldest) = self.pending.iter().position(|pending| pending.state == State::Late)
        {
            self.pending.swap_remove(oldest);
        }
        let due_ns = now_ns + self.settings.timeout_ns;
        let count = u16::try_from(messages.end - messages.start).expect("at most MOST_MESSAGES");
        let sequence = messages.start;
        self.pending.push(Pending { messages, server, asked_ns: now_ns, due_ns, state: State::Asked });
        Some(Ask { server, session, sequence, count })
    }

    /// The nearest hole, but not one that all servers have left unanswered lately while there are others: what no server has
    /// must not keep the rest waiting.
    fn next_hole(&self, mut free: GapSet) -> Option<Range<u64>> {
        let nearest = free.first()?;
        while let Some(hole) = free.first() {
            let is_here = |p: &&Pending| p.state == State::Late && p.messages.start == hole.start;
            let unanswered = self.pending.iter().filter(is_here);
            if unanswered.clone().count() < 2 * self.settings.servers {
                return Some(hole);
            }
            let shortest = unanswered.map(|pending| pending.messages.end).min()?;
            free.remove(&(hole.start..shortest));
        }
        Some(nearest)
    }

    /// A request could not be sent, or its host says that nobody listens there: what this server was asked for is asked of
    /// the next.
    pub fn refused(&mut self, server: usize, now_ns: u64) {
        self.counts.send_errors += 1;
        let late_ns = now_ns + LATE_TIMEOUTS * self.settings.timeout_ns;
        for pending in self.pending.iter_mut().filter(|p| p.server == server && p.state == State::Asked) {
            (pending.state, pending.due_ns) = (State::Late, late_ns);
        }
        self.servers.failed(server, now_ns, now_ns);
    }

    /// Judges a datagram that came from a server.
    ///
    /// # Errors
    /// Why it is not to be handed to the worker; it is counted already.
    pub fn answer(&mut self, server: usize, payload: &[u8], now_ns: u64) -> Result<(), Rejected> {
        let result = self.judge(server, payload, now_ns);
        match result {
            Ok(()) => {}
            Err(Rejected::Malformed) => self.counts.rejected_malformed += 1,
            Err(Rejected::Session) => self.counts.rejected_session += 1,
            Err(Rejected::Empty) => self.counts.rejected_empty += 1,
            Err(Rejected::Unasked) => self.counts.rejected_unasked += 1,
            Err(Rejected::Superfluous) => self.counts.superfluous += 1,
        }
        result
    }

    fn judge(&mut self, server: usize, payload: &[u8], now_ns: u64) -> Result<(), Rejected> {
        let header = PacketHeader::parse(self.settings.transport, payload).map_err(|_| Rejected::Malformed)?;
        if self.session != Some(header.session) {
            return Err(Rejected::Session);
        }
        if header.count == 0 {
            return Err(Rejected::Empty);
        }
        transport::check_blocks(self.settings.transport, payload, header.count).map_err(|_| Rejected::Malformed)?;
        let messages = header.sequence..header.end();
        let is_asked = |pending: &Pending| {
            pending.server == server
                && pending.state != State::Answered
                && pending.messages.start == messages.start
                && pending.messages.end >= messages.end
        };
        let at = self.pending.iter().position(is_asked).ok_or(Rejected::Unasked)?;
        let request = self.pending.swap_remove(at);
        self.counts.answers += 1;
        let (got, asked) = (messages.end - messages.start, request.messages.end - request.messages.start);
        // A server that gives next to nothing at a time is as good as none, where there is another.
        if got == 1 && asked >= FIRST_MESSAGES / 2 && self.settings.servers > 1 {
            self.servers.failed(server, request.asked_ns, now_ns);
        } else {
            self.servers.answered(server);
        }
        let piece = &mut self.pieces[server];
        if got < asked {
            self.counts.cut_answers += 1;
            *piece = got;
        } else if asked == *piece {
            *piece = (asked + asked / 4 + 1).min(MOST_MESSAGES);
        }
        let mut open = self.wanted.clone();
        for pending in self.pending.iter().filter(|pending| pending.state == State::Answered) {
            open.remove(&pending.messages);
        }
        let gain = open.overlap(&messages);
        if gain == 0 {
            return Err(Rejected::Superfluous);
        }
        self.counts.recovered_messages += gain;
        // Whatever becomes of it there, after a timeout it is asked for again if it is still missing then.
        let due_ns = now_ns + self.settings.timeout_ns;
        self.pending.push(Pending { messages, due_ns, state: State::Answered, ..request });
        Ok(())
    }

    /// An answer that was accepted found no room on its way: counted, and asked for again later.
    pub fn not_handed(&mut self) {
        self.counts.not_handed += 1;
    }

    fn expire(&mut self, now_ns: u64) {
        let late_ns = now_ns + LATE_TIMEOUTS * self.settings.timeout_ns;
        for pending in &mut self.pending {
            if pending.state == State::Asked && pending.due_ns <= now_ns {
                self.counts.timeouts += 1;
                self.servers.failed(pending.server, pending.asked_ns, now_ns);
                (pending.state, pending.due_ns) = (State::Late, late_ns);
                // It may refuse so many at a time, and says nothing.
                let asked = pending.messages.end - pending.messages.start;
                let piece = &mut self.pieces[pending.server];
                if asked >= *piece {
                    *piece = (asked / 2).clamp(1, *piece);
                }
            }
        }
        self.pending.retain(|pending| pending.due_ns > now_ns);
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> &RecoveryCounts {
        &self.counts
    }
}

#[cfg(test)]
mod tests;
