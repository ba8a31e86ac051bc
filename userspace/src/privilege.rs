//! Privileges: which capabilities a plan needs, and giving up all of them once everything is set up.
//!
//! On Linux capabilities belong to threads, and a new thread has those of the one that makes it. So the main thread drops
//! its own before it makes any other, and nothing is left to forget; one thread alone is made before, if anybody is to
//! mend interfaces at run time: the keeper, which drops to [`KEEPER`]. What runs afterwards needs none: a group is joined
//! and left by an ordinary socket, rules and counters go through file descriptors of the maps that are open already
//! (from Linux 5.19 on; see [`for_maps`]), and closing its bpf_link detaches a program.
//!
//! Every step is for good: no_new_privs and locked securebits keep a program that is executed from getting back what uid
//! 0, a set-uid bit or file capabilities would give it.
#![forbid(unsafe_code)]

mod needs;
mod threads;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    capability_is_in_ambient_set, configure_capability_in_ambient_set, remove_capability_from_bounding_set,
    set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};
use tracing::{info, warn};

pub use needs::{Need, check, limit, missing, needs, umem_bytes};
pub use threads::{Holder, holders};

use crate::config::plan::Privileges;

/// What a thread keeps of what it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// What it may use.
    pub held: CapabilitySet,
    /// What of that a program that it executes has, too (the ambient set).
    pub passed_on: CapabilitySet,
}

impl Keep {
    /// Nothing at all.
    pub const NOTHING: Self = Self { held: CapabilitySet::empty(), passed_on: CapabilitySet::empty() };

    /// What changing a map takes before Linux 5.19.
    pub const MAPS: Self = Self { held: CapabilitySet::BPF, passed_on: CapabilitySet::empty() };

    /// What mending an interface takes. Settings of a NIC are put back by ethtool, which needs CAP_NET_ADMIN for it.
    pub const KEEPER: Self = Self { held: KEEPER, passed_on: CapabilitySet::NET_ADMIN };
}

/// What the keeper keeps of what it had: attaching a program (NET_ADMIN, BPF, PERFMON), opening AF_XDP sockets (NET_RAW),
/// locking their memory beyond the limit (IPC_LOCK), putting back a NIC's settings (NET_ADMIN).
pub const KEEPER: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::IPC_LOCK);

/// Why privileges are missing, or could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The plan needs more than the process has.
    #[error(
        "not permitted: missing {}; start as root, or grant {} to the service: AmbientCapabilities={} in its unit, or \
         `setpriv --inh-caps … --ambient-caps …`",
        missing.iter().map(|need| format!("{} ({})", need.name(), need.why)).collect::<Vec<_>>().join(", "),
        if missing.len() == 1 { "it" } else { "them" },
        missing.iter().map(Need::name).collect::<Vec<_>>().join(" ")
    )]
    Missing {
        /// Each capability that is missing, and what for.
        missing: Vec<Need>,
    },
    /// More memory than the process may lock.
    #[error(
        "not permitted: the frames of the workers take {needed_kib} KiB of locked memory, and the limit is {limit_kib} KiB; \
         start as root, grant CAP_IPC_LOCK, raise the limit (LimitMEMLOCK=infinity in the unit, `ulimit -l`), or lower \
         frame_count"
    )]
    LockedMemory {
        /// What the plan locks, KiB.
        needed_kib: u64,
        /// RLIMIT_MEMLOCK, KiB.
        limit_kib: u64,
    },
    /// The kernel refused a step of giving up privileges.
    #[error("cannot give up privileges: {step}: {source}; `privileges = \"keep\"` in [handler] runs without this step")]
    Drop {
        /// Which step.
        step: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

/// Gives up all capabilities of the calling thread but those of `keep` that it has, for good; a thread that it makes from
/// now on has no more than it, and what it executes no more than `keep.passed_on`.
///
/// # Errors
/// The kernel's refusal of a step. Giving up needs no privilege; only the bounding set and the securebits need
/// CAP_SETPCAP, and are left as they are without it.
pub fn drop_here(keep: Keep) -> Result<(), PrivilegeError> {
    let failed = |step| move |errno: Errno| PrivilegeError::Drop { step, source: errno.into() };
    set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    let had = capabilities(None).map_err(failed("reading the capabilities"))?;
    let (held, passed_on) = (had.permitted & keep.held, had.permitted & keep.held & keep.passed_on);
    // While everything is there: what is passed on must be inheritable before it is ambient, and both before the locks.
    set_capabilities(None, CapabilitySets { inheritable: passed_on, ..had }).map_err(failed("the inheritable set"))?;
    set_ambient(passed_on).map_err(failed("the ambient set"))?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        lock_secure_bits().map_err(failed("securebits"))?;
        empty_bounding_set().map_err(failed("the bounding set"))?;
    }
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: passed_on };
    set_capabilities(None, sets).map_err(failed("the capabilities"))
}

