//! Ending a channel's input in order.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use feedhandler_proto::v1::DrainResponse;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::refusal::{self, Reason};
use super::select::SwitchError;
use super::{ControlError, Desk, SelectError, Selector};
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
    /// The handler stops.
    #[error("the handler stops before channel `{0}` is drained; its lines are off")]
    Stopping(String),
    /// A fault of ours.
    #[error("the control desk failed: {0}")]
    Failed(String),
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
            DrainError::OverTcp(_) => Reason::OverTcp.says(message),
            DrainError::TooLate { .. } => Reason::TooLate.says(message),
            DrainError::Stopping(_) => Reason::Stopping.says(message),
            DrainError::Failed(_) => Self::internal(message),
        }
    }
}

/// A drain that is under way.
#[derive(Debug)]
struct Draining {
    channel: String,
    index: usize,
    patience: Duration,
    /// Lines that were switched off.
    changed: Vec<usize>,
    lost_before: u64,
}

impl Desk {
    /// Switches a channel's lines off, and waits until all it holds was delivered or given up; `patience` is
    /// its give-up time and a second, a minute at most, if it is not given. Needs tokio, and holds none of its threads meanwhile.
    ///
    /// # Errors
    /// The channel does not exist or has no lines, they could not be switched off, it still holds something, or the handler
    /// stops.
    pub async fn drain(
        self: &Arc<Self>,
        channel: &str,
        patience: Option<Duration>,
        by: &str,
    ) -> Result<DrainResponse, DrainError> {
        let result = self.drained(channel, patience, by).await;
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

    async fn drained(
        self: &Arc<Self>,
        channel: &str,
        patience: Option<Duration>,
        by: &str,
    ) -> Result<DrainResponse, DrainError> {
        let mut over = self.watch.over();
        let (desk, name, by) = (Arc::clone(self), channel.to_owned(), by.to_owned());
        let begin = spawn_blocking(move || desk.begin_drain(name, patience, &by));
        let draining = begin.await.map_err(|error| DrainError::Failed(error.to_string()))??;
        let begun = Instant::now();
        loop {
            // Before the first look, too: what its workers took last is in the counters after the next housekeeping.
            tokio::select! {
                () = over.wait() => return Err(DrainError::Stopping(draining.channel)),
                () = sleep(LOOK_INTERVAL) => {}
            }
            let Some(mut answer) = self.look_at_drain(&draining, begun.elapsed())? else { continue };
            let desk = Arc::clone(self);
            let groups = spawn_blocking(move || desk.groups(&draining.changed));
            answer.changed = groups.await.map_err(|error| DrainError::Failed(error.to_string()))?;
            return Ok(answer);
        }
    }

    /// Switches the lines off. Waits for workers, so not for an async thread.
    fn begin_drain(&self, channel: String, patience: Option<Duration>, by: &str) -> Result<Draining, DrainError> {
        let index = self.channel_to_drain(&channel)?;
        let plan = self.plan();
        let wanted = plan.channels.get(index);
        if wanted.is_some_and(|wanted| wanted.soup.is_some()) {
            return Err(DrainError::OverTcp(channel));
        }
        let give_up_ms = wanted.map_or(0, |wanted| wanted.give_up_ms);
        let patience = patience.unwrap_or(Duration::from_millis(give_up_ms + 1000)).min(MOST_WAIT);
        let selector = Selector { channel: Some(channel.clone()), ..Selector::default() };
        let lost_before = self.link_of_channel(index).shared.channel(index).messages_lost;
        let changed = self.switch(&selector, false, by)?.changed;
        Ok(Draining { channel, index, patience, changed, lost_before })
    }

    /// Which channel has the name now.
    fn channel_to_drain(&self, name: &str) -> Result<usize, DrainError> {
        let plan = self.plan();
        let found = plan.channels.iter().find(|(_, one)| one.name == name);
        found.map(|(index, _)| index).ok_or_else(|| {
            let have = plan.channels.values().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
            SelectError::NotFound { kind: "channel", name: name.to_owned(), have }.into()
        })
    }

    /// Looks once, waiting for nothing: the answer but for its groups, once nothing is held any more.
    fn look_at_drain(&self, draining: &Draining, waited: Duration) -> Result<Option<DrainResponse>, DrainError> {
        let Draining { channel, index, patience, lost_before, .. } = draining;
        // Somebody may remove it meanwhile, and another channel have its counters.
        if self.channel_to_drain(channel)? != *index {
            return Err(SelectError::NotFound { kind: "channel", name: channel.clone(), have: String::new() }.into());
        }
        let now = self.link_of_channel(*index).shared.channel(*index);
        let waits = [ChannelState::Gap as u64, ChannelState::Backfill as u64].contains(&now.state);
        let missing = now.known_sequence.saturating_sub(now.next_sequence);
        if !waits && missing == 0 {
            let messages_lost = now.messages_lost.saturating_sub(*lost_before);
            return Ok(Some(DrainResponse { changed: Vec::new(), messages_lost, next_sequence: now.next_sequence }));
        }
        if waited >= *patience {
            return Err(DrainError::TooLate { channel: channel.clone(), missing, waited_ms: waited.as_millis() });
        }
        Ok(None)
    }
}
