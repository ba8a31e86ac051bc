//! From the plan to the workers.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use crate::beside::threads;
use crate::config::plan::{LinePlan, Plan};
use crate::config::{TimeZoneError, midnights};
use crate::feed::{Channel, ChannelError, ChannelIndex, ChannelSettings, LineRole, Midnights};
use crate::net::handoff::{Handoff, handoff};
use crate::net::{Frames, Port, RxPort};
use crate::publish::{Publisher, Stream, StreamSettings};
use crate::recovery;
use crate::snapshot;
use crate::source;
use crate::worker::edit::NewChannel;
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

/// Which copy of its channel a line is: its name says it, whatever other line comes or goes.
#[must_use]
pub fn line_role(line: &LinePlan) -> LineRole {
    if line.name == "B" { LineRole::B } else { LineRole::A }
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
    let queue_ports = ports.iter().take(plan.workers[index].ports.len());
    let payload_bytes: Vec<usize> = queue_ports.map(|port| port.frames.longest_payload()).collect();
    let (channels, lines) = channels(plan, index, &payload_bytes, utc_ns)?;
    let (commands, command_queue) = rtrb::RingBuffer::new(COMMAND_QUEUE);
    let (event_queue, events) = rtrb::RingBuffer::new(EVENT_QUEUE);
    let (wants, wanted) = rtrb::RingBuffer::new(recovery::WANTED_QUEUE);
    let answers = fed_port(&mut ports, recovery::ANSWERS, recovery::FRAMES);
    let packets = fed_port(&mut ports, snapshot::PACKETS, snapshot::FRAMES);
    let datagrams = fed_port(&mut ports, source::DATAGRAMS, source::FRAMES);
    let shared = WorkerShared::new(plan.line_count(), plan.channels.room(), plan.destinations.room(), ports.len());
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
    let link = WorkerLink { index, commands: commands.into(), events: events.into(), shared, payload_bytes };
    Ok((worker, link, ends))
}

/// Adds a port that another thread feeds; returns that thread's end.
fn fed_port(ports: &mut Vec<Port>, datagrams: usize, frames: u32) -> Handoff {
    let (feed, rx) = handoff(datagrams);
    ports.push(Port { frames: Frames::heap(frames, 2048), rx: Some(RxPort::Handoff(rx)), tx: None });
    feed
}

fn publisher(plan: &Plan, index: usize) -> Publisher {
    let of_it = |destination: &usize| plan.channels[plan.destinations[*destination].channel].worker == index;
    Publisher::new(plan.destinations.indices().filter(of_it).map(|destination| stream(plan, destination)).collect())
}

/// The stream of a destination of the plan, which has sent nothing yet.
///
/// # Panics
/// If the plan has no such destination.
#[must_use]
pub fn stream(plan: &Plan, destination: usize) -> Stream {
    unrouted(plan, destination).routed(&plan.destinations[destination].route)
}

/// The same of one that is added while its channel's session may run, or takes another's place.
///
/// # Panics
/// As [`stream`].
#[must_use]
pub fn joining_stream(plan: &Plan, destination: usize) -> Stream {
    unrouted(plan, destination).joining(&plan.destinations[destination].route)
}

fn unrouted(plan: &Plan, destination: usize) -> Stream {
    let wanted = &plan.destinations[destination];
    Stream::new(StreamSettings {
        destination,
        channel: ChannelIndex::try_from(wanted.channel).expect("the plan has fewer than 65,536 channels"),
        port: plan.workers[plan.channels[wanted.channel].worker].port_of(wanted.queue),
        format: wanted.format,
        payload_bytes: wanted.payload_bytes,
    })
}

/// Longest payload that a line of a channel can ever bring, bytes: a line that is added later may come by any port by which its
/// worker receives. `payload_bytes` is that of each port of the worker ([`WorkerLink::payload_bytes`]).
#[must_use]
pub fn longest_payload(plan: &Plan, channel: usize, payload_bytes: &[usize]) -> usize {
    let worker = &plan.workers[plan.channels[channel].worker];
    let ports = worker.ports.iter().zip(payload_bytes);
    ports.filter(|(queue, _)| worker.rx.contains(queue)).map(|(_, bytes)| *bytes).max().unwrap_or(0)
}

