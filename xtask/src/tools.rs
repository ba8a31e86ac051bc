//! Programs that only the tests run, of Debian packages that start a service when they are installed.
//!
//! They are not installed: the packages are downloaded and unpacked beside the build, in `target/tools`, and what runs is
//! only what a test starts. No script of theirs is executed, no user made, no port opened.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// The packages, and a file of each by which one sees that it is there: Prometheus and promtool judge the metrics, sshd is
/// what `deploy` is tested against, and libwrap0 is a library of sshd's.
const TOOLS: [(&str, &str); 3] =
    [("prometheus", "usr/bin/promtool"), ("openssh-server", "usr/sbin/sshd"), ("libwrap0", "usr/lib/*/libwrap.so.0")];

/// Packages that are not unpacked yet.
pub fn missing() -> Result<Vec<&'static str>> {
    let folder = folder()?;
    Ok(TOOLS.into_iter().filter(|(_, file)| !is_there(&folder, file)).map(|(package, _)| package).collect())
}

/// Downloads and unpacks packages. Needs package lists that are up to date, and no root.
pub fn unpack(packages: &[&str]) -> Result<()> {
    let downloads = folder()?.join("downloads");
    std::fs::create_dir_all(&downloads).with_context(|| format!("cannot make {}", downloads.display()))?;
    process::run(Command::new("apt-get").args(["-q", "download"]).args(packages).current_dir(&downloads))?;
    for entry in std::fs::read_dir(&downloads)? {
        process::run(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(folder()?))?;
    }
    std::fs::remove_dir_all(&downloads).context("cannot remove the downloaded packages")
}

/// What a gRPC client in Python needs, from PyPI: the test that knows the server by reflection only.
const PYTHON: [&str; 3] = ["grpcio==1.76.0", "grpcio-reflection==1.76.0", "grpcio-status==1.76.0"];

/// Whether this machine's Python has them; another version of Python cannot use what one has unpacked.
pub fn has_python() -> Result<bool> {
    let mut python = Command::new("python3");
    python.args(["-c", "import grpc, grpc_reflection, grpc_status; assert grpc.__version__ == '1.76.0'"]);
    let output = python.env("PYTHONPATH", folder()?.join("python")).output();
    Ok(output.is_ok_and(|output| output.status.success()))
}

/// Downloads and unpacks them, beside the build, too.
pub fn unpack_python() -> Result<()> {
    let folder = folder()?.join("python");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-warn-script-location", "--root-user-action=ignore", "--target"]);
    process::run(pip.arg(folder).args(PYTHON))
}

fn folder() -> Result<PathBuf> {
    Ok(process::target_directory()?.join("tools"))
}

/// Whether a file is in a folder; one part of its path may be `*`, for Debian's folders by architecture.
fn is_there(folder: &Path, file: &str) -> bool {
    match file.split_once("/*/") {
        None => folder.join(file).exists(),
        Some((before, behind)) => {
            let entries = std::fs::read_dir(folder.join(before)).into_iter().flatten().flatten();
            entries.into_iter().any(|entry| entry.path().join(behind).exists())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_whatever_the_architecture() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(is_there(folder, "src/tools.rs") && is_there(folder.parent().unwrap(), "xtask/*/tools.rs"));
        assert!(!is_there(folder, "src/none.rs") && !is_there(folder, "none/*/tools.rs"));
    }
}
