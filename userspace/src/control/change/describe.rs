//! What a change does, for a person.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use feedhandler_proto::v1::{Change, ChangeKind};

use crate::config::file::{Channel, Destination, Feed, Line};
use crate::config::plan::{Moves, Plan, Rebased};
use crate::config::{Config, Differing, differing};

/// One sentence.
pub(in crate::control) fn sentence(change: &Change) -> String {
    let verb = match change.kind() {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Replaced => "made anew",
        ChangeKind::Updated => "changed",
        ChangeKind::Unspecified => "",
    };
    let Change { what, name, particulars, .. } = change;
    if particulars.is_empty() {
        format!("{what} {name} {verb}")
    } else {
        format!("{what} {name} {verb}: {particulars}")
    }
}

/// What differs between what runs and what follows: what goes first, then what comes.
pub(super) fn changes(old: &Config, new: &Config, running: &Plan, rebased: &Rebased) -> Vec<Change> {
    let mut found = Vec::new();
    let feeds = |config: &Config| config.feed.iter().map(|feed| feed.name.clone()).collect::<BTreeSet<_>>();
    let (before, after) = (feeds(old), feeds(new));
    let plan = &rebased.plan;
    for name in before.difference(&after) {
        found.push(change(ChangeKind::Removed, "feed", name, String::new()));
    }
    let destination = |plan: &Plan, index: usize| plan.destinations[index].name.clone();
    moved("destination", &rebased.destinations, running, plan, destination, &mut found, |name| {
        let own = of(old, new, |config| find_destination(config, name), &[]);
        if own.is_empty() { "its channel is made anew".to_owned() } else { own }
    });
    let line = |plan: &Plan, index: usize| line_name(plan, index);
    moved("line", &rebased.lines, running, plan, line, &mut found, |name| {
        let own = of(old, new, |config| find_line(config, name), &[]);
        if own.is_empty() { "its channel is made anew".to_owned() } else { own }
    });
    let channel = |plan: &Plan, index: usize| plan.channels[index].name.clone();
    moved("channel", &rebased.channels, running, plan, channel, &mut found, |name| {
        let own = of(old, new, |config| find_channel(config, name).map(|found| found.1), &["line"]);
        let feed = of(old, new, |config| find_channel(config, name).map(|found| found.0), &["channel"]);
        let parts = [feed, own, "its books begin anew".to_owned()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    });
    for name in after.difference(&before) {
        found.push(change(ChangeKind::Added, "feed", name, String::new()));
    }
    for index in &rebased.routes {
        let name = &plan.destinations[*index].name;
        let particulars = of(old, new, |config| find_destination(config, name), &[]);
        found.push(change(ChangeKind::Updated, "destination", name, particulars));
    }
    for index in &rebased.subscriptions {
        let subscribed = plan.lines[*index].subscribed;
        let particulars = format!("subscribed {} -> {subscribed}", !subscribed);
        found.push(change(ChangeKind::Updated, "line", &line_name(plan, *index), particulars));
    }
    found
}

fn change(kind: ChangeKind, what: &str, name: &str, particulars: String) -> Change {
    Change { kind: kind.into(), what: what.to_owned(), name: name.to_owned(), particulars }
}

/// What goes, what is made anew, and what comes, of one kind of thing.
fn moved(
    what: &str,
    moves: &Moves,
    running: &Plan,
    plan: &Plan,
    name: impl Fn(&Plan, usize) -> String,
    found: &mut Vec<Change>,
    particulars: impl Fn(&str) -> String,
) {
    let removed: Vec<String> = moves.removed.iter().map(|index| name(running, *index)).collect();
    let added: Vec<String> = moves.added.iter().map(|index| name(plan, *index)).collect();
    for name in &removed {
        if added.contains(name) {
            found.push(change(ChangeKind::Replaced, what, name, particulars(name)));
        } else {
            found.push(change(ChangeKind::Removed, what, name, String::new()));
        }
    }
    for name in added.iter().filter(|name| !removed.contains(name)) {
        found.push(change(ChangeKind::Added, what, name, String::new()));
    }
}

/// "feed/channel/A".
pub(super) fn line_name(plan: &Plan, index: usize) -> String {
    let line = &plan.lines[index];
    format!("{}/{}", plan.channels[line.channel].name, line.name)
}

/// Where something that both configurations have differs.
fn of<'a, T: serde::Serialize + 'a>(
    old: &'a Config,
    new: &'a Config,
    find: impl Fn(&'a Config) -> Option<&'a T>,
    without: &[&str],
) -> String {
    let (Some(old), Some(new)) = (find(old), find(new)) else { return String::new() };
    differing(old, new, without).iter().map(Differing::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn find_channel<'a>(config: &'a Config, name: &str) -> Option<(&'a Feed, &'a Channel)> {
    let (feed, channel) = name.split_once('/')?;
    let feed = config.feed.iter().find(|one| one.name == feed)?;
    Some((feed, feed.channel.iter().find(|one| one.name == channel)?))
}

fn find_line<'a>(config: &'a Config, name: &str) -> Option<&'a Line> {
    let (channel, line) = name.rsplit_once('/')?;
    find_channel(config, channel)?.1.line.iter().find(|one| one.name == line)
}

fn find_destination<'a>(config: &'a Config, name: &str) -> Option<&'a Destination> {
    config.destination.iter().find(|one| one.name == name)
}
