//! Who may do what: callers, their roles, and what each method takes.
//!
//! A caller is known by its connection (the Unix socket, a client certificate) or by a token that comes with the call.
//! [`gate`] asks for every call; [`credentials`] is what it compares with, read again when the files change.
#![forbid(unsafe_code)]

mod certificate;
pub(super) mod credentials;
mod error;
pub(super) mod gate;
pub(super) mod keep;
pub(super) mod places;
pub(super) mod tokens;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use error::CredentialError;
pub use tokens::{NewToken, TokenError};

use super::locked;
use super::refusal::Reason;
use crate::clock::monotonic_ns;
use credentials::Credentials;
use places::Places;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Look.
    Viewer,
    /// Everything.
    Operator,
}

impl Role {
    /// The word in the tokens file and in messages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// For log and events: "uid 0, pid 4711", "10.0.0.7:40312 (certificate ops-1)".
    pub(super) by: String,
    pub(super) role: Role,
}

/// What becomes of a call in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Answered within moments.
    Look,
    /// Waits for the kernel and for workers.
    Change,
    /// Goes on until somebody ends it.
    Stream,
}

impl Kind {
    /// Until when there must be an answer (of a stream, its first word), whatever the caller says.
    pub(super) const fn limit(self) -> Duration {
        match self {
            Self::Look | Self::Stream => Duration::from_secs(10),
            // Longer than the longest that a drain may be asked to wait.
            Self::Change => Duration::from_secs(70),
        }
    }
}

/// Every method that is served: its path, who may call it, what becomes of it. A test holds it and the services together.
pub(super) const METHODS: [(&str, Role, Kind); 17] = [
    ("/feedhandler.control.v1.Control/Subscribe", Role::Operator, Kind::Change),
    ("/feedhandler.control.v1.Control/Unsubscribe", Role::Operator, Kind::Change),
    ("/feedhandler.control.v1.Control/ListGroups", Role::Viewer, Kind::Look),
    ("/feedhandler.control.v1.Control/WatchEvents", Role::Viewer, Kind::Stream),
    ("/feedhandler.control.v1.Control/GetStatus", Role::Viewer, Kind::Look),
    ("/feedhandler.control.v1.Control/WatchStatus", Role::Viewer, Kind::Stream),
    ("/feedhandler.control.v1.Control/GetLatency", Role::Viewer, Kind::Look),
    ("/feedhandler.control.v1.Control/WatchLatency", Role::Viewer, Kind::Stream),
    ("/feedhandler.control.v1.Control/Change", Role::Operator, Kind::Change),
    ("/feedhandler.control.v1.Control/Reload", Role::Operator, Kind::Change),
    ("/feedhandler.control.v1.Control/GetConfig", Role::Viewer, Kind::Look),
    ("/feedhandler.control.v1.Control/Recover", Role::Operator, Kind::Change),
    ("/feedhandler.control.v1.Control/Drain", Role::Operator, Kind::Change),
    ("/grpc.health.v1.Health/Check", Role::Viewer, Kind::Look),
    ("/grpc.health.v1.Health/Watch", Role::Viewer, Kind::Stream),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Role::Viewer, Kind::Stream),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Role::Viewer, Kind::Stream),
];

/// What a call of `path` takes. What is not in the table is for operators.
fn needs(path: &str) -> (Role, Kind) {
    let known = METHODS.iter().find(|(known, ..)| *known == path);
    known.map_or((Role::Operator, Kind::Look), |(_, role, kind)| (*role, *kind))
}

/// Whom we let in, and how that went. One for each desk.
#[derive(Debug, Default)]
pub(super) struct Access {
    credentials: Mutex<Arc<Credentials>>,
    pub(super) places: Arc<Places>,
    pub(super) counts: Counts,
    /// Second in which something was logged last.
    logged: AtomicU64,
}

impl Access {
    /// Whether a refusal may be logged: one in a second, for anybody can cause them.
    pub(super) fn may_log(&self) -> bool {
        let second = monotonic_ns() / 1_000_000_000;
        self.logged.swap(second, Relaxed) != second
    }

    /// What is in force now.
    pub(super) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&locked(&self.credentials))
    }

    /// From now on; open connections go on with what they have.
    pub(super) fn install(&self, credentials: Credentials) {
        *locked(&self.credentials) = Arc::new(credentials);
    }
}

/// How it went.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// TLS handshakes that failed or took too long.
    pub(super) handshakes_failed: AtomicU64,
    /// Files that changed and could not be used.
    pub(super) reloads_failed: AtomicU64,
    refused: [AtomicU64; REFUSALS.len()],
}

/// Refusals that are counted here.
const REFUSALS: [Reason; 5] =
    [Reason::Unauthenticated, Reason::RoleRequired, Reason::TooManyConnections, Reason::TooManyCalls, Reason::TooLate];

impl Counts {
    fn refused(&self, reason: Reason) {
        if let Some(index) = REFUSALS.iter().position(|counted| *counted == reason) {
            self.refused[index].fetch_add(1, Relaxed);
        }
    }
}

/// What an operator can see of who comes in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessCounts {
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: u64,
    /// Times that certificates or tokens changed and could not be used.
    pub reloads_failed: u64,
    /// Calls refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Open connections: on this host's own address, and on that with TLS.
    pub connections: [usize; 2],
    /// When certificates expire, by key of `[handler.tls]`, seconds since 1970.
    pub expiries: Vec<(&'static str, u64)>,
}

impl super::Desk {
    /// Who was let in and who was not, since the start.
    #[must_use]
    pub fn access_counts(&self) -> AccessCounts {
        let Access { places, counts, .. } = &self.access;
        let refused = REFUSALS.iter().zip(&counts.refused);
        AccessCounts {
            handshakes_failed: counts.handshakes_failed.load(Relaxed),
            reloads_failed: counts.reloads_failed.load(Relaxed),
            refused: refused.map(|(reason, count)| (reason.label(), count.load(Relaxed))).collect(),
            connections: places.connections(),
            expiries: self.access.credentials().expiries(),
        }
    }
}
