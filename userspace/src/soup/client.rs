//! The client's side of one connection: login, numbering, heartbeats, and everything that ends it.
//!
//! The owner of the socket reads into [`Client::space`], takes all [`Client::next`] until there is none, sends what
//! [`Client::outgoing`] has, and calls [`Client::poll`] a few times a second. A connection ends with one event that says why;
//! then it is to be closed. Whoever does not take events gets no space to read into, so TCP itself slows the server down.
#![forbid(unsafe_code)]

use super::buffer::Buffer;
use super::login::{Login, Version};
use super::packet::{Malformed, Packet, Reject};
use crate::feed::Session;

/// A side that has sent nothing for so long sends a heartbeat, nanoseconds (SoupBinTCP 3.00, "Heartbeats").
pub const HEARTBEAT_NS: u64 = 1_000_000_000;

/// Silence after which the other side is taken for dead, if nothing else is configured, nanoseconds.
pub const IDLE_NS: u64 = 15_000_000_000;

/// Time for the answer to a login, if nothing else is configured, nanoseconds.
pub const LOGIN_NS: u64 = 15_000_000_000;

/// When something is due. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Silence of ours after which we send a heartbeat.
    pub heartbeat_ns: u64,
    /// Silence of the server after which it is dead.
    pub idle_ns: u64,
    /// How long the answer to the login may take: a server that only sends heartbeats is not silent.
    pub login_ns: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { heartbeat_ns: HEARTBEAT_NS, idle_ns: IDLE_NS, login_ns: LOGIN_NS }
    }
}

/// Why a connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Bytes that are no packet.
    #[error("the server sent {0}")]
    Malformed(#[from] Malformed),
    /// A packet that only a login makes legal.
    #[error("the server sent a {} packet before it answered the login", .0.escape_ascii())]
    BeforeLogin(u8),
    /// An answer to a login that had been answered.
    #[error("the server answered the login twice")]
    SecondAnswer,
    /// A message after the end of the session, or one whose number does not fit 64 bits.
    #[error("the server sent a message after the last one")]
    AfterEnd,
    /// No answer to the login in time.
    #[error("the server did not answer the login in time")]
    LoginTimeout,
    /// Nothing came for too long.
    #[error("the server was silent for too long")]
    Idle,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The login holds. The session and number are the server's word, whatever was asked for.
    LoggedIn {
        /// The session, padded on the right.
        session: Session,
        /// Number of the next message.
        next: u64,
    },
    /// One message of the session.
    Message {
        /// Its number.
        sequence: u64,
        /// The message.
        bytes: &'a [u8],
    },
    /// One message without a number (4.00 on).
    Unsequenced(&'a [u8]),
    /// The server is alive and has nothing to say.
    Heartbeat,
    /// There are no more messages in this session: `next` is the number after the last. The server closes soon.
    EndOfSession {
        /// The number after the last message.
        next: u64,
    },
    /// The login was refused: close.
    Rejected(Reject),
    /// Close, and try again.
    Failed(ProtocolError),
}

/// What came over a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounts {
    /// Bytes.
    pub bytes: u64,
    /// Sequenced messages.
    pub messages: u64,
    /// Unsequenced messages.
    pub unsequenced: u64,
    /// Server heartbeats.
    pub heartbeats: u64,
    /// Debug packets, which are skipped.
    pub debug: u64,
    /// Packets of a type that is unknown or not a server's, which are skipped.
    pub unknown: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LoggingIn,
    Streaming,
    Ended,
    /// Refused, failed or logged out: nothing counts any more.
    Closed,
}

/// One connection of a client.
#[derive(Debug)]
pub struct Client {
    version: Version,
    timers: Timers,
    incoming: Buffer,
    outgoing: Vec<u8>,
    state: State,
    /// What [`Client::poll`] found, for [`Client::next`] to say.
    failure: Option<ProtocolError>,
    session: Option<Session>,
    next: u64,
    began_ns: u64,
    sent_ns: u64,
    received_ns: u64,
    counts: ClientCounts,
}