/// A channel of the plan as a worker needs it, its lines of the plan apart; `payload_bytes` is as for [`longest_payload`].
///
/// # Errors
/// Settings that do not work together, or a time zone that is not known.
pub fn channel(plan: &Plan, index: usize, payload_bytes: &[usize], utc_ns: u64) -> Result<NewChannel, BuildError> {
    let payload_bytes = longest_payload(plan, index, payload_bytes);
    let settings = ChannelSettings { payload_bytes, ..channel_settings(plan, index, utc_ns)? };
    let name = || plan.channels[index].name.clone();
    let channel = Channel::new(settings).map_err(|source| BuildError::Channel { name: name(), source })?;
    let own_lines = [
        (plan.recovery_line(index), LineRole::Recovery),
        (plan.snapshot_line(index), LineRole::Snapshot),
        (plan.soup_line(index), LineRole::Soup),
    ];
    Ok(NewChannel { index, channel, own_lines })
}

/// The worker's channels, and by line of the plan which of them it belongs to.
type Channels = (Vec<(usize, Channel)>, Vec<Option<LineSlot>>);

fn channels(plan: &Plan, worker: usize, payload_bytes: &[usize], utc_ns: u64) -> Result<Channels, BuildError> {
    let mut channels = Vec::new();
    let mut lines = vec![None; plan.line_count()];
    for (index, _) in plan.channels.iter().filter(|(_, wanted)| wanted.worker == worker) {
        let NewChannel { channel, own_lines, .. } = self::channel(plan, index, payload_bytes, utc_ns)?;
        // Nobody switches these: without servers nothing comes.
        for (line, role) in own_lines {
            lines[usize::from(line)] = Some(LineSlot { channel: channels.len(), role, enabled: true });
        }
        // Lines start disabled: control enables each once it is joined and has its rule.
        for (line, wanted) in plan.lines.iter().filter(|(_, line)| line.channel == index) {
            lines[line] = Some(LineSlot { channel: channels.len(), role: line_role(wanted), enabled: false });
        }
        channels.push((index, channel));
    }
    Ok((channels, lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Host};

    #[test]
    fn a_channel_has_room_for_what_a_line_that_comes_later_brings() {
        let channel = |name: &str, interface: &str| {
            format!(
                "[[feed.channel]]\nname = \"{name}\"\n[[feed.channel.line]]\nname = \"A\"\n\
                 interface = \"{interface}\"\ngroup = \"239.10.0.1:26400\"\n"
            )
        };
        let text = format!(
            "[handler]\nname = \"t\"\n[[interface]]\nname = \"eth0\"\nmode = \"socket\"\n[[interface]]\n\
             name = \"eth1\"\nmode = \"socket\"\n[[interface]]\nname = \"eth2\"\nmode = \"socket\"\n\
             [[worker]]\nname = \"w0\"\n[[feed]]\nname = \"f\"\ntransport = \"moldudp64\"\n\
             decoder = \"itch50\"\npublisher_id = 2\ntime_zone = \"America/New_York\"\n{}{}[[destination]]\n\
             name = \"out\"\nchannel = \"f/small\"\ninterface = \"eth2\"\ngroup = \"239.20.0.1:30001\"\n",
            channel("small", "eth0"),
            channel("jumbo", "eth1"),
        );
        let plan = Config::parse(&text, "test.toml", &Host { cores: vec![] }).expect("legal");
        let worker = &plan.workers[0];
        let payload_bytes: Vec<_> = worker.ports.iter().map(|queue| [1_000, 9_000, 60_000][queue.interface]).collect();
        assert_eq!(payload_bytes.len(), 3);
        // Nothing is ever received on the third.
        assert_eq!([0, 1].map(|channel| longest_payload(&plan, channel, &payload_bytes)), [9_000; 2]);
    }
}
