//! From a configuration to the plan that follows one that runs: what stays keeps its number.
#![forbid(unsafe_code)]

use super::{ChannelPlan, DestinationPlan, LinePlan, Plan, QueuePlan, Slots};

/// A plan that follows another, and what is to be done to get there.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebased {
    /// What will run. Interfaces and workers are those that run.
    pub plan: Plan,
    /// Channels.
    pub channels: Moves,
    /// Lines.
    pub lines: Moves,
    /// Destinations whose streams end or begin; one that is made anew is in both, under the same number.
    pub destinations: Moves,
    /// Destinations that go on with another route.
    pub routes: Vec<usize>,
    /// Lines that go on, and of which the configuration says otherwise whether they are subscribed.
    pub subscriptions: Vec<usize>,
}

impl Rebased {
    /// Whether all stays as it is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        [&self.channels, &self.lines, &self.destinations].iter().all(|moves| moves.is_nothing())
            && self.routes.is_empty()
            && self.subscriptions.is_empty()
    }
}

/// What goes and what comes, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Numbers in the plan that runs.
    pub removed: Vec<usize>,
    /// Numbers in the plan that follows.
    pub added: Vec<usize>,
}

impl Moves {
    fn is_nothing(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }
}

/// Why there is no way from one plan to the other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RebaseError {
    /// All slots are taken.
    #[error("no room for more {what}: at most {room} at a time until the handler is restarted; remove some first")]
    NoRoom {
        /// channels, lines, destinations.
        what: &'static str,
        /// Slots in all.
        room: usize,
    },
    /// Ports are opened at the start only.
    #[error("{user} needs a restart: worker `{worker}` has no {direction} port on {queue}; there are: {have}")]
    NoPort {
        /// The line or destination.
        user: String,
        /// Name of the worker.
        worker: String,
        /// receive, transmit.
        direction: &'static str,
        /// Interface and queue.
        queue: String,
        /// Those that the worker has.
        have: String,
    },
    /// The NIC's flow rules are set at the start only.
    #[error(
        "line {line} needs a restart: interface `{interface}` steers by flow rules (nic.steer), which are set at the start"
    )]
    NoFlowRule {
        /// "feed/channel/A".
        line: String,
        /// Name of the interface.
        interface: String,
    },
}

/// What follows `running` when `fresh`, which has been checked by itself, is to run: a fresh plan has the same interfaces and
/// workers.
///
/// # Errors
/// No room, or something that takes a restart.
pub fn rebase(running: &Plan, fresh: &Plan) -> Result<Rebased, RebaseError> {
    let mut plan = Plan {
        channels: Slots::with_room(running.channels.room()),
        lines: Slots::with_room(running.lines.room()),
        destinations: Slots::with_room(running.destinations.room()),
        ..running.clone()
    };
    ports(running, fresh)?;
    let (channels, channel_of) = rebase_channels(running, fresh, &mut plan)?;
    let (lines, subscriptions) = rebase_lines(running, fresh, &mut plan, &channel_of)?;
    let (destinations, routes) = rebase_destinations(running, fresh, &mut plan, &channel_of)?;
    flow_rules(running, &plan, &lines)?;
    Ok(Rebased { plan, channels, lines, destinations, routes, subscriptions })
}

/// A number for something new: one that is vacant now if there is one, or else, if that may be, one that becomes so.
fn place<T>(running: &Slots<T>, next: &Slots<T>, what: &'static str, may_follow: bool) -> Result<usize, RebaseError> {
    let is_free = |index: &usize| next.get(*index).is_none();
    let room = running.room();
    let vacant = (0..room).filter(is_free).find(|index| running.get(*index).is_none());
    let follows = || (0..room).find(is_free).filter(|_| may_follow);
    vacant.or_else(follows).ok_or(RebaseError::NoRoom { what, room })
}

/// Puts what stays at its number first, then what is new; by the fresh index, where each is.
fn settle<T: Clone>(
    running: &Slots<T>,
    fresh: &Slots<T>,
    next: &mut Slots<T>,
    what: &'static str,
    may_follow: bool,
    stays: impl Fn(usize, &T, usize, &T) -> bool,
) -> Result<(Moves, Vec<usize>), RebaseError> {
    let mut moves = Moves::default();
    let mut places = vec![None; fresh.room()];
    for (slot, old) in running.iter() {
        match fresh.iter().find(|(index, new)| stays(slot, old, *index, new)) {
            Some((index, new)) => {
                next.put(slot, new.clone());
                places[index] = Some(slot);
            }
            None => moves.removed.push(slot),
        }
    }
    for (index, new) in fresh.iter().filter(|(index, _)| places[*index].is_none()).collect::<Vec<_>>() {
        let slot = place(running, next, what, may_follow)?;
        next.put(slot, new.clone());
        places[index] = Some(slot);
        moves.added.push(slot);
    }
    // Vacant ones are never asked for.
    Ok((moves, places.into_iter().map(|place| place.unwrap_or(usize::MAX)).collect()))
}

