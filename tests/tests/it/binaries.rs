//! The project's own programs, for tests that start them as an operator would.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// A program of the `feedhandler` package, built in this test's own profile and target directory if need be: `cargo test`
/// builds no other package's programs, and one that happens to lie there may be old.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("feedhandler")).join(name)
}

/// The project's tasks, built likewise.
pub fn xtask() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("xtask")).join("xtask")
}

fn build(package: &str) -> PathBuf {
    // target/<profile>/deps/<this program>
    let own = std::env::current_exe().expect("where this program is");
    let profile = own.parent().and_then(|deps| deps.parent()).expect("a test lies in target/<profile>/deps");
    let target = profile.parent().expect("a profile lies in the target directory");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", package, "--bins", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo can be started");
    assert!(output.status.success(), "the programs do not build:\n{}", String::from_utf8_lossy(&output.stderr));
    profile.to_owned()
}
