//! Random sequences of configurations against what a person would expect of names and numbers.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::config::sample::{DESTINATION, LINE, one_channel};

/// One channel of a configuration: its name, its setting, its lines, its destination's setting.
type Wanted = (u8, u64, [bool; 2], Option<u16>);

/// A fresh plan, as the check makes it: dense, in the order of the file.
fn fresh(wanted: &[Wanted]) -> Plan {
    let sample = one_channel(LINE, DESTINATION);
    let (mut plan, mut seen) = (sample.clone(), BTreeSet::new());
    (plan.channels, plan.lines, plan.destinations) = (Slots::default(), Slots::default(), Slots::default());
    for (number, give_up_ms, has, destination) in wanted.iter().filter(|wanted| seen.insert(wanted.0)) {
        let channel = plan.channels.room();
        let mut lines = Vec::new();
        for (name, _) in ["A", "B"].iter().zip(has).filter(|(_, has)| **has) {
            lines.push(plan.lines.push(LinePlan { name: (*name).to_owned(), channel, ..sample.lines[0].clone() }));
        }
        let name = format!("itch/{number}");
        plan.channels.push(ChannelPlan { name, give_up_ms: *give_up_ms, lines, ..sample.channels[0].clone() });
        if let Some(port) = destination {
            let name = format!("out{number}");
            plan.destinations.push(DestinationPlan {
                name,
                channel,
                source_port: *port,
                ..sample.destinations[0].clone()
            });
        }
    }
    plan
}

fn lines(plan: &Plan) -> BTreeMap<String, usize> {
    let name = |line: &LinePlan| format!("{}/{}", plan.channels[line.channel].name, line.name);
    plan.lines.iter().map(|(slot, line)| (name(line), slot)).collect()
}

fn follows(running: &Plan, wanted: &Plan) -> Plan {
    let rebased = rebase(running, wanted).unwrap();
    let plan = &rebased.plan;
    // Everything that is wanted is there, once, as wanted; what refers to something refers to the right thing.
    let names =
        |plan: &Plan| plan.channels.values().map(|one| (one.name.clone(), one.give_up_ms)).collect::<BTreeSet<_>>();
    assert_eq!(names(plan), names(wanted));
    assert_eq!(plan.channels.len(), wanted.channels.len());
    assert!(lines(plan).keys().eq(lines(wanted).keys()) && plan.lines.len() == wanted.lines.len());
    for (slot, channel) in plan.channels.iter() {
        assert!(channel.lines.iter().all(|line| plan.lines[*line].channel == slot));
        let of_it = plan.lines.values().filter(|line| line.channel == slot).count();
        assert_eq!(of_it, channel.lines.len());
    }
    let carries = |plan: &Plan| {
        let name = |to: &DestinationPlan| (to.name.clone(), plan.channels[to.channel].name.clone(), to.source_port);
        plan.destinations.values().map(name).collect::<BTreeSet<_>>()
    };
    assert_eq!(carries(plan), carries(wanted));
    // What stays has its number.
    for (slot, old) in running.channels.iter() {
        let new = plan.channels.iter().find(|(_, new)| (&new.name, new.give_up_ms) == (&old.name, old.give_up_ms));
        assert!(new.is_none_or(|(other, _)| other == slot), "`{}` moved", old.name);
        assert_eq!(new.is_none(), rebased.channels.removed.contains(&slot));
    }
    for (name, slot) in lines(running) {
        let kept = !rebased.channels.removed.contains(&running.lines[slot].channel) && lines(plan).contains_key(&name);
        assert!(!kept || lines(plan)[&name] == slot, "{name} moved");
        assert_eq!(!kept, rebased.lines.removed.contains(&slot), "{name}");
    }
    for (slot, old) in running.destinations.iter() {
        assert!(plan.destinations.iter().all(|(other, new)| new.name != old.name || other == slot), "{}", old.name);
    }
    // A number that a channel has now is not given to another by the same edit.
    assert!(rebased.channels.added.iter().all(|added| running.channels.get(*added).is_none()));
    assert_eq!(rebased.plan.workers, running.workers);
    let again = rebase(plan, wanted).unwrap();
    assert!(again.is_nothing() && again.plan == *plan, "once is enough");
    rebased.plan
}

proptest! {
    #[test]
    fn names_keep_their_numbers_for_as_long_as_they_live(
        sequence in prop::collection::vec(prop::collection::vec(
            (0_u8..6, 50_u64..52, any::<[bool; 2]>(), prop::option::of(1_u16..3)), 0..6), 1..12),
    ) {
        let mut running = one_channel(LINE, DESTINATION);
        for wanted in &sequence {
            running = follows(&running, &fresh(wanted));
        }
    }
}

#[test]
fn without_room_and_without_a_port_there_is_no_way() {
    let running = one_channel(LINE, DESTINATION);
    let many: Vec<Wanted> = (0..34).map(|number| (number, 50, [false; 2], None)).collect();
    assert_eq!(rebase(&running, &fresh(&many)).unwrap_err(), RebaseError::NoRoom { what: "channels", room: 33 });
    let error = rebase(&running, &fresh(&many[..33])).unwrap_err();
    assert_eq!(error, RebaseError::NoRoom { what: "channels", room: 33 }, "the one that goes has its number still");
    assert!(rebase(&running, &fresh(&many[..32])).is_ok());
    let mut elsewhere = fresh(&[(0, 50, [true, false], None)]);
    elsewhere.lines[0].queue = 3;
    let error = rebase(&running, &elsewhere).unwrap_err().to_string();
    assert_eq!(
        error,
        "line A of `itch/0` needs a restart: worker `w0` has no receive port on lo queue 3; there are: lo queue 0"
    );
}
