//! What to ask of which server after a connection has ended, and when. Knows no socket and no clock.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use crate::feed::Session;
use crate::soup::Reject;

/// Left sessions that are remembered: as many as the worker does.
const MOST_LEFT: usize = 8;

/// Settings of one channel's redialling.
#[derive(Clone, Copy, Debug)]
pub struct RedialSettings {
    /// Number of servers.
    pub servers: usize,
    /// Session to begin with; `None` = the active one.
    pub session: Option<Session>,
    /// Number to begin with: 1 = everything, 0 = from the newest message on.
    pub start: u64,
    /// Pause before the first attempt after a failure, nanoseconds; it doubles from one to the next.
    pub first_ns: u64,
    /// Longest pause, nanoseconds.
    pub most_ns: u64,
}

/// What an accepted login means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A session of which nothing was known begins, with all that was asked for.
    Begun,
    /// The stream goes on where it broke off.
    Resumed,
    /// The server begins later than it was asked to: messages `from..to` will not come.
    Gap {
        /// First message that is missing.
        from: u64,
        /// One past the last one.
        to: u64,
    },
    /// The server begins earlier than it was asked to: it repeats messages, or is behind.
    Earlier {
        /// What was asked for.
        asked: u64,
    },
    /// The session is one that has ended: nothing will come.
    Over,
}

/// The servers of one channel, and how far its stream is.
#[derive(Debug)]
pub struct Redial {
    settings: RedialSettings,
    server: usize,
    delay_ns: u64,
    /// The session that is received, or wanted.
    session: Option<Session>,
    /// Its next message; before the first login, what to begin with.
    next: u64,
    /// Whether anything of the session was received or told.
    is_known: bool,
    /// Sessions that ended or were left for another, the newest last: the worker takes nothing of them any more.
    left: ArrayVec<Session, MOST_LEFT>,
    /// Servers that refused the session by its name since one accepted it.
    unavailable: usize,
    is_stopped: bool,
}

impl Redial {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(settings: RedialSettings) -> Self {
        Self {
            settings,
            server: 0,
            delay_ns: settings.first_ns,
            session: settings.session,
            next: settings.start,
            is_known: false,
            left: ArrayVec::new(),
            unavailable: 0,
            is_stopped: false,
        }
    }

    /// The server whose turn it is.
    #[must_use]
    pub fn server(&self) -> usize {
        self.server
    }

    /// What to ask it for: session (`None` = the active one) and number.
    #[must_use]
    pub fn ask(&self) -> (Option<Session>, u64) {
        match self.session {
            Some(session) if !self.is_given_up() => (Some(session), self.next),
            // Whatever session it is: all of it. Of our own one the worker knows what it has had.
            _ if self.is_known || !self.left.is_empty() => (None, 1),
            _ => (None, self.settings.start),
        }
    }

    /// Whether all servers say that the session is not available: it is over, and nobody said so.
    fn is_given_up(&self) -> bool {
        self.unavailable >= self.settings.servers
    }

    /// A server accepted the login.
    pub fn accepted(&mut self, session: Session, next: u64) -> Accepted {
        if self.left.contains(&session) {
            return Accepted::Over;
        }
        let (named, asked) = self.ask();
        let is_same = self.is_known && self.session == Some(session);
        let wanted = match named {
            _ if is_same => self.next,
            // Another session than the one that was asked for by its name: a new stream, and that number was not for it.
            Some(named) if named != session => asked.min(1),
            _ => asked,
        };
        if self.is_known && !is_same {
            self.leave();
        }
        self.unavailable = 0;
        (self.session, self.next, self.is_known) = (Some(session), next, true);
        match (wanted, next) {
            (0, _) => Accepted::Begun,
            (wanted, next) if next > wanted => Accepted::Gap { from: wanted, to: next },
            (wanted, next) if next < wanted => {
                // What is asked for next time, if this comes to nothing, is still the number that is wanted.
                self.next = wanted;
                Accepted::Earlier { asked: wanted }
            }
            _ if is_same => Accepted::Resumed,
            _ => Accepted::Begun,
        }
    }

    /// Everything before `next` was received: the connection is worth something, so the next pause is the shortest again.
    pub fn progress(&mut self, next: u64) {
        self.next = self.next.max(next);
        self.delay_ns = self.settings.first_ns;
    }

    /// The session has ended.
    pub fn ended(&mut self) {
        self.leave();
        (self.is_known, self.unavailable) = (false, 0);
        self.delay_ns = self.settings.first_ns;
    }

    fn leave(&mut self) {
        let Some(session) = self.session.take() else { return };
        if self.left.is_full() {
            self.left.remove(0);
        }
        self.left.push(session);
    }

    /// A server refused the login.
    pub fn rejected(&mut self, reason: Reject) {
        match reason {
            // It is the same login everywhere, and who goes on with it is locked out.
            Reject::NotAuthorised => self.is_stopped = true,
            Reject::NoSession if self.session.is_some() && !self.is_given_up() => self.unavailable += 1,
            Reject::NoSession | Reject::Other(_) => {}
        }
    }

    /// When to try again, and from then on the next server; `None` if never.
    pub fn again(&mut self, now_ns: u64) -> Option<u64> {
        if self.is_stopped {
            return None;
        }
        self.server = (self.server + 1) % self.settings.servers;
        let at_ns = now_ns.saturating_add(self.delay_ns);
        self.delay_ns = self.delay_ns.saturating_mul(2).min(self.settings.most_ns);
        Some(at_ns)
    }

