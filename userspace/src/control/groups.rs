//! What keeps the groups coming: the memberships, and a canary beside every line that the filter redirects.
//!
//! A canary lives while its line's rule is in force: opened last when a line is switched on, closed first when it is
//! switched off. So nothing that a change lets pass is held against the filter.
#![forbid(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use xdp_ebpf::LineStats;

use super::{ControlError, Desk, locked};
use crate::clock::monotonic_ns;
use crate::config::plan::{LinePlan, Mode};
use crate::steering::{
    Canary, IgmpVersion, Lease, MembershipEvent, Memberships, SteeringError, forced_igmp_version, igmp_version,
    interface_index,
};

/// Silence that ends a burst of packets at a canary, nanoseconds.
const QUIET_NS: u64 = 1_000_000_000;

/// Time between two tries to open a canary, nanoseconds.
const RETRY_NS: u64 = 1_000_000_000;
/// Time between two log lines that say that it cannot be opened, nanoseconds.
const REMIND_NS: u64 = 300_000_000_000;

/// Memberships, and by line of the plan a canary.
#[derive(Debug)]
pub(super) struct Groups {
    memberships: Memberships,
    watches: Vec<Watch>,
}

/// One line's canary.
#[derive(Debug, Default)]
struct Watch {
    canary: Mutex<Slot>,
    /// Packets that it heard.
    packets: AtomicU64,
    /// Whether it hears some now.
    is_singing: AtomicBool,
    /// Whether it could not be opened when it was last tried: then the packets that nobody counts are not none.
    is_deaf: AtomicBool,
    /// What the filter had counted under the line's number when the line was added.
    before: Mutex<LineStats>,
}

#[derive(Debug, Default)]
struct Slot {
    canary: Option<Canary>,
    burst: Burst,
    /// Set while there should be a canary and none could be opened.
    refused: Option<Refused>,
}

/// When to try again, and when to say again that it fails. CLOCK_MONOTONIC, nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Refused {
    retry_ns: u64,
    remind_ns: u64,
}

impl Groups {
    pub(super) fn new(lines: usize) -> Self {
        let watches = std::iter::repeat_with(Watch::default).take(lines).collect();
        Self { memberships: Memberships::default(), watches }
    }
}

impl Desk {
    /// The memberships of all lines, and of whoever else takes a lease.
    #[must_use]
    pub fn memberships(&self) -> &Memberships {
        &self.groups.memberships
    }

    /// Packets of a line that the kernel's stack got instead of the worker; `None` where nothing listens for them: in mode
    /// `socket`, where the stack is the way, on a tagged line, and while no canary can be opened.
    #[must_use]
    pub fn canary_packets(&self, line: usize) -> Option<u64> {
        let watch = &self.groups.watches[line];
        (self.is_watched(line) && !watch.is_deaf.load(Relaxed)).then(|| watch.packets.load(Relaxed))
    }

    /// The IGMP version in force on an interface of the plan; `None` if it is not known.
    #[must_use]
    pub fn igmp_version(&self, interface: usize) -> Option<IgmpVersion> {
        igmp_version(&self.fixed.interfaces[interface].name).ok().flatten()
    }

    /// Checks memberships and canaries, and logs what it finds. [`Desk::poll`] calls it; several times a second is right.
    pub fn check_groups(&self) {
        for event in self.groups.memberships.check() {
            log_membership(&event);
        }
        let now_ns = monotonic_ns();
        let index: Vec<_> =
            self.fixed.interfaces.iter().map(|interface| interface_index(&interface.name).ok()).collect();
        for (line, plan) in self.plan().lines.iter() {
            self.poll_canary(line, index[plan.interface], now_ns);
        }
    }

    /// Forgives what the canaries of an interface hear within the next moments: for whoever is about to take its program
    /// or its sockets away and put them back.
    pub fn settle_canaries(&self, interface: usize) {
        let now_ns = monotonic_ns();
        for (line, _) in self.plan().lines.iter().filter(|(_, line)| line.interface == interface) {
            if let Some(canary) = &mut locked(&self.groups.watches[line].canary).canary {
                canary.settle(now_ns);
            }
        }
    }

