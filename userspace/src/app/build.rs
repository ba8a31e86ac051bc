//! From the plan to the parts of the data path.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;
use std::sync::Arc;

use crate::config::plan::{DestinationPlan, Mode, Plan, QueuePlan};
use crate::config::{TimeZoneError, midnights};
use crate::feed::{Channel, ChannelError, ChannelIndex, ChannelSettings, LineRole, Midnights};
use crate::net::headers::Header;
use crate::net::interface::{Interface, InterfaceError};
use crate::net::socket::{SocketError, SocketLine, SocketOptions, SocketRx, SocketTx};
use crate::net::umem::{Frames, FramesError};
use crate::net::xsk::{self, XskError};
use crate::net::{LineIndex, RxPort, TxPort};
use crate::publish::{Publisher, Stream, StreamSettings};
use crate::steering::{Steering, SteeringError};
use crate::worker::shared::{COMMAND_QUEUE, WorkerLink, WorkerShared};
use crate::worker::{LineSlot, Worker, WorkerParts};

/// Events that wait for control at most; more are counted as dropped.
const EVENT_QUEUE: usize = 4096;

/// Why the data path could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An interface is absent, down, or has no address.
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
    /// Zero-copy was forced, and the kernel gave the socket copy mode.
    #[error(
        "interface `{interface}`: mode = \"zero-copy\" is not in force: sockets of one worker share their memory, and the \
         first of them has copy mode; give the interface a worker of its own, or set mode = \"auto\""
    )]
    NotZeroCopy {
        /// Its kernel name.
        interface: String,
    },
    /// A kernel socket could not be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
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
    /// A channel's settings do not work together.
    #[error("channel {name}: {source}")]
    Channel {
        /// Its name in the plan.
        name: String,
        /// What went wrong.
        source: ChannelError,
    },
    /// The time zone is unknown, or the clock is far out.
    #[error(transparent)]
    TimeZone(#[from] TimeZoneError),
}

/// Settings of one channel; `utc_ns` is a time near which its session days lie.
///
/// # Errors
/// A time zone that the bundled database does not have.
pub fn channel_settings(plan: &Plan, index: usize, utc_ns: u64) -> Result<ChannelSettings, BuildError> {
    let channel = &plan.channels[index];
    Ok(ChannelSettings {
        index: ChannelIndex::try_from(index).expect("the plan has fewer than 65,536 channels"),
        transport: channel.transport,
        decoder: channel.decoder,
        publisher_id: channel.publisher_id,
        gap_timeout_ns: channel.gap_timeout_us * 1_000,
        give_up_ns: channel.give_up_ms * 1_000_000,
        stale_ns: channel.stale_ms * 1_000_000,
        hold_packets: channel.hold_packets,
        max_orders: channel.max_orders,
        start: channel.start,
        midnights: Midnights::new(midnights(&channel.time_zone, utc_ns)?),
    })
}

/// For each line of the plan: its channel, and which copy of it the line is.
#[must_use]
pub fn line_roles(plan: &Plan) -> Vec<(usize, LineRole)> {
    let role = |index, line: &crate::config::plan::LinePlan| {
        let first = plan.channels[line.channel].lines.first() == Some(&index);
        (line.channel, if first { LineRole::A } else { LineRole::B })
    };
    plan.lines.iter().enumerate().map(|(index, line)| role(index, line)).collect()
}

/// One interface as it runs.
#[derive(Debug)]
pub struct Edge {
    /// Kernel facts.
    pub interface: Interface,
    /// The filter, unless the interface only transmits or runs in socket mode.
    pub steering: Option<Steering>,
    /// The mode that is in force.
    pub mode: Mode,
}

/// Attaches the filter to every interface that receives in an XDP mode.
///
/// # Errors
/// The first interface that is absent, down or occupied; what was attached before is detached again.
pub fn edges(plan: &Plan, cookie: u16) -> Result<Vec<Edge>, BuildError> {
    let mut edges = Vec::new();
    for (index, wanted) in plan.interfaces.iter().enumerate() {
        let interface = Interface::read(&wanted.name)?;
        interface.check_carrier()?;
        for worker in &plan.workers {
            let numbers =
                |queues: &[QueuePlan]| queues.iter().filter(|q| q.interface == index).map(|q| q.queue).collect();
            let (rx, tx): (Vec<u32>, Vec<u32>) = (numbers(&worker.rx), numbers(&worker.tx));
            if wanted.mode != Mode::Socket && !rx.is_empty() {
                interface.check_frame(worker.frame_bytes)?;
            }
            rx.into_iter().try_for_each(|queue| interface.check_queue(queue, true))?;
            tx.into_iter().try_for_each(|queue| interface.check_queue(queue, false))?;
        }
        let receives = plan.workers.iter().flat_map(|worker| &worker.rx).any(|queue| queue.interface == index);
        let steering = match wanted.mode {
            Mode::Socket => None,
            mode if receives => Some(Steering::attach(&wanted.name, mode, cookie)?),
            _ => None,
        };
        // A driver without native XDP leaves `auto` with skb; the rest is read back from the sockets.
        let fell_back = steering.as_ref().is_some_and(|steering| steering.mode() == Mode::Skb);
        edges.push(Edge { interface, steering, mode: if fell_back { Mode::Skb } else { wanted.mode } });
    }
    Ok(edges)
}

