//! Channels that come over TCP (SoupBinTCP): their messages enter the worker as datagrams of one more line.
//!
//! One thread with non-blocking kernel sockets, one connection per channel (`link`). What a connection says is re-framed as
//! MoldUDP64 packets ([`packer`]) and goes through a ring that the worker reads as one more port, so arbiter, decoder and
//! publishing know nothing of TCP. When the ring is full nothing is read: what then waits is TCP's, and nothing is lost. What
//! to ask of which server after a connection has ended is [`redial`]'s to say.
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
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::{Timespec, poll};

use crate::beside::Beside;
use crate::clock::monotonic_ns;
use crate::config::plan::{Password, Plan};
use crate::net::handoff::Handoff;
use crate::soup::{Login, LoginError, Version};
use crate::worker::shared::WorkerShared;
use link::Link;

/// Frames of a worker's port for streams.
pub const FRAMES: u32 = 256;

/// Datagrams that wait for a worker at most.
pub const DATAGRAMS: usize = 1024;

/// Longest time until the thread looks whether it is to end, nanoseconds.
const LOOK_NS: u64 = 100_000_000;

/// How soon a ring that was full is looked at again, nanoseconds: the worker does not say when it has taken something.
const FULL_NS: u64 = 200_000;

/// Why a channel's connections cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file with the password cannot be read.
    #[error("channel {channel}: cannot read the password from {}: {error}", path.display())]
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

/// The connections of all channels that come over TCP, before they are made.
#[derive(Debug)]
pub struct Source {
    links: Vec<Link>,
    ends: Vec<Ends>,
}

impl Source {
    /// Prepares a plan's channels; reads passwords, so it is to be called before privileges are given up.
    ///
    /// # Errors
    /// A password that cannot be had, or not be sent.
    pub fn new(plan: &Plan, ends: Vec<Ends>) -> Result<Self, SourceError> {
        let mut links = Vec::new();
        for (index, channel) in plan.channels.iter() {
            let Some(soup) = &channel.soup else { continue };
            let Some(ends) = ends.iter().position(|ends| ends.worker == channel.worker) else { continue };
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
            links.push(Link::new(plan, index, ends, login));
        }
        Ok(Self { links, ends })
    }

    /// Starts the thread; `None` if no channel comes over TCP.
    ///
    /// # Errors
    /// The system's, if it has no thread for us.
    pub fn start(mut self) -> io::Result<Option<Beside>> {
        if self.links.is_empty() {
            return Ok(None);
        }
        let mut thread = Beside::new("soupbintcp");
        thread.start(move |is_over| {
            while !is_over.load(Relaxed) {
                self.cycle(monotonic_ns());
                self.wait(monotonic_ns());
            }
            self.links.iter_mut().for_each(Link::log_out);
        })?;
        Ok(Some(thread))
    }

    fn cycle(&mut self, now_ns: u64) {
        for link in &mut self.links {
            let ends = &mut self.ends[link.ends];
            link.cycle(&mut ends.datagrams, now_ns);
            ends.shared.soup[link.channel].store(&link.counts().values());
        }
    }

    /// Waits until a connection can be gone on with, or something is due.
    fn wait(&self, now_ns: u64) {
        let mut wait_ns = LOOK_NS;
        let mut polled = Vec::with_capacity(self.links.len());
        for link in &self.links {
            let has_room = self.ends[link.ends].datagrams.room() >= link::ROOM;
            if link.has_unread() {
                wait_ns = wait_ns.min(if has_room { 0 } else { FULL_NS });
            }
            wait_ns = wait_ns.min(link.due_ns().saturating_sub(now_ns));
            polled.extend(link.poll_fd(has_room));
        }
        let tv_nsec = i64::try_from(wait_ns).expect("at most a tenth of a second");
        // Interrupted or not: what is there is seen in the next cycle.
        let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec }));
    }
}
