//! Reading /proc and /sys, or folders that look like them: whatever is there, nothing panics, and nothing is written.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Why a file told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There is no such file: an older kernel, or one built without it.
    Absent,
    /// It is not for this user.
    Denied,
    /// It cannot be read, or holds something else than expected.
    Odd,
}

/// What a file told.
pub type Told<T> = Result<T, Silence>;

/// More than any of these files has.
const MOST_BYTES: u64 = 1 << 20;

/// Where the kernel's files are.
#[derive(Clone, Debug)]
pub struct Files {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Files {
    /// Those of this host.
    #[must_use]
    pub fn host() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }

    /// `/proc/sys/…`, by the name that `sysctl` has for it.
    ///
    /// # Errors
    /// Why it tells nothing.
    pub fn sysctl(&self, name: &str) -> Told<u64> {
        number(&self.proc.join("sys").join(name.replace('.', "/")))
    }

    /// A sysctl of one interface below `net.ipv4.conf`, whose name may have dots.
    ///
    /// # Errors
    /// Why it tells nothing.
    pub fn interface_sysctl(&self, interface: &str, name: &str) -> Told<u64> {
        number(&self.proc.join("sys/net/ipv4/conf").join(interface).join(name))
    }
}

/// The whole text without the space around it.
pub fn text(path: &Path) -> Told<String> {
    let silence = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Silence::Absent,
        ErrorKind::PermissionDenied => Silence::Denied,
        _ => Silence::Odd,
    };
    let mut text = String::new();
    File::open(path).map_err(silence)?.take(MOST_BYTES).read_to_string(&mut text).map_err(silence)?;
    Ok(text.trim().to_owned())
}

/// A number.
pub fn number<T: FromStr>(path: &Path) -> Told<T> {
    text(path)?.parse().map_err(|_| Silence::Odd)
}

/// A list of CPUs, such as `0-3,8`; an empty file is an empty list.
pub fn cpu_list(path: &Path) -> Told<Vec<usize>> {
    parse_cpus(&text(path)?).ok_or(Silence::Odd)
}

/// Names in a folder, sorted; none if it cannot be read.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Last part of where a link leads, such as a driver's name.
pub fn link_name(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// The kernel has no more CPUs than this; a longer range is not a list of CPUs.
const MOST_CPUS: usize = 8192;

/// `0-3,8` as numbers; `None` if it is no such list.
#[must_use]
pub fn parse_cpus(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    // An empty mask of nohz_full reads `(null)` before Linux 5.
    if matches!(text, "" | "(null)" | "N/A") {
        return Some(cpus);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_of_every_form() {
        assert_eq!(parse_cpus("0-2,5,7-8"), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(parse_cpus(""), Some(vec![]));
        assert_eq!(parse_cpus("(null)"), Some(vec![]));
        for odd in ["x", "3-1", "1-", "-", "0-99999999999", "0-9000", ","] {
            assert_eq!(parse_cpus(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_file_says_why_it_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        assert_eq!(number::<u32>(&path), Err(Silence::Absent));
        std::fs::write(&path, [0xFF, 0xFE]).unwrap();
        assert_eq!(text(&path), Err(Silence::Odd));
        std::fs::write(&path, "seven\n").unwrap();
        assert_eq!(number::<u32>(&path), Err(Silence::Odd));
        assert_eq!(text(folder.path()), Err(Silence::Odd));
        assert_eq!(text(&path.join("below")), Err(Silence::Absent));
        std::fs::write(&path, " 7\n").unwrap();
        assert_eq!(number(&path), Ok(7));
    }
}
