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

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};

pub use fetch::{Failure, Request, fetch};
pub use spin::{Snapshot, Spin, SpinError};

use crate::beside::{Beside, Handed, ThreadError};
use crate::clock::monotonic_ns;
use crate::config::plan::{Plan, SnapshotPlan};
use crate::feed::transport::moldudp64::{END_OF_SESSION, HEARTBEAT};
use crate::feed::{JoinState, Session};
use crate::metrics::SnapshotCounts;
use crate::net::LineIndex;
use crate::net::handoff::Handoff;
use crate::soup::{Login, LoginError, Reject};
use crate::worker::shared::WorkerShared;

/// Name of the threads.
const NAME: &str = "snapshot";

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
pub struct Job {
    /// Index into `Plan::channels`.
    channel: usize,
    name: String,
    plan: SnapshotPlan,
    login: Login,
    line: LineIndex,
    /// Index into `Plan::workers`.
    worker: usize,
}

/// Why the snapshot of a channel cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("channel {channel}: snapshot: {error}")]
pub struct SnapshotError {
    channel: String,
    error: LoginError,
}

/// Prepares the snapshot of a channel; `None` if it does not begin with one.
///
/// # Errors
/// A user name or password that cannot be sent.
pub fn prepare(plan: &Plan, index: usize) -> Result<Option<Job>, SnapshotError> {
    let channel = &plan.channels[index];
    let Some(wanted) = &channel.snapshot else { return Ok(None) };
    let login = Login::new(&wanted.username, &wanted.password.0)
        .map_err(|error| SnapshotError { channel: channel.name.clone(), error })?;
    Ok(Some(Job {
        channel: index,
        name: channel.name.clone(),
        plan: wanted.clone(),
        login,
        line: plan.snapshot_line(index),
        worker: channel.worker,
    }))
}

/// A thread that waits for its job.
#[derive(Debug)]
pub struct Waiting {
    /// Dropped first: that is what ends a thread that was given nothing.
    give: Sender<Run>,
    thread: Beside,
}

impl Waiting {
    /// Starts it.
    ///
    /// # Errors
    /// The system's, if it has no thread for us.
    pub fn new() -> Result<Self, ThreadError> {
        let (give, given) = channel::<Run>();
        let mut thread = Beside::new(NAME);
        let body = move |_: &AtomicBool| {
            // Nothing comes if the channel was not added after all.
            if let Ok(run) = given.recv() {
                run.run();
            }
        };
        thread.start(body).map_err(|error| ThreadError::Start { name: NAME, error })?;
        Ok(Self { thread, give })
    }
}

/// The threads of all channels that begin with a snapshot.
#[derive(Debug)]
pub struct Snapshots {
    ends: Vec<Ends>,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    channel: usize,
    worker: usize,
    /// Ends when it is dropped.
    _thread: Beside,
}

impl Snapshots {
    /// Of no channel yet; with the ends of every worker.
    #[must_use]
    pub fn new(ends: Vec<Ends>) -> Self {
        Self { ends, running: Vec::new() }
    }

    /// Takes a channel on. Not before the worker has it and its counters are those of the new channel.
    pub fn add(&mut self, job: Job, waiting: Waiting) {
        self.remove(job.channel);
        let Some(ends) = self.ends.iter().find(|ends| ends.worker == job.worker) else { return };
        let Waiting { thread, give } = waiting;
        let (channel, worker, is_over) = (job.channel, job.worker, thread.is_over());
        let run = Run { job, ends: ends.clone(), is_over, counts: SnapshotCounts::default() };
        run.publish();
        // It waits for just this.
        let _ = give.send(run);
        self.running.push(Running { channel, worker, _thread: thread });
    }

    /// Lets a channel go: ends its thread and waits for it, a second at most while it is connecting. Returns how many datagrams
    /// its worker was handed until now.
    pub fn remove(&mut self, channel: usize) -> Option<Handed> {
        let at = self.running.iter().position(|running| running.channel == channel)?;
        let worker = self.running.swap_remove(at).worker;
        let ends = self.ends.iter().find(|ends| ends.worker == worker)?;
        ends.shared.snapshots[channel].store(&SnapshotCounts::default().values());
        let datagrams = ends.packets.lock().unwrap_or_else(PoisonError::into_inner).handed();
        Some(Handed { worker, datagrams })
    }

