//! Nanoseconds per message from UDP payload to DBN records, layer by layer, beside other decoders.
#![forbid(unsafe_code)]

mod cases;
mod report;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use feedhandler::config::plan::{DecoderKind, OnGap, StartAt, TransportKind};
use feedhandler::feed::orders::OrderStore;
use feedhandler::feed::{Channel, ChannelSettings, Midnights};

use super::stream::Stream;
use cases::{Chunk, Discard, STORE_BATCH};

/// Packets admitted before each delivery: what a busy worker receives at once.
const BATCH_PACKETS: usize = 32;

/// Options of `feedhandler-bench decode`.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Messages of one round.
    #[arg(long, default_value_t = 1_000_000)]
    messages: usize,
    /// Rounds; every case runs once in each, so that a disturbance hits all of them.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Live orders, one table column each.
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000,5000000")]
    live: Vec<usize>,
    /// Only these cases, by their keys in the JSON report (for a profiler).
    #[arg(long, value_delimiter = ',', value_parser = Case::from_key)]
    case: Vec<Case>,
    /// Seed of the generated day.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write every round's figures here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What is measured, in table order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    TouchEveryByte,
    Framing,
    DecodeOnly,
    Itch5,
    Itchy,
    StoreCold,
    StorePrefetched,
    Whole,
    WholeOnePacket,
}

impl Case {
    pub(crate) const ALL: [Self; 9] = [
        Self::TouchEveryByte,
        Self::Framing,
        Self::DecodeOnly,
        Self::Itch5,
        Self::Itchy,
        Self::StoreCold,
        Self::StorePrefetched,
        Self::Whole,
        Self::WholeOnePacket,
    ];

    fn from_key(key: &str) -> Result<Self, String> {
        let keys = Self::ALL.map(Self::key).join(", ");
        Self::ALL.into_iter().find(|case| case.key() == key).ok_or(format!("must be one of {keys}"))
    }

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::TouchEveryByte => "touch every byte (baseline)",
            Self::Framing => "MoldUDP64 framing only: validate, then walk",
            Self::DecodeOnly => "ITCH decode only, all fields",
            Self::Itch5 => "crate itch5: decode only, all fields",
            Self::Itchy => "crate itchy: decode only",
            Self::StoreCold => "bare order store, one at a time",
            Self::StorePrefetched => "bare order store, prefetched in batches",
            Self::Whole => "whole channel: arbitrate, decode, orders, DBN",
            Self::WholeOnePacket => "whole channel, one packet per batch",
        }
    }

    /// The key in the JSON report.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::TouchEveryByte => "touch_every_byte",
            Self::Framing => "framing",
            Self::DecodeOnly => "decode",
            Self::Itch5 => "itch5",
            Self::Itchy => "itchy",
            Self::StoreCold => "store_cold",
            Self::StorePrefetched => "store_prefetched",
            Self::Whole => "whole",
            Self::WholeOnePacket => "whole_one_packet",
        }
    }
}

/// Figures of one number of live orders: nanoseconds per message, by case and round.
pub(crate) struct Column {
    pub live: usize,
    pub ns: Vec<Vec<f64>>,
}

