//! All threads beside the workers, as control changes them while they run.
//!
//! A channel or destination comes in two steps. What can fail is prepared: sockets are bound, passwords read, threads started;
//! it changes nothing, and is undone by dropping it. Once the worker has the channel, it is started, which then cannot fail but
//! for a thread that is no more. It goes the other way round: once the worker has it no more, it is stopped, and when that is
//! done its sockets are closed and nothing of it will come to the worker any more: its number may be given to another.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Handed, Thread, ThreadError, Work};
use crate::clock::monotonic_ns;
use crate::config::plan::Plan;
use crate::publish::Retainer;
use crate::recovery::{self, Recovery, RecoveryError};
use crate::retransmission::{self, Retransmission, RetransmissionError};
use crate::snapshot::{self, SnapshotError, Snapshots};
use crate::source::{self, Source, SourceError};
use crate::worker::shared::WorkerShared;

/// How long a worker may take to read what was handed to it: a living one needs microseconds.
const WORKER_PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_micros(200);

/// Why something cannot run beside a worker, or cannot be stopped.
#[derive(Debug, thiserror::Error)]
pub enum ThreadsError {
    /// Retransmission servers cannot be asked.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// A snapshot cannot be fetched.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A channel cannot come over TCP.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Consumers cannot ask for what they lost.
    #[error(transparent)]
    Retransmission(#[from] RetransmissionError),
    /// A thread cannot be had, or is no more.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// Datagrams of what was stopped still lie before the worker.
    #[error("worker {0} does not take what was handed to it; is it alive? `feedctl status` tells")]
    NotTaken(usize),
}

/// The threads' ends of what connects them with one worker.
#[derive(Debug)]
pub struct Ends {
    /// Of recovery.
    pub recovery: recovery::Ends,
    /// Of snapshots.
    pub snapshot: snapshot::Ends,
    /// Of channels over TCP.
    pub source: source::Ends,
    /// Where counters are published.
    pub shared: Arc<WorkerShared>,
}

/// What a channel needs beside its worker; changes nothing before it is started.
#[derive(Debug)]
pub struct PreparedChannel {
    recovery: Option<recovery::Channel>,
    snapshot: Option<(snapshot::Job, Option<snapshot::Waiting>)>,
    link: Option<source::Link>,
}

impl PreparedChannel {
    /// Of a channel of the plan.
    ///
    /// # Errors
    /// The first part that cannot be had.
    pub fn new(plan: &Plan, channel: usize) -> Result<Self, ThreadsError> {
        Ok(Self {
            recovery: recovery::prepare(plan, channel)?,
            snapshot: snapshot::prepare(plan, channel)?.map(|job| (job, None)),
            link: source::prepare(plan, channel)?,
        })
    }

    /// Whether the channel comes over TCP.
    #[must_use]
    pub fn is_over_tcp(&self) -> bool {
        self.link.is_some()
    }
}

/// What a destination needs beside its worker; changes nothing before it is started.
#[derive(Debug)]
pub struct PreparedDestination {
    server: Option<retransmission::Server>,
    retainer: Option<Retainer>,
}

impl PreparedDestination {
    /// Of a destination of the plan.
    ///
    /// # Errors
    /// An address that cannot be bound.
    pub fn new(plan: &Plan, destination: usize) -> Result<Self, ThreadsError> {
        Self::on(plan, destination, None)
    }

    fn on(plan: &Plan, destination: usize, socket: Option<std::net::UdpSocket>) -> Result<Self, ThreadsError> {
        let (server, retainer) = retransmission::prepare(plan, destination, socket)?.unzip();
        Ok(Self { server, retainer })
    }

