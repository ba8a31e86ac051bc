//! Forced recovery: an operator will not wait for the timeouts.
#![forbid(unsafe_code)]

use std::time::Instant;

use feedhandler_proto::v1::OperatorAction;
use feedhandler_proto::v1::event::What;

use super::lines::WORKER_PATIENCE;
use super::{Desk, tell};
use crate::beside::ThreadError;
use crate::worker::shared::Command;

/// Why nothing was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// No such channel.
    #[error("no channel `{0}`; `feedctl status` lists them")]
    Unknown(String),
    /// There is nobody to ask.
    #[error("channel `{0}` has no retransmission servers: it has no recovery table in the configuration")]
    NoServers(String),
    /// The worker does not say what is missing.
    #[error("worker `{0}` has not answered within a second; is it alive? `feedctl status` tells")]
    Worker(String),
    /// The recovery thread cannot be told.
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

impl Desk {
    /// Has everything that a channel (`feed/channel`) misses now asked for at once, of its next retransmission server, as
    /// somebody (`by`) asks: also what the other line still had time for, and what was asked for already. The requests per
    /// second of the configuration still hold. Waits for the worker, a second at most.
    ///
    /// Returns how many messages that are, of the nearest 32 holes: what lies behind is asked for as these are filled.
    ///
    /// # Errors
    /// Why nothing was asked for.
    pub fn recover(&self, channel: &str, by: &str) -> Result<u64, RecoverError> {
        let result = self.hurry(channel);
        let action = |changes, error| {
            let (by, action) = (by.to_owned(), "recover".to_owned());
            self.watch.tell(What::OperatorAction(OperatorAction { by, action, changes, error }));
        };
        match &result {
            Ok(0) => {
                tracing::info!(channel, by, "recovery forced: nothing is missing");
                action(vec![format!("{channel}: nothing is missing")], String::new());
            }
            Ok(missing) => {
                tracing::info!(channel, by, missing, "recovery forced");
                action(vec![format!("{channel}: {missing} missing messages are asked for")], String::new());
            }
            Err(error) => {
                tracing::warn!(channel, by, %error, "recovery not forced");
                action(Vec::new(), error.to_string());
            }
        }
        result
    }

    fn hurry(&self, name: &str) -> Result<u64, RecoverError> {
        let now = self.plan();
        let found = now.channels.iter().find(|(_, channel)| channel.name == name);
        let (channel, plan) = found.ok_or_else(|| RecoverError::Unknown(name.to_owned()))?;
        let no_servers = || RecoverError::NoServers(name.to_owned());
        if plan.recovery.is_none() {
            return Err(no_servers());
        }
        self.have_told(channel, plan.worker)?;
        // Between the two the channel may have gone.
        self.threads.recover(channel)?.ok_or_else(no_servers)
    }

    /// Has a worker tell the recovery thread all that a channel misses.
    fn have_told(&self, channel: usize, worker: usize) -> Result<(), RecoverError> {
        let link = &self.links[worker];
        let silent = || RecoverError::Worker(self.fixed.workers[worker].name.clone());
        let deadline = Instant::now() + WORKER_PATIENCE;
        let number = tell::send(link, Command::Hurry { channel }, deadline).ok_or_else(silent)?;
        if tell::is_applied(link, number, deadline) { Ok(()) } else { Err(silent()) }
    }
}
