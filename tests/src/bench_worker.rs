//! A real worker on memory ports, for tests and fuzzing that need no kernel: two lines in, one DBN stream out.
#![forbid(unsafe_code)]

use std::sync::Arc;

use feedhandler::app::build;
use feedhandler::beside::threads;
use feedhandler::clock;
use feedhandler::config::plan::{Idle, Plan};
use feedhandler::config::{Config, Host};
use feedhandler::feed::Channel;
use feedhandler::net::headers::Header;
use feedhandler::net::memory::{MemoryRx, MemoryTx};
use feedhandler::net::{Frames, Port, RxPort, TxPort};
use feedhandler::publish::{Publisher, Stream, StreamSettings};
use feedhandler::recovery::Ends;
use feedhandler::worker::shared::{COMMAND_QUEUE, Command, Event, WorkerLink, WorkerShared};
use feedhandler::worker::{LineSlot, Worker, WorkerParts};

/// Room in the memory ports, so that a test may count allocations.
const PACKETS: usize = 1 << 12;

/// A worker and its surroundings.
pub struct BenchWorker {
    /// The worker.
    pub worker: Worker,
    /// Control's end of it.
    pub link: WorkerLink,
    /// CLOCK_MONOTONIC of the simulated time 0, nanoseconds.
    pub base_ns: u64,
    /// What to add to CLOCK_MONOTONIC to get UTC, nanoseconds (wrapping).
    pub utc_offset_ns: u64,
}

/// The plan of `config/demo.toml`, with these channel settings.
#[must_use]
pub fn plan(give_up_ms: u64, hold_packets: usize) -> Plan {
    plan_with(give_up_ms, hold_packets, "")
}

/// The same, with more of the channel.
///
/// # Panics
/// If `more` is not legal there.
#[must_use]
pub fn plan_with(give_up_ms: u64, hold_packets: usize, more: &str) -> Plan {
    plan_to(give_up_ms, hold_packets, more, "")
}

/// The same, with more of the destination, and behind it more destinations.
///
/// # Panics
/// If `more` or `destinations` is not legal there.
#[must_use]
pub fn plan_to(give_up_ms: u64, hold_packets: usize, more: &str, destinations: &str) -> Plan {
    let start = if more.contains("start =") { "" } else { "start = \"first\"" };
    let text = format!(
        r#"
        [handler]
        name = "bench"
        [[interface]]
        name = "memory"
        mode = "socket"
        [[worker]]
        name = "w0"
        [[feed]]
        name = "itch"
        transport = "moldudp64"
        decoder = "itch50"
        publisher_id = 2
        time_zone = "America/New_York"
        [[feed.channel]]
        name = "equities"
        give_up_ms = {give_up_ms}
        hold_packets = {hold_packets}
        max_orders = 100_000
        {start}
        {more}
        [[feed.channel.line]]
        name = "A"
        interface = "memory"
        group = "239.10.0.1:26400"
        [[feed.channel.line]]
        name = "B"
        interface = "memory"
        group = "239.10.0.2:26400"
        [[destination]]
        name = "out"
        channel = "itch/equities"
        interface = "memory"
        group = "239.20.0.1:30001"
        {destinations}
        "#
    );
    Config::parse(&text, "bench.toml", &Host { cores: Vec::new() }).expect("a legal configuration")
}

/// A memory port with the plan's destinations.
///
/// # Panics
/// If the plan's destination is not a multicast group.
#[must_use]
pub fn port(plan: &Plan) -> Port {
    port_with(plan, 1024, PACKETS)
}

/// The same with so many frames, and room for so many packets before it allocates.
///
/// # Panics
/// As [`port`].
#[must_use]
pub fn port_with(plan: &Plan, frames: u32, packets: usize) -> Port {
    let mut tx = TxPort::Memory(MemoryTx::with_capacity(packets, packets * 1500));
    let source = "10.0.0.1:30000".parse().expect("an address");
    for (number, destination) in (0..).map_while(|number| Some((number, plan.destinations.get(number)?))) {
        let header = Header::multicast([2, 0, 0, 0, 0, 1], 0, source, destination.group, 8).expect("multicast");
        assert_eq!(tx.add_destination(header).expect("memory ports refuse nothing"), number);
    }
    Port {
        frames: Frames::heap(frames, 2048),
        rx: Some(RxPort::Memory(MemoryRx::with_capacity(packets, packets * 1500))),
        tx: Some(tx),
    }
}

