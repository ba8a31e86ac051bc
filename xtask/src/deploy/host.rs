//! The host that is deployed to: this one, or one behind ssh. Only the system's own clients are used, so that keys, agents,
//! jump hosts and `~/.ssh/config` work as their owner is used to.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Where commands run and files go.
#[derive(Debug)]
pub enum Host {
    /// This machine.
    Local,
    /// A machine behind ssh.
    Ssh {
        /// As ssh takes it: `user@host`, or a name from the configuration of ssh.
        name: String,
        /// A configuration of ssh other than the user's.
        config: Option<PathBuf>,
    },
}

impl Host {
    /// Its name for a person.
    pub fn name(&self) -> &str {
        match self {
            Self::Local => "this host",
            Self::Ssh { name, .. } => name,
        }
    }

    /// Runs a line of shell as root and shows what it prints; its exit status.
    pub fn run_as_root(&self, line: &str) -> Result<i32> {
        // A root shell needs no sudo, which small hosts do not have; -n: nobody is there to type a password.
        let line = format!("if [ \"$(id -u)\" = 0 ]; then {line}; else sudo -n sh -c {}; fi", quoted(line));
        let mut command = self.shell(&line);
        let status = command.status().with_context(|| format!("cannot start `{}`", process::words(&command)))?;
        match status.code() {
            // ssh's own: no connection, no login, an unknown host key. It has said which.
            Some(255) if matches!(self, Self::Ssh { .. }) => bail!("ssh to {} failed", self.name()),
            Some(code) => Ok(code),
            None => bail!("the command on {} was killed ({status})", self.name()),
        }
    }

    /// What a line of shell prints; failing is an error with what it said.
    pub fn output(&self, line: &str) -> Result<String> {
        let output = self.shell(line).output().with_context(|| format!("cannot reach {}", self.name()))?;
        if !output.status.success() {
            bail!("{}: `{line}` failed: {}", self.name(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Copies what is in a folder into a folder of the host, which must be there.
    pub fn copy(&self, from: &Path, to: &str) -> Result<()> {
        match self {
            Self::Local => process::run(Command::new("cp").arg("-R").arg(from.join(".")).arg(to)),
            Self::Ssh { name, config } => {
                let mut scp = client("scp", config.as_deref());
                process::run(scp.args(["-q", "-r", "-C"]).arg(from.join(".")).arg(format!("{name}:{to}")))
            }
        }
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = match self {
            Self::Local => {
                let mut command = Command::new("sh");
                command.args(["-c", line]);
                command
            }
            Self::Ssh { name, config } => {
                let mut ssh = client("ssh", config.as_deref());
                // The login shell of the host, whichever it is, sees one word.
                ssh.args(["--", name]).arg(format!("sh -c {}", quoted(line)));
                ssh
            }
        };
        command.stdin(Stdio::null());
        command
    }
}

fn client(program: impl AsRef<OsStr>, config: Option<&Path>) -> Command {
    let mut command = Command::new(program);
    if let Some(config) = config {
        command.arg("-F").arg(config);
    }
    command.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]);
    command
}

/// One word of a shell, whatever is in it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_a_word() {
        let nasty = "a'b \"$HOME\" `id`; \\n *";
        assert_eq!(Host::Local.output(&format!("printf %s {}", quoted(nasty))).unwrap(), nasty);
    }

    #[test]
    fn a_failing_command_says_what_it_said() {
        let error = Host::Local.output("echo no room >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("no room") && error.contains("this host"), "{error}");
    }
}