    /// Whether no channel is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether a worker has taken so many datagrams.
    #[must_use]
    pub fn is_taken(&self, handed: Handed) -> bool {
        let taken = |ends: &Ends| ends.packets.lock().unwrap_or_else(PoisonError::into_inner).taken();
        self.ends.iter().all(|ends| ends.worker != handed.worker || taken(ends) >= handed.datagrams)
    }
}

/// A job under way.
#[derive(Debug)]
struct Run {
    job: Job,
    ends: Ends,
    is_over: Arc<AtomicBool>,
    counts: SnapshotCounts,
}

impl Run {
    fn run(mut self) {
        if !self.wait_for_late_start() {
            return;
        }
        info!(channel = %self.job.name, "joined late: a snapshot is fetched");
        self.fetch_until_joined();
        self.publish();
        match self.state() {
            JoinState::GivenUp => error!(
                channel = %self.job.name,
                "no snapshot: the channel begins without, and its books are unknown (MAYBE_BAD_BOOK)"
            ),
            JoinState::Joined => info!(channel = %self.job.name, "joined"),
            JoinState::None | JoinState::Awaited | JoinState::Arriving => {}
        }
    }

    /// Waits for the channel's first packet; whether it was a late one.
    fn wait_for_late_start(&self) -> bool {
        while !self.is_over.load(Relaxed) {
            let has_begun = self.ends.shared.channel(self.job.channel).sessions > 0;
            std::thread::sleep(LOOK);
            // Looked at later: the counters of one publication are stored one after the other.
            if has_begun {
                return self.state() != JoinState::None;
            }
        }
        false
    }

    fn state(&self) -> JoinState {
        JoinState::from_value(self.ends.shared.channel(self.job.channel).snapshot_state)
    }

    fn is_wanted(&self) -> bool {
        !self.is_over.load(Relaxed) && self.state() == JoinState::Awaited
    }

    fn fetch_until_joined(&mut self) {
        let mut refused = vec![false; self.job.plan.servers.len()];
        let mut pause = PAUSE;
        while self.is_wanted() {
            for (server, refused) in self.job.plan.servers.clone().into_iter().zip(&mut refused) {
                if *refused || !self.is_wanted() {
                    continue;
                }
                let Err(failure) = self.attempt(server) else { return };
                failure.count(&mut self.counts);
                self.publish();
                *refused = matches!(failure, Failure::Login(Reject::NotAuthorised));
                if !matches!(failure, Failure::Unwanted) {
                    warn!(channel = %self.job.name, %server, reason = %failure, "no snapshot");
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
            login: self.job.login.clone(),
            session: self.job.plan.same_session.then_some(session),
            timeout_ms: self.job.plan.timeout_ms,
            limit_ms: self.job.plan.give_up_ms / self.job.plan.servers.len().max(1) as u64,
            max_messages: self.job.plan.max_messages,
        };
        let mut messages = 0;
        let fetched = fetch(server, &request, || self.is_wanted(), &mut messages);
        self.counts.messages += messages;
        let snapshot = fetched?;
        self.counts.snapshots += 1;
        self.publish();
        let (next, messages) = (snapshot.next, snapshot.messages);
        info!(channel = %self.job.name, %server, messages, next, "snapshot received");
        self.wait_for_lines(next)?;
        self.hand_over(&session, &snapshot)
    }

    /// The session of the lines. Its two words are stored by the worker apart, so they are read until they hold still.
    fn session(&self) -> Option<Session> {
        let load = || self.ends.shared.sessions[self.job.channel].load();
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
        let known = || self.ends.shared.channel(self.job.channel).known_sequence;
        self.wait(Duration::from_millis(self.job.plan.timeout_ms), |job| known() >= next || !job.is_wanted());
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
        self.ends.shared.snapshots[self.job.channel].store(&self.counts.values());
    }
}
