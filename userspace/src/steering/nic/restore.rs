//! Putting settings back.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::device::{Device, Kernel};
use super::error::NicError;
use super::journal::{Change, Journal, Unusable, file_prefix};
use super::setting::Setting;

/// How long a killed handler may still hold its state file: its locks go a little after the signal.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// How long the kernel may take to free a dead handler's AF_XDP queues, which it does after the locks are gone.
const QUEUE_PATIENCE: Duration = Duration::from_millis(500);

/// What became of one setting, or of a whole state file.
#[derive(Debug)]
pub struct Report {
    /// Kernel name of the interface, or the state file where the name is not known.
    pub interface: String,
    /// The setting; `None` if it is about all of the interface's.
    pub setting: Option<Setting>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a setting that was to be put back.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It has its old value again.
    Restored {
        /// The value that we had set; unknown if the change was interrupted.
        from: Option<String>,
        /// The old value.
        to: String,
    },
    /// Somebody else has changed it meanwhile; left alone.
    ChangedByOthers {
        /// The value that we had set.
        ours: String,
        /// The value now.
        present: String,
    },
    /// The interface, the interrupt or the device is not there any more; nothing to put back.
    Gone,
    /// It could not be put back; it stays in the state file.
    Failed(String),
    /// From before a reboot; the settings went with it.
    OfAnotherBoot,
    /// The state file could not be read and was renamed to this.
    Damaged {
        /// What is wrong with it.
        reason: String,
        /// Its new name.
        moved_to: PathBuf,
    },
    /// A running handler holds it; left alone.
    Held,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.interface)?;
        if let Some(setting) = &self.setting {
            write!(f, ": nic.{setting}")?;
        }
        match &self.outcome {
            Outcome::Restored { from: Some(from), to } => write!(f, ": restored from {from} to {to}"),
            Outcome::Restored { from: None, to } => write!(f, ": restored to {to}"),
            Outcome::ChangedByOthers { ours, present } => {
                write!(f, ": is {present} and not the {ours} that we set: somebody else changed it, left alone")
            }
            Outcome::Gone => f.write_str(": is not there any more, nothing to restore"),
            Outcome::Failed(reason) => write!(f, ": cannot be restored now: {reason}"),
            Outcome::OfAnotherBoot => f.write_str(": saved before a reboot, nothing to restore"),
            Outcome::Damaged { reason, moved_to } => {
                write!(f, ": damaged ({reason}); set aside as {}, nothing restored from it", moved_to.display())
            }
            Outcome::Held => f.write_str(": held by a running handler, left alone"),
        }
    }
}

impl Report {
    fn new(interface: &str, setting: Option<&Setting>, outcome: Outcome) -> Self {
        let report = Self { interface: interface.to_owned(), setting: setting.cloned(), outcome };
        match &report.outcome {
            Outcome::Failed(_) => error!("NIC setting of {report}"),
            Outcome::Restored { .. } | Outcome::OfAnotherBoot | Outcome::Held => info!("NIC setting of {report}"),
            _ => warn!("NIC setting of {report}"),
        }
        report
    }
}

/// Puts back all changes of a journal, newest first. What failed stays in it.
pub(super) fn restore(kernel: &Kernel, journal: &mut Journal) -> Vec<Report> {
    if journal.record.changes.is_empty() {
        return Vec::new();
    }
    let interface = journal.record.interface.clone();
    let mut reports = Vec::new();
    match owner(kernel, journal) {
        Ok(device) => {
            let mut failed = Vec::new();
            while let Some(change) = journal.record.changes.pop() {
                let Some(outcome) = put_back(&device, &change) else { continue };
                reports.push(Report::new(&interface, Some(&change.setting), outcome));
                if matches!(reports.last(), Some(Report { outcome: Outcome::Failed(_), .. })) {
                    failed.push(change);
                }
            }
            failed.reverse();
            journal.record.changes = failed;
        }
        Err(outcome) => {
            if !matches!(outcome, Outcome::Failed(_)) {
                journal.record.changes.clear();
            }
            reports.push(Report::new(&interface, None, outcome));
        }
    }
    if let Err(problem) = journal.save() {
        reports.push(Report::new(&interface, None, Outcome::Failed(problem.to_string())));
    }
    reports
}

