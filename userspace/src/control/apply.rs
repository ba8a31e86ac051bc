//! Carrying out a change: everything that can fail is made first, then old lines go off, the workers are edited, and new lines
//! go on; what fails is taken back in reverse.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::thread;
use std::time::Instant;

use super::change::ChangeError;
use super::lines::{Held, RETRY_INTERVAL, Turn, WORKER_PATIENCE};
use super::{Desk, locked};
use crate::app::build;
use crate::beside::threads::{PreparedChannel, PreparedDestination, ThreadsError};
use crate::clock::utc_ns;
use crate::config::plan::{Mode, Moves, Plan, QueuePlan, Rebased};
use crate::edge;
use crate::net::interface::Interface;
use crate::net::{LineIndex, TxDestination};
use crate::worker::edit::{Edit, NewLine, NewStream, Retention};
use crate::worker::shared::Command;

/// The way from one plan to another, or back.
#[derive(Clone, Copy, Debug)]
struct Way<'a> {
    from: &'a Plan,
    to: &'a Plan,
    rebased: &'a Rebased,
    /// Whether it is gone backwards.
    back: bool,
}

impl<'a> Way<'a> {
    fn back(self) -> Self {
        Self { from: self.to, to: self.from, back: !self.back, ..self }
    }

    fn removed(self, moves: &'a Moves) -> &'a [usize] {
        if self.back { &moves.added } else { &moves.removed }
    }

    fn added(self, moves: &'a Moves) -> &'a [usize] {
        if self.back { &moves.removed } else { &moves.added }
    }

    /// Whether a destination that is made anew has the consumers that it had, of the same channel.
    fn continues(self, destination: usize) -> bool {
        match (self.from.destinations.get(destination), self.to.destinations.get(destination)) {
            (Some(old), Some(new)) => {
                (&old.name, old.group, old.channel, old.format) == (&new.name, new.group, new.channel, new.format)
                    && self.from.channels[old.channel].worker == self.to.channels[new.channel].worker
            }
            _ => false,
        }
    }

    /// Whether a destination that is made anew goes on with its retransmission server.
    fn is_retained_on(self, destination: usize) -> bool {
        let of = |plan: &'a Plan| {
            let destination = plan.destinations.get(destination)?;
            Some((destination, destination.retransmission.as_ref()?, plan.channels[destination.channel].worker))
        };
        match (of(self.from), of(self.to)) {
            (Some(old), Some(new)) => old.0.name == new.0.name && (old.1, old.2) == (new.1, new.2),
            _ => false,
        }
    }
}

/// What [`Desk::prepare`] has made; dropping it undoes it.
#[derive(Debug)]
struct Prepared {
    edits: Vec<(usize, Box<Edit>)>,
    beside: Beside,
}

/// The part of it that is for the threads beside the workers.
#[derive(Debug)]
struct Beside {
    channels: Vec<PreparedChannel>,
    destinations: BTreeMap<usize, PreparedDestination>,
}

impl Desk {
    /// Makes the plan that follows the one that runs, and nothing less: the caller holds the lock of changes.
    ///
    /// # Errors
    /// What failed. All is as it was then, unless the error says otherwise.
    pub(super) fn apply(&self, running: &Arc<Plan>, rebased: &Rebased, by: &str) -> Result<(), ChangeError> {
        let way = Way { from: running, to: &rebased.plan, rebased, back: false };
        let prepared = self.prepare(way)?;
        let mut held = locked(&self.lines);
        let was: Vec<bool> = held.iter().map(Held::is_wanted).collect();
        let off = self.off_lines(rebased, &held);
        let off_result = self.turn_all(&off, &mut held, Turn::Off);
        self.tell_switched(&off, Turn::Off, by, off_result.as_ref().err());
        off_result?;
        let Prepared { edits, beside } = prepared;
        if let Err(error) = self.move_over(way, edits, &mut held, &was) {
            return Err(self.lines_back(&off, &mut held, error));
        }
        let result = self.follow(way, beside).and_then(|()| {
            let on = on_lines(rebased, &held);
            let result = self.turn_all(&on, &mut held, Turn::On);
            self.tell_switched(&on, Turn::On, by, result.as_ref().err());
            Ok(result?)
        });
        let Err(error) = result else { return Ok(()) };
        let back = self.prepare(way.back()).and_then(|Prepared { edits, beside }| {
            self.move_over(way.back(), edits, &mut held, &was)?;
            self.follow(way.back(), beside)
        });
        match back {
            Ok(()) => Err(self.lines_back(&off, &mut held, error)),
            Err(undo) => Err(ChangeError::Worker(format!("{error}; it could not be undone: {undo}"))),
        }
    }

