//! One attempt: a connection to a GLIMPSE server, from the login to End of Snapshot.
//!
//! Source: Nasdaq, *GLIMPSE* version 5.0. A SoupBinTCP service that is logged in to with sequence 1. Nothing that the server
//! does costs more than the attempt, the memory that `max_messages` stands for, and the time that the attempt may take.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use super::spin::{Snapshot, Spin, SpinError};
use crate::clock::monotonic_ns;
use crate::feed::Session;
use crate::metrics::SnapshotCounts;
use crate::soup::{Client, Event, Login, ProtocolError, Reject, Timers, Version};

/// How often a thread that waits for bytes looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(20);

/// A connection that takes longer is none.
const LONGEST_CONNECT: Duration = Duration::from_secs(1);

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody there.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The server does not want us.
    #[error("the server refused the login: {}", match .0 {
        Reject::NotAuthorised => "user name or password",
        Reject::NoSession => "session not available",
        Reject::Other(_) => "for a reason that the specification does not know",
    })]
    Login(Reject),
    /// A snapshot of something else.
    #[error(
        "the server is in session '{}', the lines are in '{}'; same_session = false takes any", .server.escape_ascii(),
        .lines.escape_ascii()
    )]
    Session {
        /// The server's.
        server: Session,
        /// The channel's.
        lines: Session,
    },
    /// The beginning is not there.
    #[error("the server begins with message {0}, not with the first")]
    Beginning(u64),
    /// It ended in the middle.
    #[error("the server closed after {0} messages, before the end of the snapshot")]
    BrokenOff(u64),
    /// It stopped in the middle.
    #[error("no further message for {0} ms")]
    Silent(u64),
    /// It trickles.
    #[error("the snapshot was not complete after {0} ms, when the next server's turn had come")]
    Slow(u64),
    /// No SoupBinTCP.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// No snapshot.
    #[error(transparent)]
    Spin(#[from] SpinError),
    /// Of the future, as far as the lines have shown.
    #[error("the snapshot is of the time before message {next}, but the lines have shown none from {known} on")]
    Ahead {
        /// Number of the first message that it does not contain.
        next: u64,
        /// The number after the newest message that is known to exist.
        known: u64,
    },
    /// The channel did not take it.
    #[error("the channel did not take it any more")]
    NotTaken,
    /// Nobody waits for it any more.
    #[error("it is not wanted any more")]
    Unwanted,
}

