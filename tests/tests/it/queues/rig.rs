//! Three hosts: an exchange that chooses the queue, the handler as a process, and kernel sockets that receive.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use feedhandler::config::plan::Mode;
use feedhandler::net::interface::Interface;
use feedhandler::net::xsk::{self, XskTx};
use feedhandler::net::{Frames, Header, PAYLOAD_OFFSET};
use feedhandler_testkit::consumer::Receiver;
use feedhandler_testkit::lab::{End, Namespace, connect_queues};
use feedhandler_testkit::mold::{self, Packet};
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries::program;

/// Channels; number `c` comes in on queue `c`.
pub(super) const CHANNELS: usize = 4;
/// A queue without a socket.
pub(super) const SPARE_QUEUE: u32 = 4;
const QUEUES: u32 = 6;
/// Messages in a packet.
pub(super) const PER_PACKET: u64 = 2;

const EXCHANGE: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);
const CONSUMER: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 2);
const RING: u32 = 256;
const PATIENCE: Duration = Duration::from_secs(10);

/// The hosts, connected, and files of their own.
pub(super) struct Rig {
    pub(super) handler: Namespace,
    exchange: Namespace,
    consumer: Namespace,
    files: TempDir,
}

impl Rig {
    pub(super) fn new() -> Self {
        let namespace = |role| Namespace::new(role).expect("root");
        let (handler, exchange, consumer) = (namespace("handler"), namespace("exchange"), namespace("consumer"));
        for (near, far_host, far, far_address, near_address) in [
            ("fh-in", &exchange, "fh-ex", EXCHANGE, [10, 9, 1, 1]),
            ("fh-out", &consumer, "fh-co", CONSUMER, [10, 9, 2, 1]),
        ] {
            let near = End { namespace: &handler, name: near, address: near_address.into() };
            connect_queues([near, End { namespace: far_host, name: far, address: far_address }], Some(QUEUES))
                .expect("a veth pair");
        }
        Self { handler, exchange, consumer, files: TempDir::new().expect("a folder") }
    }

    /// Channels 0 and 1 on the first worker and 2 and 3 on the second, or all on one; an output queue for each worker.
    pub(super) fn config(&self, mode: &str, workers: usize) -> String {
        let mut text = format!(
            "[handler]\nname = \"queues\"\ngrpc = \"unix:{}\"\n",
            self.files.path().join("control.sock").display()
        );
        for interface in ["fh-in", "fh-out"] {
            text += &format!("[[interface]]\nname = \"{interface}\"\nmode = \"{mode}\"\n");
        }
        for worker in 0..workers {
            text += &format!(
                "[[worker]]\nname = \"w{worker}\"\nidle = \"yield\"\nring_entries = 512\nframe_count = 4096\n\
                 frame_bytes = 2048\n"
            );
        }
        text += "[[feed]]\nname = \"itch\"\ntransport = \"moldudp64\"\ndecoder = \"itch50\"\npublisher_id = 2\n\
                 time_zone = \"UTC\"\n";
        for channel in 0..CHANNELS {
            text += &format!(
                "[[feed.channel]]\nname = \"c{channel}\"\nworker = \"w{}\"\nmax_orders = 1000\n\
                 [[feed.channel.line]]\nname = \"A\"\ninterface = \"fh-in\"\nqueue = {channel}\ngroup = \"{}\"\n",
                channel * workers / CHANNELS,
                group(channel),
            );
        }
        for channel in 0..CHANNELS {
            text += &format!(
                "[[destination]]\nname = \"out{channel}\"\nchannel = \"itch/c{channel}\"\ninterface = \"fh-out\"\n\
                 queue = {}\ngroup = \"{}\"\nformat = \"raw\"\nttl = 1\n",
                channel * workers / CHANNELS,
                output(channel),
            );
        }
        text
    }

