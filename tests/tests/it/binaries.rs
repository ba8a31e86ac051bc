//! The project's own programs, for tests that start them as an operator would.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// A program of the `feedhandler` package, built if need be: `cargo test` alone does not build another package's programs.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "feedhandler", "--bins"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo starts").success(), "cargo build -p feedhandler --bins");
        // target/PROFILE/deps/it-HASH
        let own = std::env::current_exe().expect("where this program is");
        own.parent().and_then(std::path::Path::parent).expect("a folder above deps").to_owned()
    });
    folder.join(name)
}
