//! What a worker shares: commands in, counters and histograms out.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, Release},
};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_utils::CachePadded;

use super::edit::Edit;
use crate::feed::{Beginning, ChannelIndex, Holes, Session};
use crate::latency::StageHistograms;
use crate::metrics::{
    ChannelCounts, DestinationCounts, DropCounts, DropReason, LineCounts, PortCounts, RecoveryCounts,
    RetransmissionCounts, SharedCounts, SkewCounts, SnapshotCounts, SoupCounts,
};
use crate::net::Port;
use crate::publish::Route;

/// Commands that wait for a worker at most; a full queue is an error to the caller, never a wait.
pub const COMMAND_QUEUE: usize = 64;

/// What a worker can be told. At most one command is taken per duty cycle.
#[derive(Debug)]
pub enum Command {
    /// Accept (or ignore) the datagrams of a line. `line` is an index into `Plan::lines`.
    SetLine {
        /// Index into `Plan::lines`.
        line: usize,
        /// Whether its datagrams are used.
        enabled: bool,
    },
    /// Swap the worker's latency histograms for these empty ones; the full ones come back as an [`Event`], as soon as
    /// the event queue has room. Not to be sent again before they are back.
    SwapLatency(Box<StageHistograms>),
    /// Go on with another port in the place of one; the one that was comes back as an [`Event`].
    ReplacePort {
        /// Index into `WorkerPlan::ports`.
        port: usize,
        /// What takes its place.
        with: Box<Port>,
    },
    /// Tell the recovery thread all that a channel misses, without waiting for the other line.
    Hurry {
        /// Index into `Plan::channels`.
        channel: usize,
    },
    /// Change what the worker does; it comes back as an [`Event`]. See [`Edit`].
    Edit(Box<Edit>),
    /// Have a destination take what a route says from now on; the one that was comes back as an [`Event`].
    SetRoute {
        /// Index into `Plan::destinations`.
        destination: usize,
        /// What it takes.
        route: Box<Route>,
    },
    /// Leave the loop after flushing what is open.
    Stop,
}

/// What a worker reports. The queue is bounded: when it is full the event is counted as dropped, never waited for.
#[derive(Debug)]
pub enum Event {
    /// A port that was replaced. Dropping it closes its socket.
    PortOut(Box<Port>),
    /// An edit that was applied, with all that it took out. It comes behind all that was reported of removed channels, and
    /// before anything of new ones.
    Edited(Box<Edit>),
    /// A route that was replaced, or that nobody was there for.
    RouteOut(Box<Route>),
    /// The histograms that were swapped out, holding everything since the last swap.
    Latency(Box<StageHistograms>),
    /// Messages `from..to` of a channel were given up.
    Lost {
        /// Index into `Plan::channels`.
        channel: usize,
        /// Session name.
        session: [u8; 10],
        /// First lost message.
        from: u64,
        /// One past the last lost message.
        to: u64,
    },
    /// A session of a channel began, or its numbers began again.
    Began {
        /// Index into `Plan::channels`.
        channel: usize,
        /// Session name.
        session: [u8; 10],
        /// First message that is to be delivered.
        first: u64,
        /// How.
        how: Beginning,
    },
    /// A channel entered another state (`ChannelCounts::state`).
    State {
        /// Index into `Plan::channels`.
        channel: usize,
        /// The new state.
        state: u64,
    },
}

/// What a channel wants to be asked for now: all of it, not what changed. Sent when it changes; empty when nothing is missing
/// any more. So a full queue costs time and nothing else, and what was filled meanwhile is cancelled by not being named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Index into `Plan::channels`.
    pub channel: ChannelIndex,
    /// Session of the missing messages.
    pub session: Session,
    /// The nearest holes.
    pub holes: Holes,
}

