//! Counters of channels that come over TCP.
#![forbid(unsafe_code)]

use super::counts::counter_set;

counter_set! {
    /// The connections of one channel that comes over TCP (SoupBinTCP).
    SoupCounts {
        state: "State of the connection: 0 waiting, 1 connecting, 2 logged in, 3 ended, 4 stopped",
        connections: "Connections made",
        connect_errors: "Attempts to connect that failed",
        logins: "Logins that were accepted",
        rejects: "Logins that were refused",
        old_sessions: "Logins that led to a session which had ended (left again)",
        disconnects: "Connections lost after the login, but for those whose session ended",
        protocol_errors: "Connections left for what the server sent, or for its silence",
        gaps: "Logins after which the server began later than it was asked to",
        messages: "Sequenced messages received",
        unsequenced: "Unsequenced messages received (not passed on)",
        heartbeats: "Server heartbeats received",
        bytes: "Bytes received",
        skipped: "Debug packets, and packets of unknown type (skipped)",
        oversized: "Messages too long for a packet (lost)",
        full: "Rounds in which nothing was read because the worker had not taken what came before",
    }
}

/// How far the connection of a channel is that comes over TCP. The numbers are those of [`SoupCounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum SoupState {
    /// Not connected, until the next attempt.
    Waiting = 0,
    /// Connecting, or logging in.
    Connecting = 1,
    /// Receives.
    LoggedIn = 2,
    /// The session has ended, and the next is waited for.
    Ended = 3,
    /// Not authorised: nothing is tried any more.
    Stopped = 4,
}

impl SoupState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Connecting, Self::LoggedIn, Self::Ended, Self::Stopped];

    /// The word used in metrics and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::LoggedIn => "logged_in",
            Self::Ended => "ended",
            Self::Stopped => "stopped",
        }
    }
}