    /// The session that is received, or wanted by its name.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// Whether a session has ended and none has begun since.
    #[must_use]
    pub fn is_between_sessions(&self) -> bool {
        !self.left.is_empty() && !self.is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Session = *b"SESS01    ";
    const TWO: Session = *b"SESS02    ";

    fn redial(servers: usize, start: u64) -> Redial {
        Redial::new(RedialSettings { servers, session: None, start, first_ns: 100, most_ns: 1000 })
    }

    #[test]
    fn a_stream_goes_on_where_it_broke_off_with_the_next_server() {
        let mut redial = redial(2, 1);
        assert_eq!((redial.server(), redial.ask()), (0, (None, 1)));
        assert_eq!(redial.accepted(ONE, 1), Accepted::Begun);
        redial.progress(42);
        assert_eq!(redial.again(1_000), Some(1_100));
        assert_eq!((redial.server(), redial.ask()), (1, (Some(ONE), 42)));
        assert_eq!(redial.accepted(ONE, 42), Accepted::Resumed);
        redial.progress(50);
        redial.again(0);
        assert_eq!((redial.server(), redial.ask()), (0, (Some(ONE), 50)));
        assert_eq!(redial.accepted(ONE, 60), Accepted::Gap { from: 50, to: 60 });
    }

    #[test]
    fn pauses_double_up_to_the_longest_until_something_comes() {
        let mut redial = redial(1, 1);
        let pauses: Vec<u64> = (0..6).map(|_| redial.again(0).unwrap()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        redial.accepted(ONE, 1);
        assert_eq!(redial.again(0), Some(1000), "a login alone is worth nothing");
        redial.progress(2);
        assert_eq!([redial.again(0), redial.again(0)], [Some(100), Some(200)]);
    }

    #[test]
    fn who_is_not_authorised_does_not_come_back() {
        let mut redial = redial(2, 1);
        redial.rejected(Reject::NotAuthorised);
        assert_eq!(redial.again(0), None);
    }

    #[test]
    fn a_start_now_asks_for_the_newest_message_and_misses_nothing() {
        let mut redial = redial(1, 0);
        assert_eq!(redial.ask(), (None, 0));
        assert_eq!(redial.accepted(ONE, 4_711), Accepted::Begun);
        redial.again(0);
        assert_eq!(redial.ask(), (Some(ONE), 4_711));
        // From the first message, of which the server has not all.
        let mut first = self::redial(1, 1);
        assert_eq!(first.accepted(ONE, 5), Accepted::Gap { from: 1, to: 5 });
    }

    #[test]
    fn after_the_end_the_next_session_is_wanted_from_its_start() {
        let mut redial = redial(1, 0);
        redial.accepted(ONE, 7);
        redial.progress(9);
        redial.ended();
        assert!(redial.is_between_sessions());
        assert_eq!(redial.ask(), (None, 1), "not from its newest message");
        // A server that still has the old one.
        assert_eq!(redial.accepted(ONE, 9), Accepted::Over);
        redial.rejected(Reject::NoSession);
        assert_eq!(redial.ask(), (None, 1));
        assert_eq!(redial.accepted(TWO, 1), Accepted::Begun);
        assert!(!redial.is_between_sessions());
        redial.progress(3);
        assert_eq!(redial.ask(), (Some(TWO), 3));
    }

    #[test]
    fn a_session_that_no_server_has_any_more_is_left() {
        let mut redial = redial(2, 1);
        redial.accepted(ONE, 1);
        redial.progress(100);
        redial.rejected(Reject::NoSession);
        redial.again(0);
        assert_eq!(redial.ask(), (Some(ONE), 100), "the other one may have it");
        redial.rejected(Reject::NoSession);
        redial.again(0);
        assert_eq!(redial.ask(), (None, 1));
        redial.rejected(Reject::NoSession);
        assert_eq!(redial.ask(), (None, 1));
        assert_eq!(redial.accepted(TWO, 3), Accepted::Gap { from: 1, to: 3 });
    }

    #[test]
    fn another_session_than_the_one_asked_for_is_a_stream_of_its_own() {
        let mut redial = redial(1, 1);
        redial.accepted(ONE, 1);
        redial.progress(100);
        assert_eq!(redial.ask(), (Some(ONE), 100));
        assert_eq!(redial.accepted(TWO, 1), Accepted::Begun);
        redial.progress(40);
        assert_eq!(redial.ask(), (Some(TWO), 40), "not beyond what came");
        assert_eq!(redial.accepted(ONE, 100), Accepted::Over, "the worker has left it");
        assert_eq!(redial.ask(), (Some(TWO), 40));
    }

    #[test]
    fn a_server_that_is_behind_repeats_and_the_wanted_number_stays() {
        let mut redial = redial(1, 1);
        redial.accepted(ONE, 1);
        redial.progress(100);
        redial.rejected(Reject::NoSession);
        assert_eq!(redial.ask(), (None, 1));
        assert_eq!(redial.accepted(ONE, 1), Accepted::Earlier { asked: 100 });
        redial.progress(40);
        assert_eq!(redial.ask(), (Some(ONE), 100));
    }
}
