//! Taking a change back that failed half way.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::prepare::Prepared;
use super::way::Way;
use crate::config::plan::Plan;
use crate::control::lines::{Held, Turn};
use crate::control::{ChangeError, Desk, locked};
use crate::steering::Lease;

impl Desk {
    /// Goes all the way back, after `error`.
    pub(super) fn all_back(&self, way: Way<'_>, held: &mut [Held], was: &[bool], error: ChangeError) -> ChangeError {
        let wiring = locked(&self.wiring);
        let back = way.back();
        let result = self.prepare(back).and_then(|Prepared { edits, beside }| {
            self.move_over(back, edits, held, was)?;
            self.follow(back, beside)
        });
        drop(wiring);
        undone(error, result.err().into_iter().collect(), || anew(way, |_| true))
    }

    /// Puts the workers back that had their edits; nobody else has seen the new plan yet.
    pub(super) fn edits_back(&self, way: Way<'_>, done: &[usize], error: ChangeError) -> ChangeError {
        let back = way.back();
        let (channels, destinations) = (&way.rebased.channels, &way.rebased.destinations);
        let is_done = |plan: &Plan, channel: usize| done.contains(&plan.channels[channel].worker);
        let Prepared { edits, beside } = match self.prepare(back) {
            Ok(prepared) => prepared,
            Err(undo) => return undone(error, vec![undo], Vec::new),
        };
        // All of it, also after something that failed.
        let mut failed = Vec::new();
        // What the threads have of the old channels is not for those that take their places.
        let channels = back.added(channels).iter().zip(beside.channels).filter(|(index, _)| is_done(back.to, **index));
        let channels: Vec<_> = channels.collect();
        let threads = |error: crate::beside::threads::ThreadsError| ChangeError::Worker(error.to_string());
        failed.extend(channels.iter().filter_map(|(index, _)| self.threads.stop(**index).map_err(threads).err()));
        for (worker, edit) in edits.into_iter().filter(|(worker, _)| done.contains(worker)) {
            failed.extend(self.send_edit(worker, edit).err());
        }
        failed.extend(channels.into_iter().filter_map(|(_, new)| self.threads.start(new).map_err(threads).err()));
        // Streams that come back have new places to retain what they send.
        let is_back = |index: &usize| is_done(back.to, back.to.destinations[*index].channel);
        let ended = back.added(destinations).iter().filter(|index| is_back(index) && !back.is_retained_on(**index));
        failed.extend(ended.filter_map(|index| self.threads.stop_destination(*index).map_err(threads).err()));
        let servers = beside.destinations.into_iter().filter(|(index, _)| is_back(index));
        failed.extend(servers.filter_map(|(_, new)| self.threads.start_destination(new).map_err(threads).err()));
        undone(error, failed, || anew(way, |worker| done.contains(&worker)))
    }

    /// Puts lines on again that were switched off and are wanted, each by itself, after `error`.
    pub(super) fn lines_back(
        &self,
        off: &[usize],
        mut kept: BTreeMap<usize, Lease>,
        held: &mut [Held],
        wanted: &[bool],
        by: &str,
        error: ChangeError,
    ) -> ChangeError {
        let off: Vec<usize> = off.iter().copied().filter(|line| wanted[*line]).collect();
        for line in &off {
            if let Some(lease) = kept.remove(line) {
                held[*line].provide(Some(lease));
            }
        }
        let failed = self.turn_each(&off, held, Turn::On);
        for line in &off {
            let error = failed.iter().find(|(failed, _)| failed == line).map(|(_, error)| error);
            self.tell_switched(&[*line], Turn::On, by, error);
        }
        if failed.is_empty() {
            return error;
        }
        let failed = failed.iter().map(|(_, error)| error.to_string()).collect::<Vec<_>>().join("; ");
        ChangeError::Worker(format!("{error}; these lines did not go on again: {failed}"))
    }
}

/// What to say of a change that was taken back, or was to be.
fn undone(error: ChangeError, failed: Vec<ChangeError>, anew: impl FnOnce() -> Vec<String>) -> ChangeError {
    if failed.is_empty() {
        return ChangeError::Undone { cause: Box::new(error), anew: anew() };
    }
    let failed = failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    ChangeError::Worker(format!("{error}; it could not be undone: {failed}"))
}

/// What is made anew on some workers when a change is taken back.
fn anew(way: Way<'_>, on: impl Fn(usize) -> bool) -> Vec<String> {
    let is_on = |channel: usize| on(way.from.channels[channel].worker);
    let channels = way.removed(&way.rebased.channels).iter().filter(|channel| is_on(**channel));
    let channels = channels.map(|channel| format!("channel {}", way.from.channels[*channel].name));
    let destinations = way.removed(&way.rebased.destinations).iter().map(|index| &way.from.destinations[*index]);
    let destinations = destinations.filter(|one| is_on(one.channel)).map(|one| format!("destination {}", one.name));
    channels.chain(destinations).collect()
}
