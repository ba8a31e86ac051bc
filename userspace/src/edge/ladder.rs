//! The mode ladder: zero-copy → native copy → skb → kernel sockets.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::{Duration, Instant};

use super::port::{self, check_interface};
use super::{Edge, EdgeError, OpenedPort};
use crate::config::plan::{Mode, Plan, WorkerPlan};
use crate::net::interface::{Interface, InterfaceError};
use crate::net::xsk::XskError;
use crate::steering::{self, DriverFeatures, FilterSettings, Steering, SteeringError, driver_features};

/// Best first.
const LADDER: [Mode; 4] = [Mode::ZeroCopy, Mode::Native, Mode::Skb, Mode::Socket];

/// How long a link may take to come back after a program was attached or detached: real ones negotiate for seconds.
const CARRIER_PATIENCE: Duration = Duration::from_secs(10);

/// A mode that could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The mode.
    pub mode: Mode,
    /// Why not, for a person.
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.mode.label(), self.why)
    }
}

/// Brings an interface of the plan up: attaches the filter, opens a port for every queue that a worker owns, and enters
/// the sockets in the XSKMAP. Nothing is redirected yet: there are no rules.
///
/// `cookie` marks the filter's stamps.
///
/// # Errors
/// What is wrong and what to do. With [`Mode::Auto`] only what no lower mode would mend: an interface that is absent, down,
/// short of a queue or occupied, missing privileges, or no mode left. Everything done before is undone.
pub fn bring_up(plan: &Plan, index: usize, cookie: u16) -> Result<(Edge, Vec<OpenedPort>), EdgeError> {
    let wanted = &plan.interfaces[index];
    let mut interface = Interface::read(&wanted.name)?;
    let had_carrier = interface.has_carrier;
    let mut refused: Vec<Refusal> = Vec::new();
    for mode in LADDER.into_iter().filter(|mode| wanted.mode == Mode::Auto || wanted.mode == *mode) {
        if !refused.is_empty() && had_carrier {
            // What the last mode attached and detached may have reset the link.
            interface = await_carrier(interface);
        }
        let jumbo = is_jumbo(plan, index, &interface);
        let source = match step(plan, index, &interface, mode, jumbo, cookie) {
            Ok((steering, ports)) => return Ok((Edge { interface, steering, mode, jumbo, refused }, ports)),
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => error,
        };
        if wanted.mode != Mode::Auto {
            let instead = instead(plan, index, mode);
            return Err(EdgeError::Forced { interface: interface.name, mode, source: Box::new(source), instead });
        }
        refused.push(Refusal { mode, why: source.to_string() });
    }
    Err(EdgeError::NoMode { interface: interface.name, refused })
}

/// One rung.
fn step(
    plan: &Plan,
    index: usize,
    interface: &Interface,
    mode: Mode,
    jumbo: bool,
    cookie: u16,
) -> Result<(Option<Steering>, Vec<OpenedPort>), EdgeError> {
    if let Some(why) = ruled_out(plan, index, mode) {
        return Err(EdgeError::RuledOut(why));
    }
    check_interface(plan, index, interface, mode, single(plan, index, mode))?;
    // By ports, not by lines: one may come while the handler runs.
    let receives = plan.workers.iter().any(|worker| worker.rx.iter().any(|queue| queue.interface == index));
    let mut steering = match mode {
        Mode::Socket => None,
        _ if receives => {
            let unsubscribed = plan.interfaces[index].unsubscribed;
            let settings = FilterSettings { cookie, unsubscribed, multi_buffer: jumbo };
            Some(Steering::attach(&interface.name, mode, settings)?)
        }
        _ => None,
    };
    let cookie = steering.as_ref().map(Steering::cookie);
    // Which lines are wanted is control's to say, and it says so once the workers run.
    let ports = port::open_all(plan, index, interface, mode, jumbo, cookie, &[])?;
    if let Some(steering) = &mut steering {
        port::enter(steering, &ports)?;
    }
    Ok((steering, ports))
}

