//! Looking at what a handler that did not stop in order has left changed, without touching it.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::device::Kernel;
use super::journal;
use super::restore::left_files;

/// One state file that no running handler holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// The file.
    pub(crate) path: PathBuf,
    /// Kernel name of the interface, and the settings that are not put back; `None` if the file cannot be read.
    pub(crate) changes: Option<(String, Vec<String>)>,
}

/// The state files of this network namespace and this boot that nobody holds, by name. `proc` is /proc. Nothing is locked,
/// moved or written: whether a handler holds one is in /proc/locks.
pub(crate) fn left_behind(state_dir: &Path, proc: &Path) -> Vec<Left> {
    let kernel = Kernel { proc: proc.to_owned(), ..Kernel::this() };
    let files = kernel.namespace().and_then(|namespace| left_files(state_dir, namespace)).unwrap_or_default();
    let locks = fs::read_to_string(proc.join("locks")).unwrap_or_default();
    let boot_id = kernel.boot_id().ok();
    let free = files.into_iter().filter(|path| !is_held(&locks, &path.with_extension("lock")));
    let left = free.filter_map(|path| match journal::read(&path) {
        Ok(record) if boot_id.as_ref() != Some(&record.boot_id) => None,
        Ok(record) => {
            let settings = record.changes.iter().map(|change| change.setting.to_string()).collect();
            Some(Left { path, changes: Some((record.interface, settings)) })
        }
        Err(_) => Some(Left { path, changes: None }),
    });
    left.collect()
}

/// Whether a file is in a table of the form of /proc/locks: number, kind, and so on; the sixth word ends in the inode.
fn is_held(locks: &str, path: &Path) -> bool {
    let Ok(file) = fs::metadata(path) else { return false };
    let inode = |line: &str| line.split_ascii_whitespace().nth(5)?.rsplit(':').next()?.parse().ok();
    locks.lines().any(|line| line.contains("FLOCK") && inode(line) == Some(file.ino()))
}
