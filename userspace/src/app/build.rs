//! From the plan to the workers.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use crate::beside::threads;
use crate::config::plan::Plan;
use crate::config::{TimeZoneError, midnights};
use crate::feed::{Channel, ChannelError, ChannelIndex, ChannelSettings, LineRole, Midnights};
use crate::net::handoff::{Handoff, handoff};
use crate::net::{Frames, Port, RxPort};
use crate::publish::{Publisher, Stream, StreamSettings};
use crate::recovery;
use crate::snapshot;
use crate::source;
use crate::worker::shared::{COMMAND_QUEUE, WorkerLink, WorkerShared};
use crate::worker::{LineSlot, Worker, WorkerParts};

/// Events that wait for control at most; more are counted as dropped.
const EVENT_QUEUE: usize = 4096;

/// Why a worker could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
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

/// Settings of one channel whose packets are no longer than a frame; `utc_ns` is a time near which its session days lie.
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
        on_gap: channel.on_gap,
        stale_ns: channel.stale_ms * 1_000_000,
        backfill_ns: channel.recovery.as_ref().map_or(0, |recovery| recovery.backfill_ms * 1_000_000),
        hold_packets: channel.hold_packets,
        payload_bytes: 0,
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

/// A worker, the control side's link to it, and the ends of what other threads feed it with.
pub type Built = (Worker, WorkerLink, threads::Ends);

/// Builds one worker of its opened ports: channels, streams, the control side's link to it, and the ends for the threads beside.
///
/// Behind the ports of the plan are always those for recovered datagrams, snapshots and TCP streams, whether anything comes by
/// them yet or not: channels that need them may come later. A look into an empty ring costs a nanosecond more than a look at a
/// vacant place.
///
/// # Errors
/// The first part that could not be had, with its name.
pub fn worker(plan: &Plan, index: usize, mut ports: Vec<Port>, utc_ns: u64) -> Result<Built, BuildError> {
    let (channels, lines) = channels(plan, index, &ports, utc_ns)?;
    let (commands, command_queue) = rtrb::RingBuffer::new(COMMAND_QUEUE);
    let (event_queue, events) = rtrb::RingBuffer::new(EVENT_QUEUE);
    let (wants, wanted) = rtrb::RingBuffer::new(recovery::WANTED_QUEUE);
    let answers = fed_port(&mut ports, recovery::ANSWERS, recovery::FRAMES);
    let packets = fed_port(&mut ports, snapshot::PACKETS, snapshot::FRAMES);
    let datagrams = fed_port(&mut ports, source::DATAGRAMS, source::FRAMES);
    let shared = WorkerShared::new(plan.line_count(), plan.channels.len(), plan.destinations.len(), ports.len());
    let worker = Worker::new(WorkerParts {
        ports,
        lines,
        channels,
        publisher: publisher(plan, index),
        idle: plan.workers[index].idle,
        commands: command_queue,
        events: event_queue,
        wants: Some(wants),
        shared: Arc::clone(&shared),
    });
    let ends = threads::Ends {
        recovery: recovery::Ends { worker: index, wanted, answers, shared: Arc::clone(&shared) },
        snapshot: snapshot::Ends { worker: index, packets: Arc::new(Mutex::new(packets)), shared: Arc::clone(&shared) },
        source: source::Ends { worker: index, datagrams, shared: Arc::clone(&shared) },
        shared: Arc::clone(&shared),
    };
    Ok((worker, WorkerLink { index, commands: commands.into(), events: events.into(), shared }, ends))
}

/// Adds a port that another thread feeds; returns that thread's end.
fn fed_port(ports: &mut Vec<Port>, datagrams: usize, frames: u32) -> Handoff {
    let (feed, rx) = handoff(datagrams);
    ports.push(Port { frames: Frames::heap(frames, 2048), rx: Some(RxPort::Handoff(rx)), tx: None });
    feed
}

fn publisher(plan: &Plan, index: usize) -> Publisher {
    let worker = &plan.workers[index];
    let streams = worker.tx.iter().flat_map(|&queue| {
        let port = worker.port_of(queue);
        plan.destinations_of(index, queue).enumerate().map(move |(port_destination, (destination, wanted))| {
            Stream::new(StreamSettings {
                destination,
                channel: ChannelIndex::try_from(wanted.channel).expect("the plan has fewer than 65,536 channels"),
                port,
                port_destination,
                format: wanted.format,
                payload_bytes: wanted.payload_bytes,
            })
        })
    });
    Publisher::new(streams.collect())
}

/// Longest payload that the ports by which a channel's lines come can receive, bytes.
fn longest_payload(plan: &Plan, worker: usize, channel: usize, ports: &[Port]) -> usize {
    let brings = |interface| plan.channels[channel].lines.iter().any(|line| plan.lines[*line].interface == interface);
    let ports = plan.workers[worker].ports.iter().zip(ports).filter(|(queue, _)| brings(queue.interface));
    ports.map(|(_, port)| port.frames.longest_payload()).max().unwrap_or(0)
}

/// The worker's channels, and by line of the plan which of them it belongs to.
type Channels = (Vec<(usize, Channel)>, Vec<Option<LineSlot>>);

fn channels(plan: &Plan, worker: usize, ports: &[Port], utc_ns: u64) -> Result<Channels, BuildError> {
    let mut channels = Vec::new();
    let mut slots = vec![None; plan.channels.len()];
    for (index, wanted) in plan.channels.iter().enumerate().filter(|(_, wanted)| wanted.worker == worker) {
        let payload_bytes = longest_payload(plan, worker, index, ports);
        let settings = ChannelSettings { payload_bytes, ..channel_settings(plan, index, utc_ns)? };
        let channel =
            Channel::new(settings).map_err(|source| BuildError::Channel { name: wanted.name.clone(), source })?;
        slots[index] = Some(channels.len());
        channels.push((index, channel));
    }
    // Lines start disabled: control enables each once it is joined and has its rule.
    let line =
        |(channel, role): (usize, LineRole)| slots[channel].map(|channel| LineSlot { channel, role, enabled: false });
    let lines = line_roles(plan).into_iter().map(line);
    // Nobody switches these: without servers nothing comes.
    let recovered = |channel| LineSlot { channel, role: LineRole::Recovery, enabled: true };
    let snapshot = |channel| LineSlot { role: LineRole::Snapshot, ..recovered(channel) };
    let streamed = |channel| LineSlot { role: LineRole::Soup, ..recovered(channel) };
    let lines = lines.chain(slots.iter().map(|slot| slot.map(recovered)));
    let lines = lines.chain(slots.iter().map(|slot| slot.map(snapshot)));
    Ok((channels, lines.chain(slots.iter().map(|slot| slot.map(streamed))).collect()))
}
