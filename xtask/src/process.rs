//! Starting other programs.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The workspace's top folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The cargo that started this program, in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Runs a program with this one's terminal; an exit status other than 0 is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", words(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", words(command));
    }
    Ok(())
}

/// What a program prints, if it can be started and succeeds.
pub fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Replaces this process by a program of the workspace, which gets the terminal, the signals and the exit status.
pub fn become_program(name: &str, arguments: &[impl AsRef<OsStr>]) -> Result<()> {
    let program = release_program(name)?;
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// The target directory, wherever it is configured: this program lies in it.
pub fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the target directory")?;
    Ok(own.ancestors().nth(2).context("cannot find the target directory")?.to_owned())
}

/// Path of a release build's program.
pub fn release_program(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("release").join(name))
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    output("id", &["-u"]).is_some_and(|id| id.trim() == "0")
}

/// Refuses to go on without root, which `what` needs.
pub fn require_root(what: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "{what} needs root; run `sudo --preserve-env=PATH,HOME \"$(command -v cargo)\" xtask ...`, or a root shell"
        );
    }
    Ok(())
}

/// The command as one would type it.
pub fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
