//! The duty cycle of one pinned thread: the only module that knows all stages.
//!
//! clock → at most one command → per port: receive ≤ 64, admit, deliver, flush, give frames back → housekeeping.
//! Everything is allocated before [`Worker::run`]; from then on the worker takes no lock, writes no log, and makes no
//! system call but the ports' own.
#![forbid(unsafe_code)]

mod apply;
mod channels;
pub mod edit;
mod housekeeping;
mod ports;
mod routes;
#[cfg(test)]
mod separation;
pub mod shared;
mod stages;
mod tap;
#[cfg(test)]
mod tests;
mod wants;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::clock;
use crate::config::plan::Idle;
use crate::feed::{Channel, LineRole};
use crate::latency::StageHistograms;
use crate::metrics::DropCounts;
use crate::net::{Batch, Frames, Port, RxPort, TxPort};
use crate::publish::{Publisher, Retainer, Route};
use channels::Channels;
use edit::Edit;
use housekeeping::Schedule;
use ports::Ports;
use shared::{Command, Event, Wanted, WorkerShared};
use wants::Wants;

/// What the worker knows of one line of the plan.
#[derive(Clone, Copy, Debug)]
pub struct LineSlot {
    /// Place of its channel among the worker's: the position in [`WorkerParts::channels`], for those that begin with it.
    pub channel: usize,
    /// Which copy it is.
    pub role: LineRole,
    /// Whether its datagrams are used.
    pub enabled: bool,
}

/// Everything a worker is made of; built by `app` (or by a test, with memory ports).
#[derive(Debug)]
pub struct WorkerParts {
    /// Its ports, in the order of `WorkerPlan::ports`.
    pub ports: Vec<Port>,
    /// By index into `Plan::lines`, then one per channel of the plan for what is recovered (see
    /// [`Plan::recovery_line`](crate::config::plan::Plan::recovery_line)); `None` for lines of other workers.
    pub lines: Vec<Option<LineSlot>>,
    /// The channels, each with its index into `Plan::channels`.
    pub channels: Vec<(usize, Channel)>,
    /// The output streams.
    pub publisher: Publisher,
    /// What to do when a cycle found nothing.
    pub idle: Idle,
    /// Commands from control.
    pub commands: rtrb::Consumer<Command>,
    /// Events to control.
    pub events: rtrb::Producer<Event>,
    /// What is missing, to the recovery thread, if any of the channels has one.
    pub wants: Option<rtrb::Producer<Wanted>>,
    /// Counters for everybody. They say how much room there is: a worker takes no more lines, channels and streams than have
    /// counters here.
    pub shared: Arc<WorkerShared>,
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    ports: Ports,
    lines: Vec<Option<LineSlot>>,
    /// Drops before any channel, by line; the last entry is for lines that are not ours.
    line_drops: Vec<DropCounts>,
    channels: Channels,
    publisher: Publisher,
    /// A route that was replaced, while the event queue has no room for it.
    route_out: Option<Box<Route>>,
    idle: Idle,
    commands: rtrb::Consumer<Command>,
    events: rtrb::Producer<Event>,
    events_dropped: u64,
    wants: Wants,
    shared: Arc<WorkerShared>,
    latency: Box<StageHistograms>,
    /// Empty histograms to swap in, while the event queue has no room for the full ones.
    next_latency: Option<Box<StageHistograms>>,
    /// An edit that was applied, while the event queue has no room for it.
    edited: Option<Box<Edit>>,
    batch: Batch,
    /// Arrival times of the packets that the stages are delivering.
    arrivals: Vec<u64>,
    utc_offset_ns: u64,
    schedule: Schedule,
    stopping: bool,
}

impl Worker {
    /// A worker of these parts. Allocates what is left to allocate.
    #[must_use]
    pub fn new(parts: WorkerParts) -> Self {
        let WorkerParts { ports, mut lines, channels, mut publisher, idle, commands, events, wants, shared } = parts;
        lines.resize(shared.lines.len().max(lines.len()), None);
        let line_drops = vec![DropCounts::default(); lines.len() + 1];
        let channels = Channels::new(channels, shared.channels.len());
        let wants = Wants::new(wants, &channels);
        publisher.make_room(shared.channels.len(), shared.destinations.len());
        Self {
            ports: Ports::new(ports),
            lines,
            line_drops,
            channels,
            publisher,
            route_out: None,
            idle,
            commands,
            events,
            events_dropped: 0,
            wants,
            shared,
            latency: Box::default(),
            next_latency: None,
            edited: None,
            batch: Batch::new(),
            arrivals: Vec::with_capacity(stages::MOST_ARRIVALS),
            utc_offset_ns: clock::utc_offset_ns(),
            schedule: Schedule::default(),
            stopping: false,
        }
    }

