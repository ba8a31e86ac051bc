//! What a plan needs of the process that runs it.
#![forbid(unsafe_code)]

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::PrivilegeError;
use crate::config::plan::{Mode, NicPlan, Plan, SocketPlan};

/// A capability that a plan needs, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The one capability.
    pub capability: CapabilitySet,
    /// A few words.
    pub why: &'static str,
}

impl Need {
    /// Its name as capabilities(7) has it.
    #[must_use]
    pub fn name(&self) -> String {
        super::names(self.capability).concat()
    }

    /// Whether a set has it. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, which were split from it.
    #[must_use]
    pub fn is_met_by(&self, set: CapabilitySet) -> bool {
        let split = CapabilitySet::BPF | CapabilitySet::PERFMON;
        set.contains(self.capability) || (split.contains(self.capability) && set.contains(CapabilitySet::SYS_ADMIN))
    }
}

/// Whether an interface of the plan is used by XDP or AF_XDP.
pub(crate) fn uses_xdp(plan: &Plan) -> bool {
    plan.interfaces.iter().any(|interface| interface.mode != Mode::Socket)
}

/// The capabilities that a plan needs to start.
#[must_use]
pub fn needs(plan: &Plan) -> Vec<Need> {
    let mut needs = Vec::new();
    if uses_xdp(plan) {
        needs.extend([
            Need { capability: CapabilitySet::NET_ADMIN, why: "attaches the XDP program" },
            Need { capability: CapabilitySet::NET_RAW, why: "opens AF_XDP sockets" },
            Need { capability: CapabilitySet::BPF, why: "loads the XDP program and its maps" },
            Need { capability: CapabilitySet::PERFMON, why: "lets the program compare packet pointers" },
        ]);
    } else if plan.interfaces.iter().any(|interface| is_privileged(&interface.sockets)) {
        needs.push(Need {
            capability: CapabilitySet::NET_ADMIN,
            why: "busy polls kernel sockets: prefer_busy_poll, or busy_poll_us with busy_poll_budget above 8",
        });
    }
    let has_admin = needs.iter().any(|need| need.capability == CapabilitySet::NET_ADMIN);
    if !has_admin && plan.interfaces.iter().any(|interface| interface.nic != NicPlan::default()) {
        needs.push(Need { capability: CapabilitySet::NET_ADMIN, why: "changes [interface.nic]" });
    }
    needs
}

/// Whether these options of kernel sockets take a privilege: a budget above the kernel's own, and keeping interrupts off.
fn is_privileged(sockets: &SocketPlan) -> bool {
    const KERNELS_BUDGET: u16 = 8;
    sockets.busy_poll_us > 0 && (sockets.busy_poll_budget > KERNELS_BUDGET || sockets.prefer_busy_poll)
}

/// Bytes of locked memory that the frames of one worker take: a UMEM for each of its ports on an interface that may run in
/// an XDP mode.
#[must_use]
pub fn umem_bytes(plan: &Plan, worker: usize) -> u64 {
    let wanted = &plan.workers[worker];
    let ports = wanted.ports.iter().filter(|queue| plan.interfaces[queue.interface].mode != Mode::Socket).count();
    ports as u64 * u64::from(wanted.frame_count) * u64::from(wanted.frame_bytes)
}

/// RLIMIT_MEMLOCK, bytes; `None` = unlimited. Does not bind a process with CAP_IPC_LOCK.
#[must_use]
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// Those of `needs` that `have` does not meet.
#[must_use]
pub fn missing(needs: &[Need], have: CapabilitySet) -> Vec<Need> {
    needs.iter().filter(|need| !need.is_met_by(have)).copied().collect()
}

/// Refuses a process that cannot run the plan, before it touches anything: names what is missing instead of a bare EPERM
/// later.
///
/// # Errors
/// [`PrivilegeError::Missing`], [`PrivilegeError::LockedMemory`].
pub fn check(plan: &Plan) -> Result<(), PrivilegeError> {
    // A kernel that does not tell will refuse where it matters.
    let Ok(sets) = capabilities(None) else { return Ok(()) };
    let missing = missing(&needs(plan), sets.effective);
    if !missing.is_empty() {
        return Err(PrivilegeError::Missing { missing });
    }
    let needed: u64 = (0..plan.workers.len()).map(|worker| umem_bytes(plan, worker)).sum();
    match limit() {
        Some(limit) if needed > limit && !sets.effective.contains(CapabilitySet::IPC_LOCK) => {
            Err(PrivilegeError::LockedMemory { needed_kib: needed / 1024, limit_kib: limit / 1024 })
        }
        _ => Ok(()),
    }
}
