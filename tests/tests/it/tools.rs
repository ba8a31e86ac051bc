//! Other people's programs that `cargo xtask setup` unpacks beside the build instead of installing them: their packages
//! would start services.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// The program's path.
pub fn tool(name: &str) -> PathBuf {
    let found =
        ["usr/bin", "usr/sbin"].map(|bin| folder().join(bin).join(name)).into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not in {}: `cargo xtask setup` brings it", folder().display()))
}

/// Where they are unpacked.
pub fn folder() -> PathBuf {
    // target/<profile>/deps/<this program>
    let own = std::env::current_exe().expect("where this program is");
    own.ancestors().nth(3).expect("a test lies in target/<profile>/deps").join("tools")
}

/// A file of the workspace.
pub fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join(path)
}
