//! A connection that was made: its socket, the protocol's state on it, and how it may end.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::soup::{Client, ClientCounts, ProtocolError, Reject};

/// A connection that was made.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) client: Client,
    pub(super) is_logged_in: bool,
    /// The server has closed; what it sent before may still have to be taken.
    pub(super) is_at_end: bool,
    /// Whether events may wait to be taken.
    pub(super) has_unread: bool,
    /// Messages are missing in front of what comes: not read before they are declared lost, because what waits in TCP is
    /// safe, and a hold buffer may overflow.
    pub(super) pause_ns: Option<u64>,
    /// What of the client's counts is in ours.
    pub(super) counted: ClientCounts,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, client: Client) -> Self {
        Self {
            stream,
            client,
            is_logged_in: false,
            is_at_end: false,
            has_unread: false,
            pause_ns: None,
            counted: ClientCounts::default(),
        }
    }

    /// Whether all that was read is taken, and more may be read.
    pub(super) fn is_listening(&self) -> bool {
        !self.has_unread && self.pause_ns.is_none()
    }

    /// Says goodbye, as far as the socket takes it.
    pub(super) fn log_out(&mut self, now_ns: u64) {
        self.client.log_out();
        self.write(now_ns);
    }

    pub(super) fn write(&mut self, now_ns: u64) {
        while !self.client.outgoing().is_empty() {
            match self.stream.write(self.client.outgoing()) {
                Ok(bytes) => self.client.sent(bytes, now_ns),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What the server said before it closed is still to be read, and more telling.
                Err(_) => {
                    let unsent = self.client.outgoing().len();
                    self.client.sent(unsent, now_ns);
                }
            }
        }
    }

    /// Reads once: other channels want their turn, too.
    pub(super) fn read(&mut self, now_ns: u64) -> Result<(), Over> {
        match self.stream.read(self.client.space()) {
            Ok(0) => self.is_at_end = true,
            Ok(bytes) => self.client.received(bytes, now_ns),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(Over::Broken(error)),
        }
        Ok(())
    }
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Over {
    #[error("the session has ended")]
    Ended,
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("{}", rejection(*.0))]
    Rejected(Reject),
    #[error("{0}")]
    Failed(ProtocolError),
    #[error("the server still has the session that has ended")]
    OldSession,
}

fn rejection(reason: Reject) -> String {
    match reason {
        Reject::NotAuthorised => "the server refused the login: not authorised".to_owned(),
        Reject::NoSession => "the server refused the login: session not available".to_owned(),
        Reject::Other(code) => format!("the server refused the login: reason `{}`", code.escape_ascii()),
    }
}