/// Makes the ambient set this one; touches only what is different, because it may be locked already.
fn set_ambient(wanted: CapabilitySet) -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_ambient_set(capability) {
            Ok(is) if is == wanted.contains(capability) => {}
            Ok(is) => configure_capability_in_ambient_set(capability, !is)?,
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) if bit > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Uid 0 means nothing for capabilities any more, and no ambient capability can be raised; both locked.
fn lock_secure_bits() -> Result<(), Errno> {
    const BITS: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
        .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
        .union(CapabilitiesSecureBits::NO_SETUID_FIXUP)
        .union(CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED)
        .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED)
        .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE)
        .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED);
    set_capabilities_secure_bits(capabilities_secure_bits()? | BITS)
}

fn empty_bounding_set() -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) if bit > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// What the threads that change rules must keep so that they can: nothing since Linux 5.19, where the file descriptor of a
/// map is enough; before it, CAP_BPF if `kernel.unprivileged_bpf_disabled` is set. Found out by trying `access`, which
/// reads or writes a map, on a thread without capabilities.
pub fn for_maps(access: impl FnOnce() -> bool + Send) -> Keep {
    let works = std::thread::scope(|scope| {
        scope.spawn(|| drop_here(Keep::NOTHING).is_ok() && access()).join().unwrap_or(false)
    });
    if works { Keep::NOTHING } else { Keep::MAPS }
}

/// Gives up the main thread's privileges as the plan wants it. Every thread but the keeper must be made after this.
///
/// # Errors
/// As [`drop_here`].
pub fn drop_main(wanted: Privileges, access: impl FnOnce() -> bool + Send) -> Result<(), PrivilegeError> {
    match wanted {
        Privileges::Keep => Ok(()),
        Privileges::Keeper | Privileges::None => drop_here(for_maps(access)),
    }
}

/// Gives up all of a worker's privileges, or of another thread's that only moves data: what [`drop_main`] had to leave.
pub fn drop_worker(wanted: Privileges) {
    if wanted != Privileges::Keep
        && let Err(error) = drop_here(Keep::NOTHING)
    {
        warn!("{error}");
    }
}

/// Gives up all but what mending interfaces at run time takes. Call first thing on the keeper's own thread.
///
/// # Errors
/// As [`drop_here`].
pub fn drop_keeper(wanted: Privileges) -> Result<(), PrivilegeError> {
    match wanted {
        Privileges::Keep => Ok(()),
        Privileges::Keeper => drop_here(Keep::KEEPER),
        Privileges::None => drop_here(Keep::NOTHING),
    }
}

/// Logs who holds what, by the kernel's own account of every thread.
pub fn report(wanted: Privileges) {
    let held = match holders() {
        Ok(holders) if holders.is_empty() => "none, by any thread".to_owned(),
        Ok(holders) => holders.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        Err(error) => format!("unknown: {error}"),
    };
    info!(wanted = wanted.label(), uid = rustix::process::getuid().as_raw(), held, "privileges");
}

/// Names of capabilities as capabilities(7) has them, in the order of their numbers.
#[must_use]
pub fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests;