    /// Why lines do not get what they are subscribed to.
    pub(super) fn group_reasons(&self) -> Vec<String> {
        let missing = self.groups.memberships.missing();
        let mut reasons: Vec<String> =
            missing.into_iter().map(|(key, reason)| format!("group {key} is not joined: {reason}")).collect();
        for (line, _) in self.groups.watches.iter().enumerate().filter(|(_, watch)| watch.is_singing.load(Relaxed)) {
            let (channel, name) = self.names(line);
            reasons.push(format!("line {name} of `{channel}` is not steered: the kernel's stack gets its packets"));
        }
        reasons
    }

    /// Begins to count anew for a line that is added under this number.
    pub(super) fn renew_group(&self, line: usize, interface: usize) {
        let watch = &self.groups.watches[line];
        watch.packets.store(0, Relaxed);
        watch.is_deaf.store(false, Relaxed);
        let counted = self.counted_by_filter(line, interface).ok().flatten();
        *locked(&watch.before) = counted.unwrap_or_default();
    }

    /// What the filter has counted for the line that has the number now.
    pub(super) fn since_renewed(&self, line: usize, counted: LineStats) -> LineStats {
        let before = *locked(&self.groups.watches[line].before);
        LineStats {
            packets: counted.packets.saturating_sub(before.packets),
            bytes: counted.bytes.saturating_sub(before.bytes),
            last_seen_ns: if counted.packets > before.packets { counted.last_seen_ns } else { 0 },
        }
    }

    /// Joins a line's group.
    pub(super) fn join_group(&self, line: usize) -> Result<Lease, ControlError> {
        self.join_planned(&self.line_plan(line)?).map_err(|source| self.kernel_error(line, source))
    }

    /// Joins the group of a line that need not be there yet.
    pub(super) fn join_planned(&self, line: &LinePlan) -> Result<Lease, SteeringError> {
        let interface = &self.fixed.interfaces[line.interface].name;
        self.groups.memberships.join(*line.group.ip(), interface, line.source)
    }

    /// Listens for what the filter lets pass of a line whose rule is in force. That it cannot is no reason to do without
    /// the line: [`Desk::check_groups`] tries again.
    pub(super) fn arm_canary(&self, line: usize) {
        let mut slot = locked(&self.groups.watches[line].canary);
        if slot.canary.is_none() && self.is_watched(line) {
            self.open_canary(line, &mut slot, monotonic_ns());
        }
    }

    /// Stops listening, before anything of the line is undone.
    pub(super) fn disarm_canary(&self, line: usize) {
        self.poll_canary(line, None, monotonic_ns());
        let watch = &self.groups.watches[line];
        *locked(&watch.canary) = Slot::default();
        watch.is_singing.store(false, Relaxed);
    }

    fn is_watched(&self, line: usize) -> bool {
        let plan = self.plan();
        plan.lines.get(line).is_some_and(|line| self.mode_in_force(line.interface) != Mode::Socket && line.vlan == 0)
    }

    /// Opens a canary in an empty slot; a refusal is logged when it begins, and now and then while it lasts.
    fn open_canary(&self, line: usize, slot: &mut Slot, now_ns: u64) {
        let Ok(plan) = self.line_plan(line) else { return };
        let interface = &self.fixed.interfaces[plan.interface].name;
        let opened = Canary::open(interface, plan.group, plan.source, now_ns);
        let watch = &self.groups.watches[line];
        watch.is_deaf.store(opened.is_err(), Relaxed);
        let (channel, name) = self.names(line);
        match opened {
            Ok(canary) => {
                slot.canary = Some(canary);
                if slot.refused.take().is_some() {
                    tracing::info!(channel, line = name, "canary opened: steering is watched");
                }
            }
            Err(error) => {
                slot.burst = Burst::default();
                watch.is_singing.store(false, Relaxed);
                let remind_ns = match slot.refused {
                    Some(refused) if now_ns < refused.remind_ns => refused.remind_ns,
                    _ => {
                        tracing::warn!(channel, line = name, %error, "no canary: steering is not watched; tried again");
                        now_ns + REMIND_NS
                    }
                };
                slot.refused = Some(Refused { retry_ns: now_ns + RETRY_NS, remind_ns });
            }
        }
    }

