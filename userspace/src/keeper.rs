//! The keeper: one thread that looks after the interfaces and brings back what was lost.
//!
//! It looks ten times a second, by asking the kernel how things stand, not by listening for changes: what was missed once is
//! seen the next time. A flap that is over between two looks shows in the carrier's own counter. What it finds it tells the
//! desk (metrics, log, readiness). What it mends:
//!
//! - a link that was deleted and made again: filter attached, sockets opened, workers' ports exchanged, groups joined;
//! - a program that somebody detached: attached again, as soon as the place is free.
//!
//! The keeper also holds the NIC settings that were changed: a new link gets them anew, and they are put back when the
//! keeper ends. It is the one thread that keeps privileges after the start.
//!
//! A link that goes down and comes up needs nothing: sockets and program stay, and the kernel reports its groups again. No
//! interface waits for another, and no worker is stopped.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::monotonic_ns;
use crate::config::plan::Plan;
use crate::control::Desk;
use crate::edge::{Fault, reopen};
use crate::net::interface::Interface;
use crate::privilege;
use crate::steering::nic::{self, Applied};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// A burst of drops is over when there was none for so long, nanoseconds.
const STARVED_NS: u64 = 1_000_000_000;

/// What is remembered of an interface between two looks.
#[derive(Debug)]
struct Watched {
    /// Kernel index of the link that is in use.
    index: u32,
    /// Ups and downs of its carrier when it was last looked at.
    carrier_changes: Option<u64>,
    /// Frames that the kernel has dropped for lack of room, over all ports.
    starved_frames: u64,
    /// When that last grew, CLOCK_MONOTONIC nanoseconds.
    starved_ns: Option<u64>,
}

/// The keeper, before it runs.
#[derive(Debug)]
pub struct Keeper {
    plan: Arc<Plan>,
    desk: Arc<Desk>,
    watched: Vec<Watched>,
    /// NIC settings that are in force on our account, by interface; `None` where a new link could not be given them.
    nics: Vec<Option<Applied>>,
}

/// The running keeper; ends and is waited for when dropped.
#[derive(Debug)]
pub struct Running {
    thread: Option<JoinHandle<()>>,
    /// What is sent is dropped by the keeper once it has stopped looking. Itself dropped to end it.
    pause: Option<Sender<Sender<()>>>,
}

impl Running {
    /// Ends the looking and the mending, before what is looked after is taken down on purpose. NIC settings stay.
    pub fn pause(&self) {
        let (answer, answered) = channel();
        if self.pause.as_ref().is_some_and(|pause| pause.send(answer).is_ok()) {
            // The answer is that its sender is dropped: by the keeper that has read it, or by its end.
            let _ = answered.recv();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.pause.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the keeper panicked: interfaces were not looked after any more");
        }
    }
}

impl Keeper {
    /// A keeper of these interfaces, in the order of the plan, as they were when they were brought up, with the NIC settings
    /// that were changed.
    #[must_use]
    pub fn new(plan: Arc<Plan>, desk: Arc<Desk>, interfaces: &[Interface], nics: Vec<Applied>) -> Self {
        let watched = interfaces.iter().map(|interface| Watched {
            index: interface.index,
            carrier_changes: interface.carrier_changes,
            starved_frames: 0,
            starved_ns: None,
        });
        Self { plan, desk, watched: watched.collect(), nics: nics.into_iter().map(Some).collect() }
    }

