//! A worker on memory ports with room for more than it begins with.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use feedhandler::clock;
use feedhandler::config::plan::{DecoderKind, Format, Idle, OnGap, StartAt, TransportKind};
use feedhandler::feed::{Channel, ChannelIndex, ChannelSettings, LineRole, Midnights};
use feedhandler::net::memory::{MemoryRx, MemoryTx};
use feedhandler::net::{Frames, LineIndex, Port, RxPort, TxDestination, TxPort};
use feedhandler::publish::{Publisher, Stream, StreamSettings};
use feedhandler::worker::edit::NewChannel;
use feedhandler::worker::shared::{COMMAND_QUEUE, Command, Event, WorkerLink, WorkerShared};
use feedhandler::worker::{LineSlot, Worker, WorkerParts};

/// Room for lines of the plan, channels and destinations; ports.
pub const LINES: usize = 12;
pub const CHANNELS: usize = 5;
pub const DESTINATIONS: usize = 8;
pub const PORTS: usize = 2;

/// Events that find room.
const EVENTS: usize = 4;

/// Room in the memory ports, so that a test may count allocations.
const PACKETS: usize = 1 << 12;

pub struct Rig {
    pub worker: Worker,
    pub link: WorkerLink,
    now_ns: u64,
}

/// A channel that waits for what is missing as long as the test runs.
pub fn channel(index: usize) -> NewChannel {
    let settings = ChannelSettings {
        index: ChannelIndex::try_from(index).expect("few"),
        transport: TransportKind::MoldUdp64,
        decoder: DecoderKind::Itch50,
        publisher_id: 2,
        gap_timeout_ns: 1_000_000,
        give_up_ns: u64::MAX / 4,
        on_gap: OnGap::Hold,
        stale_ns: 0,
        backfill_ns: 0,
        hold_packets: 1024,
        payload_bytes: 0,
        max_orders: 16,
        start: StartAt::First,
        midnights: Midnights::utc(),
    };
    let line = |kind: usize| LineIndex::try_from(LINES + kind * CHANNELS + index).expect("few");
    let own_lines = [(line(0), LineRole::Recovery), (line(1), LineRole::Snapshot), (line(2), LineRole::Soup)];
    NewChannel { index, channel: Channel::new(settings).expect("legal sizes"), own_lines }
}

pub fn stream(destination: usize, channel: usize, port: usize, format: Format) -> Stream {
    let channel = ChannelIndex::try_from(channel).expect("few");
    Stream::new(StreamSettings { destination, channel, port, format, payload_bytes: 1472 })
}

fn port() -> Port {
    let mut tx = TxPort::Memory(MemoryTx::with_capacity(PACKETS, PACKETS * 1500));
    tx.make_room(DESTINATIONS);
    let rx = RxPort::Memory(MemoryRx::with_capacity(PACKETS, PACKETS * 1500));
    Port { frames: Frames::heap(256, 2048), rx: Some(rx), tx: Some(tx) }
}

impl Rig {
    /// With channel 0, its lines 0 and 1, and its stream to destination 0 by port 0.
    pub fn new() -> Self {
        let (commands, command_queue) = rtrb::RingBuffer::<Command>::new(COMMAND_QUEUE);
        let (event_queue, events) = rtrb::RingBuffer::<Event>::new(EVENTS);
        let shared = WorkerShared::new(LINES + 3 * CHANNELS, CHANNELS, DESTINATIONS, PORTS);
        let mut ports: Vec<Port> = (0..PORTS).map(|_| port()).collect();
        let tx = ports[0].tx.as_mut().expect("transmits");
        assert!(matches!(tx.put_destination(0, TxDestination::Memory), Ok(None)));
        let NewChannel { channel, own_lines, .. } = channel(0);
        let mut lines = vec![None; LINES + 3 * CHANNELS];
        for (line, role) in own_lines.into_iter().chain([(0, LineRole::A), (1, LineRole::B)]) {
            lines[usize::from(line)] = Some(LineSlot { channel: 0, role, enabled: true });
        }
        let worker = Worker::new(WorkerParts {
            ports,
            lines,
            channels: vec![(0, channel)],
            publisher: Publisher::new(vec![stream(0, 0, 0, Format::Raw)]),
            idle: Idle::Spin,
            commands: command_queue,
            events: event_queue,
            wants: None,
            shared: Arc::clone(&shared),
        });
        let payload_bytes = vec![2048; PORTS];
        let link = WorkerLink { index: 0, commands: commands.into(), events: events.into(), shared, payload_bytes };
        Self { worker, link, now_ns: clock::monotonic_ns() }
    }

    pub fn inject(&mut self, port: usize, line: u16, payload: &[u8]) {
        let Some(RxPort::Memory(port)) = self.worker.rx_mut(port) else { unreachable!("a memory port") };
        port.inject(line, payload, self.now_ns);
    }

    /// One duty cycle, so much later.
    pub fn cycle(&mut self, later_ns: u64) {
        self.now_ns += later_ns;
        let now_ns = self.now_ns;
        self.worker.cycle(|| now_ns);
    }

    /// Commands that were carried out.
    pub fn applied(&self) -> u64 {
        self.link.shared.commands_applied.load(Relaxed)
    }

    /// What was sent since the last call: port, destination, payload.
    pub fn sent(&mut self) -> Vec<(usize, usize, Vec<u8>)> {
        let of = |rig: &mut Self, port| rig.sent_by(port).into_iter().map(move |(to, payload)| (port, to, payload));
        (0..PORTS).flat_map(|port| of(self, port)).collect()
    }

    /// The same by one port: destination, payload.
    pub fn sent_by(&mut self, port: usize) -> Vec<(usize, Vec<u8>)> {
        let Some(TxPort::Memory(port)) = self.worker.tx_mut(port) else { unreachable!("a memory port") };
        port.take()
    }

    /// The same without copying or allocating: destination, payload.
    pub fn drain(&mut self, mut each: impl FnMut(usize, &[u8])) {
        for index in 0..PORTS {
            let Some(TxPort::Memory(port)) = self.worker.tx_mut(index) else { continue };
            port.drain(&mut each);
        }
    }

    /// The oldest event that waits.
    pub fn event(&mut self) -> Option<Event> {
        self.link.events.get_mut().expect("nobody panicked").pop().ok()
    }

    /// The counters of lines are those of the line that has the number now; they may be a housekeeping old.
    pub fn check_lines(&self, sent: impl Iterator<Item = (u16, u64)>) {
        for (line, sent) in sent {
            let packets = self.link.shared.line(usize::from(line)).packets;
            assert!(packets <= sent, "line {line}: {packets} packets counted, {sent} sent");
        }
    }
}
