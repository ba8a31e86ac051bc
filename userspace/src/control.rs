//! The control desk: what an operator can see and change while the handler runs.
//!
//! Everything is reached through one [`Desk`], which any thread may use. It never touches the data path: to a worker it
//! speaks through the bounded queues of its [`WorkerLink`], and it reads the counters that the worker publishes.
//! [`serve`] puts it on the network: gRPC on a Unix socket or a loopback address and, with TLS, for other hosts;
//! metrics over HTTP.
#![forbid(unsafe_code)]

mod access;
mod apply;
mod change;
pub mod cli;
mod drain;
mod error;
mod events;
mod groups;
mod grpc;
mod interfaces;
mod latency;
mod latency_log;
mod lines;
mod listen;
mod recover;
pub mod refusal;
mod routes;
mod select;
mod serve;
mod state;
mod status;
mod stream;
mod streams;
pub mod tables;
mod tell;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xdp_ebpf::{LineStats, Verdict};

pub use access::{AccessCounts, CredentialError, NewToken, Role, TokenError};
pub use change::ChangeError;
pub use drain::DrainError;
pub use error::ControlError;
pub use interfaces::HealError;
pub use latency::Round;
pub use lines::{Changes, LineState};
pub use listen::{Listeners, ServeError};
pub use recover::RecoverError;
pub use routes::RouteError;
pub use select::{SelectError, Selector, SwitchError};
pub use serve::serve;
pub use state::resume;

use crate::beside::threads::Threads;
use crate::clock::{monotonic_ns, utc_ns};
use crate::config::plan::{ChannelPlan, Mode, Plan};
use crate::edge::{Health, Refusal};
use crate::feed::ChannelState;
use crate::latency::StageHistograms;
use crate::steering::{Steering, SteeringError};
use crate::worker::shared::{Command, WorkerLink};

/// A worker that has not published its counters for so long is not alive: it does so every 100 microseconds or so.
pub const ALIVE_NS: u64 = 1_000_000_000;

/// How one interface of the plan is in use.
#[derive(Debug)]
pub struct InterfaceLink {
    /// The mode that the sockets have, as read back from the kernel.
    pub mode_in_force: Mode,
    /// Whether packets longer than a frame are received ([`Edge::jumbo`](crate::edge::Edge::jumbo)).
    pub jumbo: bool,
    /// The attached XDP program; `None` with kernel sockets, and on an interface that only transmits.
    pub steering: Option<Steering>,
    /// Better modes that could not be had.
    pub refused: Vec<Refusal>,
}

/// What is known and can be changed of the running handler.
#[derive(Debug)]
pub struct Desk {
    /// What holds from the start to the end: the handler's own settings, interfaces, workers.
    fixed: Arc<Plan>,
    /// What runs now; locked for moments only.
    plan: Mutex<Arc<Plan>>,
    started_ns: u64,
    started_utc_ns: u64,
    interfaces: Vec<Interface>,
    links: Vec<WorkerLink>,
    threads: Arc<Threads>,
    /// Locked for as long as a change takes: joins, and waiting for workers.
    lines: Mutex<Vec<lines::Held>>,
    /// What `lines` says, for everybody who must not wait for a change: locked for moments only.
    states: Mutex<Vec<LineState>>,
    events: Mutex<events::Events>,
    groups: groups::Groups,
    watch: watch::Watch,
    access: access::Access,
    state_file: Option<state::StateFile>,
    /// Changes of subscriptions that could not be saved.
    unsaved: AtomicU64,
    /// Intervals that could not be written to the log of latencies.
    latency_log_failures: AtomicU64,
    /// The configuration that runs; locked for as long as a change of it takes.
    running: Mutex<Option<change::Running>>,
    /// What differs from the file, for the next start; locked for moments only.
    changed: Mutex<Option<state::Changed>>,
    /// Its hash; locked for moments only.
    hash: Mutex<String>,
    /// Locked while workers' ports, or what they are to carry, change.
    wiring: Mutex<()>,
}

#[derive(Debug)]
struct Interface {
    mode_in_force: Mode,
    jumbo: bool,
    refused: Vec<Refusal>,
    steering: Mutex<Option<Steering>>,
    health: Mutex<Health>,
}