/// Counters of one worker as everybody else sees them. What the worker writes lies in cache lines of its own: no other worker
/// writes there, nor does control, and nobody reads there but for these very counters. Vectors are indexed like the plan; entries of lines, channels
/// and destinations that belong to another worker stay zero.
#[derive(Debug, Default)]
pub struct WorkerShared {
    /// By line index.
    pub lines: Vec<SharedCounts<{ LineCounts::COUNT }>>,
    /// How much later than the other line each one was, by line index.
    pub line_skews: Vec<SharedCounts<{ SkewCounts::COUNT }>>,
    /// Drops on the way in, by line index; the last entry is for datagrams of no known line.
    pub line_drops: Vec<SharedCounts<{ DropReason::COUNT }>>,
    /// By channel index.
    pub channels: Vec<SharedCounts<{ ChannelCounts::COUNT }>>,
    /// By channel index. Stored by the recovery thread, not by the worker.
    pub recovery: Vec<SharedCounts<{ RecoveryCounts::COUNT }>>,
    /// By channel index. Stored by the channel's snapshot thread.
    pub snapshots: Vec<SharedCounts<{ SnapshotCounts::COUNT }>>,
    /// By channel index. Stored by the thread of TCP channels.
    pub soup: Vec<SharedCounts<{ SoupCounts::COUNT }>>,
    /// The session in force, by channel index.
    pub sessions: Vec<SharedSession>,
    /// By destination index.
    pub destinations: Vec<SharedCounts<{ DestinationCounts::COUNT }>>,
    /// Blocks and packets that could not be built, by destination index.
    pub destination_drops: Vec<SharedCounts<{ DropReason::COUNT }>>,
    /// By destination index. Stored by the retransmission thread, not by the worker.
    pub retransmission: Vec<SharedCounts<{ RetransmissionCounts::COUNT }>>,
    /// Packets that transmit ports refused, or took and could not send, in the order of `WorkerPlan::ports`.
    pub tx_drops: Vec<SharedCounts<{ DropReason::COUNT }>>,
    /// Receiving halves, in the order of `WorkerPlan::ports`.
    pub rx: Vec<SharedCounts<{ PortCounts::COUNT }>>,
    /// Transmitting halves, in the order of `WorkerPlan::ports`.
    pub tx: Vec<SharedCounts<{ PortCounts::COUNT }>>,
    /// Duty cycles run.
    pub cycles: CachePadded<AtomicU64>,
    /// Longest duty cycle since start, nanoseconds.
    pub longest_cycle_ns: CachePadded<AtomicU64>,
    /// CLOCK_MONOTONIC of the newest housekeeping, nanoseconds: a worker that is alive keeps moving it.
    pub heartbeat_ns: CachePadded<AtomicU64>,
    /// Commands that the worker has carried out, in the order in which [`WorkerLink::send`] numbered them. Stored with
    /// release: who reads a number here sees what the command did.
    pub commands_applied: CachePadded<AtomicU64>,
    /// Commands among them that it could not carry out: a group that its own socket was refused.
    pub commands_refused: CachePadded<AtomicU64>,
    /// The newest such command's number, times 2^16, and what the kernel said (errno).
    refusal: CachePadded<AtomicU64>,
    /// Commands that were put into its queue. Written by control.
    commands_sent: CachePadded<AtomicU64>,
    /// Events that did not fit into the event queue.
    pub events_dropped: CachePadded<AtomicU64>,
    /// Free frames at the newest housekeeping.
    pub frames_free: CachePadded<AtomicU64>,
    /// False once the worker's thread has left its loop.
    pub running: CachePadded<AtomicBool>,
}

impl WorkerShared {
    /// Zeroed counters for a plan with so many lines, channels and destinations, and a worker with so many ports.
    #[must_use]
    pub fn new(lines: usize, channels: usize, destinations: usize, ports: usize) -> Arc<Self> {
        fn many<T: Default>(n: usize) -> Vec<T> {
            std::iter::repeat_with(T::default).take(n).collect()
        }
        Arc::new(Self {
            lines: many(lines),
            line_skews: many(lines),
            line_drops: many(lines + 1),
            channels: many(channels),
            recovery: many(channels),
            snapshots: many(channels),
            soup: many(channels),
            sessions: many(channels),
            destinations: many(destinations),
            destination_drops: many(destinations),
            retransmission: many(destinations),
            tx_drops: many(ports),
            rx: many(ports),
            tx: many(ports),
            ..Self::default()
        })
    }

    /// Counters of one channel.
    #[must_use]
    pub fn channel(&self, index: usize) -> ChannelCounts {
        ChannelCounts::from_values(self.channels[index].load())
    }

    /// Counters of one line.
    #[must_use]
    pub fn line(&self, index: usize) -> LineCounts {
        LineCounts::from_values(self.lines[index].load())
    }

    /// How much later one line was than the other, where it was.
    #[must_use]
    pub fn skew(&self, index: usize) -> SkewCounts {
        SkewCounts::from_values(self.line_skews[index].load())
    }

    /// Drops on the way in of one line (or of no known line, for `index` = number of lines).
    #[must_use]
    pub fn drops(&self, index: usize) -> DropCounts {
        DropCounts::from_values(self.line_drops[index].load())
    }

    /// Drops of datagrams of no known line.
    #[must_use]
    pub fn unknown_drops(&self) -> DropCounts {
        self.drops(self.line_drops.len() - 1)
    }

    /// Counters of a channel's recovery.
    #[must_use]
    pub fn recovery(&self, channel: usize) -> RecoveryCounts {
        RecoveryCounts::from_values(self.recovery[channel].load())
    }

    /// Counters of a channel's snapshots.
    #[must_use]
    pub fn snapshots(&self, channel: usize) -> SnapshotCounts {
        SnapshotCounts::from_values(self.snapshots[channel].load())
    }