    /// `index` is that of the interface now; without it nothing is opened.
    pub(super) fn poll_canary(&self, line: usize, index: Option<u32>, now_ns: u64) {
        let watch = &self.groups.watches[line];
        let mut slot = locked(&watch.canary);
        if index.is_some() && slot.refused.is_some_and(|refused| now_ns >= refused.retry_ns) {
            self.open_canary(line, &mut slot, now_ns);
        }
        let Some(canary) = &mut slot.canary else { return };
        let packets = canary.poll(now_ns);
        watch.packets.fetch_add(packets, Relaxed);
        let change = slot.burst.add(packets, now_ns);
        watch.is_singing.store(slot.burst.is_on(), Relaxed);
        if index.is_some_and(|index| slot.canary.as_ref().is_some_and(|canary| canary.interface_index() != index)) {
            slot.canary = None;
            self.open_canary(line, &mut slot, now_ns);
        }
        drop(slot);
        if let Some(change) = change {
            self.log_burst(line, &change);
        }
    }

    fn log_burst(&self, line: usize, change: &BurstChange) {
        let (channel, name) = self.names(line);
        let Ok(plan) = self.line_plan(line) else { return };
        let (group, interface) = (plan.group, &self.fixed.interfaces[plan.interface].name);
        match *change {
            BurstChange::Began { packets } => tracing::error!(
                channel, line = name, %group, interface, packets,
                "steering is broken: the kernel's stack gets packets that the filter has a rule to redirect; \
                 see the verdicts of the interface (no rule, no socket on the queue, fragment)"
            ),
            BurstChange::Ended { packets } => {
                tracing::info!(channel, line = name, %group, interface, packets, "the kernel's stack gets no more of them");
            }
        }
    }
}

fn log_membership(event: &MembershipEvent) {
    match event {
        MembershipEvent::Rejoined(key) => {
            tracing::warn!(interface = key.interface, group = %key.group, source = ?key.source, "membership was lost, joined again");
        }
        MembershipEvent::Missing { key, reason } => {
            tracing::error!(interface = key.interface, group = %key.group, source = ?key.source, reason, "not joined; tried again until it is");
        }
        MembershipEvent::Reported { interface, memberships } => {
            tracing::info!(interface, memberships, "the link is back, its groups are reported again");
        }
        MembershipEvent::Version { interface, version, source_specific } => {
            let version = version.number();
            let forced = forced_igmp_version(interface);
            if version < IgmpVersion::V3.number() && *source_specific > 0 {
                tracing::warn!(
                    interface,
                    version,
                    forced,
                    source_specific,
                    "IGMP below version 3 cannot ask for a source: the network sends the groups of source-specific lines from \
                     every source, and the filter drops the others' here; unset force_igmp_version, or see to the querier"
                );
            } else {
                tracing::info!(interface, version, forced, "IGMP version in force");
            }
        }
        MembershipEvent::Unreadable(error) => {
            tracing::warn!(
                error,
                "cannot read /proc/net/igmp: lost memberships are seen only by the interface's index"
            );
        }
    }
}

/// Packets at a canary with no long silence between.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    packets: u64,
    last_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BurstChange {
    Began { packets: u64 },
    Ended { packets: u64 },
}

impl Burst {
    const fn is_on(&self) -> bool {
        self.packets > 0
    }

    fn add(&mut self, packets: u64, now_ns: u64) -> Option<BurstChange> {
        let was_on = self.is_on();
        if packets > 0 {
            self.packets += packets;
            self.last_ns = now_ns;
            return (!was_on).then_some(BurstChange::Began { packets });
        }
        if was_on && now_ns.saturating_sub(self.last_ns) >= QUIET_NS {
            let ended = BurstChange::Ended { packets: self.packets };
            *self = Self::default();
            return Some(ended);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_said_once_when_it_begins_and_once_when_it_is_over() {
        let mut burst = Burst::default();
        assert_eq!(burst.add(0, 5), None);
        assert_eq!(burst.add(3, 10), Some(BurstChange::Began { packets: 3 }));
        assert_eq!(burst.add(0, 20), None);
        assert_eq!(burst.add(4, QUIET_NS), None);
        assert_eq!(burst.add(0, 2 * QUIET_NS - 1), None);
        assert!(burst.is_on());
        assert_eq!(burst.add(0, 2 * QUIET_NS), Some(BurstChange::Ended { packets: 7 }));
        assert_eq!(burst.add(0, 9 * QUIET_NS), None);
        assert_eq!(burst.add(1, 9 * QUIET_NS), Some(BurstChange::Began { packets: 1 }));
    }
}
