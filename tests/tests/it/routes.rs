//! Routes: what destinations take of a channel, against an oracle that reads the whole stream and filters it.
//!
//! `FEEDHANDLER_SEEDS=1000` runs more seeds, `FEEDHANDLER_SEED=17` replays one.
#![forbid(unsafe_code)]

mod anew;
pub mod oracle;
mod veth;
mod worker;

use feedhandler::app::build;
use feedhandler::clock;
use feedhandler::config::plan::{Format, RecordKind, RoutePlan};
use feedhandler::feed::{Beginning, Block, BlockSink, Channel, ChannelIndex, LineRole, Session};
use feedhandler::metrics::DestinationCounts;
use feedhandler::net::headers::Header;
use feedhandler::net::memory::MemoryTx;
use feedhandler::net::{Frames, Outlets, TxPort};
use feedhandler::publish::{Publisher, Route, Stream, StreamSettings};
use feedhandler_testkit::bench_worker::plan;
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::mold::{self, Packet};
use oracle::{Blocks, Oracle, Reliance, add_packet, symbols};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEEDS: u64 = 15;
const SESSIONS: u8 = 3;
const STEP_NS: u64 = 1_000_000;
const FORMATS: [Format; 2] = [Format::Dbn, Format::Raw];

/// Some symbols, among them one that does not exist; some kinds. Often all.
fn random_route(rng: &mut ChaCha8Rng, symbols: &[[u8; 8]], format: Format) -> RoutePlan {
    let mut route = RoutePlan::default();
    if rng.random_bool(0.8) {
        let count = rng.random_range(1..symbols.len());
        route.instruments = symbols.choose_multiple(rng, count).copied().chain([*b"ZZZZZZZZ"]).collect();
        route.instruments.sort_unstable();
    }
    if format == Format::Dbn && rng.random_bool(0.5) {
        let count = rng.random_range(1..4);
        route.records = RecordKind::ALL.choose_multiple(rng, count).copied().collect();
        route.records.sort_unstable();
    }
    route
}

/// A publisher of two streams, one of records and one of messages, whose routes change between any two messages.
struct Both {
    rng: ChaCha8Rng,
    symbols: Vec<[u8; 8]>,
    publisher: Publisher,
    frames: [Frames; 1],
    ports: [Option<TxPort>; 1],
    routes: [RoutePlan; 2],
    oracles: [Oracle; 2],
    expected: [Blocks; 2],
    reliance: Reliance,
    session: Session,
    changes: u64,
    /// Of the whole stream.
    records: u64,
}

impl Both {
    fn new(mut rng: ChaCha8Rng, symbols: Vec<[u8; 8]>) -> Self {
        let mut tx = TxPort::Memory(MemoryTx::new());
        let routes = FORMATS.map(|format| random_route(&mut rng, &symbols, format));
        let streams = [0, 1].map(|number| {
            let header =
                Header::multicast([2; 6], 0, "10.0.0.1:1".parse().unwrap(), "239.1.1.1:1".parse().unwrap(), 1).unwrap();
            assert_eq!(tx.add_destination(header).unwrap(), number);
            Stream::new(StreamSettings {
                destination: number,
                channel: 0,
                port: 0,
                format: FORMATS[number],
                payload_bytes: 1472,
            })
            .routed(&routes[number])
        });
        Self {
            rng,
            symbols,
            publisher: Publisher::new(streams.into()),
            frames: [Frames::heap(64, 2048)],
            ports: [Some(tx)],
            oracles: routes.clone().map(Oracle::new),
            routes,
            expected: Default::default(),
            reliance: Reliance::default(),
            session: [0; 10],
            changes: 0,
            records: 0,
        }
    }

    fn change(&mut self) {
        let number = self.rng.random_range(0..2);
        let route = random_route(&mut self.rng, &self.symbols, FORMATS[number]);
        self.oracles[number].set_route(route.clone());
        drop(self.publisher.set_route(number, Route::new(&route)));
        self.routes[number] = route;
        self.changes += 1;
    }

    fn expect(&mut self, block: &Block<'_>) {
        if *block.session != self.session {
            self.session = *block.session;
            self.oracles.iter_mut().for_each(Oracle::begin_session);
            self.reliance.begin_session();
        }
        let key = (*block.session, block.sequence);
        let sent = self.oracles[0].dbn(block.records);
        let takes = &self.routes[0].records;
        self.reliance.block(block.records, &sent, takes.is_empty() || takes.contains(&RecordKind::Mbo));
        self.expected[0].insert(key, [block.notice, &sent].concat());
        self.oracles[1].learn(block.records);
        let passes = self.oracles[1].raw(block.message);
        self.expected[1].insert(key, if passes { block.message.to_vec() } else { Vec::new() });
        self.records += u64::from(block.record_count);
    }

    fn sent(&mut self) -> [Blocks; 2] {
        let mut out = Outlets::new(&self.frames, &mut self.ports);
        self.publisher.flush(&mut out);
        let Some(TxPort::Memory(port)) = &mut self.ports[0] else { unreachable!("a memory port") };
        let mut sent: [Blocks; 2] = Default::default();
        port.drain(|destination, payload| add_packet(&mut sent[destination], payload));
        sent
    }
}

