//! Why a change was not made.
#![forbid(unsafe_code)]

use crate::steering::SteeringError;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A step of the kernel's failed: the join, or the change of the filter's map.
    #[error("line {line} of `{channel}`: {source}")]
    Kernel {
        /// Name of the channel.
        channel: String,
        /// Name of the line.
        line: String,
        /// Which step, and why.
        source: Box<SteeringError>,
    },
    /// The worker does not take commands.
    #[error(
        "line {line} of `{channel}`: worker `{worker}` takes no commands (its queue is full); is it alive? `feedctl status` tells"
    )]
    Worker {
        /// Name of the channel.
        channel: String,
        /// Name of the line.
        line: String,
        /// Name of the worker.
        worker: String,
    },
    /// The worker took the command and did nothing with it.
    #[error(
        "line {line} of `{channel}`: worker `{worker}` has not switched it within a second; is it alive? `feedctl status` tells"
    )]
    NotApplied {
        /// Name of the channel.
        channel: String,
        /// Name of the line.
        line: String,
        /// Name of the worker.
        worker: String,
    },
    /// The worker's own socket was refused the group (modes with kernel sockets only).
    #[error("line {line} of `{channel}`: the socket of worker `{worker}` was refused the group: {source}")]
    Refused {
        /// Name of the channel.
        channel: String,
        /// Name of the line.
        line: String,
        /// Name of the worker.
        worker: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A line that was selected, and is no more.
    #[error("line number {line} was removed meanwhile")]
    Removed {
        /// Its number.
        line: usize,
    },
    /// A step failed, and so did taking back what was done.
    #[error("{cause}; it could not be undone, and now stands: {left}; repeat the request once the cause is gone")]
    NotUndone {
        /// The step that failed.
        cause: Box<Self>,
        /// Each line that is not as it was before, and how it is.
        left: String,
    },
}

impl ControlError {
    /// What failed first, whatever came of undoing it.
    #[must_use]
    pub fn cause(&self) -> &Self {
        match self {
            Self::NotUndone { cause, .. } => cause.cause(),
            other => other,
        }
    }
}
