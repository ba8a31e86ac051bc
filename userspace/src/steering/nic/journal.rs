//! The state file of an interface: what its settings were before we changed them.
//!
//! One file per interface and network namespace (whose mounts of /run are often the same one), written anew before and after
//! each change: a temporary file, fsync, rename. A lock beside it says that a running handler holds the settings; it goes
//! with the process, however that ends.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::device::Device;
use super::error::NicError;
use super::setting::Setting;

/// Of the file's form; another one is not read.
const VERSION: u32 = 1;

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// /proc/sys/kernel/random/boot_id: settings do not survive a reboot.
    pub(super) boot_id: String,
    /// Network namespace.
    pub(super) namespace: u64,
    /// Kernel name.
    pub(super) interface: String,
    /// Kernel index. With boot and namespace it identifies the interface; a permanent address would not do better, and
    /// software interfaces have none.
    pub(super) index: u32,
    /// Bus address of the device.
    pub(super) bus: Option<String>,
    /// Who wrote it.
    pub(super) process: u32,
    /// In the order in which they were made.
    pub(super) changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    pub(super) setting: Setting,
    /// The value before the first change.
    pub(super) old: String,
    /// The value that we left there; none while the change is being made.
    pub(super) new: Option<String>,
}

/// An open state file, locked.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    _lock: File,
    pub(super) record: Record,
}

/// Why a state file cannot be taken over.
#[derive(Debug)]
pub(super) enum Unusable {
    /// A running handler's.
    Held,
    /// Nothing there.
    Absent,
    /// Not one of ours; renamed to this.
    Damaged { reason: String, moved_to: PathBuf },
    /// The system's answer.
    Failed(io::Error),
}

impl Journal {
    /// Opens the interface's journal. What an earlier handler could not put back stays in it, with its first values.
    pub(super) fn open(device: &Device<'_>, state_dir: &Path) -> Result<Self, NicError> {
        let interface = device.name();
        let failed = |source| NicError::State { path: state_dir.to_owned(), source };
        let namespace = device.kernel.namespace().map_err(failed)?;
        let boot_id = device.kernel.boot_id().map_err(failed)?;
        DirBuilder::new().recursive(true).mode(0o755).create(state_dir).map_err(failed)?;
        let path = state_dir.join(file_name(namespace, interface));
        let failed = |source| NicError::State { path: path.clone(), source };
        let held = || NicError::Held { interface: interface.to_owned(), holder: read(&path).ok().map(|r| r.process) };
        let lock = lock(&path).map_err(failed)?.ok_or_else(held)?;
        let mut record = Record {
            version: VERSION,
            boot_id,
            namespace,
            interface: interface.to_owned(),
            index: device.index,
            bus: device.bus.clone(),
            process: std::process::id(),
            changes: Vec::new(),
        };
        match read_or_set_aside(&path) {
            Ok(earlier) if earlier.is_of(&record) => record.changes = earlier.changes,
            Ok(_) | Err(Unusable::Absent | Unusable::Held) => {}
            Err(Unusable::Damaged { reason, moved_to }) => {
                warn!(interface, reason, moved_to = %moved_to.display(), "NIC state file is damaged and set aside");
            }
            Err(Unusable::Failed(source)) => return Err(failed(source)),
        }
        Ok(Self { path, _lock: lock, record })
    }

    /// Takes over a file that an earlier handler left.
    pub(super) fn take_over(path: &Path) -> Result<Self, Unusable> {
        let lock = lock(path).map_err(Unusable::Failed)?.ok_or(Unusable::Held)?;
        let record = read_or_set_aside(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock, record })
    }

    /// Notes the value before a change. Must have returned before the change is made.
    pub(super) fn note(&mut self, setting: &Setting, old: &str) -> Result<(), NicError> {
        match self.record.changes.iter_mut().find(|change| change.setting == *setting) {
            // An earlier handler changed it and could not put it back: its first value is the right one.
            Some(change) => change.new = None,
            None => self.record.changes.push(Change { setting: setting.clone(), old: old.to_owned(), new: None }),
        }
        self.save()
    }

    /// Notes that a change was made, and what came of it.
    pub(super) fn confirm(&mut self, setting: &Setting, new: &str) -> Result<(), NicError> {
        if let Some(change) = self.record.changes.iter_mut().find(|change| change.setting == *setting) {
            change.new = Some(new.to_owned());
        }
        self.save()
    }

    /// Writes the file, or removes it if there is nothing to put back.
    pub(super) fn save(&self) -> Result<(), NicError> {
        let written = if self.record.changes.is_empty() { remove(&self.path) } else { self.write() };
        written.map_err(|source| NicError::State { path: self.path.clone(), source })
    }

    fn write(&self) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&self.record).map_err(io::Error::other)?;
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        // The rename, too, must outlive a crash.
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

impl Record {
    /// Whether both are of the same interface.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let key = |record: &Self| (record.boot_id.clone(), record.namespace, record.index, record.bus.clone());
        key(self) == key(other)
    }
}

/// Start of the names of a namespace's state files.
pub(super) fn file_prefix(namespace: u64) -> String {
    format!("nic-{namespace}-")
}

fn file_name(namespace: u64, interface: &str) -> String {
    format!("{}{interface}.json", file_prefix(namespace))
}

/// How often, and how far apart, a lock is tried for.
const LOCK_TRIES: u32 = 10;
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Takes the lock beside a state file; `None` if a running handler has it. The lock's file stays: removed, two could hold
/// locks of one name.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o644);
    let file = options.open(path.with_extension("lock"))?;
    for _ in 0..LOCK_TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            // A child of who had it holds it, too, from its fork to its exec.
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_INTERVAL),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Reads a file, whoever holds it.
pub(super) fn read(path: &Path) -> io::Result<Record> {
    let record: Record = serde_json::from_str(&fs::read_to_string(path)?).map_err(io::Error::other)?;
    if record.version == VERSION {
        return Ok(record);
    }
    Err(io::Error::other(format!("it has version {}, this program writes {VERSION}", record.version)))
}

fn read_or_set_aside(path: &Path) -> Result<Record, Unusable> {
    match read(path) {
        Ok(record) => Ok(record),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Unusable::Absent),
        Err(error) if matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::InvalidData) => {
            let moved_to = path.with_extension("bad");
            fs::rename(path, &moved_to).map_err(Unusable::Failed)?;
            Err(Unusable::Damaged { reason: error.to_string(), moved_to })
        }
        Err(error) => Err(Unusable::Failed(error)),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