    /// Starts the handler and waits until control answers.
    pub(super) fn start(&self, config: &str) -> Running {
        let (child, log) = self.spawn(config);
        let mut running = Running { child, socket: self.files.path().join("control.sock") };
        let deadline = Instant::now() + PATIENCE;
        while running.ask().is_none_or(|status| status["ready"] != true) {
            let text = fs::read_to_string(&log).unwrap_or_default();
            assert!(running.child.try_wait().expect("a child").is_none(), "it ended: {text}");
            assert!(Instant::now() < deadline, "not ready: {text}");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// Starts a handler that must refuse; its one line of complaint.
    pub(super) fn refusal(&self, config: &str) -> String {
        let (mut child, log) = self.spawn(config);
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().expect("a child").is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("runs on where it should refuse");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = fs::read_to_string(log).expect("its log");
        let complaints: Vec<&str> = text.lines().filter(|line| line.starts_with("feedhandler: ")).collect();
        assert_eq!(complaints.len(), 1, "one line: {text}");
        complaints[0].to_owned()
    }

    fn spawn(&self, config: &str) -> (Child, PathBuf) {
        let (path, log) = (self.files.path().join("handler.toml"), self.files.path().join("handler.log"));
        fs::write(&path, config).expect("a file");
        let mut command = self.handler.command(&program("feedhandler"));
        command.args(["run", "--config"]).arg(path).stdin(Stdio::null());
        let child = command.stderr(fs::File::create(&log).expect("a file")).spawn().expect("starts");
        (child, log)
    }

    /// Runs `body` on the exchange, with a sender on each queue.
    pub(super) fn exchange(&self, mode: &str, body: impl FnOnce(&mut Exchange) + Send) {
        let mode = if mode == "skb" { Mode::Skb } else { Mode::Native };
        self.exchange
            .enter(|| {
                let mut exchange = Exchange::open(mode);
                body(&mut exchange);
                exchange.settle();
            })
            .expect("the namespace");
    }

    /// A receiver of each channel's output.
    pub(super) fn receivers(&self) -> Vec<Output> {
        let join = |channel| self.consumer.enter(|| Receiver::join(output(channel), CONSUMER)).expect("the namespace");
        (0..CHANNELS).map(|channel| Output { receiver: join(channel).expect("a socket"), packets: 0 }).collect()
    }
}

fn group(channel: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(239, 10, 0, channel as u8 + 1), 26_400 + channel as u16)
}

fn output(channel: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(239, 20, 0, channel as u8 + 1), 30_000 + channel as u16)
}

fn session(channel: usize) -> mold::Session {
    let mut session = *b"SESSION  0";
    session[9] += channel as u8;
    session
}

/// Message `number` (from 0) of a channel: an ITCH system event whose time is its number.
fn message(channel: usize, number: u64) -> Vec<u8> {
    let mut message = vec![b'S', 0, channel as u8, 0, 0];
    message.extend_from_slice(&number.to_be_bytes()[2..]);
    message.push(b'Q');
    message
}

/// A sender on every queue of the exchange's interface.
pub(super) struct Exchange {
    mode: Mode,
    frames: Frames,
    queues: Vec<XskTx>,
}

impl Exchange {
    fn open(mode: Mode) -> Self {
        let frames = Frames::umem(2048, 2048, RING, false).expect("a UMEM");
        let mac = Interface::read("fh-ex").expect("the exchange's interface").mac;
        let open = |queue| {
            let pair = xsk::open(&frames, "fh-ex", queue, false, true, mode, RING, 1).expect("a socket");
            let mut port = pair.tx.expect("asked for transmit");
            for channel in 0..CHANNELS {
                let source = SocketAddrV4::new(EXCHANGE, 1);
                port.add_destination(&Header::multicast(mac, 0, source, group(channel), 1).expect("multicast"));
            }
            port
        };
        let queues = (0..QUEUES).map(open).collect();
        Self { mode, frames, queues }
    }

    /// Queues packet `number` (from 0) of a channel so that it comes in on this receive queue of the handler: the transmit
    /// queue of that number. But generic XDP takes the number that a veth leaves in the packet for one counted from 1.
    pub(super) fn send(&mut self, queue: u32, channel: usize, number: u64) {
        let mut packet = Packet::new(&session(channel), 1 + number * PER_PACKET);
        (0..PER_PACKET).for_each(|i| packet.push(&message(channel, number * PER_PACKET + i)));
        let payload = packet.into_payload();
        let mut frame = self.frames.alloc().expect("a free frame");
        let place = PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload.len();
        self.frames.buffer_mut(&mut frame)[place].copy_from_slice(&payload);
        let queue = if self.mode == Mode::Skb && queue > 0 { queue + 1 } else { queue };
        self.queues[queue as usize].send(&self.frames, frame, payload.len(), channel).expect("room in the ring");
    }

