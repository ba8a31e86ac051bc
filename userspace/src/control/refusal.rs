//! What a caller is told when a call is refused: a code, a sentence for a person, and particulars for a program.
//!
//! INVALID_ARGUMENT carries `google.rpc.BadRequest` with every field that is wrong; all others `google.rpc.ErrorInfo` with
//! a reason of [`Reason`] and the domain [`DOMAIN`]. Reasons are stable within v1: programs may compare them.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::{ControlError, RecoverError, SelectError, SwitchError};
use crate::beside::ThreadError;

/// Domain of every reason.
pub const DOMAIN: &str = "feedhandler";

/// Why a call was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// What the request names does not exist.
    NotFound,
    /// The name is taken by something else.
    AlreadyExists,
    /// The kernel refused a step.
    KernelRefused,
    /// Only a restart can do it.
    NeedsRestart,
    /// The channel comes over TCP and has no lines.
    OverTcp,
    /// The channel has no retransmission servers.
    NoServers,
    /// A worker takes no commands.
    WorkerUnavailable,
    /// The handler stops.
    Stopping,
    /// No slot for more channels, lines or destinations.
    NoRoom,
    /// Too many callers watch.
    TooManyWatchers,
    /// Too many calls are open.
    TooManyCalls,
    /// Too many connections are open.
    TooManyConnections,
    /// Something was not over in time.
    TooLate,
    /// The caller did not say who it is, or not so that we know it.
    Unauthenticated,
    /// The caller may not do this.
    RoleRequired,
}

impl Reason {
    /// The word in `ErrorInfo.reason`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::KernelRefused => "KERNEL_REFUSED",
            Self::NeedsRestart => "NEEDS_RESTART",
            Self::OverTcp => "OVER_TCP",
            Self::NoServers => "NO_SERVERS",
            Self::WorkerUnavailable => "WORKER_UNAVAILABLE",
            Self::Stopping => "STOPPING",
            Self::NoRoom => "NO_ROOM",
            Self::TooManyWatchers => "TOO_MANY_WATCHERS",
            Self::TooManyCalls => "TOO_MANY_CALLS",
            Self::TooManyConnections => "TOO_MANY_CONNECTIONS",
            Self::TooLate => "TOO_LATE",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::RoleRequired => "ROLE_REQUIRED",
        }
    }

    /// The code of the call.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::KernelRefused | Self::NeedsRestart | Self::OverTcp | Self::NoServers => Code::FailedPrecondition,
            Self::WorkerUnavailable | Self::Stopping => Code::Unavailable,
            Self::NoRoom | Self::TooManyWatchers | Self::TooManyCalls | Self::TooManyConnections => {
                Code::ResourceExhausted
            }
            Self::TooLate => Code::DeadlineExceeded,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::RoleRequired => Code::PermissionDenied,
        }
    }

    /// The answer, with a sentence for a person.
    #[must_use]
    pub fn says(self, message: impl Into<String>) -> Status {
        let details = ErrorDetails::with_error_info(self.label(), DOMAIN, HashMap::new());
        Status::with_error_details(self.code(), message, details)
    }
}

/// INVALID_ARGUMENT: every field that is wrong, by its path in the request (`selector.group`, `edits[2].add_line.group`),
/// and why. The message is the reasons, one after the other.
///
/// Nothing in `fields` still is INVALID_ARGUMENT, with a message that says nothing.
#[must_use]
pub fn violations<F: Into<String>, D: Into<String>>(fields: impl IntoIterator<Item = (F, D)>) -> Status {
    let fields: Vec<FieldViolation> =
        fields.into_iter().map(|(field, description)| FieldViolation::new(field, description)).collect();
    let reasons: Vec<&str> = fields.iter().map(|violation| violation.description.as_str()).collect();
    let message = reasons.join("; ");
    Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(fields))
}

/// A selector that selects nothing.
pub(super) fn select(error: &SelectError) -> Status {
    let message = error.to_string();
    match error {
        SelectError::Empty => violations([("selector", message)]),
        SelectError::AllAndMore => violations([("selector.all", message)]),
        SelectError::BadGroup(_) => violations([("selector.group", message)]),
        SelectError::NotFound { .. } | SelectError::NoMatch(_) => Reason::NotFound.says(message),
    }
}

/// A change of subscriptions that was not made.
pub(super) fn control(error: &ControlError) -> Status {
    let message = match error {
        // Says itself what is in force now.
        ControlError::NotUndone { .. } => error.to_string(),
        _ => format!("{error}; nothing was changed"),
    };
    control_reason(error).says(message)
}

/// The same, as a reason.
pub(super) fn control_reason(error: &ControlError) -> Reason {
    match error.cause() {
        ControlError::Kernel { .. } | ControlError::Refused { .. } => Reason::KernelRefused,
        _ => Reason::WorkerUnavailable,
    }
}

impl From<SwitchError> for Status {
    fn from(error: SwitchError) -> Self {
        match &error {
            SwitchError::Select(error) => select(error),
            SwitchError::Lines(error) => control(error),
        }
    }
}

/// A recovery that was not forced.
pub(super) fn recover(error: &RecoverError) -> Status {
    let reason = match error {
        RecoverError::Unknown(_) => Reason::NotFound,
        RecoverError::NoServers(_) => Reason::NoServers,
        RecoverError::Worker(_) => Reason::WorkerUnavailable,
        RecoverError::Thread(ThreadError::Gone(_)) => Reason::Stopping,
        RecoverError::Thread(_) => Reason::TooLate,
    };
    reason.says(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_is_wrong_is_in_the_details_and_the_message_says_them_all() {
        let status = violations([("edits[0].add_line.group", "no group"), ("edits[1].add_feed.name", "is taken")]);
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no group; is taken"));
        let details = status.get_error_details();
        let fields: Vec<_> =
            details.bad_request().unwrap().field_violations.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(fields, ["edits[0].add_line.group", "edits[1].add_feed.name"]);
    }

    #[test]
    fn a_reason_decides_the_code() {
        let status = Reason::NoRoom.says("full");
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "full"));
        let info = status.get_error_details().error_info().cloned().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NO_ROOM", "feedhandler"));
    }
}