    /// Lines that are to be off before anything else happens.
    fn off_lines(&self, rebased: &Rebased, held: &[Held]) -> Vec<usize> {
        let unwanted = rebased.subscriptions.iter().filter(|line| !rebased.plan.lines[**line].subscribed);
        let off = rebased.lines.removed.iter().chain(unwanted).copied();
        off.filter(|line| !held[*line].is(Turn::Off)).collect()
    }

    /// Puts lines back that were switched off, after `error`.
    fn lines_back(&self, off: &[usize], held: &mut [Held], error: ChangeError) -> ChangeError {
        match self.turn_all(off, held, Turn::On) {
            Ok(()) => error,
            Err(undo) => {
                ChangeError::Worker(format!("{error}; lines that were switched off did not go on again: {undo}"))
            }
        }
    }

    /// Edits the workers and publishes the plan; puts the workers back if one refuses.
    fn move_over(
        &self,
        way: Way<'_>,
        edits: Vec<(usize, Box<Edit>)>,
        held: &mut [Held],
        was: &[bool],
    ) -> Result<(), ChangeError> {
        // A port that is opened anew meanwhile would not know whether it is of the old plan or of the new.
        let wiring = locked(&self.wiring);
        let mut done = Vec::new();
        for (worker, edit) in edits {
            done.push(worker);
            if let Err(error) = self.send_edit(worker, edit) {
                return Err(self.edits_back(way, &done, error));
            }
        }
        self.publish(way, held, was);
        drop(wiring);
        Ok(())
    }

    fn edits_back(&self, way: Way<'_>, done: &[usize], error: ChangeError) -> ChangeError {
        let undone = self.prepare(way.back()).and_then(|Prepared { edits, beside }| {
            for (worker, edit) in edits.into_iter().filter(|(worker, _)| done.contains(worker)) {
                self.send_edit(worker, edit)?;
            }
            // Threads were not touched yet, but streams that come back have new places to retain what they send.
            let is_back = |index: usize| done.contains(&way.from.channels[way.from.destinations[index].channel].worker);
            for (index, server) in beside.destinations.into_iter().filter(|(index, _)| is_back(*index)) {
                let served = self.threads.stop_destination(index).and_then(|()| self.threads.start_destination(server));
                served.map_err(|error| ChangeError::Worker(error.to_string()))?;
            }
            Ok(())
        });
        match undone {
            Ok(()) => error,
            Err(undo) => ChangeError::Worker(format!("{error}; it could not be undone: {undo}")),
        }
    }

    /// From here on everybody sees the new plan. What is new has never been switched or counted.
    fn publish(&self, way: Way<'_>, held: &mut [Held], was: &[bool]) {
        let lines = &way.rebased.lines;
        for line in way.added(lines) {
            let desired = wanted(way, *line, was);
            held[*line] = Held::new(desired);
            self.renew_group(*line, way.to.lines[*line].interface);
        }
        for line in way.removed(lines).iter().filter(|line| way.to.lines.get(**line).is_none()) {
            held[*line] = Held::new(false);
        }
        for line in &way.rebased.subscriptions {
            held[*line].want(if way.back { was[*line] } else { way.to.lines[*line].subscribed });
        }
        *locked(&self.plan) = Arc::new(way.to.clone());
        for (line, held) in held.iter().enumerate() {
            self.show(line, held);
        }
    }