    /// Counters of the connections of a channel that comes over TCP.
    #[must_use]
    pub fn soup(&self, channel: usize) -> SoupCounts {
        SoupCounts::from_values(self.soup[channel].load())
    }

    /// Counters of a destination's retransmission server.
    #[must_use]
    pub fn retransmission(&self, destination: usize) -> RetransmissionCounts {
        RetransmissionCounts::from_values(self.retransmission[destination].load())
    }

    /// Says that the command about to be counted as applied was refused; only the owning worker may call this.
    pub fn count_refused(&self, error: &io::Error) {
        let errno = error.raw_os_error().and_then(|errno| u16::try_from(errno).ok()).unwrap_or_default();
        let number = self.commands_applied.load(Relaxed) + 1;
        self.refusal.store(number << 16 | u64::from(errno), Relaxed);
        self.commands_refused.store(self.commands_refused.load(Relaxed) + 1, Relaxed);
    }

    /// Why the applied command of this number was not carried out, if it was not; known until the next is refused.
    #[must_use]
    pub fn refusal(&self, number: u64) -> Option<io::Error> {
        let refusal = self.refusal.load(Relaxed);
        let errno = i32::from(refusal as u16);
        (number > 0 && refusal >> 16 == number).then(|| io::Error::from_raw_os_error(errno))
    }

    /// Says that one more command has been carried out; only the owning worker may call this.
    pub fn count_applied(&self) {
        self.commands_applied.store(self.commands_applied.load(Relaxed) + 1, Release);
    }

    /// Age of the newest housekeeping, nanoseconds.
    #[must_use]
    pub fn silence_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.heartbeat_ns.load(Relaxed))
    }
}

/// A session's name as everybody else sees it. All zero until the first session.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct SharedSession([AtomicU64; 2]);

impl SharedSession {
    /// Stores the name; only the owning worker may call this. A reader at that moment may see half of it.
    pub fn store(&self, session: &Session) {
        let [a, b, c, d, e, f, g, h, i, j] = *session;
        self.0[0].store(u64::from_le_bytes([a, b, c, d, e, f, g, h]), Relaxed);
        self.0[1].store(u64::from(u16::from_le_bytes([i, j])), Relaxed);
    }

    /// Loads the name.
    #[must_use]
    pub fn load(&self) -> Session {
        let [a, b, c, d, e, f, g, h] = self.0[0].load(Relaxed).to_le_bytes();
        let [i, j, ..] = self.0[1].load(Relaxed).to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j]
    }
}

/// The control side's end of one worker.
#[derive(Debug)]
pub struct WorkerLink {
    /// Index into `Plan::workers`.
    pub index: usize,
    /// Commands to the worker.
    pub commands: Mutex<rtrb::Producer<Command>>,
    /// Events from the worker.
    pub events: Mutex<rtrb::Consumer<Event>>,
    /// Its counters.
    pub shared: Arc<WorkerShared>,
    /// Longest payload that each of its ports can receive, bytes, in the order of `WorkerPlan::ports`: what the hold buffer of
    /// a channel must have room for. A port that is opened again has the same.
    pub payload_bytes: Vec<usize>,
}

impl WorkerLink {
    /// Sends a command; hands it back when the worker has [`COMMAND_QUEUE`] commands waiting already.
    ///
    /// Returns its number: the command has been carried out once [`WorkerShared::commands_applied`] has reached it.
    ///
    /// # Errors
    /// The command itself, when the queue is full.
    pub fn send(&self, command: Command) -> Result<u64, Command> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.push(command).map_err(|rtrb::PushError::Full(command)| command)?;
        // Still under the lock, so that numbers have the order of the queue.
        Ok(self.shared.commands_sent.fetch_add(1, Relaxed) + 1)
    }

    /// Commands that fit into the queue now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).slots()
    }
}

#[cfg(test)]
impl WorkerShared {
    /// The one counter that control writes, for a test of the layout.
    pub(super) fn commands_sent(&self) -> &CachePadded<AtomicU64> {
        &self.commands_sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_that_of_its_command_only() {
        let shared = WorkerShared::new(0, 0, 0, 0);
        shared.count_applied();
        assert!(shared.refusal(0).is_none() && shared.refusal(1).is_none());
        shared.count_refused(&io::Error::from_raw_os_error(libc::ENODEV));
        shared.count_applied();
        assert_eq!(shared.refusal(2).unwrap().raw_os_error(), Some(libc::ENODEV));
        assert!(shared.refusal(1).is_none() && shared.refusal(3).is_none());
        assert_eq!(shared.commands_refused.load(Relaxed), 1);
    }

    #[test]
    fn a_session_round_trips() {
        let shared = SharedSession::default();
        assert_eq!(shared.load(), [0; 10]);
        shared.store(b"000000042A");
        assert_eq!(&shared.load(), b"000000042A");
    }
}