    /// Runs duty cycles until [`Command::Stop`]; returns the worker so that its parts are dropped where they were made.
    #[must_use]
    pub fn run(mut self) -> Self {
        self.shared.running.store(true, Relaxed);
        while !self.stopping {
            if !self.cycle(clock::monotonic_ns) && self.idle == Idle::Yield {
                std::thread::yield_now();
            }
        }
        self.finish(clock::monotonic_ns());
        self
    }

    /// One duty cycle; `clock` gives CLOCK_MONOTONIC (or simulated) nanoseconds. Returns whether anything was received.
    pub fn cycle(&mut self, clock: impl Fn() -> u64) -> bool {
        let started_ns = clock();
        self.take_command(&clock);
        let mut received = false;
        for port in 0..self.ports.rx.len() {
            received |= self.receive(port, &clock);
        }
        self.ports.reclaim();
        self.keep_house(started_ns, received, &clock);
        received
    }

    /// Takes what one port has received through all stages; returns whether it was anything.
    fn receive(&mut self, port: usize, clock: &impl Fn() -> u64) -> bool {
        let Some(rx) = &mut self.ports.rx[port] else { return false };
        rx.receive(&self.ports.frames[port], &mut self.batch);
        let received = !self.batch.is_empty();
        if received {
            self.run_batch(port, clock);
        }
        if let Some(rx) = &mut self.ports.rx[port] {
            rx.refill(&self.ports.frames[port]);
        }
        received
    }

    fn take_command(&mut self, clock: &impl Fn() -> u64) {
        if self.next_latency.is_some() {
            self.swap_latency();
        }
        if !self.hand_back_port() || !self.hand_back_edit() || !self.hand_back_route() {
            return;
        }
        let Ok(command) = self.commands.pop() else { return };
        match command {
            Command::SetLine { line, enabled } => {
                let number = u16::try_from(line).unwrap_or(u16::MAX);
                // Kernel sockets join and leave here, each for itself: control hears of a refusal.
                let switched = self.ports.receiving().try_for_each(|port| port.set_line(number, enabled));
                if let Some(Some(slot)) = self.lines.get_mut(line) {
                    slot.enabled = enabled && switched.is_ok();
                }
                if let Err(error) = switched {
                    self.shared.count_refused(&error);
                }
            }
            Command::SwapLatency(empty) => {
                debug_assert!(self.next_latency.is_none(), "control has one spare, and it is here");
                self.next_latency = Some(empty);
                self.swap_latency();
            }
            Command::ReplacePort { port, with } => self.replace_port(port, with, clock),
            Command::Hurry { channel } => self.hurry(channel),
            Command::Edit(edit) => self.edit(edit, clock),
            Command::SetRoute { destination, route } => self.set_route(destination, route),
            Command::Stop => self.stopping = true,
        }
        self.shared.count_applied();
    }

    /// Reports the full histograms and goes on with the empty ones. With the event queue full it waits for the next
    /// cycle: an event that does not fit would be freed here, on the hot path, and control would miss its spare for good.
    fn swap_latency(&mut self) {
        if self.events.slots() == 0 {
            return;
        }
        if let Some(empty) = self.next_latency.take() {
            let full = std::mem::replace(&mut self.latency, empty);
            self.report(Event::Latency(full));
        }
    }

    fn report(&mut self, event: Event) {
        if self.events.push(event).is_err() {
            self.events_dropped += 1;
        }
    }

    /// Has what goes to a destination retained from now on. Before [`Self::run`].
    pub fn retain(&mut self, destination: usize, retainer: Retainer) {
        self.publisher.retain(destination, retainer);
    }

    /// Frames in user space that belong neither to the pool nor to a port: none between cycles but open packets.
    ///
    /// # Panics
    /// If frames were lost or doubled: a bug of ours.
    pub fn audit(&self) {
        let sum = self.ports.frames_free_or_lent() + self.batch.len() + self.publisher.frames_held();
        let all: usize = self.ports.frames.iter().map(Frames::frame_count).sum();
        assert_eq!(sum, all, "frames were lost or doubled");
    }

    /// The receiving half of a port, for tests that inject.
    pub fn rx_mut(&mut self, port: usize) -> Option<&mut RxPort> {
        self.ports.rx[port].as_mut()
    }

    /// The transmitting half of a port, for tests that look at what was sent.
    pub fn tx_mut(&mut self, port: usize) -> Option<&mut TxPort> {
        self.ports.tx[port].as_mut()
    }
}
