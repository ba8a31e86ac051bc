//! Who holds privileges, as the kernel tells it for each thread.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rustix::thread::CapabilitySet;

/// Threads of one name that hold the same capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Name of the threads.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// What each may use: its permitted set.
    pub permitted: CapabilitySet,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.count > 1 {
            write!(f, " (×{})", self.count)?;
        }
        match super::names(self.permitted) {
            // Root's set is long, and says nothing that its length does not.
            names if names.len() > 8 => write!(f, ": {} capabilities", names.len()),
            names => write!(f, ": {}", names.join(" ")),
        }
    }
}

/// Every thread of this process that holds a capability, those of one name and set together. Empty = nobody does.
///
/// # Errors
/// `/proc/self/task` cannot be read.
pub fn holders() -> io::Result<Vec<Holder>> {
    of(Path::new("/proc/self/task"))
}

fn of(tasks: &Path) -> io::Result<Vec<Holder>> {
    let mut counts = BTreeMap::new();
    for task in fs::read_dir(tasks)? {
        // A thread may end while the list is read.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        if let Some((name, permitted)) = parse(&status).filter(|(_, permitted)| *permitted != 0) {
            *counts.entry((name, permitted)).or_insert(0) += 1;
        }
    }
    let holder = |((name, bits), count)| Holder { name, count, permitted: CapabilitySet::from_bits_retain(bits) };
    Ok(counts.into_iter().map(holder).collect())
}

/// Name and permitted set in the text of a `status` file.
fn parse(status: &str) -> Option<(String, u64)> {
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    Some((value("Name")?.to_owned(), u64::from_str_radix(value("CapPrm")?, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_listed_by_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = 1 << 12 | 1 << 39;
        for (id, name, permitted) in
            [("7", "w0", 0), ("8", "keeper", keeper), ("9", "main", u64::MAX >> 23), ("10", "main", u64::MAX >> 23)]
        {
            fs::create_dir(folder.path().join(id)).unwrap();
            let text = format!("Name:\t{name}\nUmask:\t0022\nCapInh:\t0000000000000000\nCapPrm:\t{permitted:016x}\n");
            fs::write(folder.path().join(id).join("status"), text).unwrap();
        }
        fs::create_dir(folder.path().join("11")).unwrap();
        let texts: Vec<String> = of(folder.path()).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["keeper: CAP_NET_ADMIN CAP_BPF", "main (×2): 41 capabilities"]);
        assert_eq!(parse("Name:\tx\nCapPrm:\tzz\n"), None);
    }
}
