//! Opening the ports of an interface.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::{EdgeError, OpenedPort, queues_of};
use crate::config::plan::{DestinationPlan, Mode, Plan, QueuePlan};
use crate::net::headers::Header;
use crate::net::interface::Interface;
use crate::net::socket::{SocketLine, SocketOptions, SocketRx, SocketTx};
use crate::net::xsk::{self, XskRx};
use crate::net::{Frames, LineIndex, Port, RxPort, TxPort};
use crate::steering::Steering;

/// How long a driver in zero-copy mode may take for its first frames.
const FEED_PATIENCE: Duration = Duration::from_millis(500);

/// Opens a port for every queue of the interface that a worker owns, and enters those that receive in the XSKMAP.
pub(super) fn open_all(
    plan: &Plan,
    index: usize,
    interface: &Interface,
    mode: Mode,
    mut steering: Option<&mut Steering>,
) -> Result<Vec<OpenedPort>, EdgeError> {
    let mut opened = Vec::new();
    for (worker, port_index, queue) in queues_of(plan, index) {
        let mut port = if mode == Mode::Socket {
            open_sockets(plan, worker, queue, interface)?
        } else {
            let cookie = steering.as_ref().map_or(UNSTAMPED, |steering| steering.cookie());
            let (port, fd) = open_xsk(plan, worker, queue, interface, mode, cookie)?;
            if let (Some(steering), true) = (&mut steering, port.rx.is_some()) {
                steering.set_socket(queue.queue, fd)?;
            }
            port
        };
        register(plan, worker, queue, interface, &mut port)?;
        opened.push(OpenedPort { worker, index: port_index, port });
    }
    Ok(opened)
}

/// Brings an interface back whose link was lost and is here again: attaches the filter, with its rules and counters as they
/// were, and opens new ports in `mode`, which was in force.
///
/// # Errors
/// As [`bring_up`](super::bring_up). The filter may then be attached and its sockets not entered: frames pass to the kernel,
/// and this can be tried again.
pub fn reopen(
    plan: &Plan,
    index: usize,
    mode: Mode,
    mut steering: Option<&mut Steering>,
) -> Result<(Interface, Vec<OpenedPort>), EdgeError> {
    let interface = Interface::read(&plan.interfaces[index].name)?;
    interface.check_carrier()?;
    if let Some(steering) = &mut steering {
        steering.reattach()?;
    }
    let ports = open_all(plan, index, &interface, mode, steering)?;
    Ok((interface, ports))
}

/// The cookie of a port on an interface without a filter: it receives nothing.
const UNSTAMPED: u16 = 1;

fn open_xsk(
    plan: &Plan,
    worker: usize,
    queue: QueuePlan,
    interface: &Interface,
    mode: Mode,
    cookie: u16,
) -> Result<(Port, RawFd), EdgeError> {
    let wanted = &plan.workers[worker];
    let frames = Frames::umem(wanted.frame_count, wanted.frame_bytes, wanted.ring_entries, wanted.huge_pages)
        .map_err(|source| EdgeError::Umem { worker: wanted.name.clone(), source })?;
    let (rx, tx) = (wanted.rx.contains(&queue), wanted.tx.contains(&queue));
    let mut pair = xsk::open(&frames, &interface.name, queue.queue, rx, tx, mode, wanted.ring_entries, cookie)?;
    pair.set_busy_poll((&plan.interfaces[queue.interface].sockets).into())?;
    if mode == Mode::ZeroCopy && pair.in_force() != Mode::ZeroCopy {
        return Err(EdgeError::NotZeroCopy { interface: interface.name.clone(), queue: queue.queue });
    }
    if let Some(port) = &mut pair.rx {
        port.set_rules(&rules(plan, queue.interface));
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

fn open_sockets(plan: &Plan, worker: usize, queue: QueuePlan, interface: &Interface) -> Result<Port, EdgeError> {
    let wanted = &plan.workers[worker];
    let options = SocketOptions::from(&plan.interfaces[queue.interface].sockets);
    let line = |(line, wanted): (LineIndex, &crate::config::plan::LinePlan)| SocketLine {
        line,
        group: wanted.group,
        interface: interface.name.clone(),
        source: wanted.source,
        // Control switches it on, as in every mode.
        subscribed: false,
    };
    let lines: Vec<SocketLine> = plan.lines_of(worker, queue).map(line).collect();
    let rx = match wanted.rx.contains(&queue) {
        true => Some(RxPort::Socket(SocketRx::new(&lines, &options)?)),
        false => None,
    };
    let tx = wanted.tx.contains(&queue).then(|| TxPort::Socket(SocketTx::new(&interface.name)));
    Ok(Port { frames: Frames::heap(wanted.frame_count, wanted.frame_bytes), rx, tx })
}

/// Registers the queue's destinations with its port.
fn register(
    plan: &Plan,
    worker: usize,
    queue: QueuePlan,
    interface: &Interface,
    port: &mut Port,
) -> Result<(), EdgeError> {
    let Some(tx) = &mut port.tx else { return Ok(()) };
    for (expected, (_, destination)) in plan.destinations_of(worker, queue).enumerate() {
        let number = tx.add_destination(header(destination, interface)?)?;
        assert_eq!(number, expected, "ports number destinations in the order of their registration");
    }
    Ok(())
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
fn rules(plan: &Plan, interface: usize) -> Vec<(xdp_ebpf::GroupKey, xdp_ebpf::GroupRule)> {
    let numbered = (0..).zip(&plan.lines).filter(|(_, line)| line.interface == interface);
    numbered.map(|(index, line)| (line.key(), line.rule(index))).collect()
}
