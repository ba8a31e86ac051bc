//! The validated configuration: what will run. A [`Plan`] can always be run on a host that has its interfaces.
//!
//! Names are resolved to indices here, once, so that nothing behind it looks anything up by name on the data path.
#![forbid(unsafe_code)]

mod access;
mod gaps;
mod interface;
mod latency_log;
mod rebase;
mod retransmission;
mod route;
mod slots;
mod soup;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use xdp_ebpf::{GroupKey, GroupRule};

pub use access::{AccessPlan, TlsPlan};
pub use interface::{FlowRulePlan, InterfacePlan, Mode, NicPlan, SocketPlan, Unsubscribed};

use crate::net::LineIndex;
pub use gaps::{OnGap, RecoveryPlan, Secret, SnapshotPlan, StartAt};
pub use latency_log::LatencyLogPlan;
pub use rebase::{Moves, RebaseError, Rebased, rebase};
pub use retransmission::{Network, Rates, RetransmissionPlan};
pub use route::{RecordKind, RoutePlan};
pub use slots::Slots;
pub use soup::{Password, SoupPlan};

/// Everything that will run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of this instance, in metrics and status.
    pub name: String,
    /// Where gRPC listens.
    pub grpc: Endpoint,
    /// Where gRPC listens beside that with TLS, and who may do what there.
    pub access: AccessPlan,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` = not at all.
    pub metrics: Option<SocketAddr>,
    /// What is kept of the privileges after start.
    pub privileges: Privileges,
    /// Where the previous values of changed NIC settings are kept while the handler runs.
    pub state_dir: PathBuf,
    /// Where subscriptions that differ from the configuration are kept over restarts; `None` = nowhere.
    pub subscriptions_file: Option<PathBuf>,
    /// Where latencies are logged; `None` = nowhere.
    pub latency_log: Option<LatencyLogPlan>,
    /// Interfaces, in file order.
    pub interfaces: Vec<InterfacePlan>,
    /// Workers, in file order.
    pub workers: Vec<WorkerPlan>,
    /// Channels; at start in file order over all feeds.
    pub channels: Slots<ChannelPlan>,
    /// Lines over all channels; the position is the [`LineIndex`].
    pub lines: Slots<LinePlan>,
    /// Destinations; at start in file order.
    pub destinations: Slots<DestinationPlan>,
}

impl Plan {
    /// All lines with their numbers, as the data path has them.
    pub fn numbered_lines(&self) -> impl Iterator<Item = (LineIndex, &LinePlan)> {
        self.lines
            .iter()
            .map(|(index, line)| (LineIndex::try_from(index).expect("a plan has at most 1024 lines"), line))
    }

    /// The lines that come in on a queue of a worker, with their numbers.
    pub fn lines_of(&self, worker: usize, queue: QueuePlan) -> impl Iterator<Item = (LineIndex, &LinePlan)> {
        self.numbered_lines().filter(move |(_, line)| {
            self.channels[line.channel].worker == worker
                && (QueuePlan { interface: line.interface, queue: line.queue }) == queue
        })
    }

    /// The destinations that leave by a queue of a worker, with their numbers, in the order in which they are registered
    /// with its port.
    pub fn destinations_of(&self, worker: usize, queue: QueuePlan) -> impl Iterator<Item = (usize, &DestinationPlan)> {
        self.destinations.iter().filter(move |(_, destination)| {
            self.channels[destination.channel].worker == worker && destination.queue == queue
        })
    }
}

/// Where the control service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket, made with mode 0660.
    Unix(PathBuf),
    /// A loopback TCP address.
    Tcp(SocketAddr),
}

/// What is kept of the process's capabilities once everything is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// One thread keeps what mending an interface takes; all others have none.
    Keeper,
    /// No thread has any.
    None,
    /// Nothing is given up.
    Keep,
}

impl Privileges {
    /// The word used in the configuration and the log.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::None => "none",
            Self::Keep => "keep",
        }
    }
}

/// One worker thread.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerPlan {
    /// Name of the thread, in metrics and `top`.
    pub name: String,
    /// Core to pin to; `None` = not pinned.
    pub core: Option<usize>,
    /// Frames in the worker's UMEM; a power of two.
    pub frame_count: u32,
    /// Bytes of one frame; 2048 or 4096.
    pub frame_bytes: u32,
    /// Entries of each receive, transmit, fill and completion ring; a power of two.
    pub ring_entries: u32,
    /// What to do when there is nothing to receive.
    pub idle: Idle,
    /// Whether the UMEM is on reserved huge pages.
    pub huge_pages: bool,
    /// Receive queues that the worker owns: (index into [`Plan::interfaces`], queue). No queue has two owners.
    pub rx: Vec<QueuePlan>,
    /// Transmit queues, the same way. A queue may be in both.
    pub tx: Vec<QueuePlan>,
    /// All of them, receive queues first: one port each.
    pub ports: Vec<QueuePlan>,
}

impl WorkerPlan {
    /// Keeps the ports that another start of the same worker has, beside its own.
    pub fn keep_ports(&mut self, of: &Self) {
        let union = |first: &[QueuePlan], then: &[QueuePlan]| {
            let mut all = first.to_vec();
            then.iter().for_each(|queue| {
                if !all.contains(queue) {
                    all.push(*queue)
                }
            });
            all
        };
        self.rx = union(&of.rx, &self.rx);
        self.tx = union(&of.tx, &self.tx);
        self.ports = union(&self.rx, &self.tx);
    }

    /// Index of a queue's port.
    ///
    /// # Panics
    /// If the queue is not the worker's.
    #[must_use]
    pub fn port_of(&self, queue: QueuePlan) -> usize {
        self.ports.iter().position(|port| *port == queue).expect("a queue of this worker")
    }
}

/// One queue of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueuePlan {
    /// Index into [`Plan::interfaces`].
    pub interface: usize,
    /// Queue number, from 0.
    pub queue: u32,
}

/// Framing of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// MoldUDP64 1.00.
    MoldUdp64,
}

/// Format of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderKind {
    /// Nasdaq TotalView-ITCH 5.0.
    Itch50,
}

/// One channel: one sequenced stream, arbitrated over its lines.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelPlan {
    /// `feed/channel`, unique.
    pub name: String,
    /// Name of the feed it belongs to.
    pub feed: String,
    /// Index into [`Plan::workers`].
    pub worker: usize,
    /// Framing.
    pub transport: TransportKind,
    /// Message format.
    pub decoder: DecoderKind,
    /// DBN publisher id.
    pub publisher_id: u16,
    /// Exchange's IANA time zone: ITCH times count from its local midnight.
    pub time_zone: String,
    /// How long a gap waits for the other line before retransmission servers are asked, microseconds.
    pub gap_timeout_us: u64,
    /// After this long a gap is declared lost, milliseconds.
    pub give_up_ms: u64,
    /// Silence on all lines after which the channel is Stale, milliseconds.
    pub stale_ms: u64,
    /// Packets that the hold buffer has room for.
    pub hold_packets: usize,
    /// Orders that the store has room for.
    pub max_orders: usize,
    /// Where the channel begins.
    pub start: StartAt,
    /// What leaves while a gap is open.
    pub on_gap: OnGap,
    /// Who is asked for what all lines have lost; `None` = nobody.
    pub recovery: Option<RecoveryPlan>,
    /// Who has a snapshot for a late start; with [`StartAt::Snapshot`].
    pub snapshot: Option<SnapshotPlan>,
    /// Where it comes from over TCP; `None` = by its lines.
    pub soup: Option<SoupPlan>,
    /// Indices into [`Plan::lines`]; 1 or 2, none over TCP.
    pub lines: Vec<usize>,
}

/// One line: one multicast group on one interface.
#[derive(Clone, Debug, PartialEq)]
pub struct LinePlan {
    /// `A` or `B`.
    pub name: String,
    /// Index into [`Plan::channels`].
    pub channel: usize,
    /// Index into [`Plan::interfaces`].
    pub interface: usize,
    /// Receive queue that its packets come in on.
    pub queue: u32,
    /// Multicast group and UDP port.
    pub group: SocketAddrV4,
    /// VLAN id on the wire; 0 = untagged.
    pub vlan: u16,
    /// VLAN id that the filter sees: that on the wire, or 0 where the NIC strips the tag.
    pub vlan_seen: u16,
    /// The only accepted source; `None` = any (IGMP any-source join).
    pub source: Option<Ipv4Addr>,
    /// Whether the line is subscribed at start.
    pub subscribed: bool,
}

impl LinePlan {
    /// The key under which the line's rule is in the BPF map.
    #[must_use]
    pub fn key(&self) -> GroupKey {
        GroupKey { vlan: self.vlan_seen, ..self.key_on_the_wire() }
    }

    /// The same for a frame that still has its tag, as captures do.
    #[must_use]
    pub fn key_on_the_wire(&self) -> GroupKey {
        GroupKey { dst_ip: self.group.ip().octets(), dst_port: self.group.port(), vlan: self.vlan }
    }

    /// The line's rule; `index` is its position in [`Plan::lines`].
    #[must_use]
    pub fn rule(&self, index: u16) -> GroupRule {
        GroupRule { source_ip: self.source.map_or([0; 4], |ip| ip.octets()), line: index, flags: 0 }
    }
}

/// What a destination's blocks hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// DBN records.
    Dbn,
    /// The exchange's own messages, arbitrated, not decoded.
    Raw,
}

/// One output stream: a channel to a multicast group (or a unicast address).
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationPlan {
    /// Unique name.
    pub name: String,
    /// Index into [`Plan::channels`]. One destination carries one channel, because the output keeps its session.
    pub channel: usize,
    /// Queue to transmit on.
    pub queue: QueuePlan,
    /// Destination address and port.
    pub group: SocketAddrV4,
    /// Source address of the packets; `None` = the interface's first.
    pub source: Option<Ipv4Addr>,
    /// UDP source port.
    pub source_port: u16,
    /// VLAN id of the tag to send; 0 = untagged.
    pub vlan: u16,
    /// IP time to live.
    pub ttl: u8,
    /// Blocks' content.
    pub format: Format,
    /// Largest UDP payload, bytes.
    pub payload_bytes: usize,
    /// What of the channel it takes.
    pub route: RoutePlan,
    /// What consumers can have again; `None` = nothing.
    pub retransmission: Option<RetransmissionPlan>,
}

/// What a worker does when a duty cycle found nothing to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Poll again at once: the lowest latency, and all of its core.
    Spin,
    /// Let another thread of the core run first: for hosts with fewer cores than busy threads.
    Yield,
}
