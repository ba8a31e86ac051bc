//! Carrying out a change: everything that can fail is made first, then old lines go off, the workers are edited, and new lines
//! go on; what fails is taken back in reverse.
#![forbid(unsafe_code)]

mod back;
mod prepare;
mod way;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::change::ChangeError;
use super::lines::{Held, Turn, WORKER_PATIENCE};
use super::{Desk, locked, tell};
use crate::clock::monotonic_ns;
use crate::config::plan::{Plan, Rebased};
use crate::steering::Lease;
use crate::worker::edit::Edit;
use crate::worker::shared::Command;
use prepare::{Beside, Prepared};
use way::{Way, wanted};

impl Desk {
    /// Makes the plan that follows the one that runs, and nothing less: the caller holds the lock of changes.
    ///
    /// # Errors
    /// What failed. All is as it was then, unless the error says otherwise.
    pub(super) fn apply(&self, running: &Arc<Plan>, rebased: &Rebased, by: &str) -> Result<(), ChangeError> {
        let way = Way { from: running, to: &rebased.plan, rebased, back: false };
        let mut held = locked(&self.lines);
        let was: Vec<bool> = held.iter().map(Held::is_wanted).collect();
        let result = self.go(way, &mut held, &was, by);
        held.iter_mut().for_each(|held| drop(held.take_reserve()));
        result
    }

    fn go(&self, way: Way<'_>, held: &mut [Held], was: &[bool], by: &str) -> Result<(), ChangeError> {
        // A port that is opened anew meanwhile would not know whether it is of the old plan or of the new; and what is
        // opened here would be of a link that is no more.
        let wiring = locked(&self.wiring);
        self.probe(way)?;
        let Prepared { edits, beside } = self.prepare(way)?;
        let leases = self.leases(way, was)?;
        let off = self.off_lines(way.rebased, held);
        let kept = self.switch_off(&off, held, by)?;
        if let Err(error) = self.move_over(way, edits, held, was) {
            return Err(self.lines_back(&off, kept, held, was, by, error));
        }
        drop(wiring);
        leases.into_iter().for_each(|(line, lease)| held[line].provide(Some(lease)));
        let result = self.follow(way, beside).and_then(|()| {
            let on = on_lines(way.rebased, held);
            let result = self.turn_all(&on, held, Turn::On);
            self.tell_switched(&on, Turn::On, by, result.as_ref().err());
            Ok(result?)
        });
        let Err(error) = result else { return Ok(()) };
        let error = self.all_back(way, held, was, error);
        if *self.plan() == *way.from {
            return Err(self.lines_back(&off, kept, held, was, by, error));
        }
        // The workers have the new plan and keep it: then its lines are better than none.
        let on = on_lines(way.rebased, held);
        Err(self.lines_back(&on, BTreeMap::new(), held, &vec![true; was.len()], by, error))
    }

    /// Lines that are to be off before anything else happens.
    fn off_lines(&self, rebased: &Rebased, held: &[Held]) -> Vec<usize> {
        let unwanted = rebased.subscriptions.iter().filter(|line| !rebased.plan.lines[**line].subscribed);
        let off = rebased.lines.removed.iter().chain(unwanted).copied();
        off.filter(|line| !held[*line].is(Turn::Off)).collect()
    }

    /// Switches lines off; what they were joined by stays until the change is made, so that they can come back.
    fn switch_off(&self, off: &[usize], held: &mut [Held], by: &str) -> Result<BTreeMap<usize, Lease>, ChangeError> {
        off.iter().for_each(|line| held[*line].set_aside());
        let result = self.turn_all(off, held, Turn::Off);
        self.tell_switched(off, Turn::Off, by, result.as_ref().err());
        if let Err(error) = result {
            for line in off {
                held[*line].restore();
                self.show(*line, &held[*line]);
            }
            return Err(error.into());
        }
        Ok(off.iter().filter_map(|line| Some((*line, held[*line].take_reserve()?))).collect())
    }

    /// Edits the workers and publishes the plan; puts the workers back if one refuses. The caller holds the lock of wiring.
    fn move_over(
        &self,
        way: Way<'_>,
        edits: Vec<(usize, Box<Edit>)>,
        held: &mut [Held],
        was: &[bool],
    ) -> Result<(), ChangeError> {
        let mut done = Vec::new();
        for (worker, edit) in edits {
            done.push(worker);
            if let Err(error) = self.send_edit(worker, edit) {
                return Err(self.edits_back(way, &done, error));
            }
        }
        // The last that the workers said is of the old plan.
        locked(&self.events).take_all(way.from, &self.links, &self.watch, monotonic_ns());
        self.publish(way, held, was);
        Ok(())
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

    /// Has a worker carry out an edit, and waits until it has.
    fn send_edit(&self, worker: usize, edit: Box<Edit>) -> Result<(), ChangeError> {
        let (link, name) = (&self.links[worker], &self.fixed.workers[worker].name);
        let deadline = Instant::now() + WORKER_PATIENCE;
        let silent =
            |what: &str| ChangeError::Worker(format!("worker `{name}` {what}; is it alive? `feedctl status` tells"));
        let number = tell::send(link, Command::Edit(edit), deadline)
            .ok_or_else(|| silent("takes no commands (its queue is full)"))?;
        if !tell::is_applied(link, number, deadline) {
            return Err(silent("has not made the change within a second"));
        }
        match link.shared.refusal(number) {
            None => Ok(()),
            Some(error) => Err(ChangeError::Worker(format!("worker `{name}` has no place for what is new: {error}"))),
        }
    }
}

/// Lines that are to be on at the end.
fn on_lines(rebased: &Rebased, held: &[Held]) -> Vec<usize> {
    let wanted = rebased.lines.added.iter().chain(&rebased.subscriptions).copied();
    wanted.filter(|line| held[*line].is_wanted() && !held[*line].is(Turn::On)).collect()
}
