//! Why a setting of a NIC could not be had.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NicError {
    /// No such interface.
    #[error(
        "interface `{interface}`: not there, so its [interface.nic] cannot be applied; `ip link` lists those that are"
    )]
    NoInterface {
        /// Kernel name as configured.
        interface: String,
    },
    /// The mounted sysfs belongs to another network namespace.
    #[error(
        "interface `{interface}`: /sys/class/net shows another network namespace, and its settings cannot be reached; start \
         the handler by `ip netns exec`, which mounts the right one"
    )]
    OtherNamespace {
        /// Kernel name as configured.
        interface: String,
    },
    /// The driver does not have the setting at all.
    #[error("interface `{interface}`: nic.{setting}: its driver has no such setting ({reason}); leave the key out")]
    Unsupported {
        /// Kernel name.
        interface: String,
        /// The setting, by its key.
        setting: String,
        /// Kernel's or driver's reason.
        reason: String,
    },
    /// More than the driver has.
    #[error("interface `{interface}`: nic.{setting} = {value}: the driver has at most {most}; lower it")]
    TooMany {
        /// Kernel name.
        interface: String,
        /// The setting, by its key.
        setting: String,
        /// Wanted value.
        value: String,
        /// Largest value.
        most: u32,
    },
    /// The driver refused the value.
    #[error("interface `{interface}`: nic.{setting} = {value} is refused: {reason}; change it or leave the key out")]
    Refused {
        /// Kernel name.
        interface: String,
        /// The setting, by its key.
        setting: String,
        /// Wanted value.
        value: String,
        /// Kernel's or driver's reason.
        reason: String,
    },
    /// The driver said yes and did nothing.
    #[error(
        "interface `{interface}`: nic.{setting} = {value}: the driver took it without an error, but it still is {present}; \
         leave the key out"
    )]
    Ignored {
        /// Kernel name.
        interface: String,
        /// The setting, by its key.
        setting: String,
        /// Wanted value.
        value: String,
        /// What it is.
        present: String,
    },
    /// The program is not installed.
    #[error(
        "interface `{interface}`: nic.{setting} needs the program `{program}`, which cannot be started ({source}): install the \
         package `ethtool`, or leave the key out"
    )]
    NoEthtool {
        /// Kernel name.
        interface: String,
        /// The setting, by its key.
        setting: String,
        /// What was to be started.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The program's answer has another form than that of the versions we know.
    #[error("interface `{interface}`: nic.{setting}: cannot read the answer of `ethtool {arguments}`: {reason}")]
    Unreadable {
        /// Kernel name.
        interface: String,
        /// The setting, by its key.
        setting: String,
        /// Arguments of the program.
        arguments: String,
        /// What was not found, or not understood.
        reason: String,
    },
    /// The device has no interrupts of its own.
    #[error("interface `{interface}`: nic.irq_cores: the device has no interrupts of its own (looked in {}); leave the key out", looked.display())]
    NoInterrupts {
        /// Kernel name.
        interface: String,
        /// Folder that would list them.
        looked: PathBuf,
    },
    /// Flow rules are not to be had.
    #[error(
        "interface `{interface}`: nic.steer = \"ntuple\": its driver has no flow rules ({reason}); set channels = 1 and queue = 0 \
         on its lines, or steer = \"none\" with the queues that RSS chooses"
    )]
    NoFlowRules {
        /// Kernel name.
        interface: String,
        /// Kernel's or driver's reason.
        reason: String,
    },
    /// Somebody else steers the group elsewhere.
    #[error(
        "interface `{interface}`: {rule}: there is a rule already, to {present} and not to queue {queue}; remove it \
         (`ethtool -n {interface}` shows its number, `ethtool -N {interface} delete NUMBER`)"
    )]
    OtherRule {
        /// Kernel name.
        interface: String,
        /// Group, port and VLAN.
        rule: String,
        /// Where the rule steers to.
        present: String,
        /// Where we would.
        queue: String,
    },
    /// The link did not come back after the changes.
    #[error(
        "interface `{interface}`: no carrier {seconds} s after its [interface.nic] was applied; check the cable and the values"
    )]
    NoCarrier {
        /// Kernel name.
        interface: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Another handler's settings are in force.
    #[error(
        "interface `{interface}`: its NIC settings are held by another handler ({}): stop it first", holder.map_or_else(|| "unknown process".to_owned(), |pid| format!("process {pid}"))
    )]
    Held {
        /// Kernel name.
        interface: String,
        /// Its process id, if its state file says so.
        holder: Option<u32>,
    },
    /// The previous values cannot be kept, so nothing may be changed.
    #[error("cannot keep NIC settings in {}: {source}; set handler.state_dir to a folder that can be written", path.display())]
    State {
        /// State file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}