impl Desk {
    /// A desk for what has been started: `interfaces` in the order of the plan, the link of every worker, and the threads beside.
    ///
    /// No line is in force until [`Self::start_lines`].
    ///
    /// # Panics
    /// When an interface or a worker of the plan is missing: a fault of the caller.
    #[must_use]
    pub fn new(
        plan: Arc<Plan>,
        interfaces: Vec<InterfaceLink>,
        mut links: Vec<WorkerLink>,
        threads: Arc<Threads>,
    ) -> Arc<Self> {
        assert_eq!(interfaces.len(), plan.interfaces.len(), "one link per interface of the plan");
        links.sort_by_key(|link| link.index);
        assert!(links.iter().map(|link| link.index).eq(0..plan.workers.len()), "one link per worker of the plan");
        let interfaces = interfaces
            .into_iter()
            .map(|link| Interface {
                mode_in_force: link.mode_in_force,
                jumbo: link.jumbo,
                refused: link.refused,
                steering: Mutex::new(link.steering),
                health: Mutex::default(),
            })
            .collect();
        let state_file = plan.subscriptions_file.clone().map(state::StateFile::new);
        let configured = || state::configured(&plan);
        let desired = state_file.as_ref().map_or_else(configured, |file| file.load(&plan));
        let lines: Vec<_> = desired.into_iter().map(lines::Held::new).collect();
        let states = lines.iter().map(lines::Held::state).collect();
        let groups = groups::Groups::new(plan.lines.room());
        let events = events::Events::new(plan.channels.room(), plan.workers.len());
        Arc::new(Self {
            fixed: Arc::clone(&plan),
            plan: Mutex::new(plan),
            started_ns: monotonic_ns(),
            started_utc_ns: utc_ns(),
            interfaces,
            links,
            threads,
            lines: Mutex::new(lines),
            states: Mutex::new(states),
            events: Mutex::new(events),
            groups,
            watch: watch::Watch::default(),
            access: access::Access::default(),
            state_file,
            unsaved: AtomicU64::new(0),
            latency_log_failures: AtomicU64::new(0),
            running: Mutex::default(),
            changed: Mutex::default(),
            hash: Mutex::default(),
            wiring: Mutex::default(),
        })
    }

