//! Compiles the XDP program (crate xdp-ebpf, binary `feed_filter`) for the BPF target and puts the object where
//! steering embeds it: `OUT_DIR/feed_filter`. Nothing compiled is ever committed.
//!
//! Two toolchains can do it: rustup's nightly with the component rust-src (core is then built from source), or Debian's
//! packages rustc-web, cargo-web and libstd-rust-web-dev-bpf, which ship core for BPF. `cargo xtask setup` installs what
//! is needed and makes the same choice.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// LLVM that bpf-linker is built with; it reads bitcode of compilers up to this version.
const LINKER_LLVM: u32 = 22;

const REMEDY: &str = "run `cargo xtask setup` (as root), which installs what is missing";

fn main() {
    if let Err(reason) = build() {
        // Not a panic: a backtrace would hide the one line that matters.
        eprintln!("error: cannot compile the XDP program: {reason}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let workspace = manifest_dir.parent().ok_or("the crate is not in a workspace")?.to_owned();
    for watched in ["xdp-ebpf/src", "xdp-ebpf/Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    // For the metrics and the log of latencies: what compiled the handler.
    let rustc = stdout(Command::new(variable("RUSTC")?).arg("--version")).unwrap_or_default();
    let rustc = rustc.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
    println!("cargo::rustc-env=FEEDHANDLER_RUSTC={rustc}");

    if !runs(Command::new("bpf-linker").arg("--version")) {
        return Err(format!("bpf-linker is not in PATH; {REMEDY}"));
    }
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let toolchain = Toolchain::find(target).ok_or_else(|| {
        format!("neither a nightly with rust-src nor Debian's rustc-web with core for BPF is installed; {REMEDY}")
    })?;

    // A target directory of its own: the outer cargo holds the lock of the workspace's.
    let target_dir = out_dir.join("xdp");
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(&workspace)
        .args(["build", "--locked", "--quiet", "--release", "--package", "xdp-ebpf", "--bin", "feed_filter"])
        .args(["--features", "ebpf", "--target", target, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags()?)
        // The workspace's release profile is for the host program.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3");
    let output = cargo.output().map_err(|error| format!("cannot start {cargo:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{}\n{cargo:?} failed", String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    let object = target_dir.join(target).join("release/feed_filter");
    fs::copy(&object, out_dir.join("feed_filter")).map_err(|error| format!("{}: {error}", object.display()))?;
    Ok(())
}

/// Flags as aya-build gives them, unit-separated.
fn rustflags() -> Result<String, String> {
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    Ok([
        format!("--cfg=bpf_target_arch=\"{arch}\"").as_str(),
        "-Clinker=bpf-linker",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
    ]
    .join("\x1f"))
}

enum Toolchain {
    /// rustup's nightly; core is built from its rust-src.
    Nightly,
    /// Debian's own rustc and cargo, named by path, because rustup's proxies stand before them in PATH.
    Debian,
}

impl Toolchain {
    fn find(target: &str) -> Option<Self> {
        if let Some(sysroot) = stdout(clean("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
            && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
            && stdout(clean("rustup").args(["run", "nightly", "rustc", "-vV"]))
                .and_then(|version| llvm_major(&version))
                .is_some_and(|major| major <= LINKER_LLVM)
        {
            return Some(Self::Nightly);
        }
        let sysroot = stdout(clean("/usr/bin/rustc").args(["--print", "sysroot"]))?;
        let has_core = Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir();
        (has_core && Path::new("/usr/bin/cargo").exists()).then_some(Self::Debian)
    }

    fn cargo(&self) -> Command {
        match self {
            Self::Nightly => {
                let mut cargo = clean("rustup");
                cargo.args(["run", "nightly", "cargo", "-Zbuild-std=core"]);
                cargo
            }
            Self::Debian => {
                let mut cargo = clean("/usr/bin/cargo");
                // The BPF target and the assembly in aya-ebpf are unstable; this admits them on a stable compiler.
                cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }
}

/// A command that does not inherit what the outer cargo and rustup set for the host's compiler.
fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let Some(name_text) = name.to_str() else { continue };
        // Where crates come from stays: a mirror or a proxy is a property of the host.
        let of_registry = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"]
            .map(|p| name_text.starts_with(p));
        let cargo_internal = name_text.starts_with("CARGO_") && !of_registry.contains(&true);
        let toolchain = name_text.starts_with("RUSTC") || name_text.starts_with("RUSTDOC");
        if cargo_internal
            || toolchain
            || matches!(name_text, "CARGO" | "RUSTFLAGS" | "RUSTUP_TOOLCHAIN" | "LD_LIBRARY_PATH")
        {
            command.env_remove(&name);
        }
    }
    // Wrappers (sccache) that a user's cargo configuration names do not know the BPF target.
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
    command
}

/// Major version in the line `LLVM version: 22.1.2` of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

fn stdout(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn runs(command: &mut Command) -> bool {
    stdout(command).is_some()
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: this is a cargo build script"))
}