    /// What the destination's stream is to have, so that what it sends is retained. `None` = nobody is to have it again, or it
    /// was taken before.
    pub fn take_retainer(&mut self) -> Option<Retainer> {
        self.retainer.take()
    }
}

/// All threads beside the workers.
#[derive(Debug)]
pub struct Threads {
    recovery: Mutex<Thread<Recovery>>,
    /// `None` = no more.
    snapshots: Mutex<Option<Snapshots>>,
    source: Mutex<Thread<Source>>,
    retransmission: Mutex<Thread<Retransmission>>,
    /// From then on threads are started when something is prepared that needs them.
    has_begun: AtomicBool,
}

impl Threads {
    /// With the ends of every worker, in the order of the plan. No thread runs yet.
    #[must_use]
    pub fn new(ends: Vec<Ends>) -> Arc<Self> {
        let (mut recovery, mut snapshots, mut source, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for of_worker in ends {
            recovery.push(of_worker.recovery);
            snapshots.push(of_worker.snapshot);
            source.push(of_worker.source);
            all.push(of_worker.shared);
        }
        Arc::new(Self {
            recovery: Thread::new(Recovery::new(recovery)).into(),
            snapshots: Some(Snapshots::new(snapshots)).into(),
            source: Thread::new(Source::new(source)).into(),
            retransmission: Thread::new(Retransmission::new(all)).into(),
            has_begun: AtomicBool::new(false),
        })
    }

    /// Says that privileges are given up: threads inherit, so none of these may be started before.
    pub fn begin(&self) {
        self.has_begun.store(true, Relaxed);
    }

    /// Whether the threads are there that channels, or else destinations, are started and stopped by.
    ///
    /// # Errors
    /// A thread that is no more, or does not answer.
    pub fn probe(&self, channels: bool, destinations: bool) -> Result<(), ThreadsError> {
        if channels {
            locked(&self.recovery).with(|_| ())?;
            locked(&self.source).with(|_| ())?;
        }
        if destinations {
            locked(&self.retransmission).with(|_| ())?;
        }
        Ok(())
    }

    /// Prepares a channel that comes while the handler runs; starts the threads that it needs.
    ///
    /// # Errors
    /// The first part that cannot be had. Nothing was changed.
    pub fn prepare(&self, plan: &Plan, channel: usize) -> Result<PreparedChannel, ThreadsError> {
        let mut prepared = PreparedChannel::new(plan, channel)?;
        self.prepare_threads(&mut prepared)?;
        Ok(prepared)
    }

    /// Starts the threads that a channel needs, if threads may be started by now.
    fn prepare_threads(&self, prepared: &mut PreparedChannel) -> Result<(), ThreadError> {
        if !self.has_begun.load(Relaxed) {
            return Ok(());
        }
        if prepared.recovery.is_some() {
            locked(&self.recovery).run()?;
        }
        if prepared.link.is_some() {
            locked(&self.source).run()?;
        }
        if let Some((_, waiting @ None)) = &mut prepared.snapshot {
            *waiting = Some(snapshot::Waiting::new()?);
        }
        Ok(())
    }

    /// Starts a channel, which its worker has by now, with counters that are its own.
    ///
    /// # Errors
    /// A thread that is no more, or does not answer.
    pub fn start(&self, mut prepared: PreparedChannel) -> Result<(), ThreadsError> {
        // Only at start is there something left to do here.
        self.prepare_threads(&mut prepared)?;
        let PreparedChannel { recovery, snapshot, link } = prepared;
        if let Some(channel) = recovery {
            locked(&self.recovery).with(move |recovery| recovery.add(channel, monotonic_ns()))?;
        }
        if let (Some((job, Some(waiting))), Some(snapshots)) = (snapshot, &mut *locked(&self.snapshots)) {
            snapshots.add(job, waiting);
        }
        if let Some(link) = link {
            locked(&self.source).with(move |source| source.add(link))?;
        }
        Ok(())
    }

    /// Stops a channel, which its worker has no more: logs out, closes its sockets, and waits until the worker has taken what
    /// was handed to it before. To be called for every channel that is removed, also one that needed nothing here.
    ///
    /// # Errors
    /// A thread or a worker that does not answer; the channel's number must not be given to another then. All that could be
    /// stopped is.
    pub fn stop(&self, channel: usize) -> Result<(), ThreadsError> {
        let recovery =
            stop_in(&self.recovery, move |recovery| recovery.remove(channel, monotonic_ns()), Recovery::is_taken);
        let source = stop_in(&self.source, move |source| source.remove(channel), Source::is_taken);
        let handed = locked(&self.snapshots).as_mut().and_then(|snapshots| snapshots.remove(channel));
        let snapshots = handed.map_or(Ok(()), |handed| {
            wait_until_taken(handed, || {
                Ok(locked(&self.snapshots).as_ref().is_none_or(|snapshots| snapshots.is_taken(handed)))
            })
        });
        recovery.and(source).and(snapshots)
    }

    /// Has everything that a channel misses asked for at once. Returns how many messages that are; `None` if it has nobody to ask.
    /// The worker must have told it before ([`Command::Hurry`](crate::worker::shared::Command::Hurry)).
    ///
    /// # Errors
    /// A thread that is no more, or does not answer.
    pub fn recover(&self, channel: usize) -> Result<Option<u64>, ThreadError> {
        locked(&self.recovery).with(move |recovery| recovery.hurry(channel, monotonic_ns()))
    }

    /// Prepares a destination that comes while the handler runs. If its server has the address of one that runs, which then must
    /// be stopped before it is started, it goes on with that one's socket: requests that come meanwhile wait there.
    ///
    /// # Errors
    /// An address that cannot be bound, or a thread that cannot be had. Nothing was changed.
    pub fn prepare_destination(&self, plan: &Plan, destination: usize) -> Result<PreparedDestination, ThreadsError> {
        let Some(server) = &plan.destinations[destination].retransmission else {
            return PreparedDestination::new(plan, destination);
        };
        let address = server.address;
        let mut thread = locked(&self.retransmission);
        let socket = thread.with(move |retransmission| retransmission.socket(address))?;
        let prepared = PreparedDestination::on(plan, destination, socket)?;
        if self.has_begun.load(Relaxed) {
            thread.run()?;
        }
        Ok(prepared)
    }

    /// Starts a destination.
    ///
    /// # Errors
    /// A thread that is no more, or does not answer.
    pub fn start_destination(&self, prepared: PreparedDestination) -> Result<(), ThreadsError> {
        let Some(server) = prepared.server else { return Ok(()) };
        let mut thread = locked(&self.retransmission);
        if self.has_begun.load(Relaxed) {
            thread.run()?;
        }
        Ok(thread.with(move |retransmission| retransmission.add(server))?)
    }

    /// Stops a destination: closes its server's socket, and forgets what was retained.
    ///
    /// # Errors
    /// A thread that is no more, or does not answer.
    pub fn stop_destination(&self, destination: usize) -> Result<(), ThreadsError> {
        Ok(locked(&self.retransmission).with(move |retransmission| retransmission.remove(destination))?)
    }

    /// Ends the threads that feed workers, for good: before the workers end.
    pub fn end_feeding(&self) {
        locked(&self.recovery).end();
        *locked(&self.snapshots) = None;
        locked(&self.source).end();
    }

    /// Ends the thread that answers consumers, for good: as long as workers send, consumers may ask.
    pub fn end_serving(&self) {
        locked(&self.retransmission).end();
    }
}

fn stop_in<W: Work>(
    thread: &Mutex<Thread<W>>,
    remove: impl FnOnce(&mut W) -> Option<Handed> + Send + 'static,
    is_taken: fn(&W, Handed) -> bool,
) -> Result<(), ThreadsError> {
    let Some(handed) = locked(thread).with(remove)? else { return Ok(()) };
    wait_until_taken(handed, || Ok(locked(thread).with(move |work| is_taken(work, handed))?))
}

fn wait_until_taken(handed: Handed, is_taken: impl Fn() -> Result<bool, ThreadsError>) -> Result<(), ThreadsError> {
    let deadline = Instant::now() + WORKER_PATIENCE;
    while !is_taken()? {
        if Instant::now() >= deadline {
            return Err(ThreadsError::NotTaken(handed.worker));
        }
        sleep(LOOK);
    }
    Ok(())
}

/// What is behind these locks is whole after every statement.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
