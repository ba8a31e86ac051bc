//! What must hold together: which worker owns which queue, and whether its frames suffice.
#![forbid(unsafe_code)]

use super::For;
use super::values::{Checker, quoted};
use crate::config::plan::{Mode, Plan, QueuePlan, Unsubscribed};
use crate::net::BATCH;

/// Gives each worker the receive queues of its channels' lines and the transmit queues of their destinations.
///
/// Both lines of a channel land on one worker because a channel names one worker.
pub(super) fn assign(check: &mut Checker, plan: &mut Plan, line_queues: &[QueuePlan], purpose: For) {
    // Per queue: who owns it, and for what.
    let mut owners: Vec<(QueuePlan, usize, String)> = Vec::new();
    for (line, queue) in plan.lines.values().zip(line_queues) {
        let channel = &plan.channels[line.channel];
        let owner = format!("line {} of `{}`", line.name, channel.name);
        own(check, plan, &mut owners, *queue, channel.worker, owner);
    }
    for (i, destination) in plan.destinations.iter() {
        let channel = &plan.channels[destination.channel];
        let owner = format!("destination[{i}] `{}`", destination.name);
        own(check, plan, &mut owners, destination.queue, channel.worker, owner);
    }
    for (line, queue) in plan.lines.values().zip(line_queues) {
        add(&mut plan.workers[plan.channels[line.channel].worker].rx, *queue);
    }
    for destination in plan.destinations.values() {
        add(&mut plan.workers[plan.channels[destination.channel].worker].tx, destination.queue);
    }
    for worker in &mut plan.workers {
        worker.ports = worker.rx.clone();
        worker.tx.iter().for_each(|queue| add(&mut worker.ports, *queue));
    }
    for (i, worker) in plan.workers.iter().enumerate() {
        if purpose == For::Start && plan.channels.values().all(|channel| channel.worker != i) {
            let reason = "no channel runs on it, and it would poll for nothing: name it in a channel, or remove it";
            check.problem(format!("worker[{i}].name"), quoted(&worker.name), reason);
            continue;
        }
        // A port's fill ring and its transmit ring can be full at once, with a batch in the worker's hands.
        let ring_entries = worker.ring_entries as usize;
        let both_ways = worker.rx.iter().any(|queue| worker.tx.contains(queue));
        let needed = ((1 + usize::from(both_ways)) * ring_entries + BATCH).next_power_of_two();
        if (worker.frame_count as usize) < needed {
            let rings = if both_ways { "a receive and a transmit ring" } else { "a ring" };
            let reason = format!(
                "must be at least {needed}: a port has {rings} of {ring_entries} entries, and a batch is {BATCH}; raise it, \
                 or lower ring_entries",
            );
            check.problem(format!("worker[{i}].frame_count"), worker.frame_count, reason);
        }
    }
    if purpose == For::Start {
        unused_interfaces(check, plan);
        idle_policies(check, plan);
    }
}

/// An AF_XDP socket is bound to a queue by one thread; kernel sockets have no such bound.
fn own(
    check: &mut Checker,
    plan: &Plan,
    owners: &mut Vec<(QueuePlan, usize, String)>,
    queue: QueuePlan,
    worker: usize,
    owner: String,
) {
    let interface = &plan.interfaces[queue.interface];
    if interface.mode == Mode::Socket {
        return;
    }
    match owners.iter().find(|(owned, ..)| *owned == queue) {
        None => owners.push((queue, worker, owner)),
        Some((_, other, _)) if *other == worker => {}
        Some((_, other, first)) => check.problem(
            "worker",
            "",
            format!(
                "queue {} of interface `{name}` would have two owners: worker `{}` ({first}) and worker `{}` ({owner}); \
                 put both on one worker, or on queues of their own: an interface feeds as many workers as it has queues \
                 (`ethtool -l {name}`), and a channel's lines and destinations all run on the channel's worker",
                queue.queue,
                plan.workers[*other].name,
                plan.workers[worker].name,
                name = interface.name,
            ),
        ),
    }
}

fn add(queues: &mut Vec<QueuePlan>, queue: QueuePlan) {
    if !queues.contains(&queue) {
        queues.push(queue);
    }
}

/// An interface that nothing uses is most likely a mistyped name elsewhere.
fn unused_interfaces(check: &mut Checker, plan: &Plan) {
    for (i, interface) in plan.interfaces.iter().enumerate() {
        let used = plan.lines.values().any(|line| line.interface == i)
            || plan.destinations.values().any(|destination| destination.queue.interface == i);
        if !used {
            let reason = "no line and no destination uses it: remove it, or name it in one";
            check.problem(format!("interface[{i}].name"), quoted(&interface.name), reason);
        }
    }
}

/// The program is attached only where lines come in: elsewhere nothing would be dropped, whatever is configured.
fn idle_policies(check: &mut Checker, plan: &Plan) {
    for (i, interface) in plan.interfaces.iter().enumerate() {
        let receives = plan.lines.values().any(|line| line.interface == i);
        if interface.unsubscribed == Unsubscribed::Drop && !receives {
            let reason =
                "must be \"pass\": no line comes in on this interface, so it has no XDP program to drop anything";
            check.problem(format!("interface[{i}].unsubscribed"), quoted(interface.unsubscribed.label()), reason);
        }
    }
}