/// The device that a journal is of, if it is still the same one.
fn owner<'a>(kernel: &'a Kernel, journal: &Journal) -> Result<Device<'a>, Outcome> {
    let record = &journal.record;
    if kernel.boot_id().ok().as_ref() != Some(&record.boot_id) {
        return Err(Outcome::OfAnotherBoot);
    }
    match Device::open(kernel, &record.interface) {
        Ok(device) if device.index == record.index && device.bus == record.bus => Ok(device),
        Ok(_) | Err(NicError::NoInterface { .. }) => Err(Outcome::Gone),
        Err(problem) => Err(Outcome::Failed(problem.to_string())),
    }
}

/// Puts one setting back; `None` if it already has its old value.
fn put_back(device: &Device<'_>, change: &Change) -> Option<Outcome> {
    let Change { setting, old, new } = change;
    let present = match device.read(setting) {
        Ok(present) => present,
        // With fewer channels there are fewer interrupts.
        Err(NicError::Unsupported { .. }) if matches!(setting, Setting::Irq { .. }) => return Some(Outcome::Gone),
        Err(problem) => return Some(Outcome::Failed(problem.to_string())),
    };
    if present == *old {
        return None;
    }
    if let Some(ours) = new.as_ref().filter(|ours| **ours != present) {
        return Some(Outcome::ChangedByOthers { ours: ours.clone(), present });
    }
    match device.write(setting, old).and_then(|()| device.read(setting)) {
        Ok(now) if now == *old => Some(Outcome::Restored { from: new.clone(), to: old.clone() }),
        Ok(now) => Some(Outcome::Failed(format!("the driver took {old}, but it is {now}"))),
        Err(problem) => Some(Outcome::Failed(problem.to_string())),
    }
}

/// Puts back what earlier handlers of this network namespace left.
pub(super) fn leftovers(kernel: &Kernel, state_dir: &Path) -> Vec<Report> {
    let files = match kernel.namespace().and_then(|namespace| left_files(state_dir, namespace)) {
        Ok(files) => files,
        Err(problem) => {
            let name = state_dir.display().to_string();
            return vec![Report::new(&name, None, Outcome::Failed(problem.to_string()))];
        }
    };
    let give_up = Instant::now() + LOCK_PATIENCE;
    let mut reports = Vec::new();
    for path in files {
        let taken = loop {
            match Journal::take_over(&path) {
                Err(Unusable::Held) if Instant::now() < give_up => std::thread::sleep(RETRY_INTERVAL),
                result => break result,
            }
        };
        let outcome = match taken {
            Ok(mut journal) => {
                reports.extend(restore_twice(kernel, &mut journal));
                continue;
            }
            // Its handler has just put everything back itself.
            Err(Unusable::Absent) => continue,
            Err(Unusable::Held) => Outcome::Held,
            Err(Unusable::Damaged { reason, moved_to }) => Outcome::Damaged { reason, moved_to },
            Err(Unusable::Failed(problem)) => Outcome::Failed(problem.to_string()),
        };
        reports.push(Report::new(&path.display().to_string(), None, outcome));
    }
    reports
}

/// Puts back a dead handler's changes; what fails is tried once more, since its queues may still have been in use.
fn restore_twice(kernel: &Kernel, journal: &mut Journal) -> Vec<Report> {
    let mut reports = restore(kernel, journal);
    if reports.iter().any(|report| matches!(report.outcome, Outcome::Failed(_))) {
        std::thread::sleep(QUEUE_PATIENCE);
        reports.retain(|report| !matches!(report.outcome, Outcome::Failed(_)));
        reports.extend(restore(kernel, journal));
    }
    reports
}

/// State files of this namespace, by name.
pub(super) fn left_files(state_dir: &Path, namespace: u64) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let prefix = file_prefix(namespace);
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(".json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
