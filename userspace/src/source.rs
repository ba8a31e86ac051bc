//! Channels that come over TCP (SoupBinTCP): their messages enter the worker as datagrams of one more line.
//!
//! One thread with non-blocking kernel sockets, one connection per channel (`link`). What a connection says is re-framed as
//! MoldUDP64 packets ([`packer`]) and goes through a ring that the worker reads as one more port, so arbiter, decoder and
//! publishing know nothing of TCP. When the ring is full nothing is read: what then waits is TCP's, and nothing is lost. What
//! to ask of which server after a connection has ended is [`redial`]'s to say. Channels come and go while the thread runs
//! ([`Source::add`], [`Source::remove`]).
#![forbid(unsafe_code)]

mod connection;
mod link;
pub mod packer;
pub mod redial;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::event::{Timespec, poll};

use crate::beside::{Handed, Work};
use crate::clock::monotonic_ns;
use crate::config::plan::{Password, Plan};
use crate::metrics::SoupCounts;
use crate::net::handoff::Handoff;
use crate::soup::{Login, LoginError, Version};
use crate::worker::shared::WorkerShared;
pub use link::Link;

/// Frames of a worker's port for streams.
pub const FRAMES: u32 = 256;

/// Datagrams that wait for a worker at most.
pub const DATAGRAMS: usize = 1024;

/// Longest time until the thread looks whether it is to end, or a channel is to come or go, nanoseconds.
const LOOK_NS: u64 = 5_000_000;

/// How soon a ring that was full is looked at again, nanoseconds: the worker does not say when it has taken something.
const FULL_NS: u64 = 200_000;

/// What to know of a file that was readable when the handler started.
const READ_AT_START: &str = "; for a channel that comes while the handler runs it must be readable without privileges, which are given up at start";

/// Why a channel's connections cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file with the password cannot be read.
    #[error(
        "channel {channel}: cannot read the password from {}: {error}{}", path.display(),
        if error.kind() == io::ErrorKind::PermissionDenied { READ_AT_START } else { "" }
    )]
    PasswordFile {
        /// Name of the channel.
        channel: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What was read cannot be sent.
    #[error("channel {channel}: soupbintcp: {error}")]
    Login {
        /// Name of the channel.
        channel: String,
        /// What does not fit.
        error: LoginError,
    },
}

/// The thread's ends of what connects it with one worker.
#[derive(Debug)]
pub struct Ends {
    /// Index into `Plan::workers`.
    pub worker: usize,
    /// The worker's datagrams.
    pub datagrams: Handoff,
    /// Where the counters are published.
    pub shared: Arc<WorkerShared>,
}

/// Prepares a channel's connection; `None` if the channel does not come over TCP. Reads its password: at start before
/// privileges are given up.
///
/// # Errors
/// A password that cannot be had, or not be sent.
pub fn prepare(plan: &Plan, index: usize) -> Result<Option<Link>, SourceError> {
    let channel = &plan.channels[index];
    let Some(soup) = &channel.soup else { return Ok(None) };
    let password = match &soup.password {
        Password::Given(password) => password.clone(),
        Password::File(path) => std::fs::read_to_string(path)
            .map_err(|error| {
                let (channel, path) = (channel.name.clone(), path.clone());
                SourceError::PasswordFile { channel, path, error }
            })?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
    };
    let login = Login::new(&soup.username, &password).and_then(|login| match soup.version {
        Version::V4_10 => login.with_heartbeat(u32::try_from(soup.idle_ms).unwrap_or(u32::MAX)),
        Version::V3_00 | Version::V4_00 => Ok(login),
    });
    let login = login.map_err(|error| SourceError::Login { channel: channel.name.clone(), error })?;
    Ok(Some(Link::new(plan, index, login)))
}

/// The connections of all channels that come over TCP.
#[derive(Debug)]
pub struct Source {
    links: Vec<Link>,
    ends: Vec<Ends>,
}

impl Source {
    /// Of no channel yet; with the ends of every worker.
    #[must_use]
    pub fn new(ends: Vec<Ends>) -> Self {
        Self { links: Vec::new(), ends }
    }

    /// Takes a channel on, in the place of the one of the same number if there is any. Not before the worker has it: what comes
    /// is not sent again.
    pub fn add(&mut self, link: Link) {
        self.remove(link.channel);
        self.links.push(link);
    }

    /// Lets a channel go: logs out and closes its connection. Returns how many datagrams its worker was handed until now.
    pub fn remove(&mut self, channel: usize) -> Option<Handed> {
        let at = self.links.iter().position(|link| link.channel == channel)?;
        let mut link = self.links.remove(at);
        link.log_out();
        let ends = self.ends.iter().find(|ends| ends.worker == link.worker)?;
        ends.shared.soup[channel].store(&SoupCounts::default().values());
        Some(Handed { worker: link.worker, datagrams: ends.datagrams.handed() })
    }

    /// Whether a worker has taken so many datagrams.
    #[must_use]
    pub fn is_taken(&self, handed: Handed) -> bool {
        self.ends.iter().all(|ends| ends.worker != handed.worker || ends.datagrams.taken() >= handed.datagrams)
    }

    fn cycle(&mut self, now_ns: u64) {
        for link in &mut self.links {
            let Some(ends) = self.ends.iter_mut().find(|ends| ends.worker == link.worker) else { continue };
            link.cycle(&mut ends.datagrams, now_ns);
            ends.shared.soup[link.channel].store(&link.counts().values());
        }
    }

    /// Waits until a connection can be gone on with, or something is due.
    fn wait(&self, now_ns: u64) {
        let mut wait_ns = LOOK_NS;
        let mut polled = Vec::with_capacity(self.links.len());
        for link in &self.links {
            let has_room =
                self.ends.iter().any(|ends| ends.worker == link.worker && ends.datagrams.room() >= link::ROOM);
            if link.has_unread() {
                wait_ns = wait_ns.min(if has_room { 0 } else { FULL_NS });
            }
            wait_ns = wait_ns.min(link.due_ns().saturating_sub(now_ns));
            polled.extend(link.poll_fd(has_room));
        }
        let tv_nsec = i64::try_from(wait_ns).expect("at most some milliseconds");
        // Interrupted or not: what is there is seen in the next cycle.
        let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec }));
    }
}

impl Work for Source {
    const NAME: &'static str = "soupbintcp";

    fn round(&mut self) {
        self.cycle(monotonic_ns());
        self.wait(monotonic_ns());
    }

    fn end(&mut self) {
        self.links.iter_mut().for_each(Link::log_out);
    }
}
