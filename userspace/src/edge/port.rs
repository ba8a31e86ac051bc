//! Opening the ports of an interface.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::{EdgeError, OpenedPort, queues_of};
use crate::config::plan::{DestinationPlan, LinePlan, Mode, Plan, QueuePlan};
use crate::net::headers::{Header, Template};
use crate::net::interface::{Interface, InterfaceError};
use crate::net::socket::{LineSocket, SocketDestination, SocketError, SocketLine, SocketOptions, SocketRx, SocketTx};
use crate::net::umem::JUMBO_BYTES;
use crate::net::xsk::{self, XskRx};
use crate::net::{BATCH, Frames, LineIndex, Port, Rules, RxPort, TxDestination, TxPort};
use crate::steering::Steering;

/// How long a driver in zero-copy mode may take for its first frames.
const FEED_PATIENCE: Duration = Duration::from_millis(500);

/// Opens a port for every queue of the interface that a worker owns, ready to receive. Kernel sockets join the groups of
/// the lines that are `subscribed`.
pub(super) fn open_all(
    plan: &Plan,
    index: usize,
    interface: &Interface,
    mode: Mode,
    jumbo: bool,
    cookie: Option<u16>,
    subscribed: &[bool],
) -> Result<Vec<OpenedPort>, EdgeError> {
    let mut opened = Vec::new();
    for (worker, port_index, queue) in queues_of(plan, index) {
        let (mut port, fd) = if mode == Mode::Socket {
            (open_sockets(plan, worker, queue, interface, jumbo, subscribed)?, None)
        } else {
            let (port, fd) = open_xsk(plan, worker, queue, interface, mode, jumbo, cookie.unwrap_or(UNSTAMPED))?;
            (port, Some(fd))
        };
        register(plan, worker, queue, interface, mode, &mut port)?;
        // Before anything is redirected into it: a socket without frames drops what comes.
        if let Some(rx) = &mut port.rx {
            rx.refill(&port.frames);
        }
        let fd = fd.filter(|_| port.rx.is_some());
        opened.push(OpenedPort { worker, index: port_index, queue: queue.queue, fd, port });
    }
    Ok(opened)
}

/// Opens new ports for an interface whose link was lost and is here again, in `mode`, which was in force, and with room for
/// `jumbo` packets as before. `cookie` is its filter's, which is to be attached already. See [`enter`] for what comes next.
///
/// # Errors
/// As [`bring_up`](super::bring_up).
pub fn reopen(
    plan: &Plan,
    index: usize,
    mode: Mode,
    jumbo: bool,
    cookie: Option<u16>,
    subscribed: &[bool],
) -> Result<(Interface, Vec<OpenedPort>), EdgeError> {
    let interface = Interface::read(&plan.interfaces[index].name)?;
    let single = (!jumbo).then_some("its MTU was smaller when the handler started (a restart takes it as it is)");
    check_interface(plan, index, &interface, mode, single)?;
    let ports = open_all(plan, index, &interface, mode, jumbo, cookie, subscribed)?;
    Ok((interface, ports))
}

/// Enters the sockets of ports that receive in the filter's XSKMAP.
///
/// # Errors
/// The kernel's.
pub fn enter(steering: &mut Steering, ports: &[OpenedPort]) -> Result<(), EdgeError> {
    for OpenedPort { queue, fd, .. } in ports {
        if let Some(fd) = fd {
            steering.set_socket(*queue, *fd)?;
        }
    }
    Ok(())
}

/// What must hold of an interface in a mode, new or known. `single` says why a packet must fit one frame, if it must.
pub(super) fn check_interface(
    plan: &Plan,
    index: usize,
    interface: &Interface,
    mode: Mode,
    single: Option<&'static str>,
) -> Result<(), InterfaceError> {
    if mode == Mode::Socket {
        return Ok(());
    }
    interface.check_carrier()?;
    for worker in &plan.workers {
        let on_it = |queue: &&QueuePlan| queue.interface == index;
        worker.rx.iter().filter(on_it).try_for_each(|queue| interface.check_queue(queue.queue, true))?;
        worker.tx.iter().filter(on_it).try_for_each(|queue| interface.check_queue(queue.queue, false))?;
        if worker.rx.iter().any(|queue| queue.interface == index) {
            interface.check_frame(worker.frame_bytes, single)?;
        }
    }
    Ok(())
}