impl Failure {
    /// Counts it.
    pub fn count(&self, counts: &mut SnapshotCounts) {
        let counter = match self {
            Self::Connect(_) => &mut counts.failed_connect,
            Self::Login(_) => &mut counts.failed_login,
            Self::Session { .. } => &mut counts.failed_session,
            Self::BrokenOff(_) => &mut counts.failed_broken_off,
            Self::Silent(_) | Self::Slow(_) | Self::Protocol(ProtocolError::LoginTimeout | ProtocolError::Idle) => {
                &mut counts.failed_silent
            }
            Self::Beginning(_) | Self::Protocol(_) => &mut counts.failed_malformed,
            Self::Spin(SpinError::TooLong(_)) => &mut counts.failed_too_long,
            Self::Spin(SpinError::Numbers { .. }) => &mut counts.failed_numbers,
            Self::Spin(_) => &mut counts.failed_malformed,
            Self::Ahead { .. } => &mut counts.failed_ahead,
            Self::NotTaken => &mut counts.failed_not_taken,
            Self::Unwanted => return,
        };
        *counter += 1;
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// With the active session and sequence 1.
    pub login: Login,
    /// The session that the server must be in; `None` = any.
    pub session: Option<Session>,
    /// How long a connection, the login or the next message is waited for, milliseconds.
    pub timeout_ms: u64,
    /// How long all of it may take, milliseconds.
    pub limit_ms: u64,
    /// Messages at most.
    pub max_messages: u64,
}

/// Fetches a snapshot. `is_wanted` is asked a few dozen times a second; `messages` counts what came.
///
/// # Errors
/// Why there is none.
pub fn fetch(
    server: SocketAddrV4,
    request: &Request,
    is_wanted: impl Fn() -> bool,
    messages: &mut u64,
) -> Result<Snapshot, Failure> {
    let timeout_ns = request.timeout_ms * 1_000_000;
    let began_ns = monotonic_ns();
    let mut stream = connect(server, Duration::from_millis(request.timeout_ms)).map_err(Failure::Connect)?;
    let timers = Timers { idle_ns: timeout_ns, login_ns: timeout_ns, ..Timers::default() };
    let mut client = Client::new(&request.login, Version::V3_00, timers, monotonic_ns());
    let mut fetched = Fetched { spin: Spin::new(request.max_messages), session: request.session };
    let mut progress_ns = monotonic_ns();
    loop {
        if !is_wanted() {
            return Err(Failure::Unwanted);
        }
        let is_open = exchange(&mut stream, &mut client);
        let before = fetched.spin.messages();
        let mut end = None;
        while end.is_none()
            && let Some(event) = client.next()
        {
            end = fetched.take(event)?;
        }
        let got = fetched.spin.messages() - before;
        *messages += got;
        if let Some(next) = end {
            client.log_out();
            // The server closes anyway.
            let _ = stream.write(client.outgoing());
            return Ok(fetched.spin.finish(next)?);
        }
        if !is_open {
            return Err(Failure::BrokenOff(fetched.spin.messages()));
        }
        let now_ns = monotonic_ns();
        client.poll(now_ns);
        if got > 0 {
            progress_ns = now_ns;
        } else if now_ns.saturating_sub(progress_ns) >= timeout_ns {
            return Err(Failure::Silent(request.timeout_ms));
        }
        if now_ns.saturating_sub(began_ns) >= request.limit_ms * 1_000_000 {
            return Err(Failure::Slow(request.limit_ms));
        }
    }
}

fn connect(server: SocketAddrV4, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(server), timeout.min(LONGEST_CONNECT))?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(TICK))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends what is to be sent and reads what is there, or waits a little for it; false once the connection is over.
fn exchange(stream: &mut TcpStream, client: &mut Client) -> bool {
    let is_later = |error: &io::Error| {
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
    };
    if !client.outgoing().is_empty() {
        match stream.write(client.outgoing()) {
            Ok(bytes) => client.sent(bytes, monotonic_ns()),
            Err(error) if is_later(&error) => {}
            // What came before is still to be read.
            Err(_) => client.sent(client.outgoing().len(), monotonic_ns()),
        }
    }
    match stream.read(client.space()) {
        Ok(0) => false,
        Ok(bytes) => {
            client.received(bytes, monotonic_ns());
            true
        }
        Err(error) => is_later(&error),
    }
}

/// What has come, and what must hold for it.
struct Fetched {
    spin: Spin,
    session: Option<Session>,
}

impl Fetched {
    fn take(&mut self, event: Event<'_>) -> Result<Option<u64>, Failure> {
        match event {
            Event::LoggedIn { session, next } => match self.session {
                Some(lines) if right_padded(&lines) != session => Err(Failure::Session { server: session, lines }),
                _ if next != 1 => Err(Failure::Beginning(next)),
                _ => Ok(None),
            },
            Event::Message { bytes, .. } => Ok(self.spin.push(bytes)?),
            Event::EndOfSession { .. } => Err(Failure::BrokenOff(self.spin.messages())),
            Event::Rejected(reason) => Err(Failure::Login(reason)),
            Event::Failed(error) => Err(error.into()),
            Event::Unsequenced(_) | Event::Heartbeat => Ok(None),
        }
    }
}

/// A session's name as SoupBinTCP's is given, whatever side MoldUDP64's sender has padded.
fn right_padded(session: &Session) -> Session {
    let from = session.iter().position(|byte| *byte != b' ').unwrap_or_default();
    let mut name = [b' '; 10];
    name[..session.len() - from].copy_from_slice(&session[from..]);
    name
}
