//! Ending a channel's input in order.
#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use feedhandler_proto::v1::DrainResponse;
use tonic::Status;

use super::refusal::{self, Reason};
use super::select::SwitchError;
use super::{ControlError, Desk, SelectError, Selector};
use crate::config::plan::Plan;
use crate::feed::ChannelState;

/// Longest wait that can be asked for.
pub(super) const MOST_WAIT: Duration = Duration::from_secs(60);
/// Time between two looks; longer than between two publications of a worker's counters.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Why a channel is not drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// No such channel.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Its lines could not be switched off.
    #[error(transparent)]
    Lines(#[from] ControlError),
    /// It has no lines to switch off.
    #[error("channel `{0}` comes over TCP and has no lines: remove it to end it")]
    OverTcp(String),
    /// It still holds something.
    #[error(
        "channel `{channel}` still waits for {missing} messages after {waited_ms} ms; its lines are off, and it will go on \
         waiting until give_up_ms is over"
    )]
    TooLate {
        /// Its name.
        channel: String,
        /// Messages between what was delivered and what is known to exist.
        missing: u64,
        /// How long it had.
        waited_ms: u128,
    },
}

impl From<SwitchError> for DrainError {
    fn from(error: SwitchError) -> Self {
        match error {
            SwitchError::Select(error) => Self::Select(error),
            SwitchError::Lines(error) => Self::Lines(error),
        }
    }
}

impl From<DrainError> for Status {
    fn from(error: DrainError) -> Self {
        let message = error.to_string();
        match &error {
            DrainError::Select(error) => refusal::select(error),
            DrainError::Lines(error) => refusal::control(error),
            DrainError::OverTcp(_) => Reason::NeedsRestart.says(message),
            DrainError::TooLate { .. } => Reason::TooLate.says(message),
        }
    }
}

impl Desk {
    /// Switches a channel's lines off, and waits until all it holds was delivered or given up; `patience` is
    /// its give-up time and a second if it is not given. Not for an async thread.
    ///
    /// # Errors
    /// No such channel; a line that could not be switched off; or it still holds something.
    pub fn drain(&self, channel: &str, patience: Option<Duration>, by: &str) -> Result<DrainResponse, DrainError> {
        let result = self.drained(channel, patience, by);
        let (changes, error) = match &result {
            Ok(answer) => {
                let lost = answer.messages_lost;
                (vec![format!("channel {channel} drained: {lost} messages lost, next {}", answer.next_sequence)], None)
            }
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        self.tell_action("drain", by, changes, error);
        result
    }

    fn drained(&self, channel: &str, patience: Option<Duration>, by: &str) -> Result<DrainResponse, DrainError> {
        let plan = self.plan();
        let found = plan.channels.iter().find(|(_, one)| one.name == channel);
        let missing = |plan: &Plan| {
            let have = plan.channels.values().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
            DrainError::from(SelectError::NotFound { kind: "channel", name: channel.to_owned(), have })
        };
        let Some((index, wanted)) = found else { return Err(missing(&plan)) };
        if wanted.soup.is_some() {
            return Err(DrainError::OverTcp(channel.to_owned()));
        }
        let patience = patience.unwrap_or(Duration::from_millis(wanted.give_up_ms + 1000)).min(MOST_WAIT);
        let selector = Selector { channel: Some(channel.to_owned()), ..Selector::default() };
        let counts = || self.link_of_channel(index).shared.channel(index);
        let lost_before = counts().messages_lost;
        let changed = self.switch(&selector, false, by)?.changed;
        let begun = Instant::now();
        // What its workers took last is in the counters after the next housekeeping.
        thread::sleep(LOOK_INTERVAL);
        loop {
            // Its number may be another's by now.
            let plan = self.plan();
            if plan.channels.get(index).is_none_or(|one| one.name != channel) {
                return Err(missing(&plan));
            }
            let now = counts();
            let waits = [ChannelState::Gap as u64, ChannelState::Backfill as u64].contains(&now.state);
            let missing = now.known_sequence.saturating_sub(now.next_sequence);
            if !waits && missing == 0 {
                let messages_lost = now.messages_lost.saturating_sub(lost_before);
                return Ok(DrainResponse {
                    changed: self.groups(&changed),
                    messages_lost,
                    next_sequence: now.next_sequence,
                });
            }
            let waited = begun.elapsed();
            if waited >= patience {
                let (channel, waited_ms) = (channel.to_owned(), waited.as_millis());
                return Err(DrainError::TooLate { channel, missing, waited_ms });
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }
}