/// Jumbo buffers of a port: as many as the packets of one batch, and one for a packet that is under way.
const JUMBOS: u32 = BATCH as u32 + 1;

/// The cookie of a port on an interface without a filter: it receives nothing.
const UNSTAMPED: u16 = 1;

fn open_xsk(
    plan: &Plan,
    worker: usize,
    queue: QueuePlan,
    interface: &Interface,
    mode: Mode,
    jumbo: bool,
    cookie: u16,
) -> Result<(Port, RawFd), EdgeError> {
    let wanted = &plan.workers[worker];
    let mut frames = Frames::umem(wanted.frame_count, wanted.frame_bytes, wanted.ring_entries, wanted.huge_pages)
        .map_err(|source| EdgeError::Umem { worker: wanted.name.clone(), source })?;
    let (rx, tx) = (wanted.rx.contains(&queue), wanted.tx.contains(&queue));
    if jumbo && rx {
        frames = frames.with_jumbos(JUMBOS);
    }
    let mut pair = xsk::open(&frames, &interface.name, queue.queue, rx, tx, mode, wanted.ring_entries, cookie)?;
    pair.set_busy_poll((&plan.interfaces[queue.interface].sockets).into())?;
    if mode == Mode::ZeroCopy && pair.in_force() != Mode::ZeroCopy {
        return Err(EdgeError::NotZeroCopy { interface: interface.name.clone(), queue: queue.queue });
    }
    if let Some(port) = &mut pair.rx {
        port.swap_rules(&mut rules(plan, queue.interface));
        if mode == Mode::ZeroCopy {
            check_fed(port, &frames, interface, queue.queue)?;
        }
    }
    let fd = pair.fd;
    Ok((Port { frames, rx: pair.rx.map(RxPort::Xsk), tx: pair.tx.map(TxPort::Xsk) }, fd))
}