impl BlockSink for Both {
    fn block(&mut self, block: &Block<'_>) {
        if self.rng.random_bool(0.004) {
            self.change();
        }
        self.expect(block);
        self.publisher.outbound(Outlets::new(&self.frames, &mut self.ports)).block(block);
        // Only sent packets are free again.
        Outlets::new(&self.frames, &mut self.ports).flush();
    }

    fn lost(&mut self, channel: ChannelIndex, session: &Session, from: u64, to: u64) {
        self.publisher.outbound(Outlets::new(&self.frames, &mut self.ports)).lost(channel, session, from, to);
    }

    fn began(&mut self, channel: ChannelIndex, session: &Session, first: u64, how: Beginning) {
        self.publisher.outbound(Outlets::new(&self.frames, &mut self.ports)).began(channel, session, first, how);
    }

    fn end_of_session(&mut self, channel: ChannelIndex, session: &Session, next: u64) {
        self.publisher.outbound(Outlets::new(&self.frames, &mut self.ports)).end_of_session(channel, session, next);
    }
}

/// The packets of a session, some of them lost; which instrument has which locate is drawn anew.
fn packets(rng: &mut ChaCha8Rng, day: &DaySettings, session: &Session) -> Vec<Vec<u8>> {
    let mut locates: Vec<u16> = (1..=u16::MAX).collect();
    locates.shuffle(rng);
    let (mut packets, mut packet, mut left) = (Vec::new(), Packet::new(session, 1), 1);
    let (mut bytes, mut next) = (Vec::new(), 1);
    for message in Day::new(day) {
        bytes.clear();
        message.encode(&mut bytes);
        let locate = u16::from_be_bytes([bytes[1], bytes[2]]);
        if locate > 0 {
            bytes[1..3].copy_from_slice(&locates[usize::from(locate)].to_be_bytes());
        }
        packet.push(&bytes);
        (next, left) = (next + 1, left - 1);
        if left == 0 {
            packets.push(std::mem::replace(&mut packet, Packet::new(session, next)).into_payload());
            left = rng.random_range(1..25);
        }
    }
    packets.push(packet.into_payload());
    let last = packets.len() - 2;
    let mut number = 0;
    packets.retain(|_| {
        number += 1;
        number < 5 || number > last || !rng.random_bool(0.005)
    });
    packets.extend([mold::end_of_session(session, next), mold::end_of_session(session, next)]);
    packets
}

/// Runs one seed; how many symbol mappings were added, and how many records claimed a book that is whole.
fn run(seed: u64) -> (u64, u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let day = |rng: &mut ChaCha8Rng| DaySettings {
        seed: rng.random(),
        messages: 4_000,
        instruments: 12,
        live_orders: 300,
        recency: 0.6,
    };
    let symbols = symbols(&Day::new(&day(&mut rng)));
    let mut both = Both::new(ChaCha8Rng::seed_from_u64(rng.random()), symbols);
    let settings = build::channel_settings(&plan(20, 512), 0, clock::utc_ns()).expect("a known zone");
    let mut channel = Channel::new(settings).expect("legal sizes");
    let (mut now_ns, offset_ns) = (clock::monotonic_ns(), clock::utc_offset_ns());
    for number in 1..=SESSIONS {
        let mut session = *b"ROUTE00000";
        session[9] += number;
        let day = day(&mut rng);
        for payload in packets(&mut rng, &day, &session) {
            now_ns += STEP_NS;
            let _ = channel.admit(0, LineRole::A, &payload, now_ns);
            channel.deliver(|_| &payload[..], offset_ns, &mut both);
            channel.poll(now_ns);
            channel.deliver(|_| &[], offset_ns, &mut both);
        }
    }
    let sent = both.sent();
    for (number, (sent, expected)) in sent.iter().zip(&both.expected).enumerate() {
        let numbers = |blocks: &Blocks| blocks.keys().copied().collect::<Vec<_>>();
        assert_eq!(numbers(sent), numbers(expected), "seed {seed}: the numbers of stream {number}");
        let wrong = sent.iter().find(|(key, block)| expected[key] != **block);
        assert_eq!(wrong.map(|(key, block)| (key.1, block, &expected[key])), None, "seed {seed}: stream {number}");
    }
    let sessions: std::collections::HashSet<_> = both.expected[0].keys().map(|(session, _)| *session).collect();
    let counts: Vec<DestinationCounts> = both.publisher.counts().map(|(_, counts, _)| *counts).collect();
    assert_eq!(sessions.len(), usize::from(SESSIONS), "seed {seed}");
    assert!(channel.counts().messages_lost > 0 && both.changes > 10, "seed {seed}: nothing happened");
    let whole = both.records + channel.counts().notices;
    let DestinationCounts { records, records_filtered, mappings_added, .. } = counts[0];
    assert_eq!(records + records_filtered, whole + mappings_added, "seed {seed}: {counts:?}");
    let emptied = both.expected[1].values().filter(|block| block.is_empty()).count() as u64;
    assert_eq!(counts[1].blocks_filtered, emptied, "seed {seed}: every message has bytes");
    (mappings_added, both.reliance.checked)
}

#[test]
fn a_routed_stream_is_the_whole_one_filtered() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("FEEDHANDLER_SEED") {
        Some(seed) => drop(run(seed)),
        None => {
            let runs = (0..number("FEEDHANDLER_SEEDS").unwrap_or(SEEDS)).map(run);
            let (added, checked) = runs.fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
            assert!(added > 100 && checked > 1_000, "{added} mappings added, {checked} records of whole books");
        }
    }
}
