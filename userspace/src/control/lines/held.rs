//! What is held of a line: what was asked of it, and its parts.
#![forbid(unsafe_code)]

use super::LineState;
use crate::steering::Lease;

/// What was asked of a line, and how far each of its three parts is.
#[derive(Debug)]
pub(in crate::control) struct Held {
    pub(in crate::control) desired: bool,
    pub(in crate::control) error: Option<String>,
    pub(in crate::control) membership: Option<Lease>,
    /// A membership for when it is switched on next: while a change is under way, which must be able to be taken back.
    reserve: Option<Lease>,
    pub(in crate::control) has_rule: bool,
    /// What the worker confirmed last; `None` while it owes a confirmation.
    pub(in crate::control) enabled: Option<bool>,
}

impl Held {
    pub(in crate::control) fn new(desired: bool) -> Self {
        Self { desired, error: None, membership: None, reserve: None, has_rule: false, enabled: Some(false) }
    }

    /// Leaves the group, whatever else holds.
    pub(in crate::control) fn leave(&mut self) {
        self.membership = None;
    }

    /// Has the membership stay when the line is switched off.
    pub(in crate::control) fn set_aside(&mut self) {
        self.reserve = self.membership.take();
    }

    /// Takes back what was set aside and not used.
    pub(in crate::control) fn restore(&mut self) {
        if self.membership.is_none() {
            self.membership = self.reserve.take();
        }
    }

    /// Gives a membership for when it is switched on.
    pub(in crate::control) fn provide(&mut self, lease: Option<Lease>) {
        self.reserve = lease;
    }

    /// What was set aside or provided, and not used.
    pub(in crate::control) fn take_reserve(&mut self) -> Option<Lease> {
        self.reserve.take()
    }

    pub(in crate::control) fn state(&self) -> LineState {
        LineState { desired: self.desired, in_force: self.is(Turn::On), error: self.error.clone() }
    }

    /// Whether it is to be subscribed.
    pub(in crate::control) const fn is_wanted(&self) -> bool {
        self.desired
    }

    /// Says whether it is to be subscribed; nothing follows from that alone.
    pub(in crate::control) const fn want(&mut self, desired: bool) {
        self.desired = desired;
    }

    /// Whether all parts are as `turn` leaves them.
    pub(in crate::control) fn is(&self, turn: Turn) -> bool {
        let on = turn == Turn::On;
        self.membership.is_some() == on && self.has_rule == on && self.enabled == Some(on)
    }

    /// The parts, for a person.
    pub(in crate::control) fn parts(&self) -> String {
        let membership = if self.membership.is_some() { "joined" } else { "not joined" };
        let rule = if self.has_rule { "rule in the filter" } else { "no rule in the filter" };
        let worker = match self.enabled {
            Some(true) => "enabled in the worker",
            Some(false) => "disabled in the worker",
            None => "not confirmed by the worker",
        };
        format!("{membership}, {rule}, {worker}")
    }
}

/// One way or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Turn {
    On,
    Off,
}

impl Turn {
    pub(in crate::control) const fn back(self) -> Self {
        match self {
            Self::On => Self::Off,
            Self::Off => Self::On,
        }
    }
}
