//! Switching lines on and off: join, rule, worker; undone in reverse when a step fails.
#![forbid(unsafe_code)]

mod held;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use feedhandler_proto::v1::LineSwitched;
use feedhandler_proto::v1::event::What;

use super::{ControlError, Desk, locked, tell};
use crate::config::plan::{LinePlan, Plan};
use crate::steering::SteeringError;
use crate::worker::shared::Command;
pub(super) use held::{Held, Turn};

/// How long a worker may take to carry out a command: a living one needs microseconds.
pub(super) const WORKER_PATIENCE: Duration = Duration::from_secs(1);

/// Room that a worker's queue must have before a change begins: a command, and the one that takes it back.
const COMMAND_ROOM: usize = 2;

/// What is wanted of a line, and what is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineState {
    /// What was asked for last and not refused.
    pub desired: bool,
    /// Joined, in the filter's map (where there is a filter) and enabled in the worker, which has confirmed it; and its
    /// interface is not out.
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

impl Desk {
    /// Puts the lines in force that the configuration or the subscriptions file wants: the last step of start-up.
    ///
    /// # Errors
    /// As [`Self::subscribe`]; then none is in force.
    pub fn start_lines(&self) -> Result<Changes, ControlError> {
        let desired: Vec<bool> = locked(&self.states).iter().map(|state| state.desired).collect();
        let wanted: Vec<usize> = self.plan().lines.indices().filter(|line| desired[*line]).collect();
        // Nothing is saved: what was refused of the file is not to be lost by the start.
        self.turn_now(&wanted, &mut locked(&self.lines), Turn::On, "the start")
    }

    /// Puts lines of the plan that runs in force, as somebody (`by`) asks; those that are already stay as they are. Waits for the workers to
    /// confirm (a second each at most), so not for an async thread.
    ///
    /// # Errors
    /// The first step that failed. All lines are then as they were before, but those that
    /// [`ControlError::NotUndone`] names.
    pub fn subscribe(&self, lines: &[usize], by: &str) -> Result<Changes, ControlError> {
        self.turn(lines, Turn::On, by)
    }

    /// Takes lines out of force; those that are already stay as they are. Waits like [`Self::subscribe`].
    ///
    /// # Errors
    /// As [`Self::subscribe`].
    pub fn unsubscribe(&self, lines: &[usize], by: &str) -> Result<Changes, ControlError> {
        self.turn(lines, Turn::Off, by)
    }

    /// What [`Self::subscribe`], or else [`Self::unsubscribe`], would change now.
    #[must_use]
    pub fn would_change(&self, lines: &[usize], subscribed: bool) -> Changes {
        let held = locked(&self.lines);
        let turn = if subscribed { Turn::On } else { Turn::Off };
        let (unchanged, changed) = lines.iter().partition(|line| held[**line].is(turn));
        Changes { changed, unchanged }
    }

    /// The state of every line, in the order of the plan. Never waits for a change that is under way.
    #[must_use]
    pub fn line_states(&self) -> Vec<LineState> {
        let mut states = locked(&self.states).clone();
        for (line, plan) in self.plan().lines.iter() {
            states[line].in_force &= !self.is_out(plan.interface);
        }
        states
    }

    /// By line of the plan: whether its worker uses its datagrams now, or did until its link was lost. Waits for no change.
    pub(super) fn enabled_lines(&self) -> Vec<bool> {
        locked(&self.states).iter().map(|state| state.in_force).collect()
    }

    fn turn(&self, lines: &[usize], turn: Turn, by: &str) -> Result<Changes, ControlError> {
        let result = self.turn_now(lines, &mut locked(&self.lines), turn, by);
        self.saved(result)
    }

    /// Turns lines of `plan`; `None` if another runs by now, in which the numbers may be those of other lines.
    pub(super) fn turn_of(
        &self,
        plan: &Arc<Plan>,
        lines: &[usize],
        turn: Turn,
        by: &str,
    ) -> Option<Result<Changes, ControlError>> {
        let mut held = locked(&self.lines);
        if !Arc::ptr_eq(plan, &self.plan()) {
            return None;
        }
        let result = self.turn_now(lines, &mut held, turn, by);
        drop(held);
        Some(self.saved(result))
    }

    fn saved(&self, result: Result<Changes, ControlError>) -> Result<Changes, ControlError> {
        if result.is_ok() {
            self.save();
        }
        result
    }

    fn turn_now(&self, lines: &[usize], held: &mut [Held], turn: Turn, by: &str) -> Result<Changes, ControlError> {
        let (unchanged, changed): (Vec<usize>, Vec<usize>) = lines.iter().partition(|line| held[**line].is(turn));
        let result = self.turn_all(&changed, held, turn);
        if result.is_ok() {
            for &line in lines {
                held[line].desired = turn == Turn::On;
                held[line].error = None;
                self.show(line, &held[line]);
            }
        }
        self.tell_switched(&changed, turn, by, result.as_ref().err());
        result.map(|()| Changes { changed, unchanged })
    }