    /// Starts the thread, with the caller's privileges as far as the plan lets it keep them.
    ///
    /// # Errors
    /// The system's, if it has no thread for us.
    pub fn start(mut self) -> std::io::Result<Running> {
        let (pause, pauses) = channel();
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            if let Err(error) = privilege::drop_keeper(self.plan.privileges) {
                tracing::error!("keeper: {error}");
            }
            self.run(&pauses);
            self.nics.into_iter().flatten().for_each(|nic| drop(nic.restore()));
        })?;
        Ok(Running { thread: Some(thread), pause: Some(pause) })
    }

    /// Looks until it is told to pause, then waits for the end.
    fn run(&mut self, pauses: &Receiver<Sender<()>>) {
        while let Err(RecvTimeoutError::Timeout) = pauses.recv_timeout(INTERVAL).map(drop) {
            for interface in 0..self.watched.len() {
                let fault = self.look(interface, monotonic_ns());
                self.desk.set_fault(interface, fault);
            }
        }
        while pauses.recv().is_ok() {}
    }

    /// One look at one interface: mends what can be mended, and says what is wrong then.
    fn look(&mut self, interface: usize, now_ns: u64) -> Option<(Fault, String)> {
        let name = &self.plan.interfaces[interface].name;
        let now = match Interface::read(name) {
            Ok(now) => now,
            Err(error) => return Some((Fault::Gone, error.to_string())),
        };
        if now.index != self.watched[interface].index {
            if let Err(error) = self.take_into_use(interface) {
                return Some((Fault::Gone, error));
            }
        } else if !now.is_up {
            return Some((Fault::Down, format!("bring it up with `ip link set dev {name} up`")));
        } else if !now.has_carrier {
            return Some((Fault::NoCarrier, "check the cable, or the other end of a veth pair".to_owned()));
        } else if !self.desk.is_attached(interface) {
            // Seen in any case, also when it is mended within this look.
            self.desk.set_fault(interface, Some((Fault::Detached, "somebody detached the program".to_owned())));
            if let Err(error) = self.desk.reattach(interface) {
                return Some((Fault::Detached, error.to_string()));
            }
        }
        self.note_flap(interface, &now);
        self.starvation(interface, now_ns)
    }

    /// Takes the link that has the name now.
    fn take_into_use(&mut self, interface: usize) -> Result<(), String> {
        let (plan, mut opened) = (&self.plan, None);
        if let Some(nic) = self.nics[interface].take() {
            drop(nic.restore());
            match nic::apply(&plan.interfaces[interface], &plan.state_dir) {
                Ok(applied) => self.nics[interface] = Some(applied),
                Err(error) => tracing::error!("NIC settings are not in force on the new link: {error}"),
            }
        }
        let mode = self.desk.mode_in_force(interface);
        let result = self.desk.take_into_use(interface, |steering| {
            let (now, ports) = reopen(plan, interface, mode, steering)?;
            opened = Some(now);
            Ok(ports)
        });
        result.map_err(|error| error.to_string())?;
        if let Some(now) = opened {
            let watched = &mut self.watched[interface];
            (watched.index, watched.carrier_changes) = (now.index, now.carrier_changes);
        }
        Ok(())
    }

    /// A carrier that has changed twice since the last look was away in between; a fault that was seen is counted already.
    fn note_flap(&mut self, interface: usize, now: &Interface) {
        let watched = &mut self.watched[interface];
        let changed = watched.carrier_changes != now.carrier_changes;
        watched.carrier_changes = now.carrier_changes;
        let was_seen = self.desk.is_out(interface);
        if changed && now.carrier_changes.is_some() && !was_seen {
            self.desk.count_passing_fault(interface, Fault::NoCarrier);
        }
    }

    fn starvation(&mut self, interface: usize, now_ns: u64) -> Option<(Fault, String)> {
        let lost = self.desk.starved_frames(interface);
        let watched = &mut self.watched[interface];
        if lost > watched.starved_frames {
            watched.starved_ns = Some(now_ns);
        }
        watched.starved_frames = lost;
        let since = watched.starved_ns.filter(|since| now_ns.saturating_sub(*since) < STARVED_NS)?;
        watched.starved_ns = Some(since);
        let remedy = "a worker was too slow or preempted: raise ring_entries, or give it a core of its own";
        Some((
            Fault::Starved,
            format!("{lost} frames since the start were dropped by the kernel for lack of room; {remedy}"),
        ))
    }
}
