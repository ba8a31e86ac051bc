//! The handler as a child process, as an operator would start it.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::Namespace;

/// How long the handler may take to leave after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Lines of its log that are shown when it fails.
const SHOWN_LINES: usize = 30;

/// A running handler; killed when dropped.
#[derive(Debug)]
pub(crate) struct Handler {
    child: Child,
    log: PathBuf,
}

impl Handler {
    pub(crate) fn start(binary: &Path, config: &Path, namespace: &Namespace, directory: &Path) -> Result<Self> {
        ensure!(
            binary.is_file(),
            "no handler binary at {}: build it (cargo build --release -p feedhandler) or say --handler",
            binary.display()
        );
        let log = directory.join("feedhandler.log");
        let output = File::create(&log).context("log file of the handler")?;
        let child = namespace
            .command(binary)
            .args(["run", "--config"])
            .arg(config)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("start the handler")?;
        Ok(Self { child, log })
    }

    /// Fails if the handler is gone.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the handler ended by itself, {status}; its last words:\n{}", self.last_words()),
        }
    }

    /// Asks the handler to end, and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.check()?;
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("the handler still runs {STOP_TIMEOUT:?} after SIGTERM; its last words:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        ensure!(status.success(), "the handler ended with {status}; its last words:\n{}", self.last_words());
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid(), signal).context("a signal to the handler")
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
