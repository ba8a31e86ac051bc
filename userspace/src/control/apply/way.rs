//! From one plan to another: what goes, what comes, and what of it goes on.
#![forbid(unsafe_code)]

use crate::config::plan::{LinePlan, Moves, Plan, Rebased};

/// The way from one plan to another, or back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    pub(super) from: &'a Plan,
    pub(super) to: &'a Plan,
    pub(super) rebased: &'a Rebased,
    /// Whether it is gone backwards.
    pub(super) back: bool,
}

impl<'a> Way<'a> {
    pub(super) fn back(self) -> Self {
        Self { from: self.to, to: self.from, back: !self.back, ..self }
    }

    pub(super) fn removed(self, moves: &'a Moves) -> &'a [usize] {
        if self.back { &moves.added } else { &moves.removed }
    }

    pub(super) fn added(self, moves: &'a Moves) -> &'a [usize] {
        if self.back { &moves.removed } else { &moves.added }
    }

    /// Whether a destination that is made anew has the consumers that it had, of the same channel.
    pub(super) fn continues(self, destination: usize) -> bool {
        match (self.from.destinations.get(destination), self.to.destinations.get(destination)) {
            (Some(old), Some(new)) => {
                (&old.name, old.group, old.channel, old.format) == (&new.name, new.group, new.channel, new.format)
                    && self.from.channels[old.channel].worker == self.to.channels[new.channel].worker
            }
            _ => false,
        }
    }

    /// Whether a destination that is made anew goes on with its retransmission server.
    pub(super) fn is_retained_on(self, destination: usize) -> bool {
        let of = |plan: &'a Plan| {
            let destination = plan.destinations.get(destination)?;
            let channel = &plan.channels[destination.channel];
            // What is retained is one stream: the same messages, cut the same way.
            let stream =
                (&channel.name, channel.worker, &destination.name, destination.format, destination.payload_bytes);
            Some((stream, destination.retransmission.as_ref()?))
        };
        of(self.from).is_some_and(|old| of(self.to) == Some(old))
    }
}

/// Whether a new line is to be subscribed: as the one of its name was, if the configuration still says the same of it.
pub(super) fn wanted(way: Way<'_>, line: usize, was: &[bool]) -> bool {
    let new = &way.to.lines[line];
    let name = &way.to.channels[new.channel].name;
    let is_it = |(_, old): &(usize, &LinePlan)| {
        old.name == new.name && way.from.channels[old.channel].name == *name && old.subscribed == new.subscribed
    };
    if way.back {
        return was[line];
    }
    way.from.lines.iter().find(is_it).map_or(new.subscribed, |(index, _)| was[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::{Format, rebase};
    use crate::config::sample::{DESTINATION, LINE, one_channel};

    #[test]
    fn what_is_retained_is_kept_only_for_the_same_stream() {
        let served = format!("{DESTINATION}[destination.retransmission]\naddress = \"127.0.0.1:17000\"\n");
        let plan = one_channel(LINE, &served);
        let rebased = rebase(&plan, &plan).unwrap();
        let goes_on = |change: fn(&mut Plan)| {
            let mut to = plan.clone();
            change(&mut to);
            Way { from: &plan, to: &to, rebased: &rebased, back: false }.is_retained_on(0)
        };
        assert!(goes_on(|plan| plan.destinations[0].ttl = 9));
        assert!(!goes_on(|plan| plan.destinations[0].format = Format::Raw));
        assert!(!goes_on(|plan| plan.destinations[0].payload_bytes -= 8));
        assert!(!goes_on(|plan| plan.channels[0].name = "itch/options".to_owned()));
        assert!(!goes_on(|plan| plan.destinations[0].retransmission = None));
    }
}