/// Runs the bench and prints its table.
///
/// # Errors
/// If a channel did not deliver what was generated, or the report cannot be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.rounds > 0, "--rounds 0: must be at least 1");
    ensure!(arguments.messages >= 1000, "--messages {}: must be at least 1000", arguments.messages);
    let mut columns = Vec::new();
    for live in &arguments.live {
        ensure!((1000..=50_000_000).contains(live), "--live {live}: must be 1000 to 50000000");
        columns.push(measure(arguments, *live)?);
    }
    report::print(arguments, &columns);
    if let Some(path) = &arguments.json {
        report::write(arguments, &columns, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn channel(live: usize) -> anyhow::Result<Channel> {
    Ok(Channel::new(ChannelSettings {
        payload_bytes: 0,
        index: 0,
        transport: TransportKind::MoldUdp64,
        decoder: DecoderKind::Itch50,
        publisher_id: 2,
        gap_timeout_ns: 0,
        give_up_ns: 0,
        on_gap: OnGap::Hold,
        stale_ns: 0,
        backfill_ns: 0,
        hold_packets: 64,
        // Nearly full: the store at its worst.
        max_orders: live + live / 100 + 16,
        start: StartAt::First,
        midnights: Midnights::utc(),
    })?)
}

/// The channels and stores under test, all with the same live orders.
struct Subjects {
    whole: Channel,
    one_packet: Channel,
    prefetched: OrderStore,
    cold: OrderStore,
}

impl Subjects {
    fn new(live: usize) -> anyhow::Result<Self> {
        let capacity = live + live / 100 + 16;
        Ok(Self {
            whole: channel(live)?,
            one_packet: channel(live)?,
            prefetched: OrderStore::new(capacity),
            cold: OrderStore::new(capacity),
        })
    }

    /// Runs one case over a chunk; returns nanoseconds per message.
    fn time(&mut self, case: Case, chunk: &Chunk) -> f64 {
        let mut sink = Discard::default();
        let begun_ns = thread_cpu_ns();
        match case {
            Case::TouchEveryByte => chunk.touch(),
            Case::Framing => chunk.frame(),
            Case::DecodeOnly => chunk.decode(),
            Case::Itch5 => chunk.itch5(),
            Case::Itchy => chunk.itchy(),
            Case::StoreCold => chunk.access(&mut self.cold, 1),
            Case::StorePrefetched => chunk.access(&mut self.prefetched, STORE_BATCH),
            Case::Whole => chunk.channel(&mut self.whole, BATCH_PACKETS, &mut sink),
            Case::WholeOnePacket => chunk.channel(&mut self.one_packet, 1, &mut sink),
        }
        let ns = (thread_cpu_ns() - begun_ns) as f64;
        std::hint::black_box(sink);
        ns / chunk.messages() as f64
    }

    /// Fails if anything but the generated day was seen.
    fn check(&self, live: usize) -> anyhow::Result<()> {
        for channel in [&self.whole, &self.one_packet] {
            let counts = channel.counts();
            ensure!(counts.orders_live == live as u64, "{} orders live, not {live}", counts.orders_live);
            let wrong = counts.unknown_orders + counts.orders_full + counts.decode_errors + counts.messages_lost;
            ensure!(wrong == 0, "the channel did not take the day as generated: {counts:?}");
        }
        ensure!(self.prefetched.len() == live && self.cold.len() == live, "the bare stores have other orders");
        Ok(())
    }
}

/// CPU time of this thread, nanoseconds: what others do on the machine in between does not count.
fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn measure(arguments: &Arguments, live: usize) -> anyhow::Result<Column> {
    let mut stream = Stream::new(live, arguments.seed);
    let mut subjects = Subjects::new(live)?;
    // Everything that changes state sees the whole day, the rise to the steady state included.
    while !stream.is_steady() {
        let chunk = Chunk::generate(&mut stream, 50_000);
        for case in [Case::StoreCold, Case::StorePrefetched, Case::Whole, Case::WholeOnePacket] {
            subjects.time(case, &chunk);
        }
    }
    let mut ns = vec![Vec::new(); Case::ALL.len()];
    for round in 0..=arguments.rounds {
        let chunk = Chunk::generate(&mut stream, arguments.messages);
        for (case, ns) in Case::ALL.into_iter().zip(&mut ns) {
            if !arguments.case.is_empty() && !arguments.case.contains(&case) {
                continue;
            }
            let figure = subjects.time(case, &chunk);
            // Round 0 warms up.
            if round > 0 {
                ns.push(figure);
            }
        }
        if arguments.case.is_empty() {
            subjects.check(chunk.live_after)?;
        }
    }
    Ok(Column { live, ns })
}