    /// Turns every line, or none.
    pub(super) fn turn_all(&self, changed: &[usize], held: &mut [Held], turn: Turn) -> Result<(), ControlError> {
        if let Some((line, error)) = self.without_room(changed) {
            held[line].error = Some(error.to_string());
            self.show(line, &held[line]);
            return Err(error);
        }
        for (done, &line) in changed.iter().enumerate() {
            let result = self.turn_one(line, &mut held[line], turn, Instant::now() + WORKER_PATIENCE);
            self.show(line, &held[line]);
            if let Err(error) = result {
                held[line].error = Some(error.to_string());
                return Err(self.undo(&changed[..=done], held, turn, error));
            }
        }
        Ok(())
    }

    /// Turns every line by itself, also after one that failed; what failed.
    pub(super) fn turn_each(&self, lines: &[usize], held: &mut [Held], turn: Turn) -> Vec<(usize, ControlError)> {
        // One patience for each worker: one that is stuck would be waited for again and again.
        let mut is_stuck = vec![false; self.links.len()];
        let mut failed = Vec::new();
        for &line in lines {
            let worker = self.worker_of_line(line).unwrap_or_default();
            let patience = if is_stuck[worker] { Duration::ZERO } else { WORKER_PATIENCE };
            let result = self.turn_one(line, &mut held[line], turn, Instant::now() + patience);
            if let Err(error) = result {
                is_stuck[worker] |= matches!(error, ControlError::Worker { .. } | ControlError::NotApplied { .. });
                held[line].error = Some(error.to_string());
                failed.push((line, error));
            }
            self.show(line, &held[line]);
        }
        failed
    }

    /// Keeps what is desired, and what was changed, for the next start. Where it cannot be, the change is in force all the same.
    pub(super) fn save(&self) {
        let Some(file) = &self.state_file else { return };
        // Together: what is saved last is what holds last.
        let (held, changed) = (locked(&self.lines), locked(&self.changed));
        if let Err(error) = file.save(&self.plan(), held.iter().map(|held| held.desired), changed.as_ref()) {
            self.unsaved.fetch_add(1, Relaxed);
            tracing::error!(%error, "changes are not saved: the next start will not know of them");
        }
    }

    /// Who changed what goes to the log and to everybody who watches, also when it failed.
    pub(super) fn tell_switched(&self, lines: &[usize], turn: Turn, by: &str, error: Option<&ControlError>) {
        let subscribed = turn == Turn::On;
        let error = error.map(ToString::to_string).unwrap_or_default();
        for &line in lines {
            let (channel, name) = self.names(line);
            let group = self.plan().lines.get(line).map(|line| line.group.to_string()).unwrap_or_default();
            if error.is_empty() {
                tracing::info!(channel, line = name, group, subscribed, by, "line switched");
            } else {
                tracing::warn!(channel, line = name, group, subscribed, by, error, "line not switched");
            }
            let (by, error) = (by.to_owned(), error.clone());
            self.watch.tell(What::LineSwitched(LineSwitched { channel, line: name, group, subscribed, by, error }));
        }
    }

    /// Lets everybody see a line as it is now.
    pub(super) fn show(&self, line: usize, held: &Held) {
        locked(&self.states)[line] = held.state();
    }

    /// The first line whose worker has no room for commands. Asked before the first step, so that the commonest failure
    /// needs no undoing.
    fn without_room(&self, lines: &[usize]) -> Option<(usize, ControlError)> {
        let deadline = Instant::now() + WORKER_PATIENCE;
        let mut asked = vec![false; self.links.len()];
        for &line in lines {
            let Some(worker) = self.worker_of_line(line) else { continue };
            if std::mem::replace(&mut asked[worker], true) {
                continue;
            }
            while self.links[worker].room() < COMMAND_ROOM {
                if Instant::now() >= deadline {
                    return Some((line, self.full_queue(line)));
                }
                thread::sleep(tell::RETRY_INTERVAL);
            }
        }
        None
    }

    /// Makes what is missing of a line. At a failure, what was done stays.
    fn turn_one(&self, line: usize, held: &mut Held, turn: Turn, deadline: Instant) -> Result<(), ControlError> {
        match turn {
            Turn::On => {
                if held.membership.is_none() {
                    held.membership = Some(held.take_reserve().map_or_else(|| self.join_group(line), Ok)?);
                }
                self.set_rule(line, held, turn)?;
                self.tell_worker(line, held, turn, deadline)?;
                self.arm_canary(line);
                Ok(())
            }
            Turn::Off => {
                self.disarm_canary(line);
                self.tell_worker(line, held, turn, deadline)?;
                self.set_rule(line, held, turn)?;
                held.leave();
                Ok(())
            }
        }
    }