    /// Has what runs beside the workers, and the routes, follow the plan.
    fn follow(&self, way: Way<'_>, beside: Beside) -> Result<(), ChangeError> {
        let (moves, Beside { channels, destinations }) = (way.rebased, beside);
        let stopped = way.removed(&moves.channels).iter().map(|channel| self.threads.stop(*channel));
        let ended = way.removed(&moves.destinations).iter().filter(|index| !way.is_retained_on(**index));
        let ended = ended.map(|destination| self.threads.stop_destination(*destination));
        let begun = channels.into_iter().map(|channel| self.threads.start(channel));
        let served = destinations.into_values().map(|destination| self.threads.start_destination(destination));
        // All of them, also after one that failed.
        let results: Vec<_> = stopped.chain(ended).chain(begun).chain(served).collect();
        results.into_iter().collect::<Result<(), _>>().map_err(|error| ChangeError::Worker(error.to_string()))?;
        for destination in &moves.routes {
            // From a worker that does not answer within a second the route is not taken back: it has it in its queue.
            let route = &way.to.destinations[*destination].route;
            self.set_route(*destination, route).map_err(|error| ChangeError::Worker(error.to_string()))?;
        }
        Ok(())
    }

    /// All that can fail before anything is changed.
    fn prepare(&self, way: Way<'_>) -> Result<Prepared, ChangeError> {
        let kernel = |error: ThreadsError| ChangeError::Kernel(error.to_string());
        let channels = way.added(&way.rebased.channels).iter().map(|index| self.threads.prepare(way.to, *index));
        let channels = channels.collect::<Result<_, _>>().map_err(kernel)?;
        let mut destinations = BTreeMap::new();
        for index in way.added(&way.rebased.destinations).iter().filter(|index| !way.is_retained_on(**index)) {
            destinations.insert(*index, self.threads.prepare_destination(way.to, *index).map_err(kernel)?);
        }
        let edits = self.edits(way, &mut destinations)?;
        Ok(Prepared { edits, beside: Beside { channels, destinations } })
    }

    /// One edit for each worker that has something to do, ready to be sent.
    fn edits(
        &self,
        way: Way<'_>,
        servers: &mut BTreeMap<usize, PreparedDestination>,
    ) -> Result<Vec<(usize, Box<Edit>)>, ChangeError> {
        let mut edits = Vec::new();
        for worker in 0..self.links.len() {
            let edit = self.edit_of(way, worker, servers)?;
            let is_empty = edit.remove_channels.is_empty()
                && edit.remove_lines.is_empty()
                && edit.remove_streams.is_empty()
                && edit.add_channels.is_empty()
                && edit.add_lines.is_empty()
                && edit.add_streams.is_empty();
            if !is_empty {
                edits.push((worker, edit.ready()));
            }
        }
        Ok(edits)
    }

    fn edit_of(
        &self,
        way: Way<'_>,
        worker: usize,
        servers: &mut BTreeMap<usize, PreparedDestination>,
    ) -> Result<Edit, ChangeError> {
        let Rebased { channels, lines, destinations, .. } = way.rebased;
        let runs_here = |plan: &Plan, channel: usize| plan.channels[channel].worker == worker;
        let stream_here = |plan: &Plan, index: &usize| runs_here(plan, plan.destinations[*index].channel);
        let line_here = |plan: &Plan, index: &usize| runs_here(plan, plan.lines[*index].channel);
        let mut edit = Edit {
            remove_streams: way.removed(destinations).iter().filter(|i| stream_here(way.from, i)).copied().collect(),
            remove_lines: way.removed(lines).iter().filter(|i| line_here(way.from, i)).map(|i| number(*i)).collect(),
            remove_channels: way.removed(channels).iter().filter(|i| runs_here(way.from, **i)).copied().collect(),
            ..Edit::default()
        };
        let kernel = |error: &dyn std::fmt::Display| ChangeError::Kernel(error.to_string());
        for index in way.added(channels).iter().filter(|index| runs_here(way.to, **index)) {
            let new = build::channel(way.to, *index, &self.links[worker].payload_bytes, utc_ns());
            edit.add_channels.push(new.map_err(|error| kernel(&error))?);
        }
        for index in way.added(lines).iter().filter(|index| line_here(way.to, index)) {
            edit.add_lines.push(self.new_line(way.to, worker, *index)?);
        }
        for index in way.added(destinations).iter().filter(|index| stream_here(way.to, index)) {
            let destination = self.tx_destination(way.to, *index)?;
            let retainer = servers.get_mut(index).and_then(PreparedDestination::take_retainer);
            let kept = if way.is_retained_on(*index) { Retention::Kept } else { Retention::None };
            let retention = retainer.map_or(kept, Retention::New);
            let continues = way.continues(*index);
            let stream = build::joining_stream(way.to, *index);
            edit.add_streams.push(NewStream { stream, retention, continues, destination });
        }
        let has_new = |queue: &QueuePlan| {
            let of_it = |plan: &Plan, line: &usize| plan.lines[*line].interface == queue.interface;
            way.added(lines).iter().any(|line| of_it(way.to, line))
                || way.removed(lines).iter().any(|line| of_it(way.from, line))
        };
        let ports = self.fixed.workers[worker].ports.iter().enumerate();
        let over_xsk = ports.filter(|(_, queue)| self.mode_in_force(queue.interface) != Mode::Socket && has_new(queue));
        edit.rules = over_xsk.map(|(port, queue)| (port, edge::rules(way.to, queue.interface))).collect();
        Ok(edit)
    }