impl Client {
    /// A connection that was made at `now_ns`; the login is the first to send. The version is 4.10 if the login says so,
    /// whatever `version` is.
    #[must_use]
    pub fn new(login: &Login, version: Version, timers: Timers, now_ns: u64) -> Self {
        let mut outgoing = Vec::with_capacity(64);
        Packet::LoginRequest(login.clone()).write(&mut outgoing).expect("a login is short");
        Self {
            version: if login.heartbeat_ms.is_some() { Version::V4_10 } else { version },
            timers,
            incoming: Buffer::default(),
            outgoing,
            state: State::LoggingIn,
            failure: None,
            session: None,
            next: 0,
            began_ns: now_ns,
            sent_ns: now_ns,
            received_ns: now_ns,
            counts: ClientCounts::default(),
        }
    }

    /// Where to read into; empty only if events wait to be taken.
    pub fn space(&mut self) -> &mut [u8] {
        self.incoming.space()
    }

    /// So many bytes of [`Client::space`] were read at `now_ns`.
    ///
    /// # Panics
    /// If there was not so much space.
    pub fn received(&mut self, bytes: usize, now_ns: u64) {
        self.incoming.filled(bytes);
        self.counts.bytes += bytes as u64;
        if bytes > 0 {
            self.received_ns = now_ns;
        }
    }

    /// Copies what was read elsewhere; returns how much of it found space.
    pub fn receive(&mut self, bytes: &[u8], now_ns: u64) -> usize {
        let space = self.space();
        let len = bytes.len().min(space.len());
        space[..len].copy_from_slice(&bytes[..len]);
        self.received(len, now_ns);
        len
    }

    /// We have not read, so the silence is not the server's.
    pub fn not_read(&mut self, now_ns: u64) {
        self.received_ns = now_ns;
    }