    /// Takes a change of `lines` back, the newest first. Returns `error`, with what could not be taken back.
    fn undo(&self, lines: &[usize], held: &mut [Held], turn: Turn, error: ControlError) -> ControlError {
        // One patience for all: a worker that is stuck would be waited for again and again.
        let deadline = Instant::now() + WORKER_PATIENCE;
        let mut left = Vec::new();
        for &line in lines.iter().rev() {
            let held = &mut held[line];
            if let Err(undo) = self.undo_one(line, held, turn.back(), deadline) {
                let (channel, name) = self.names(line);
                left.push(format!("line {name} of `{channel}`: {}", held.parts()));
                tracing::error!(channel, line = name, now = held.parts(), error = %undo, "a change was not undone");
                held.error.get_or_insert_with(|| undo.to_string());
            }
            self.show(line, held);
        }
        if left.is_empty() { error } else { ControlError::NotUndone { cause: Box::new(error), left: left.join("; ") } }
    }

    fn undo_one(&self, line: usize, held: &mut Held, back: Turn, deadline: Instant) -> Result<(), ControlError> {
        match back {
            Turn::On => self.turn_one(line, held, back, deadline),
            Turn::Off => {
                self.disarm_canary(line);
                // Without rule and group nothing arrives: both go, whether the worker confirms or not.
                let told = self.tell_worker(line, held, back, deadline);
                let ruled = self.set_rule(line, held, back);
                held.leave();
                told.and(ruled)
            }
        }
    }

    fn set_rule(&self, line: usize, held: &mut Held, turn: Turn) -> Result<(), ControlError> {
        let wanted = turn == Turn::On;
        if held.has_rule == wanted {
            return Ok(());
        }
        let plan = self.line_plan(line)?;
        if let Some(steering) = locked(&self.interfaces[plan.interface].steering).as_mut() {
            let index = u16::try_from(line).expect("a plan has at most 1024 lines");
            match turn {
                Turn::On => steering.insert_rule(plan.key(), plan.rule(index)),
                // That it is gone already (somebody edited the map) is what is wanted.
                Turn::Off => steering.remove_rule(&plan.key(), plan.rule(index).source_ip).map(|_| ()),
            }
            .map_err(|source| self.kernel_error(line, source))?;
        }
        held.has_rule = wanted;
        Ok(())
    }

    /// Tells the worker and waits until it has done it.
    fn tell_worker(&self, line: usize, held: &mut Held, turn: Turn, deadline: Instant) -> Result<(), ControlError> {
        let enabled = turn == Turn::On;
        if held.enabled == Some(enabled) {
            return Ok(());
        }
        let link = self.link_of_channel(self.line_plan(line)?.channel);
        let command = Command::SetLine { line, enabled };
        let number = tell::send(link, command, deadline).ok_or_else(|| self.full_queue(line))?;
        held.enabled = None;
        if !tell::is_applied(link, number, deadline) {
            let ((channel, name), worker) = (self.names(line), self.worker_name(line));
            return Err(ControlError::NotApplied { channel, line: name, worker });
        }
        if let Some(source) = link.shared.refusal(number) {
            held.enabled = Some(false);
            let ((channel, name), worker) = (self.names(line), self.worker_name(line));
            return Err(ControlError::Refused { channel, line: name, worker, source });
        }
        held.enabled = Some(enabled);
        Ok(())
    }

    /// Names of a line's channel and of the line.
    pub(super) fn names(&self, line: usize) -> (String, String) {
        let plan = self.plan();
        let names = plan.lines.get(line).map(|line| (plan.channels[line.channel].name.clone(), line.name.clone()));
        names.unwrap_or_default()
    }

    /// A line as it is planned.
    ///
    /// # Errors
    /// It was removed after it was selected.
    pub(super) fn line_plan(&self, line: usize) -> Result<LinePlan, ControlError> {
        self.plan().lines.get(line).cloned().ok_or(ControlError::Removed { line })
    }

    fn worker_of_line(&self, line: usize) -> Option<usize> {
        let plan = self.plan();
        Some(plan.channels.get(plan.lines.get(line)?.channel)?.worker)
    }

    fn worker_name(&self, line: usize) -> String {
        self.worker_of_line(line).map(|worker| self.fixed.workers[worker].name.clone()).unwrap_or_default()
    }

    fn full_queue(&self, line: usize) -> ControlError {
        let (channel, name) = self.names(line);
        ControlError::Worker { channel, line: name, worker: self.worker_name(line) }
    }

    pub(super) fn kernel_error(&self, line: usize, source: SteeringError) -> ControlError {
        let (channel, line) = self.names(line);
        ControlError::Kernel { channel, line, source: Box::new(source) }
    }
}