/// The probe after a zero-copy bind: a driver that works takes frames from the fill ring at once, whether packets come or
/// not. Some bind happily and never do. In copy mode the kernel takes frames only when packets come.
fn check_fed(port: &mut XskRx, frames: &Frames, interface: &Interface, queue: u32) -> Result<(), EdgeError> {
    port.refill(frames);
    let give_up = Instant::now() + FEED_PATIENCE;
    while !port.is_fed() {
        if Instant::now() >= give_up {
            let patience_ms = FEED_PATIENCE.as_millis() as u64;
            return Err(EdgeError::NotFed { interface: interface.name.clone(), queue, patience_ms });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn open_sockets(
    plan: &Plan,
    worker: usize,
    queue: QueuePlan,
    interface: &Interface,
    jumbo: bool,
    subscribed: &[bool],
) -> Result<Port, EdgeError> {
    let wanted = &plan.workers[worker];
    let options = SocketOptions::from(&plan.interfaces[queue.interface].sockets);
    let line = |(line, wanted): (LineIndex, &LinePlan)| {
        socket_line(line, wanted, interface.name.clone(), subscribed.get(usize::from(line)).copied().unwrap_or(false))
    };
    let lines: Vec<SocketLine> = plan.lines_of(worker, queue).map(line).collect();
    let rx = match wanted.rx.contains(&queue) {
        true => {
            let mut rx = SocketRx::new(&lines, &options)?;
            rx.make_room(plan.lines.room());
            Some(RxPort::Socket(rx))
        }
        false => None,
    };
    let tx = wanted.tx.contains(&queue).then(|| TxPort::Socket(SocketTx::new(&interface.name)));
    let frame_bytes = if jumbo { JUMBO_BYTES } else { wanted.frame_bytes };
    Ok(Port { frames: Frames::heap(wanted.frame_count, frame_bytes), rx, tx })
}

fn socket_line(line: LineIndex, wanted: &LinePlan, interface: String, subscribed: bool) -> SocketLine {
    SocketLine { line, group: wanted.group, interface, source: wanted.source, subscribed }
}

/// The socket of a line that comes in by kernel sockets, joined to nothing yet: for a port that is open already. Whoever opens
/// it may have fewer privileges than there were at the start; a smaller receive buffer for that is logged.
///
/// # Errors
/// The interface, or the step that the kernel refused; [`EdgeError::LateLine`] where that is for a privilege that is gone.
///
/// # Panics
/// If the plan has no such line.
pub fn line_socket(plan: &Plan, line: LineIndex) -> Result<LineSocket, EdgeError> {
    let wanted = &plan.lines[usize::from(line)];
    let interface = &plan.interfaces[wanted.interface];
    let options = SocketOptions::from(&interface.sockets);
    let socket = LineSocket::open(&socket_line(line, wanted, interface.name.clone(), false), &options);
    let socket = socket.map_err(|error| match error {
        SocketError::BusyPoll { ref source, .. } if source.is_permission() => {
            EdgeError::LateLine { line: wanted.name.clone(), interface: interface.name.clone(), source: error }
        }
        error => error.into(),
    })?;
    if socket.buffer_bytes() < options.receive_buffer_bytes {
        tracing::warn!(
            line = wanted.name,
            interface = interface.name,
            wanted_bytes = options.receive_buffer_bytes,
            granted_bytes = socket.buffer_bytes(),
            "a line that is added has a smaller receive buffer than receive_buffer_bytes, which CAP_NET_ADMIN gives at the \
             start only: raise net.core.rmem_max before lines are added, or restart"
        );
    }
    Ok(socket)
}

/// Registers the queue's destinations with its port, each under its index in the plan.
fn register(
    plan: &Plan,
    worker: usize,
    queue: QueuePlan,
    interface: &Interface,
    mode: Mode,
    port: &mut Port,
) -> Result<(), EdgeError> {
    let Some(tx) = &mut port.tx else { return Ok(()) };
    tx.make_room(plan.destinations.room());
    for (index, destination) in plan.destinations_of(worker, queue) {
        let placed = tx.put_destination(index, tx_destination(destination, interface, mode)?);
        assert!(matches!(placed, Ok(None)), "a new port has room for all destinations, and none of them yet");
    }
    Ok(())
}

/// What a port of an interface that is in this mode sends a destination by.
///
/// # Errors
/// The interface has no address to send from, or its MTU is too small, or the kernel refused the socket.
pub fn tx_destination(wanted: &DestinationPlan, interface: &Interface, mode: Mode) -> Result<TxDestination, EdgeError> {
    let header = header(wanted, interface)?;
    Ok(match mode {
        Mode::Socket => TxDestination::Socket(SocketDestination::open(&interface.name, header)?),
        _ => TxDestination::Headers(Template::new(&header)),
    })
}

fn header(wanted: &DestinationPlan, interface: &Interface) -> Result<Header, EdgeError> {
    let source = wanted
        .source
        .or(interface.ipv4)
        .ok_or_else(|| EdgeError::NoAddress { destination: wanted.name.clone(), interface: interface.name.clone() })?;
    interface.check_payload(&wanted.name, wanted.payload_bytes)?;
    let source = SocketAddrV4::new(source, wanted.source_port);
    let header = Header::multicast(interface.mac, wanted.vlan, source, wanted.group, wanted.ttl);
    Ok(header.expect("the plan has only multicast destinations"))
}

/// The rules of an interface's lines, for frames that the filter could not stamp.
#[must_use]
pub fn rules(plan: &Plan, interface: usize) -> Rules {
    let numbered = plan.numbered_lines().filter(|(_, line)| line.interface == interface);
    let rules: Vec<_> = numbered.map(|(index, line)| (line.key(), line.rule(index))).collect();
    Rules::new(&rules)
}