    /// What happened next; `None` until more is read.
    #[expect(clippy::should_implement_trait, reason = "what it returns borrows from it")]
    pub fn next(&mut self) -> Option<Event<'_>> {
        loop {
            if let Some(failure) = self.failure.take() {
                self.state = State::Closed;
                return Some(Event::Failed(failure));
            }
            if self.state == State::Closed {
                return None;
            }
            let (kind, place) = match self.incoming.take() {
                Ok(Some(packet)) => packet,
                Ok(None) => return None,
                Err(malformed) => {
                    self.failure = Some(malformed.into());
                    continue;
                }
            };
            if kind == b'S' && self.state == State::Streaming && self.next < u64::MAX {
                let sequence = self.next;
                self.next += 1;
                self.counts.messages += 1;
                return Some(Event::Message { sequence, bytes: self.incoming.payload(place) });
            }
            if kind == b'U' && self.version != Version::V3_00 && self.state != State::LoggingIn {
                self.counts.unsequenced += 1;
                return Some(Event::Unsequenced(self.incoming.payload(place)));
            }
            let packet = Packet::parse(kind, self.incoming.payload(place));
            match packet.map_err(ProtocolError::from).and_then(|packet| step(self.state, kind, &packet)) {
                Ok(step) => match self.take(step) {
                    Some(event) => return Some(event),
                    None => continue,
                },
                Err(failure) => self.failure = Some(failure),
            }
        }
    }

    fn take(&mut self, step: Step) -> Option<Event<'static>> {
        match step {
            Step::LoggedIn { session, next } => {
                self.state = State::Streaming;
                (self.session, self.next) = (Some(session), next);
                Some(Event::LoggedIn { session, next })
            }
            Step::Rejected(reason) => {
                self.state = State::Closed;
                Some(Event::Rejected(reason))
            }
            Step::Ended => {
                self.state = State::Ended;
                Some(Event::EndOfSession { next: self.next })
            }
            Step::Alive => {
                self.counts.heartbeats += 1;
                Some(Event::Heartbeat)
            }
            Step::Debug => {
                self.counts.debug += 1;
                None
            }
            Step::Unknown => {
                self.counts.unknown += 1;
                None
            }
        }
    }

    /// Tells the time: sends heartbeats, notices a server that is silent. Take all events before it, and again after it.
    pub fn poll(&mut self, now_ns: u64) {
        if self.state == State::Closed || self.failure.is_some() {
            return;
        }
        if now_ns.saturating_sub(self.received_ns) >= self.timers.idle_ns {
            self.failure = Some(ProtocolError::Idle);
        } else if self.state == State::LoggingIn && now_ns.saturating_sub(self.began_ns) >= self.timers.login_ns {
            self.failure = Some(ProtocolError::LoginTimeout);
        } else if self.outgoing.is_empty() && now_ns.saturating_sub(self.sent_ns) >= self.timers.heartbeat_ns {
            self.put(&Packet::ClientHeartbeat);
        }
    }

    /// When [`Client::poll`] will have something to do at the latest, if nothing happens until then.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        let login_ns = if self.state == State::LoggingIn { self.began_ns + self.timers.login_ns } else { u64::MAX };
        // While something waits to be sent there is no need of a heartbeat.
        let is_idle = self.outgoing.is_empty();
        let heartbeat_ns = if is_idle { self.sent_ns + self.timers.heartbeat_ns } else { u64::MAX };
        login_ns.min(self.received_ns + self.timers.idle_ns).min(heartbeat_ns)
    }

    /// Says goodbye, after which nothing that comes counts. The server closes at once.
    pub fn log_out(&mut self) {
        self.put(&Packet::Logout);
        self.state = State::Closed;
    }

    fn put(&mut self, packet: &Packet<'_>) {
        packet.write(&mut self.outgoing).expect("it has no payload");
    }

    /// What is to be sent.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// So many bytes of [`Client::outgoing`] were sent at `now_ns`.
    ///
    /// # Panics
    /// If there was not so much to send.
    pub fn sent(&mut self, bytes: usize, now_ns: u64) {
        self.outgoing.drain(..bytes);
        if bytes > 0 {
            self.sent_ns = now_ns;
        }
    }

    /// The session, once the login holds.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// Number of the next message, once the login holds: what to ask for after this connection.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Whether the session has ended, so that the server's closing is no failure.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// What came so far.
    #[must_use]
    pub fn counts(&self) -> ClientCounts {
        self.counts
    }
}

/// What a packet other than data does.
enum Step {
    LoggedIn { session: Session, next: u64 },
    Rejected(Reject),
    Ended,
    Alive,
    Debug,
    Unknown,
}

fn step(state: State, kind: u8, packet: &Packet<'_>) -> Result<Step, ProtocolError> {
    let is_logged_in = state != State::LoggingIn;
    match *packet {
        Packet::LoginAccepted { .. } | Packet::LoginRejected(_) if is_logged_in => Err(ProtocolError::SecondAnswer),
        Packet::LoginAccepted { session, next } => Ok(Step::LoggedIn { session, next }),
        Packet::LoginRejected(reason) => Ok(Step::Rejected(reason)),
        Packet::Sequenced(_) | Packet::EndOfSession if !is_logged_in => Err(ProtocolError::BeforeLogin(kind)),
        Packet::Sequenced(_) => Err(ProtocolError::AfterEnd),
        // Said once more.
        Packet::EndOfSession if state == State::Ended => Ok(Step::Alive),
        Packet::EndOfSession => Ok(Step::Ended),
        // Harmless before the login, though not legal.
        Packet::ServerHeartbeat => Ok(Step::Alive),
        Packet::Debug(_) => Ok(Step::Debug),
        Packet::Unsequenced(_)
        | Packet::LoginRequest(_)
        | Packet::ClientHeartbeat
        | Packet::Logout
        | Packet::Unknown(_) => Ok(Step::Unknown),
    }
}

#[cfg(test)]
mod tests;