    fn new_line(&self, plan: &Plan, worker: usize, index: usize) -> Result<NewLine, ChangeError> {
        let wanted = &plan.lines[index];
        let line = number(index);
        let queue = QueuePlan { interface: wanted.interface, queue: wanted.queue };
        let socket = match self.mode_in_force(wanted.interface) {
            Mode::Socket => {
                let socket = edge::line_socket(plan, line).map_err(|error| ChangeError::Kernel(error.to_string()))?;
                Some((self.fixed.workers[worker].port_of(queue), socket))
            }
            _ => None,
        };
        Ok(NewLine { line, channel: wanted.channel, role: build::line_role(wanted), socket })
    }

    fn tx_destination(&self, plan: &Plan, index: usize) -> Result<TxDestination, ChangeError> {
        let wanted = &plan.destinations[index];
        let name = &self.fixed.interfaces[wanted.queue.interface].name;
        let interface = Interface::read(name).map_err(|error| ChangeError::Kernel(error.to_string()))?;
        let mode = self.mode_in_force(wanted.queue.interface);
        edge::tx_destination(wanted, &interface, mode).map_err(|error| ChangeError::Kernel(error.to_string()))
    }

    /// Has a worker carry out an edit, and waits until it has.
    fn send_edit(&self, worker: usize, edit: Box<Edit>) -> Result<(), ChangeError> {
        let (link, name) = (&self.links[worker], &self.fixed.workers[worker].name);
        let deadline = Instant::now() + WORKER_PATIENCE;
        let mut command = Command::Edit(edit);
        let number = loop {
            match link.send(command) {
                Ok(number) => break number,
                Err(refused) if Instant::now() < deadline => command = refused,
                Err(_) => {
                    let text = format!(
                        "worker `{name}` takes no commands (its queue is full); is it alive? `feedctl status` tells"
                    );
                    return Err(ChangeError::Worker(text));
                }
            }
            thread::sleep(RETRY_INTERVAL);
        };
        while link.shared.commands_applied.load(Acquire) < number {
            if Instant::now() >= deadline {
                let text = format!(
                    "worker `{name}` has not made the change within a second; is it alive? `feedctl status` tells"
                );
                return Err(ChangeError::Worker(text));
            }
            thread::sleep(RETRY_INTERVAL);
        }
        match link.shared.refusal(number) {
            None => Ok(()),
            Some(error) => Err(ChangeError::Worker(format!("worker `{name}` has no place for what is new: {error}"))),
        }
    }
}

fn number(line: usize) -> LineIndex {
    LineIndex::try_from(line).expect("a plan has at most 1024 lines")
}

/// Whether a new line is to be subscribed: as the one of its name was, if the configuration still says the same of it.
fn wanted(way: Way<'_>, line: usize, was: &[bool]) -> bool {
    let new = &way.to.lines[line];
    let name = &way.to.channels[new.channel].name;
    let is_it = |(_, old): &(usize, &crate::config::plan::LinePlan)| {
        old.name == new.name && way.from.channels[old.channel].name == *name && old.subscribed == new.subscribed
    };
    if way.back {
        return was[line];
    }
    way.from.lines.iter().find(is_it).map_or(new.subscribed, |(index, _)| was[index])
}

/// Lines that are to be on at the end.
fn on_lines(rebased: &Rebased, held: &[Held]) -> Vec<usize> {
    let wanted = rebased.lines.added.iter().chain(&rebased.subscriptions).copied();
    wanted.filter(|line| held[*line].is_wanted() && !held[*line].is(Turn::On)).collect()
}