    pub(super) fn flush(&mut self) {
        for queue in &mut self.queues {
            queue.flush(&self.frames);
            queue.reclaim(&self.frames);
        }
    }

    fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.queues.iter().any(|queue| queue.frames_held() > 0) {
            assert!(Instant::now() < deadline, "frames that the kernel keeps");
            self.flush();
        }
    }
}

/// One channel's output at the consumer.
pub(super) struct Output {
    receiver: Receiver,
    /// Packets received, heartbeats included.
    pub(super) packets: u64,
}

impl Output {
    /// Receives until the messages of these numbers are there; then, that nothing more comes. Each once and in order.
    pub(super) fn expect(&mut self, channel: usize, numbers: Range<u64>) {
        let mut next = numbers.start;
        let deadline = Instant::now() + PATIENCE;
        let mut quiet = 0;
        while next < numbers.end || quiet < 5 {
            assert!(Instant::now() < deadline, "channel {channel}: message {next} of {numbers:?} did not come");
            let Some((payload, _)) = self.receiver.receive().expect("the consumer's socket") else {
                quiet += 1;
                continue;
            };
            self.packets += 1;
            let view = mold::parse(payload).expect("a packet");
            assert_eq!(view.session, session(channel));
            for (number, block) in (view.sequence - 1..).zip(&view.blocks) {
                assert_eq!((number, *block), (next, &message(channel, next)[..]), "channel {channel}");
                assert!(next < numbers.end, "channel {channel}: {next} is too many");
                next += 1;
            }
            quiet = if view.blocks.is_empty() { quiet } else { 0 };
        }
    }
}

/// A running handler; killed when dropped.
pub(super) struct Running {
    child: Child,
    socket: PathBuf,
}

impl Running {
    fn ask(&self) -> Option<Value> {
        let endpoint = format!("unix:{}", self.socket.display());
        let mut command = Command::new(program("feedctl"));
        let output = command.args(["--endpoint", &endpoint, "--output", "json", "status"]).output().expect("starts");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// What it says of itself, once the kernel's counters in it are new (they are read every 100 ms).
    pub(super) fn status(&self) -> Status {
        std::thread::sleep(Duration::from_millis(250));
        Status(self.ask().expect("an answer"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One port of one worker.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) worker: String,
    pub(super) queue: u64,
    pub(super) frames: u64,
    pub(super) kernel_drops: u64,
}

/// The answer of `feedctl status`.
pub(super) struct Status(Value);

impl Status {
    pub(super) fn ports(&self, direction: &str) -> Vec<Port> {
        let mut ports = Vec::new();
        for worker in list(&self.0["workers"]) {
            for port in list(&worker["ports"]).iter().filter(|port| port["direction"] == direction) {
                let value = |name: &str| counter(&port["counters"], "name", name, "value");
                ports.push(Port {
                    worker: worker["name"].as_str().expect("a name").to_owned(),
                    queue: port["queue"].as_u64().expect("a number"),
                    frames: value("frames"),
                    kernel_drops: value("kernel_rx_dropped") + value("kernel_rx_ring_full"),
                });
            }
        }
        ports
    }

    pub(super) fn verdict(&self, interface: &str, verdict: &str) -> u64 {
        let found = list(&self.0["interfaces"]).iter().find(|entry| entry["name"] == interface);
        counter(&found.expect("the interface")["verdicts"], "name", verdict, "value")
    }

    /// Packets of no known line.
    pub(super) fn unmatched(&self, reason: &str) -> u64 {
        counter(&self.0["unmatched_drops"], "reason", reason, "packets")
    }

    pub(super) fn line_duplicates(&self, channel: usize) -> u64 {
        self.0["channels"][channel]["lines"][0]["duplicate"].as_u64().expect("a number")
    }

    pub(super) fn summary(&self) -> String {
        let verdicts: Vec<&Value> = list(&self.0["interfaces"]).iter().map(|entry| &entry["verdicts"]).collect();
        format!(
            "rx {:?} tx {:?} {verdicts:?} unmatched {}",
            self.ports("rx"),
            self.ports("tx"),
            self.0["unmatched_drops"]
        )
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value of a list of named ones; those that are zero may be left out.
fn counter(values: &Value, key: &str, name: &str, value: &str) -> u64 {
    list(values).iter().filter(|entry| entry[key] == name).map(|entry| entry[value].as_u64().expect("a number")).sum()
}
