//! Snapshots for a late start: fetched from a GLIMPSE server, checked as a whole, and handed to the worker as one more line.
//!
//! A thread per channel that begins with a snapshot, for as long as that takes. It looks at what the worker publishes
//! ([`JoinState`]): once the channel's first packet turned out not to be the first message, the servers are tried in their
//! order, around and around with growing pauses, until the channel has begun. Only a snapshot that is complete, and of a time
//! that the lines have reached, goes to the worker, as packets of the session (see `feed/channel/snapshot.rs`), through a
//! ring that the worker reads as one more port. The worker waits no longer than `give_up_ms`, whatever happens here.
#![forbid(unsafe_code)]

mod fetch;
mod hand;
mod spin;

use std::io;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::{error, info, warn};

pub use fetch::{Failure, Request, fetch};
pub use spin::{Snapshot, Spin, SpinError};

use crate::beside::Beside;
use crate::clock::monotonic_ns;
use crate::config::plan::{Plan, SnapshotPlan};
use crate::feed::transport::moldudp64::{END_OF_SESSION, HEARTBEAT};
use crate::feed::{JoinState, Session};
use crate::metrics::SnapshotCounts;
use crate::net::LineIndex;
use crate::net::handoff::Handoff;
use crate::soup::{Login, Reject};
use crate::worker::shared::WorkerShared;

/// Frames of a worker's port for snapshots.
pub const FRAMES: u32 = 256;

/// Packets of snapshots that wait for a worker at most.
pub const PACKETS: usize = 256;

/// How often the thread looks at the worker while it waits for something.
const LOOK: Duration = Duration::from_millis(1);

/// How long the worker may take to say that a snapshot suits it, and that all of it was delivered.
const WORKER_LIMIT: Duration = Duration::from_secs(5);

/// Pause after all servers failed: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The threads' end of what connects them with one worker.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Index into `Plan::workers`.
    pub worker: usize,
    /// Packets to the worker.
    pub packets: Arc<Mutex<Handoff>>,
    /// Where the worker publishes, and the counters are published.
    pub shared: Arc<WorkerShared>,
}

/// The snapshot of one channel.
#[derive(Debug)]
struct Job {
    /// Index into `Plan::channels`.
    channel: usize,
    name: String,
    plan: SnapshotPlan,
    login: Login,
    line: LineIndex,
    ends: Ends,
    is_over: Arc<AtomicBool>,
    counts: SnapshotCounts,
}

/// Starts a thread for each channel that begins with a snapshot.
///
/// # Errors
/// The system's, if it has no thread for us.
pub fn start(plan: &Plan, ends: &[Ends]) -> io::Result<Beside> {
    let mut running = Beside::new("snapshot");
    for (index, channel) in plan.channels.iter() {
        let Some(wanted) = &channel.snapshot else { continue };
        let Some(ends) = ends.iter().find(|ends| ends.worker == channel.worker) else { continue };
        let login = Login::new(&wanted.username, &wanted.password.0).map_err(io::Error::other)?;
        let job = Job {
            channel: index,
            name: channel.name.clone(),
            plan: wanted.clone(),
            login,
            line: plan.snapshot_line(index),
            ends: ends.clone(),
            is_over: running.is_over(),
            counts: SnapshotCounts::default(),
        };
        running.start(move |_| job.run())?;
    }
    Ok(running)
}

impl Job {
    fn run(mut self) {
        if !self.wait_for_late_start() {
            return;
        }
        info!(channel = %self.name, "joined late: a snapshot is fetched");
        self.fetch_until_joined();
        self.publish();
        match self.state() {
            JoinState::GivenUp => error!(
                channel = %self.name,
                "no snapshot: the channel begins without, and its books are unknown (MAYBE_BAD_BOOK)"
            ),
            JoinState::Joined => info!(channel = %self.name, "joined"),
            JoinState::None | JoinState::Awaited | JoinState::Arriving => {}
        }
    }