fn rebase_channels(running: &Plan, fresh: &Plan, plan: &mut Plan) -> Result<(Moves, Vec<usize>), RebaseError> {
    let like = |channel: &ChannelPlan| ChannelPlan { lines: Vec::new(), ..channel.clone() };
    // Threads beside the workers feed the old one until its worker has let it go: in the same edit its number is not free.
    settle(&running.channels, &fresh.channels, &mut plan.channels, "channels", false, |_, old, _, new| {
        like(old) == like(new)
    })
}

fn rebase_lines(
    running: &Plan,
    fresh: &Plan,
    plan: &mut Plan,
    channel_of: &[usize],
) -> Result<(Moves, Vec<usize>), RebaseError> {
    let like = |line: &LinePlan, channel| LinePlan { channel, subscribed: true, ..line.clone() };
    // A channel that is made anew may stand where the old one stood: then its lines are new all the same.
    let is_kept = |slot: usize| {
        running.channels.get(slot).is_some_and(|old| {
            plan.channels.get(slot).is_some_and(|new| {
                ChannelPlan { lines: vec![], ..old.clone() } == ChannelPlan { lines: vec![], ..new.clone() }
            })
        })
    };
    let stays = |_: usize, old: &LinePlan, _: usize, new: &LinePlan| {
        is_kept(old.channel) && like(old, old.channel) == like(new, channel_of[new.channel])
    };
    let (moves, line_of) = settle(&running.lines, &fresh.lines, &mut plan.lines, "lines", true, stays)?;
    for (_, line) in plan.lines.iter_mut() {
        line.channel = channel_of[line.channel];
    }
    for (_, channel) in plan.channels.iter_mut() {
        channel.lines.iter_mut().for_each(|line| *line = line_of[*line]);
    }
    let goes_on = running.lines.iter().filter(|(slot, _)| !moves.removed.contains(slot));
    let differs = goes_on.filter(|(slot, old)| plan.lines[*slot].subscribed != old.subscribed);
    let subscriptions = differs.map(|(slot, _)| slot).collect();
    Ok((moves, subscriptions))
}

fn rebase_destinations(
    running: &Plan,
    fresh: &Plan,
    plan: &mut Plan,
    channel_of: &[usize],
) -> Result<(Moves, Vec<usize>), RebaseError> {
    let stays = |_: usize, old: &DestinationPlan, _: usize, new: &DestinationPlan| old.name == new.name;
    let (mut moves, _) =
        settle(&running.destinations, &fresh.destinations, &mut plan.destinations, "destinations", true, stays)?;
    for (_, destination) in plan.destinations.iter_mut() {
        destination.channel = channel_of[destination.channel];
    }
    let mut routes = Vec::new();
    for (slot, old) in running.destinations.iter() {
        let Some(new) = plan.destinations.get(slot).filter(|new| new.name == old.name) else { continue };
        let is_same_channel = channels_stay(running, plan, old.channel, new.channel);
        if !is_same_channel || (DestinationPlan { route: new.route.clone(), ..old.clone() }) != *new {
            moves.removed.push(slot);
            moves.added.push(slot);
        } else if old.route != new.route {
            routes.push(slot);
        }
    }
    Ok((moves, routes))
}

fn channels_stay(running: &Plan, plan: &Plan, old: usize, new: usize) -> bool {
    let like = |channel: &ChannelPlan| ChannelPlan { lines: Vec::new(), ..channel.clone() };
    old == new && like(&running.channels[old]) == like(&plan.channels[new])
}

/// Ports are opened at the start: what is new must come in, and leave, by one of them.
fn ports(running: &Plan, fresh: &Plan) -> Result<(), RebaseError> {
    let lines = fresh.lines.values().map(|line| {
        let channel = &fresh.channels[line.channel];
        let user = format!("line {} of `{}`", line.name, channel.name);
        (user, channel.worker, "receive", QueuePlan { interface: line.interface, queue: line.queue })
    });
    let destinations = fresh
        .destinations
        .values()
        .map(|to| (format!("destination `{}`", to.name), fresh.channels[to.channel].worker, "transmit", to.queue));
    for (user, worker, direction, queue) in lines.chain(destinations) {
        let of = &running.workers[worker];
        let have = if direction == "receive" { &of.rx } else { &of.tx };
        if !have.contains(&queue) {
            let name =
                |queue: &QueuePlan| format!("{} queue {}", running.interfaces[queue.interface].name, queue.queue);
            let have = have.iter().map(name).collect::<Vec<_>>().join(", ");
            let have = if have.is_empty() { "none".to_owned() } else { have };
            return Err(RebaseError::NoPort { user, worker: of.name.clone(), direction, queue: name(&queue), have });
        }
    }
    Ok(())
}

fn flow_rules(running: &Plan, plan: &Plan, lines: &Moves) -> Result<(), RebaseError> {
    for line in &lines.added {
        let line = &plan.lines[*line];
        let interface = &running.interfaces[line.interface];
        let rules = &interface.nic.flow_rules;
        let has_rule = rules.iter().any(|rule| rule.group == line.group && rule.queue == line.queue);
        if !rules.is_empty() && !has_rule {
            let name = format!("{}/{}", plan.channels[line.channel].name, line.name);
            return Err(RebaseError::NoFlowRule { line: name, interface: interface.name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
