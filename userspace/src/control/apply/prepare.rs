//! Everything of a change that can fail, made before anything is changed.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::way::{Way, wanted};
use crate::app::build;
use crate::beside::threads::{PreparedChannel, PreparedDestination, ThreadsError};
use crate::clock::utc_ns;
use crate::config::plan::{Mode, Moves, Plan, QueuePlan, Rebased};
use crate::control::{ChangeError, Desk};
use crate::edge;
use crate::net::interface::Interface;
use crate::net::{LineIndex, TxDestination};
use crate::steering::Lease;
use crate::worker::edit::{Edit, NewLine, NewStream, Retention};

/// What [`Desk::prepare`] has made; dropping it undoes it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) edits: Vec<(usize, Box<Edit>)>,
    pub(super) beside: Beside,
}

/// The part of it that is for the threads beside the workers.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) channels: Vec<PreparedChannel>,
    pub(super) destinations: BTreeMap<usize, PreparedDestination>,
}

impl Desk {
    /// All that can fail before anything is changed.
    pub(super) fn prepare(&self, way: Way<'_>) -> Result<Prepared, ChangeError> {
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

    /// Threads that have something to do must be there: one that has panicked could not be told to stop anything.
    pub(super) fn probe(&self, way: Way<'_>) -> Result<(), ChangeError> {
        let has = |moves: &Moves| !moves.added.is_empty() || !moves.removed.is_empty();
        let there = self.threads.probe(has(&way.rebased.channels), has(&way.rebased.destinations));
        there.map_err(|error| ChangeError::Worker(format!("{error}; nothing was changed")))
    }

    /// Joins the groups of new lines: until there are rules and workers take them, nothing comes of it.
    pub(super) fn leases(&self, way: Way<'_>, was: &[bool]) -> Result<BTreeMap<usize, Lease>, ChangeError> {
        let joined = way.added(&way.rebased.lines).iter().filter(|line| wanted(way, **line, was)).map(|line| {
            let plan = &way.to.lines[*line];
            let lease = self.join_planned(plan).map_err(|error| {
                let channel = &way.to.channels[plan.channel].name;
                ChangeError::Kernel(format!("line {} of `{channel}`: {error}", plan.name))
            })?;
            Ok((*line, lease))
        });
        joined.collect()
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
}

fn number(line: usize) -> LineIndex {
    LineIndex::try_from(line).expect("a plan has at most 1024 lines")
}