/// Builds one worker: frames, ports, channels, streams, and the control side's link to it.
///
/// # Errors
/// The first part that could not be had, with its name.
pub fn worker(
    plan: &Plan,
    index: usize,
    edges: &mut [Edge],
    cookie: u16,
    utc_ns: u64,
) -> Result<(Worker, WorkerLink), BuildError> {
    let wanted = &plan.workers[index];
    let uses_xdp = wanted.rx.iter().chain(&wanted.tx).any(|queue| edges[queue.interface].mode != Mode::Socket);
    let frames = if uses_xdp {
        Frames::umem(wanted.frame_count, wanted.frame_bytes, wanted.ring_entries, wanted.huge_pages)
            .map_err(|source| BuildError::Umem { worker: wanted.name.clone(), source })?
    } else {
        Frames::heap(wanted.frame_count, wanted.frame_bytes)
    };
    let (rx, mut tx) = ports(plan, index, edges, &frames, cookie)?;
    let publisher = publisher(plan, index, edges, &mut tx)?;
    let (channels, lines) = channels(plan, index, utc_ns)?;
    let (commands, command_queue) = rtrb::RingBuffer::new(COMMAND_QUEUE);
    let (event_queue, events) = rtrb::RingBuffer::new(EVENT_QUEUE);
    let shared = WorkerShared::new(plan.lines.len(), plan.channels.len(), plan.destinations.len(), rx.len(), tx.len());
    let worker = Worker::new(WorkerParts {
        frames,
        rx,
        tx,
        lines,
        channels,
        publisher,
        idle: wanted.idle,
        commands: command_queue,
        events: event_queue,
        shared: Arc::clone(&shared),
    });
    Ok((worker, WorkerLink { index, commands: commands.into(), events: events.into(), shared }))
}

/// Opens the worker's ports: one socket per (interface, queue), receiving, transmitting or both.
fn ports(
    plan: &Plan,
    index: usize,
    edges: &mut [Edge],
    frames: &Frames,
    cookie: u16,
) -> Result<(Vec<RxPort>, Vec<TxPort>), BuildError> {
    let wanted = &plan.workers[index];
    let mut rx = Vec::new();
    let mut tx: Vec<Option<TxPort>> = wanted.tx.iter().map(|_| None).collect();
    for &queue in &wanted.rx {
        let transmits = wanted.tx.iter().position(|other| *other == queue);
        let edge = &mut edges[queue.interface];
        if edge.mode == Mode::Socket {
            let options = SocketOptions::from(&plan.interfaces[queue.interface].sockets);
            rx.push(RxPort::Socket(SocketRx::new(&socket_lines(plan, index, queue, edge), &options)?));
            continue;
        }
        let mut pair = open(wanted.ring_entries, edge, queue, true, transmits.is_some(), frames, cookie)?;
        pair.set_busy_poll((&plan.interfaces[queue.interface].sockets).into())?;
        let mut port = pair.rx.take().expect("asked for receive");
        port.set_rules(&rules(plan, queue.interface));
        if let Some(steering) = &mut edge.steering {
            steering.set_socket(queue.queue, pair.fd)?;
        }
        rx.push(RxPort::Xsk(port));
        if let Some(slot) = transmits {
            tx[slot] = pair.tx.take().map(TxPort::Xsk);
        }
    }
    for (slot, &queue) in tx.iter_mut().zip(&wanted.tx) {
        let edge = &mut edges[queue.interface];
        if slot.is_none() {
            *slot = Some(if edge.mode == Mode::Socket {
                TxPort::Socket(SocketTx::new(&edge.interface.name))
            } else {
                let mut pair = open(wanted.ring_entries, edge, queue, false, true, frames, cookie)?;
                pair.set_busy_poll((&plan.interfaces[queue.interface].sockets).into())?;
                TxPort::Xsk(pair.tx.expect("asked for transmit"))
            });
        }
    }
    Ok((rx, tx.into_iter().flatten().collect()))
}