/// Whether a lower mode would not help either, or would hide a mistake.
fn is_final(error: &EdgeError) -> bool {
    match error {
        // Kernel sockets take packets that no frame has room for.
        EdgeError::Interface(InterfaceError::LargeMtu { .. } | InterfaceError::HugeMtu { .. }) => false,
        EdgeError::Interface(_) | EdgeError::NoAddress { .. } => true,
        EdgeError::Steering(error) => matches!(
            error,
            SteeringError::NotPermitted { .. }
                | SteeringError::NoInterface { .. }
                | SteeringError::NoCarrier { .. }
                | SteeringError::AlreadyAttached { .. }
        ),
        EdgeError::Xsk(error) => matches!(error, XskError::Busy { .. }),
        _ => false,
    }
}

/// Whether packets that come in there may be longer than a frame of a worker that takes them.
fn is_jumbo(plan: &Plan, index: usize, interface: &Interface) -> bool {
    let receives = |worker: &&WorkerPlan| worker.rx.iter().any(|queue| queue.interface == index);
    plan.workers.iter().filter(receives).any(|worker| interface.exceeds_frame(worker.frame_bytes))
}

/// Why a packet cannot lie in several frames in this mode, if it is so. Generic XDP can since it copies for it (Linux 6.9),
/// and before it makes one buffer of all: in both cases the kernel spreads the packet over the socket's frames.
fn single(plan: &Plan, index: usize, mode: Mode) -> Option<&'static str> {
    if !steering::has_multi_buffer_sockets() {
        return Some("several frames need Linux 6.6");
    }
    match driver_features(&plan.interfaces[index].name).ok().flatten() {
        Some(DriverFeatures { multi_buffer: false, .. }) if matches!(mode, Mode::ZeroCopy | Mode::Native) => {
            Some("its driver cannot spread one over several")
        }
        _ => None,
    }
}

/// What the driver says that it cannot do, and what kernel sockets cannot.
fn ruled_out(plan: &Plan, index: usize, mode: Mode) -> Option<String> {
    let features = driver_features(&plan.interfaces[index].name).ok().flatten();
    match (mode, features) {
        (Mode::ZeroCopy, Some(DriverFeatures { zero_copy: false, .. })) => {
            Some("its driver has no zero-copy AF_XDP".to_owned())
        }
        (Mode::ZeroCopy | Mode::Native, Some(DriverFeatures { native: false, .. })) => {
            Some("its driver has no native XDP".to_owned())
        }
        (Mode::Socket, _) => {
            let line = plan.lines.values().find(|line| line.interface == index && line.vlan != 0);
            let sent = |destination: &&crate::config::plan::DestinationPlan| {
                destination.queue.interface == index && destination.vlan != 0
            };
            let tagged =
                line.map(|line| line.vlan).or_else(|| plan.destinations.values().find(sent).map(|sent| sent.vlan));
            tagged.map(|vlan| format!("kernel sockets cannot choose VLAN {vlan}, which the configuration names"))
        }
        _ => None,
    }
}

/// What would work where a forced mode does not, as far as the driver tells: trying would attach programs.
fn instead(plan: &Plan, index: usize, forced: Mode) -> String {
    let lower = LADDER.into_iter().skip_while(|mode| *mode != forced).skip(1);
    let words: Vec<String> = lower
        .filter(|mode| ruled_out(plan, index, *mode).is_none())
        .map(|mode| format!("`{}`", mode.label()))
        .collect();
    if words.is_empty() {
        return "no lower mode would work either".to_owned();
    }
    format!("what its driver has: {}, or `auto` for the best of them", words.join(", "))
}

/// The interface as it is once it has a carrier again, or after a while without.
fn await_carrier(before: Interface) -> Interface {
    let give_up = Instant::now() + CARRIER_PATIENCE;
    loop {
        match Interface::read(&before.name) {
            Ok(now) if now.has_carrier || Instant::now() >= give_up => return now,
            Err(_) => return before,
            Ok(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