impl BenchWorker {
    /// A worker of the plan's one channel whose lines are switched on.
    ///
    /// # Panics
    /// If the plan is not one of [`plan_with`].
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let destination = &plan.destinations[0];
        let stream = Stream::new(StreamSettings {
            destination: 0,
            channel: 0,
            port: 0,
            format: destination.format,
            payload_bytes: destination.payload_bytes,
        })
        .routed(&destination.route);
        let settings = build::channel_settings(plan, 0, clock::utc_ns()).expect("a known time zone");
        let line = |line| Some(LineSlot { channel: 0, role: build::line_role(line), enabled: true });
        let (commands, command_queue) = rtrb::RingBuffer::<Command>::new(COMMAND_QUEUE);
        let (event_queue, events) = rtrb::RingBuffer::<Event>::new(4096);
        let shared = WorkerShared::new(plan.lines.len(), 1, 1, 1);
        let worker = Worker::new(WorkerParts {
            ports: vec![port(plan)],
            lines: plan.lines.values().map(line).collect(),
            channels: vec![(0, Channel::new(settings).expect("legal sizes"))],
            publisher: Publisher::new(vec![stream]),
            idle: Idle::Spin,
            commands: command_queue,
            events: event_queue,
            wants: None,
            shared: Arc::clone(&shared),
        });
        let link =
            WorkerLink { index: 0, commands: commands.into(), events: events.into(), shared, payload_bytes: vec![] };
        Self { worker, link, base_ns: clock::monotonic_ns(), utc_offset_ns: clock::utc_offset_ns() }
    }

    /// The worker as the program builds it, with what connects it with the recovery thread.
    #[must_use]
    pub fn recovering(plan: &Plan) -> (Self, Ends) {
        Self::recovering_on(plan, port(plan))
    }

    /// The same on a port that is given.
    #[must_use]
    pub fn recovering_on(plan: &Plan, port: Port) -> (Self, Ends) {
        let (bench, ends) = Self::built(plan, vec![port]);
        (bench, ends.recovery)
    }

    /// The worker as the program builds it, with what connects it with the threads beside it.
    #[must_use]
    pub fn joining(plan: &Plan) -> (Self, threads::Ends) {
        Self::built(plan, vec![port(plan)])
    }

    /// The worker as the program builds it, of a plan that needs no thread beside it.
    ///
    /// # Panics
    /// If the plan is not one of [`plan_to`].
    #[must_use]
    pub fn whole(plan: &Plan) -> Self {
        Self::built(plan, vec![port(plan)]).0
    }

    fn built(plan: &Plan, ports: Vec<Port>) -> (Self, threads::Ends) {
        let built = build::worker(plan, 0, ports, clock::utc_ns()).expect("legal settings");
        let (mut worker, link, ends) = built;
        for line in plan.lines.indices() {
            link.send(Command::SetLine { line, enabled: true }).expect("room");
            worker.cycle(|| 0);
        }
        let bench = Self { worker, link, base_ns: clock::monotonic_ns(), utc_offset_ns: clock::utc_offset_ns() };
        (bench, ends)
    }

    /// Lets a datagram arrive at a simulated time.
    pub fn inject(&mut self, line: u16, payload: &[u8], at_ns: u64) {
        let received_ns = self.base_ns + at_ns;
        let Some(RxPort::Memory(port)) = self.worker.rx_mut(0) else { unreachable!("a memory port") };
        port.inject(line, payload, received_ns);
    }

    /// One duty cycle at a simulated time; what was sent goes to `each`.
    pub fn cycle(&mut self, at_ns: u64, mut each: impl FnMut(&[u8])) {
        self.cycle_to(at_ns, |_, payload| each(payload));
    }

    /// The same; `each` gets the destination, too.
    ///
    /// # Panics
    /// If the port is no memory port any more.
    pub fn cycle_to(&mut self, at_ns: u64, mut each: impl FnMut(usize, &[u8])) {
        let now_ns = self.base_ns + at_ns;
        self.worker.cycle(|| now_ns);
        let Some(TxPort::Memory(port)) = self.worker.tx_mut(0) else { unreachable!("a memory port") };
        port.drain(&mut each);
    }
}
