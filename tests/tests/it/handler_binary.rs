//! The handler's program, for tests that start it as an operator would.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Builds the handler in this test's own profile and target directory, and returns its path. Built anew each time, since
/// `cargo test` builds no other package's programs: one that happens to lie there may be old.
pub(crate) fn handler_binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> PathBuf {
    // target/<profile>/deps/<this program>
    let own = std::env::current_exe().unwrap();
    let profile = own.parent().and_then(|deps| deps.parent()).expect("a test lies in target/<profile>/deps");
    let target = profile.parent().expect("a profile lies in the target directory");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "feedhandler", "--bin", "feedhandler", "--target-dir"]).arg(target);
    if profile.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo can be started");
    assert!(output.status.success(), "the handler does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    let binary = profile.join("feedhandler");
    assert!(binary.is_file(), "cargo did not make {}", binary.display());
    binary
}
