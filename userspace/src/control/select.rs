//! Which lines a request means.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;

use super::lines::Turn;
use super::{Changes, ControlError, Desk};
use crate::config::plan::{LinePlan, Plan};

/// Selects the lines that match every part given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Name of a feed.
    pub feed: Option<String>,
    /// `feed/channel`.
    pub channel: Option<String>,
    /// `A` or `B`.
    pub line: Option<String>,
    /// Group and port.
    pub group: Option<String>,
    /// All lines; the other parts must then be absent.
    pub all: bool,
}

/// Why a selector selects nothing. Each says what there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Nothing was said.
    #[error("say which lines: a feed, a channel, a line, a group, or all")]
    Empty,
    /// All, and not all.
    #[error("`all` goes with nothing else: leave it out, or the feed, channel, line and group")]
    AllAndMore,
    /// Not an address and port.
    #[error("`{0}` is not a group: must be an IPv4 address and port, such as 239.10.0.1:26400")]
    BadGroup(String),
    /// No such feed, channel, line or group.
    #[error("no {kind} `{name}`; there are: {have}")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// Its name as asked.
        name: String,
        /// Those that there are.
        have: String,
    },
    /// Each part exists, but not together.
    #[error("no line matches all of: {0}")]
    NoMatch(String),
}

/// Why the lines that a selector means are not switched.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// It means none.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// They could not be switched.
    #[error(transparent)]
    Lines(#[from] ControlError),
}

impl Desk {
    /// Puts the lines that `selector` means in force, or takes them out of it, as somebody (`by`) asks. Waits like
    /// [`Self::subscribe`].
    ///
    /// # Errors
    /// As [`Self::select`] and [`Self::subscribe`].
    pub fn switch(&self, selector: &Selector, subscribed: bool, by: &str) -> Result<Changes, SwitchError> {
        let turn = if subscribed { Turn::On } else { Turn::Off };
        loop {
            // A change may come in between, and give the numbers to other lines: then it is selected again.
            let plan = self.plan();
            let lines = selected(&plan, selector)?;
            if let Some(result) = self.turn_of(&plan, &lines, turn, by) {
                return Ok(result?);
            }
        }
    }

    /// The lines that `selector` means, as ascending indices; never empty.
    ///
    /// # Errors
    /// The selector is empty, malformed, or matches nothing.
    pub fn select(&self, selector: &Selector) -> Result<Vec<usize>, SelectError> {
        selected(&self.plan(), selector)
    }
}

fn selected(plan: &Plan, selector: &Selector) -> Result<Vec<usize>, SelectError> {
    let Selector { feed, channel, line, group, all } = selector;
    let lines = || plan.lines.values();
    let parts = [("feed", feed), ("channel", channel), ("line", line), ("group", group)];
    let given: Vec<String> =
        parts.iter().filter_map(|(kind, name)| Some(format!("{kind} {}", name.as_ref()?))).collect();
    match (all, given.is_empty()) {
        (true, true) => return Ok(plan.lines.indices().collect()),
        (true, false) => return Err(SelectError::AllAndMore),
        (false, true) => return Err(SelectError::Empty),
        (false, false) => {}
    }
    let address = match group {
        Some(text) => Some(text.parse::<SocketAddrV4>().map_err(|_| SelectError::BadGroup(text.clone()))?),
        None => None,
    };
    exists("feed", feed, plan.channels.values().map(|channel| channel.feed.clone()))?;
    exists("channel", channel, plan.channels.values().map(|channel| channel.name.clone()))?;
    exists("line", line, lines().map(|line| line.name.clone()))?;
    exists("group", group, lines().map(|line| line.group.to_string()))?;
    let matches = |planned: &LinePlan| {
        let of = &plan.channels[planned.channel];
        feed.as_ref().is_none_or(|name| *name == of.feed)
            && channel.as_ref().is_none_or(|name| *name == of.name)
            && line.as_ref().is_none_or(|name| *name == planned.name)
            && address.is_none_or(|group| group == planned.group)
    };
    let found = plan.lines.iter().filter(|(_, line)| matches(line));
    let found: Vec<usize> = found.map(|(index, _)| index).collect();
    if found.is_empty() { Err(SelectError::NoMatch(given.join(", "))) } else { Ok(found) }
}

fn exists(kind: &'static str, wanted: &Option<String>, names: impl Iterator<Item = String>) -> Result<(), SelectError> {
    let Some(name) = wanted else { return Ok(()) };
    let mut have: Vec<String> = names.collect();
    if have.contains(name) {
        return Ok(());
    }
    have.sort();
    have.dedup();
    Err(SelectError::NotFound { kind, name: name.clone(), have: have.join(", ") })
}
