//! The edge: each interface as it runs, between the wire and the workers' ports.
//!
//! [`bring_up`] takes an interface from the plan to a filter and one open port per queue, in the best mode of the ladder
//! that can be had, or in the one that is forced. What brings a lost link back later ([`reopen`], [`enter`]) is the same code.
#![forbid(unsafe_code)]

mod fault;
mod ladder;
mod port;

use std::os::fd::RawFd;

use crate::config::plan::{Mode, Plan, QueuePlan};
use crate::net::Port;
use crate::net::interface::{Interface, InterfaceError};
use crate::net::socket::SocketError;
use crate::net::umem::FramesError;
use crate::net::xsk::XskError;
use crate::steering::{Steering, SteeringError};

pub use fault::{Fault, Health};
pub use ladder::{Refusal, bring_up};
pub use port::{enter, line_socket, reopen, rules, tx_destination};

/// Why an interface could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// It is absent, down, or lacks a queue.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The filter could not be loaded or attached.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// The UMEM could not be made.
    #[error("worker {worker}: {source}")]
    Umem {
        /// Name of the worker.
        worker: String,
        /// What went wrong.
        source: FramesError,
    },
    /// An AF_XDP socket could not be opened.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// A kernel socket could not be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A line is added, and what its socket takes was given up after the start.
    #[error(
        "line {line}: the handler gave up CAP_NET_ADMIN after its start, so a line that is added cannot busy-poll as \
         `{interface}` wants it ({source}): put the line in the configuration and restart, or run with \
         `privileges = \"keep\"`"
    )]
    LateLine {
        /// Name of the line.
        line: String,
        /// Name of its interface.
        interface: String,
        /// Which option.
        source: SocketError,
    },
    /// The kernel opened the socket, but not in the mode that was asked for.
    #[error("interface `{interface}` queue {queue}: the kernel gave the socket copy mode, not zero-copy")]
    NotZeroCopy {
        /// Its kernel name.
        interface: String,
        /// Queue number.
        queue: u32,
    },
    /// The driver took zero-copy mode and then no frame.
    #[error(
        "interface `{interface}` queue {queue}: the driver took no frame from the fill ring within {patience_ms} ms of the \
         bind: zero-copy does not work here"
    )]
    NotFed {
        /// Its kernel name.
        interface: String,
        /// Queue number.
        queue: u32,
        /// How long it was given, milliseconds.
        patience_ms: u64,
    },
    /// A mode that was ruled out before anything was tried.
    #[error("{0}")]
    RuledOut(String),
    /// The mode that the configuration forces cannot be had.
    #[error("interface `{interface}`: mode = \"{}\" cannot be had: {source}; {instead}", mode.label())]
    Forced {
        /// Its kernel name.
        interface: String,
        /// The forced mode.
        mode: Mode,
        /// Why not.
        source: Box<EdgeError>,
        /// What would work.
        instead: String,
    },
    /// No mode works.
    #[error("interface `{interface}`: no mode works: {}", refusals(refused))]
    NoMode {
        /// Its kernel name.
        interface: String,
        /// Each mode and why not.
        refused: Vec<Refusal>,
    },
    /// A destination has no source address to send from.
    #[error(
        "destination `{destination}`: interface `{interface}` has no IPv4 address; give it one \
         (`ip addr add ADDRESS/PREFIX dev {interface}`) or set `source`"
    )]
    NoAddress {
        /// Its name in the plan.
        destination: String,
        /// The interface that it leaves by.
        interface: String,
    },
}

fn refusals(refused: &[Refusal]) -> String {
    refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// One interface as it runs.
#[derive(Debug)]
pub struct Edge {
    /// What the kernel said of it when it was brought up.
    pub interface: Interface,
    /// The filter, unless the interface only transmits or runs in socket mode.
    pub steering: Option<Steering>,
    /// The mode that is in force.
    pub mode: Mode,
    /// Whether it receives packets that are longer than a frame: by multi-buffer AF_XDP, or in larger frames of kernel
    /// sockets. Decided by its MTU when it was brought up, for good.
    pub jumbo: bool,
    /// The better modes that were tried and could not be had.
    pub refused: Vec<Refusal>,
}

/// A port that was opened for a worker.
#[derive(Debug)]
pub struct OpenedPort {
    /// Index into [`Plan::workers`].
    pub worker: usize,
    /// Index into its [`ports`](crate::config::plan::WorkerPlan::ports).
    pub index: usize,
    /// Queue number.
    pub queue: u32,
    /// The AF_XDP socket for the XSKMAP, if it receives; open for as long as the port.
    pub fd: Option<RawFd>,
    /// The port.
    pub port: Port,
}

/// The queues of an interface that workers have ports on: worker, index of the port, queue.
fn queues_of(plan: &Plan, interface: usize) -> impl Iterator<Item = (usize, usize, QueuePlan)> {
    plan.workers.iter().enumerate().flat_map(move |(worker, wanted)| {
        let on_it = wanted.ports.iter().enumerate().filter(move |(_, queue)| queue.interface == interface);
        on_it.map(move |(index, queue)| (worker, index, *queue))
    })
}