fn open(
    ring_entries: u32,
    edge: &mut Edge,
    queue: QueuePlan,
    rx: bool,
    tx: bool,
    frames: &Frames,
    cookie: u16,
) -> Result<xsk::XskPair, BuildError> {
    let pair = xsk::open(frames, &edge.interface.name, queue.queue, rx, tx, edge.mode, ring_entries, cookie)?;
    let in_force = pair.in_force();
    if edge.mode == Mode::ZeroCopy && in_force != Mode::ZeroCopy {
        return Err(BuildError::NotZeroCopy { interface: edge.interface.name.clone() });
    }
    edge.mode = in_force;
    Ok(pair)
}

/// The worker's lines on an interface: kernel sockets know no queues, so the configuration allows queue 0 only.
fn socket_lines(plan: &Plan, worker: usize, queue: QueuePlan, edge: &Edge) -> Vec<SocketLine> {
    let on_it = |line: &crate::config::plan::LinePlan| {
        line.interface == queue.interface && plan.channels[line.channel].worker == worker
    };
    (0..)
        .zip(&plan.lines)
        .filter(|(_, line)| on_it(line))
        .map(|(index, line)| SocketLine {
            line: index,
            group: line.group,
            interface: edge.interface.name.clone(),
            source: line.source,
            // Control switches it on, as in every mode.
            subscribed: false,
        })
        .collect()
}

fn rules(plan: &Plan, interface: usize) -> Vec<(xdp_ebpf::GroupKey, xdp_ebpf::GroupRule)> {
    let on_it = |line: &crate::config::plan::LinePlan| line.interface == interface;
    let numbered = (0..).zip(&plan.lines).map(|(index, line): (LineIndex, _)| (index, line));
    numbered.filter(|(_, line)| on_it(line)).map(|(index, line)| (line.key(), line.rule(index))).collect()
}

fn publisher(plan: &Plan, index: usize, edges: &[Edge], tx: &mut [TxPort]) -> Result<Publisher, BuildError> {
    let mut streams = Vec::new();
    for (destination, wanted) in plan.destinations.iter().enumerate() {
        if plan.channels[wanted.channel].worker != index {
            continue;
        }
        let port = plan.workers[index].tx.iter().position(|queue| *queue == wanted.queue);
        let port = port.expect("the plan gives a worker the queues of its destinations");
        let header = header(wanted, &edges[wanted.queue.interface].interface)?;
        let port_destination = tx[port].add_destination(header)?;
        streams.push(Stream::new(StreamSettings {
            destination,
            channel: ChannelIndex::try_from(wanted.channel).expect("the plan has fewer than 65,536 channels"),
            port,
            port_destination,
            format: wanted.format,
            payload_bytes: wanted.payload_bytes,
        }));
    }
    Ok(Publisher::new(streams))
}

fn header(wanted: &DestinationPlan, interface: &Interface) -> Result<Header, BuildError> {
    let source = wanted
        .source
        .or(interface.ipv4)
        .ok_or_else(|| BuildError::NoAddress { destination: wanted.name.clone(), interface: interface.name.clone() })?;
    interface.check_payload(&wanted.name, wanted.payload_bytes)?;
    let source = SocketAddrV4::new(source, wanted.source_port);
    let header = Header::multicast(interface.mac, wanted.vlan, source, wanted.group, wanted.ttl);
    Ok(header.expect("the plan has only multicast destinations"))
}

/// The worker's channels, and by line of the plan which of them it belongs to.
type Channels = (Vec<(usize, Channel)>, Vec<Option<LineSlot>>);

fn channels(plan: &Plan, worker: usize, utc_ns: u64) -> Result<Channels, BuildError> {
    let mut channels = Vec::new();
    let mut slots = vec![None; plan.channels.len()];
    for (index, wanted) in plan.channels.iter().enumerate().filter(|(_, wanted)| wanted.worker == worker) {
        let settings = channel_settings(plan, index, utc_ns)?;
        let channel =
            Channel::new(settings).map_err(|source| BuildError::Channel { name: wanted.name.clone(), source })?;
        slots[index] = Some(channels.len());
        channels.push((index, channel));
    }
    // Lines start disabled: control enables each once it is joined and has its rule.
    let line =
        |(channel, role): (usize, LineRole)| slots[channel].map(|channel| LineSlot { channel, role, enabled: false });
    Ok((channels, line_roles(plan).into_iter().map(line).collect()))
}
