//! Installs what the build and the tests need, and says so before. When nothing is missing it only looks.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{process, tools};

/// For the C parts (libbpf, libxdp; libFuzzer in C++), for running them, and for checking the output with other people's programs.
const PACKAGES: [&str; 20] = [
    "bpftool",
    "chromium-headless-shell",
    "clang",
    "dpkg-dev",
    "ethtool",
    "g++",
    "gcc",
    "iproute2",
    "libc6-dev",
    "libelf-dev",
    "llvm-22-dev",
    "m4",
    "make",
    "openssh-client",
    "pkg-config",
    "procps",
    "python3-pip",
    "systemd",
    "tshark",
    "zlib1g-dev",
];

/// Debian's compiler with core for the BPF target; where rustup's nightly has rust-src they are not needed.
const EBPF_PACKAGES: [&str; 3] = ["cargo-web", "libstd-rust-web-dev-bpf", "rustc-web"];

/// LLVM that bpf-linker is built with. It reads what compilers up to this version write.
const LLVM_MAJOR: u32 = 22;

/// bpf-linker versions that were tested, as the start of `bpf-linker --version`.
const LINKER_VERSION: &str = "bpf-linker 0.13.";

/// Looks, says what is missing, installs it.
pub fn run() -> Result<()> {
    if process::output("rustup", &["--version"]).is_none() {
        bail!("rustup is not in PATH; install it from https://rustup.rs (`curl https://sh.rustup.rs -sSf | sh`)");
    }
    let nightly = nightly_compiles_ebpf();
    let mut wanted: Vec<&str> = PACKAGES.to_vec();
    if !nightly {
        wanted.extend(EBPF_PACKAGES);
    }
    let missing = missing_packages(&wanted)?;
    let needs_linker = !has_linker();
    let tools = tools::missing()?;
    let needs_python = !tools::has_python()?;
    if missing.is_empty() && tools.is_empty() && !needs_python && !needs_linker {
        return Ok(());
    }

    println!(
        "setup: eBPF is compiled by {}",
        if nightly { "rustup's nightly (rust-src)" } else { "Debian's rustc-web" }
    );
    if !missing.is_empty() {
        println!("setup: will install by apt-get: {}", missing.join(" "));
    }
    if !tools.is_empty() {
        println!("setup: will unpack into target/tools, and not install: {}", tools.join(" "));
    }
    if needs_python {
        println!("setup: will unpack into target/tools, and not install: a gRPC client for Python, from PyPI");
    }
    if needs_linker {
        println!("setup: will install by cargo: bpf-linker 0.13, linked with LLVM {LLVM_MAJOR} (about 3 minutes)");
    }
    if !missing.is_empty() || !tools.is_empty() {
        update_lists()?;
    }
    if !missing.is_empty() {
        install_packages(&missing)?;
    }
    if !tools.is_empty() {
        tools::unpack(&tools)?;
    }
    if needs_python {
        tools::unpack_python()?;
    }
    if needs_linker {
        install_linker()?;
    }
    println!("setup: done");
    Ok(())
}

/// Whether rustup's nightly can compile for BPF: it needs core's source, and an LLVM that bpf-linker can read.
/// userspace/build.rs makes the same choice.
fn nightly_compiles_ebpf() -> bool {
    let rustc = |arguments: &[&str]| {
        let all: Vec<&str> = ["run", "nightly", "rustc"].into_iter().chain(arguments.iter().copied()).collect();
        process::output("rustup", &all)
    };
    let Some(sysroot) = rustc(&["--print", "sysroot"]) else { return false };
    Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
        && rustc(&["-vV"]).and_then(|version| llvm_major(&version)).is_some_and(|major| major <= LLVM_MAJOR)
}

/// Major version in the line `LLVM version: 22.1.2` of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

fn missing_packages<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    // Unknown packages make dpkg-query fail but do not keep it from printing the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .with_context(|| {
            format!(
                "this is not a Debian system (no dpkg-query); install what is called in Debian 12: {}",
                wanted.join(" ")
            )
        })?;
    Ok(absent(wanted, &String::from_utf8_lossy(&output.stdout)))
}

/// Packages without a line `name installed`.
fn absent<'a>(wanted: &[&'a str], dpkg: &str) -> Vec<&'a str> {
    let installed: BTreeSet<&str> = dpkg.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    wanted.iter().copied().filter(|package| !installed.contains(package)).collect()
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
    // Nobody may be there to answer: a changed configuration file is kept, and whatever else asks gets no answer.
    command.args(["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

/// Old lists name packages that are not there any more. Without root they are used as they are.
fn update_lists() -> Result<()> {
    if process::is_root() { process::run(&mut apt(&["update"])) } else { Ok(()) }
}

fn install_packages(missing: &[&str]) -> Result<()> {
    if !process::is_root() {
        bail!(
            "installing packages needs root; run this as root, or `sudo apt-get install --no-install-recommends {}` first",
            missing.join(" ")
        );
    }
    process::run(apt(&["install", "-y", "--no-install-recommends"]).args(missing)).with_context(|| {
        format!("rustc-web and llvm-{LLVM_MAJOR} come from bookworm-security: is it among the apt sources?")
    })
}

fn has_linker() -> bool {
    process::output("bpf-linker", &["--version"]).is_some_and(|version| version.starts_with(LINKER_VERSION))
}

fn install_linker() -> Result<()> {
    let llvm_config = format!("llvm-config-{LLVM_MAJOR}");
    let prefix = process::output(&llvm_config, &["--prefix"])
        .with_context(|| format!("{llvm_config} does not run; it is in the package llvm-{LLVM_MAJOR}-dev"))?;
    let mut command = process::cargo();
    command
        .args(["install", "bpf-linker", "--locked", "--force", "--version", "^0.13", "--no-default-features"])
        .args(["--features", &format!("llvm-{LLVM_MAJOR}")])
        .env("LLVM_PREFIX", prefix.trim())
        // Not into the workspace's target directory, and not with the flags of its build.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    process::run(&mut command)?;
    if !has_linker() {
        bail!("bpf-linker was installed but is not found; put cargo's bin folder (~/.cargo/bin) into PATH");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_only_when_it_is_wholly_installed() {
        let dpkg = "clang installed\nm4 config-files\ngcc half-installed\n";
        assert_eq!(absent(&["clang", "m4", "gcc", "tshark"], dpkg), ["m4", "gcc", "tshark"]);
    }

    #[test]
    fn the_llvm_version_is_read_from_rustc() {
        assert_eq!(llvm_major("rustc 1.97.0\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.97.0\n"), None);
    }
}
