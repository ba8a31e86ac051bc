//! A SoupBinTCP server: serves a session from any number on, and whatever is appended to it; or misbehaves.
//!
//! Source: Nasdaq, *SoupBinTCP*, version 3.00; 4.10 as public implementations speak it. The simulator's own reading; it shares
//! nothing with the client that it tests. Real sockets and threads.
#![forbid(unsafe_code)]

pub mod acceptor;
mod connection;
pub mod packet;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use acceptor::Acceptor;
use anyhow::Result;
pub use packet::Session;

/// How often a thread looks whether something has changed.
const TICK: Duration = Duration::from_millis(1);

/// What a server does wrong, in each connection once so many packets of data were sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Accepts the connection and says nothing, not even to the login.
    Mute,
    /// Sends heartbeats, but never answers the login.
    NoAnswer,
    /// Refuses every login, for this reason.
    Reject(u8),
    /// Sends data before it answers the login.
    Early,
    /// Answers the login twice.
    Twice,
    /// Answers with a sequence that is no number.
    NoNumber,
    /// Closes in the middle of a message, without an end of session.
    CloseWithin {
        /// Packets of data before it.
        after: u64,
    },
    /// Closes between two messages, without an end of session.
    Close {
        /// Packets of data before it.
        after: u64,
    },
    /// Sends half of a message and then nothing any more.
    Stall {
        /// Packets of data before it.
        after: u64,
    },
    /// Sends random bytes.
    Garbage {
        /// Packets of data before them.
        after: u64,
    },
    /// Sends a packet of length 0.
    Empty {
        /// Packets of data before it.
        after: u64,
    },
    /// Sends packets of unknown types and debug packets without end.
    Flood {
        /// Packets of data before them.
        after: u64,
    },
}

/// How a server serves.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Everything random follows from it.
    pub seed: u64,
    /// Where it listens; port 0 takes any.
    pub address: SocketAddrV4,
    /// User and password that are let in; `None` = everybody.
    pub login: Option<(String, String)>,
    /// Silence after which it sends a heartbeat.
    pub heartbeat: Duration,
    /// Silence of a client after which it closes; the login of version 4.10 says otherwise.
    pub idle: Duration,
    /// Longest piece that is written at once, bytes; pieces are of random length. 0 = as they come.
    pub pieces: usize,
    /// Packets of data that are sent per second at most; 0 = as fast as TCP takes them.
    pub rate: u64,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            login: None,
            heartbeat: Duration::from_secs(1),
            idle: Duration::from_secs(15),
            pieces: 0,
            rate: 0,
        }
    }
}

/// What happened at a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Logins accepted.
    pub logins: u64,
    /// Logins refused.
    pub rejects: u64,
    /// Messages sent, repeated ones included.
    pub messages: u64,
    /// Heartbeats of clients.
    pub client_heartbeats: u64,
    /// Logouts.
    pub logouts: u64,
    /// Clients that were closed for their silence.
    pub idle: u64,
}

/// What is served.
#[derive(Debug)]
struct Book {
    session: Session,
    /// Counts sessions, so that a connection notices that its one is over.
    generation: u64,
    /// Number of the first message that is kept.
    first: u64,
    messages: Vec<Vec<u8>>,
    has_ended: bool,
    /// What goes wrong in the next connections, one each.
    troubles: VecDeque<Trouble>,
    /// Every login, as it was: session and sequence asked for.
    asked: Vec<(String, u64)>,
    counts: ServerCounts,
}

impl Book {
    fn next(&self) -> u64 {
        self.first + self.messages.len() as u64
    }
}

#[derive(Debug)]
struct Shared {
    settings: ServerSettings,
    book: Mutex<Book>,
    is_over: Arc<AtomicBool>,
    /// Raised to close all connections that are open.
    cut: Mutex<u64>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cuts(&self) -> u64 {
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct SoupServer {
    shared: Arc<Shared>,
    acceptor: Acceptor,
}

impl SoupServer {
    /// Starts one in the calling thread's network namespace, with no messages yet.
    ///
    /// # Errors
    /// If the address is not to be had.
    pub fn start(settings: ServerSettings, session: &str) -> Result<Self> {
        let book = Book {
            session: packet::session(session),
            generation: 0,
            first: 1,
            messages: Vec::new(),
            has_ended: false,
            troubles: VecDeque::new(),
            asked: Vec::new(),
            counts: ServerCounts::default(),
        };
        let is_over = Arc::<AtomicBool>::default();
        let (address, told) = (settings.address, Arc::clone(&is_over));
        let shared = Arc::new(Shared { settings, book: Mutex::new(book), is_over, cut: Mutex::new(0) });
        let served = Arc::clone(&shared);
        let acceptor = Acceptor::start(address, told, move |stream| connection::serve(&served, stream))?;
        Ok(Self { shared, acceptor })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.acceptor.address()
    }

    /// Appends messages to the session.
    pub fn append(&self, messages: impl IntoIterator<Item = Vec<u8>>) {
        self.shared.book().messages.extend(messages);
    }

    /// Forgets the messages before `first`: who asks for them is answered with a later number.
    pub fn forget(&self, first: u64) {
        let mut book = self.shared.book();
        let gone = usize::try_from(first.saturating_sub(book.first)).expect("fits").min(book.messages.len());
        book.messages.drain(..gone);
        book.first += gone as u64;
    }

    /// Ends the session: end of session to everybody who has all messages, and then the connections close.
    pub fn end_session(&self) {
        self.shared.book().has_ended = true;
    }

    /// Begins another session without messages, whether the one before has ended or not.
    pub fn begin_session(&self, session: &str) {
        let mut book = self.shared.book();
        book.session = packet::session(session);
        book.generation += 1;
        (book.first, book.has_ended) = (1, false);
        book.messages.clear();
    }

    /// What goes wrong in the next connections that are accepted, one for each; after them nothing does.
    pub fn go_wrong(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.shared.book().troubles.extend(troubles);
    }

    /// Closes all open connections at once, in the middle of whatever they send.
    pub fn cut(&self) {
        *self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> ServerCounts {
        self.shared.book().counts
    }

    /// What each login asked for: session (without padding) and sequence.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, u64)> {
        self.shared.book().asked.clone()
    }
}