    /// The plan that runs now. Take it once for what is to fit together: the next call may give another.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&locked(&self.plan))
    }

    /// The workers' links, in the order of the plan.
    #[must_use]
    pub fn links(&self) -> &[WorkerLink] {
        &self.links
    }

    /// Time since the desk was made, nanoseconds.
    #[must_use]
    pub fn uptime_ns(&self) -> u64 {
        monotonic_ns().saturating_sub(self.started_ns)
    }

    /// When the desk was made, UTC, nanoseconds since 1970.
    #[must_use]
    pub const fn started_utc_ns(&self) -> u64 {
        self.started_utc_ns
    }

    /// The worker that a channel of the plan runs on. For one that was removed a moment ago any will do: nothing is counted
    /// for it anywhere.
    #[must_use]
    pub fn link_of_channel(&self, channel: usize) -> &WorkerLink {
        &self.links[self.plan().channels.get(channel).map_or(0, |channel| channel.worker)]
    }

    /// The mode in force of an interface of the plan.
    #[must_use]
    pub fn mode_in_force(&self, interface: usize) -> Mode {
        self.interfaces[interface].mode_in_force
    }

    /// Better modes than the one in force, and why they could not be had.
    #[must_use]
    pub fn modes_refused(&self, interface: usize) -> &[Refusal] {
        &self.interfaces[interface].refused
    }

    /// Frames by verdict of an interface, in the order of [`Verdict::ALL`]; `None` without a program.
    ///
    /// # Errors
    /// The kernel's.
    pub fn verdicts(&self, interface: usize) -> Result<Option<[u64; Verdict::COUNT]>, SteeringError> {
        locked(&self.interfaces[interface].steering).as_ref().map(Steering::verdicts).transpose()
    }

    /// Whether the calling thread may use the maps of the programs; true where there is no program.
    #[must_use]
    pub fn can_read_maps(&self) -> bool {
        (0..self.interfaces.len()).all(|interface| self.verdicts(interface).is_ok())
    }

    /// What the XDP program redirected for a line; `None` without a program.
    ///
    /// # Errors
    /// The kernel's.
    pub fn line_stats(&self, line: usize) -> Result<Option<LineStats>, SteeringError> {
        let Some(interface) = self.plan().lines.get(line).map(|line| line.interface) else { return Ok(None) };
        Ok(self.counted_by_filter(line, interface)?.map(|counted| self.since_renewed(line, counted)))
    }

    /// What the program has counted under a line's number, also for lines that had it before.
    fn counted_by_filter(&self, line: usize, interface: usize) -> Result<Option<LineStats>, SteeringError> {
        let index = u16::try_from(line).expect("a plan has at most 1024 lines");
        locked(&self.interfaces[interface].steering).as_ref().map(|steering| steering.line_stats(index)).transpose()
    }

    /// Why the handler is not ready: a worker that is not alive, an interface that is out, a desired line that is not in
    /// force, a stale channel. Empty = ready.
    ///
    /// A channel that has heard nothing yet does not count, nor one whose session has ended: before the exchange opens, and
    /// after it closed, there is nothing to hear. Nor does one that nobody wants a line of.
    #[must_use]
    pub fn not_ready_reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.dead_workers().collect();
        for (interface, plan) in self.interfaces.iter().zip(&self.fixed.interfaces) {
            if let Some((fault, particulars)) = locked(&interface.health).now.as_ref().filter(|now| now.0.is_outage()) {
                reasons.push(format!("interface `{}` is {}: {particulars}", plan.name, fault.label()));
            }
        }
        let (plan, states) = (self.plan(), self.line_states());
        for (index, line) in plan.lines.iter() {
            let state = &states[index];
            if state.desired && !state.in_force {
                let channel = &plan.channels[line.channel].name;
                reasons.push(format!("line {} of `{channel}` is desired but not in force", line.name));
            }
        }
        reasons.extend(self.stale_reasons(monotonic_ns()));
        reasons.extend(self.stream_reasons());
        reasons.extend(self.group_reasons());
        reasons
    }

    /// Channels that were heard and are silent now.
    fn stale_reasons(&self, now_ns: u64) -> Vec<String> {
        let (now, states) = (self.plan(), self.line_states());
        let channels = now.channels.iter().filter(|(index, plan)| {
            let state = self.link_of_channel(*index).shared.channel(*index).state;
            let is_wanted = plan.soup.is_some() || plan.lines.iter().any(|line| states[*line].desired);
            state == ChannelState::Stale as u64 && is_wanted
        });
        let reason = |(index, plan): (usize, &ChannelPlan)| {
            let shared = &self.link_of_channel(index).shared;
            let streams = plan.soup.iter().map(|_| usize::from(now.soup_line(index)));
            let lines = plan.lines.iter().copied().chain(streams);
            let seen_ns = lines.map(|line| shared.line(line).last_seen_ns).max().unwrap_or_default();
            let silence_ms = now_ns.saturating_sub(seen_ns) / 1_000_000;
            format!("channel `{}` is stale: nothing came on any line for {silence_ms} ms", plan.name)
        };
        channels.map(reason).collect()
    }

    /// Workers that are not in their loop, or have not been heard of for [`ALIVE_NS`]: a sentence for each.
    pub fn dead_workers(&self) -> impl Iterator<Item = String> {
        let now_ns = monotonic_ns();
        self.fixed.workers.iter().zip(&self.links).filter_map(move |(worker, link)| {
            let silence_ns = link.shared.silence_ns(now_ns);
            if !link.shared.running.load(Relaxed) {
                Some(format!("worker `{}` is not running", worker.name))
            } else if silence_ns > ALIVE_NS {
                Some(format!("worker `{}` has been silent for {} ms", worker.name, silence_ns / 1_000_000))
            } else {
                None
            }
        })
    }

    /// Takes what the workers reported: logs losses and state changes (a few per second and channel at most), adds up
    /// latencies. [`serve`] calls it several times per second; without it call it yourself.
    pub fn poll(&self) {
        self.check_groups();
        locked(&self.events).take_all(&self.plan(), &self.links, &self.watch, monotonic_ns());
    }

    /// All workers' latencies since start, at most about a second old.
    #[must_use]
    pub fn latencies(&self) -> StageHistograms {
        locked(&self.events).latencies()
    }

    /// Changes of subscriptions since the start that could not be written to the subscriptions file.
    #[must_use]
    pub fn unsaved_changes(&self) -> u64 {
        self.unsaved.load(Relaxed)
    }

    /// Intervals since the start that could not be written to the log of latencies; their values came later.
    #[must_use]
    pub fn latency_log_failures(&self) -> u64 {
        self.latency_log_failures.load(Relaxed)
    }

    /// Asks every worker to leave its loop. Those whose command queue is full are named.
    ///
    /// # Errors
    /// Names of the workers that did not take the command.
    pub fn stop_workers(&self) -> Result<(), Vec<String>> {
        let stuck = self.links.iter().filter(|link| link.send(Command::Stop).is_err());
        let stuck: Vec<String> = stuck.map(|link| self.fixed.workers[link.index].name.clone()).collect();
        if stuck.is_empty() { Ok(()) } else { Err(stuck) }
    }

    /// Leaves all groups and detaches all programs: the first step of shutdown, before any AF_XDP socket is closed.
    pub fn detach(&self) {
        for (line, held) in locked(&self.lines).iter_mut().enumerate() {
            self.disarm_canary(line);
            held.leave();
            self.show(line, held);
        }
        for interface in &self.interfaces {
            *locked(&interface.steering) = None;
        }
    }
}

/// A panic elsewhere must not take the control desk with it: what is behind these locks is whole after every statement.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