    /// Waits for the channel's first packet; whether it was a late one.
    fn wait_for_late_start(&self) -> bool {
        while !self.is_over.load(Relaxed) {
            let has_begun = self.ends.shared.channel(self.channel).sessions > 0;
            std::thread::sleep(LOOK);
            // Looked at later: the counters of one publication are stored one after the other.
            if has_begun {
                return self.state() != JoinState::None;
            }
        }
        false
    }

    fn state(&self) -> JoinState {
        JoinState::from_value(self.ends.shared.channel(self.channel).snapshot_state)
    }

    fn is_wanted(&self) -> bool {
        !self.is_over.load(Relaxed) && self.state() == JoinState::Awaited
    }

    fn fetch_until_joined(&mut self) {
        let mut refused = vec![false; self.plan.servers.len()];
        let mut pause = PAUSE;
        while self.is_wanted() {
            for (server, refused) in self.plan.servers.clone().into_iter().zip(&mut refused) {
                if *refused || !self.is_wanted() {
                    continue;
                }
                let Err(failure) = self.attempt(server) else { return };
                failure.count(&mut self.counts);
                self.publish();
                *refused = matches!(failure, Failure::Login(Reject::NotAuthorised));
                if !matches!(failure, Failure::Unwanted) {
                    warn!(channel = %self.name, %server, reason = %failure, "no snapshot");
                }
            }
            if refused.iter().all(|refused| *refused) {
                // Asking again would not change it.
                self.say(0, END_OF_SESSION);
                self.wait(WORKER_LIMIT, |job| !job.is_wanted());
                return;
            }
            self.wait(pause, |job| !job.is_wanted());
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One server, from the connection to the channel's having begun.
    fn attempt(&mut self, server: SocketAddrV4) -> Result<(), Failure> {
        let session = self.session().ok_or(Failure::Unwanted)?;
        self.counts.attempts += 1;
        self.publish();
        self.say(0, HEARTBEAT);
        let request = Request {
            login: self.login.clone(),
            session: self.plan.same_session.then_some(session),
            timeout_ms: self.plan.timeout_ms,
            limit_ms: self.plan.give_up_ms / self.plan.servers.len().max(1) as u64,
            max_messages: self.plan.max_messages,
        };
        let mut messages = 0;
        let fetched = fetch(server, &request, || self.is_wanted(), &mut messages);
        self.counts.messages += messages;
        let snapshot = fetched?;
        self.counts.snapshots += 1;
        self.publish();
        let (next, messages) = (snapshot.next, snapshot.messages);
        info!(channel = %self.name, %server, messages, next, "snapshot received");
        self.wait_for_lines(next)?;
        self.hand_over(&session, &snapshot)
    }

    /// The session of the lines. Its two words are stored by the worker apart, so they are read until they hold still.
    fn session(&self) -> Option<Session> {
        let load = || self.ends.shared.sessions[self.channel].load();
        let mut session = load();
        while self.is_wanted() {
            std::thread::sleep(LOOK);
            let again = load();
            if again == session && session != [0; 10] {
                return Some(session);
            }
            session = again;
        }
        None
    }

    /// A snapshot may be some messages ahead of the lines, if TCP was faster. Beyond that its number is not believed.
    fn wait_for_lines(&self, next: u64) -> Result<(), Failure> {
        let known = || self.ends.shared.channel(self.channel).known_sequence;
        self.wait(Duration::from_millis(self.plan.timeout_ms), |job| known() >= next || !job.is_wanted());
        if !self.is_wanted() {
            Err(Failure::Unwanted)
        } else if known() < next {
            Err(Failure::Ahead { next, known: known() })
        } else {
            Ok(())
        }
    }

    /// Waits until something is so, or the time is up, or the handler stops.
    fn wait(&self, most: Duration, is_so: impl Fn(&Self) -> bool) {
        let end_ns = monotonic_ns() + u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        while !self.is_over.load(Relaxed) && !is_so(self) && monotonic_ns() < end_ns {
            std::thread::sleep(LOOK.min(most));
        }
    }

    fn publish(&self) {
        self.ends.shared.snapshots[self.channel].store(&self.counts.values());
    }
}
