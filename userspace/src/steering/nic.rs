//! Settings of the NIC and its driver that hold while the handler runs: rings, channels, coalescing, features, NAPI,
//! interrupts, flow rules. What they were before is put back.
//!
//! Before a setting is first changed, its value goes to the state file of the interface (module `journal`). [`Applied`] puts
//! everything back when the handler stops, and [`restore_leftovers`] does it at the next start after a crash. Only what
//! we changed is put back, and only if it still is as we left it.
//!
//! Settings are files (sysfs, /proc/irq) or go through the program `ethtool`, which every distribution has; it knows both
//! kernel interfaces, netlink and the older ioctl, that the drivers' settings are spread over (flow rules are ioctl only).
//!
//! What was tried on real devices: the NAPI files, channels and features (veth). Ring sizes, coalescing, interrupts and flow
//! rules are tested against fixtures only (directories, and a script that answers as ethtool 6.1 does): veth has none
//! of them.
#![forbid(unsafe_code)]

mod device;
mod error;
mod ethtool;
mod flow;
mod irq;
mod journal;
mod left;
mod restore;
mod setting;
#[cfg(test)]
mod tests;

use std::path::Path;

use tracing::{info, warn};

pub use error::NicError;
pub(crate) use irq::{cpu_list, irqs};
pub(crate) use left::left_behind;
pub use restore::{Outcome, Report};
pub use setting::{Direction, Feature, Queues, Setting};

use crate::config::plan::{InterfacePlan, NicPlan};
use device::{Device, Kernel};
use journal::Journal;

/// The settings of one interface that are in force on our account. Dropping it puts them back, too.
#[derive(Debug)]
pub struct Applied {
    held: Option<(Kernel, Journal)>,
}

impl Applied {
    /// Puts back what was changed, newest first, and says what became of each; also in the log. What the driver refuses
    /// to take back stays in the state file for the next start.
    ///
    /// Call it when the XDP program is detached and the sockets are closed: drivers refuse to change queues in use.
    pub fn restore(mut self) -> Vec<Report> {
        self.put_back()
    }

    fn put_back(&mut self) -> Vec<Report> {
        self.held.take().map(|(kernel, mut journal)| restore::restore(&kernel, &mut journal)).unwrap_or_default()
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// Puts back what a handler that did not stop in order has left changed, on every interface of this network namespace.
///
/// To be called before anything is changed, whether or not the new configuration names these interfaces. A state file that a
/// running handler holds is left alone; one that cannot be read is renamed to `.bad`; one from before a reboot, or for a
/// device that is gone, is removed.
pub fn restore_leftovers(state_dir: &Path) -> Vec<Report> {
    restore::leftovers(&Kernel::this(), state_dir)
}

/// What a plan changes, as `key value`, and whether that is a file, which root owns, and not a matter of `ethtool`.
pub(crate) fn asked(nic: &NicPlan) -> Vec<(String, bool)> {
    let channels = nic.channels.map(|channels| (format!("channels {channels}"), false));
    let settings = setting::wanted(nic).into_iter();
    let settings = settings.map(|(setting, value)| (format!("{setting} {value}"), setting.is_file()));
    let irqs = (!nic.irq_cores.is_empty()).then(|| (format!("irq_cores {}", cpu_list(&nic.irq_cores)), true));
    let steer = (!nic.flow_rules.is_empty()).then(|| ("steer ntuple".to_owned(), false));
    channels.into_iter().chain(settings).chain(irqs).chain(steer).collect()
}

/// Brings the settings of `[interface.nic]` into force and waits for the carrier, if there was one. Nothing is touched,
/// not even the state file, where the plan has no settings.
///
/// # Errors
/// The first setting that could not be had, with the remedy; everything is put back then.
pub fn apply(interface: &InterfacePlan, state_dir: &Path) -> Result<Applied, NicError> {
    apply_on(&Kernel::this(), interface, state_dir)
}

fn apply_on(kernel: &Kernel, interface: &InterfacePlan, state_dir: &Path) -> Result<Applied, NicError> {
    if interface.nic == NicPlan::default() {
        return Ok(Applied { held: None });
    }
    let device = Device::open(kernel, &interface.name)?;
    let mut journal = Journal::open(&device, state_dir)?;
    match change_all(&device, &mut journal, &interface.nic) {
        Ok(()) => Ok(Applied { held: Some((kernel.clone(), journal)) }),
        Err(error) => {
            restore::restore(kernel, &mut journal);
            Err(error)
        }
    }
}

/// The order matters: a change of channels makes new rings and interrupts, and the driver may forget flow rules when it
/// resets.
fn change_all(device: &Device, journal: &mut Journal, nic: &NicPlan) -> Result<(), NicError> {
    let had_carrier = device.has_carrier();
    if let Some(channels) = nic.channels {
        for queues in device.queue_kinds()? {
            change(device, journal, &Setting::Channels(*queues), &channels.to_string())?;
        }
    }
    for (setting, value) in setting::wanted(nic) {
        change(device, journal, &setting, &value)?;
    }
    if !nic.irq_cores.is_empty() {
        for irq in device.irqs()? {
            change(device, journal, &irq, &cpu_list(&nic.irq_cores))?;
        }
    }
    if had_carrier {
        device.wait_for_carrier()?;
    }
    if !nic.flow_rules.is_empty() {
        change(device, journal, &Setting::Feature(Feature::Ntuple), "on").map_err(|error| NicError::NoFlowRules {
            interface: device.name().to_owned(),
            reason: error.to_string(),
        })?;
    }
    for rule in &nic.flow_rules {
        let setting = Setting::Flow { group: rule.group, vlan: rule.vlan };
        change(device, journal, &setting, &rule.queue.to_string())?;
    }
    Ok(())
}

/// Changes one setting: read, note, write, read back.
fn change(device: &Device, journal: &mut Journal, setting: &Setting, wanted: &str) -> Result<(), NicError> {
    let old = device.read(setting)?;
    if old == wanted {
        return Ok(());
    }
    device.check(setting, wanted, &old)?;
    journal.note(setting, &old)?;
    device.write(setting, wanted)?;
    let new = device.read(setting)?;
    if new == old {
        return Err(NicError::Ignored {
            interface: device.name().to_owned(),
            setting: setting.to_string(),
            value: wanted.to_owned(),
            present: new,
        });
    }
    journal.confirm(setting, &new)?;
    let interface = device.name();
    if new != wanted {
        warn!(interface, %setting, wanted, new, "the driver rounded a NIC setting");
    }
    info!(interface, %setting, old, new, "NIC setting changed");
    Ok(())
}
