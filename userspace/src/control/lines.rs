//! Switching lines on and off: join, rule, worker; undone in reverse when a step fails.
#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use super::{ControlError, Desk, locked};
use crate::steering::{Membership, SteeringError};
use crate::worker::shared::Command;

/// How long a full command queue is given to become free: a living worker needs microseconds.
const WORKER_PATIENCE: Duration = Duration::from_millis(50);
const RETRY_INTERVAL: Duration = Duration::from_micros(200);

/// What is wanted of a line, and what is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineState {
    /// What was asked for last and not refused.
    pub desired: bool,
    /// Joined, in the filter's map (where there is a filter) and enabled in the worker.
    pub in_force: bool,
    /// Why the newest change failed, if it did.
    pub error: Option<String>,
}

/// What a subscription or its end did, as line indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Lines that are different now.
    pub changed: Vec<usize>,
    /// Lines that were so already.
    pub unchanged: Vec<usize>,
}

/// A line's state, and what holds it in force.
#[derive(Debug)]
pub(super) struct Held {
    state: LineState,
    membership: Option<Membership>,
}

impl Held {
    pub(super) fn new(desired: bool) -> Self {
        Self { state: LineState { desired, ..LineState::default() }, membership: None }
    }

    /// Leaves the group, whatever else holds.
    pub(super) fn leave(&mut self) {
        self.membership = None;
        self.state.in_force = false;
    }
}

/// One way or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    On,
    Off,
}

impl Desk {
    /// Puts the lines in force that the configuration wants: the last step of start-up.
    ///
    /// # Errors
    /// As [`Self::subscribe`]; then none is in force.
    pub fn start_lines(&self) -> Result<Changes, ControlError> {
        let wanted: Vec<usize> = (0..self.plan.lines.len()).filter(|line| self.plan.lines[*line].subscribed).collect();
        self.subscribe(&wanted)
    }

    /// Puts lines in force; those that are already stay as they are.
    ///
    /// # Errors
    /// The first step that failed. All lines are then as they were before.
    pub fn subscribe(&self, lines: &[usize]) -> Result<Changes, ControlError> {
        self.turn(lines, Turn::On)
    }

    /// Takes lines out of force; those that are already stay as they are.
    ///
    /// # Errors
    /// As [`Self::subscribe`].
    pub fn unsubscribe(&self, lines: &[usize]) -> Result<Changes, ControlError> {
        self.turn(lines, Turn::Off)
    }

    /// The state of every line, in the order of the plan.
    #[must_use]
    pub fn line_states(&self) -> Vec<LineState> {
        locked(&self.lines).iter().map(|held| held.state.clone()).collect()
    }

    fn turn(&self, lines: &[usize], turn: Turn) -> Result<Changes, ControlError> {
        let mut held = locked(&self.lines);
        let mut changes = Changes::default();
        for &line in lines {
            if held[line].state.in_force == (turn == Turn::On) {
                changes.unchanged.push(line);
                continue;
            }
            let Err(error) = self.turn_one(line, &mut held[line], turn) else {
                changes.changed.push(line);
                continue;
            };
            held[line].state.error = Some(error.to_string());
            for &line in changes.changed.iter().rev() {
                self.undo_one(line, &mut held[line], turn);
            }
            return Err(error);
        }
        for &line in lines {
            held[line].state.desired = turn == Turn::On;
            held[line].state.error = None;
        }
        drop(held);
        for &line in &changes.changed {
            let plan = &self.plan.lines[line];
            let channel = &self.plan.channels[plan.channel].name;
            let subscribed = turn == Turn::On;
            tracing::info!(channel, line = plan.name, group = %plan.group, subscribed, "line switched");
        }
        Ok(changes)
    }

    fn turn_one(&self, line: usize, held: &mut Held, turn: Turn) -> Result<(), ControlError> {
        match turn {
            Turn::On => {
                let plan = &self.plan.lines[line];
                let interface = &self.plan.interfaces[plan.interface].name;
                // If a later step fails, dropping the membership leaves the group again.
                let membership = Membership::join(*plan.group.ip(), interface, plan.source)
                    .map_err(|source| self.kernel_error(line, source))?;
                self.set_rule(line, turn)?;
                if let Err(error) = self.tell_worker(line, turn) {
                    if let Err(undo) = self.set_rule(line, Turn::Off) {
                        tracing::error!(error = %undo, "a rule could not be taken back");
                    }
                    return Err(error);
                }
                held.membership = Some(membership);
                held.state.in_force = true;
            }
            Turn::Off => {
                self.tell_worker(line, turn)?;
                if let Err(error) = self.set_rule(line, turn) {
                    if let Err(undo) = self.tell_worker(line, Turn::On) {
                        tracing::error!(error = %undo, "a line could not be switched on again");
                        held.state.in_force = false;
                    }
                    return Err(error);
                }
                held.leave();
            }
        }
        Ok(())
    }

    /// Takes back what [`Self::turn_one`] did. What cannot be taken back is logged and stays in the line's state.
    fn undo_one(&self, line: usize, held: &mut Held, turn: Turn) {
        let back = if turn == Turn::On { Turn::Off } else { Turn::On };
        let Err(error) = self.turn_one(line, held, back) else { return };
        tracing::error!(%error, "a change could not be undone");
        held.state.error = Some(error.to_string());
        if back == Turn::Off {
            // A worker that takes no commands still gets nothing more once the rule and the group are gone.
            if let Err(error) = self.set_rule(line, Turn::Off) {
                tracing::error!(%error, "a rule could not be taken back");
            }
            held.leave();
        }
    }

    fn set_rule(&self, line: usize, turn: Turn) -> Result<(), ControlError> {
        let plan = &self.plan.lines[line];
        let mut steering = locked(&self.interfaces[plan.interface].steering);
        let Some(steering) = steering.as_mut() else { return Ok(()) };
        let index = u16::try_from(line).expect("a plan has at most 1024 lines");
        match turn {
            Turn::On => steering.insert_rule(plan.key(), plan.rule(index)),
            // That it is gone already (somebody edited the map) is what is wanted.
            Turn::Off => steering.remove_rule(&plan.key()).map(|_| ()),
        }
        .map_err(|source| self.kernel_error(line, source))
    }

    fn tell_worker(&self, line: usize, turn: Turn) -> Result<(), ControlError> {
        let plan = &self.plan.lines[line];
        let channel = &self.plan.channels[plan.channel];
        let mut command = Command::SetLine { line, enabled: turn == Turn::On };
        let deadline = Instant::now() + WORKER_PATIENCE;
        // A worker takes one command per duty cycle, so more lines than its queue holds need a moment.
        while let Err(refused) = self.links[channel.worker].send(command) {
            if Instant::now() >= deadline {
                return Err(ControlError::Worker {
                    channel: channel.name.clone(),
                    line: plan.name.clone(),
                    worker: self.plan.workers[channel.worker].name.clone(),
                });
            }
            command = refused;
            thread::sleep(RETRY_INTERVAL);
        }
        Ok(())
    }

    fn kernel_error(&self, line: usize, source: SteeringError) -> ControlError {
        let plan = &self.plan.lines[line];
        ControlError::Kernel {
            channel: self.plan.channels[plan.channel].name.clone(),
            line: plan.name.clone(),
            source: Box::new(source),
        }
    }
}
