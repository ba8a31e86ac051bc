//! Edits of a running worker, against a naive oracle: channels, lines and streams come and go at random under steady input,
//! while the event queue is full most of the time. Every stream's output must be exactly its channel's messages for as long as
//! it was there; nothing may be lost or doubled elsewhere; everything must come back.
//!
//! `FEEDHANDLER_SEEDS=1000` runs more seeds, `FEEDHANDLER_SEED=17` replays one. A failure prints its seed.
#![forbid(unsafe_code)]

mod cases;
pub mod rig;

use std::collections::BTreeMap;

use feedhandler::config::plan::Format;
use feedhandler::feed::{Channel, LineRole};
use feedhandler::metrics::{ChannelCounts, DropReason};
use feedhandler::net::TxDestination;
use feedhandler::worker::edit::{Edit, NewLine, NewStream, Removed, Retention};
use feedhandler::worker::shared::{Command, Event};
use feedhandler_testkit::mold::{self, Packet, Session};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use rig::{CHANNELS, DESTINATIONS, LINES, PORTS, Rig};

const SEEDS: u64 = 30;
const STEPS: u32 = 600;

/// A line of the oracle's.
struct Line {
    role: LineRole,
    is_enabled: bool,
    /// Datagrams that were sent on it.
    sent: u64,
}

/// A channel of the oracle's.
struct Source {
    session: Session,
    /// The next message that the exchange makes.
    next: u64,
    lines: BTreeMap<u16, Line>,
    /// Packets that the exchange has made and not sent, by their range.
    late: Vec<(u64, u64)>,
    /// Ranges that wait in ports.
    waiting: Vec<(u64, u64)>,
    /// Ranges that the worker has, whole packets.
    received: BTreeMap<u64, u64>,
}

impl Source {
    fn new(generation: u64, lines: BTreeMap<u16, Line>) -> Self {
        let session = format!("S{generation:09}").into_bytes().try_into().expect("ten bytes");
        Self { session, next: 1, lines, late: vec![], waiting: vec![], received: BTreeMap::new() }
    }

    /// The first message that has not been delivered: all before it was.
    fn expected(&self) -> u64 {
        let mut expected = 1;
        while let Some(end) = self.received.get(&expected) {
            expected = *end;
        }
        expected
    }

    fn take_waiting(&mut self) {
        self.received.extend(self.waiting.drain(..));
    }
}

/// A stream of the oracle's.
struct Flow {
    channel: usize,
    port: usize,
    format: Format,
    begin: u64,
}

/// One message of an output: session, number, bytes where they are the exchange's.
type Sent = (Session, u64, Option<Vec<u8>>);

fn message(session: &Session, sequence: u64) -> Vec<u8> {
    [session.as_slice(), format!("?{sequence}").as_bytes()].concat()
}

#[derive(Default)]
struct Oracle {
    generation: u64,
    sources: BTreeMap<usize, Source>,
    flows: BTreeMap<usize, Flow>,
    /// By port and destination: all that must have been sent.
    expected: BTreeMap<(usize, usize), Vec<Sent>>,
    /// What is to come back, in order of the edits: packets held by the channels that go, blocks of the streams that go.
    back: Vec<Back>,
}

/// What an edit is to bring back.
#[derive(Default)]
struct Back {
    channels: BTreeMap<usize, (u64, u64)>,
    streams: BTreeMap<usize, u64>,
    refused: usize,
}

/// The edit in short, for the oracle.
#[derive(Default)]
struct Change {
    streams_out: Vec<usize>,
    lines_out: Vec<u16>,
    channels_out: Vec<usize>,
    channels_in: Vec<(usize, u64)>,
    lines_in: Vec<(u16, usize, LineRole)>,
    streams_in: Vec<(usize, usize, usize, Format)>,
    /// Streams among them that cannot be: to a destination that is in use.
    refused: usize,
}

impl Oracle {
    /// What is at random to go and to come.
    fn change(&mut self, rng: &mut ChaCha8Rng) -> Change {
        // Number 0 of everything stays as it is, to the end.
        let channels_out = self.sources.keys().copied().filter(|i| *i > 0 && rng.random_bool(0.15)).collect();
        let mut change = Change { channels_out, ..Change::default() };
        let goes = |channel: usize| change.channels_out.contains(&channel);
        let out =
            |(to, flow): (&usize, &Flow)| (*to > 0 && (goes(flow.channel) || rng.random_bool(0.2))).then_some(*to);
        change.streams_out = self.flows.iter().filter_map(out).collect();
        let lines =
            self.sources.iter().filter(|(i, _)| **i > 0 && !goes(**i)).flat_map(|(_, source)| source.lines.keys());
        change.lines_out = lines.copied().filter(|_| rng.random_bool(0.15)).collect();

        let goes = |channel: &usize| change.channels_out.contains(channel);
        for channel in (1..CHANNELS).filter(|i| goes(i) || !self.sources.contains_key(i)) {
            if rng.random_bool(0.3) {
                self.generation += 1;
                change.channels_in.push((channel, self.generation));
            }
        }
        let stays = self.sources.keys().copied().filter(|i| !goes(i));
        let channels: Vec<usize> = stays.chain(change.channels_in.iter().map(|(i, _)| *i)).collect();
        let mut taken: Vec<(usize, LineRole)> = vec![];
        let mut used: Vec<u16> = vec![];
        for (channel, source) in self.sources.iter().filter(|(i, _)| !goes(i)) {
            for (line, Line { role, .. }) in source.lines.iter().filter(|(line, _)| !change.lines_out.contains(line)) {
                taken.push((*channel, *role));
                used.push(*line);
            }
        }
        for line in 0..LINES as u16 {
            let (channel, role) =
                (*channels.choose(rng).expect("0"), *[LineRole::A, LineRole::B].choose(rng).expect("2"));
            if !used.contains(&line) && !taken.contains(&(channel, role)) && rng.random_bool(0.5) {
                taken.push((channel, role));
                change.lines_in.push((line, channel, role));
            }
        }
        for to in 1..DESTINATIONS {
            let is_free = !self.flows.contains_key(&to) || change.streams_out.contains(&to);
            if is_free && rng.random_bool(0.4) {
                let format = *[Format::Raw, Format::Dbn].choose(rng).expect("2");
                change.streams_in.push((to, *channels.choose(rng).expect("0"), rng.random_range(0..PORTS), format));
            }
        }
        change.refused = usize::from(rng.random_bool(0.1));
        change
    }

    /// All that is there, to go at the end.
    fn everything(&self) -> Change {
        Change {
            streams_out: self.flows.keys().copied().collect(),
            channels_out: self.sources.keys().copied().collect(),
            ..Change::default()
        }
    }

    /// The worker has applied it.
    fn apply(&mut self, change: &Change, rig: &Rig) {
        if !change.lines_out.is_empty() || !change.channels_out.is_empty() {
            self.sources.values_mut().for_each(Source::take_waiting);
        }
        let mut back = Back { refused: change.refused, ..Back::default() };
        for to in &change.streams_out {
            let flow = self.flows.remove(to).expect("known");
            let source = &self.sources[&flow.channel];
            let sent = self.expected.entry((flow.port, *to)).or_default();
            let (begin, end) = (flow.begin, source.expected());
            let body = |i| (flow.format == Format::Raw).then(|| message(&source.session, i));
            sent.extend((begin..end).map(|i| (source.session, i, body(i))));
            back.streams.insert(*to, end - begin);
        }
        for source in self.sources.values_mut() {
            source.lines.retain(|line, _| !change.lines_out.contains(line));
        }
        for channel in &change.channels_out {
            let source = self.sources.remove(channel).expect("known");
            let expected = source.expected();
            back.channels.insert(*channel, (source.received.range(expected..).count() as u64, expected));
        }
        for (channel, generation) in &change.channels_in {
            self.sources.insert(*channel, Source::new(*generation, BTreeMap::new()));
            let shared = &rig.link.shared;
            assert_eq!(shared.channel(*channel), ChannelCounts::default(), "channel {channel} begins at zero");
            assert_eq!(shared.sessions[*channel].load(), [0; 10]);
        }
        for (line, channel, role) in &change.lines_in {
            let line_is = Line { role: *role, is_enabled: false, sent: 0 };
            self.sources.get_mut(channel).expect("known").lines.insert(*line, line_is);
            let shared = &rig.link.shared;
            let (counts, index) = (shared.line(usize::from(*line)), usize::from(*line));
            assert!(counts.packets == 0 && counts.last_seen_ns == 0, "line {line} begins at zero: {counts:?}");
            assert!(shared.drops(index).values().iter().chain(&shared.skew(index).values()).all(|count| *count == 0));
        }
        for (to, channel, port, format) in &change.streams_in {
            let begin = self.sources[channel].expected();
            self.flows.insert(*to, Flow { channel: *channel, port: *port, format: *format, begin });
        }
        self.back.push(back);
    }

    /// The exchange sends: some packets late, each on some of the lines that are on.
    fn send(&mut self, rng: &mut ChaCha8Rng, rig: &mut Rig) {
        for source in self.sources.values_mut() {
            if rng.random_bool(0.6) {
                let end = source.next + rng.random_range(1..=3);
                source.late.push((source.next, end));
                source.next = end;
            }
            while !source.late.is_empty() && rng.random_bool(0.6) {
                let on: Vec<u16> = source.lines.iter().filter(|(_, line)| line.is_enabled).map(|(i, _)| *i).collect();
                let Some(some) = on.choose(rng) else { break };
                let newest_first = rng.random_bool(0.4);
                let (from, to) = source.late.remove(if newest_first { source.late.len() - 1 } else { 0 });
                let mut packet = Packet::new(&source.session, from);
                (from..to).for_each(|i| packet.push(&message(&source.session, i)));
                let payload = packet.into_payload();
                for line in &on {
                    if line != some && rng.random_bool(0.4) {
                        continue;
                    }
                    rig.inject(rng.random_range(0..PORTS), *line, &payload);
                    source.lines.get_mut(line).expect("known").sent += 1;
                }
                source.waiting.push((from, to));
            }
        }
    }
}

/// The worker's edit of a change.
fn edit(change: &Change) -> Box<Edit> {
    let mut edit = Edit {
        remove_streams: change.streams_out.clone(),
        remove_lines: change.lines_out.clone(),
        remove_channels: change.channels_out.clone(),
        ..Edit::default()
    };
    edit.add_channels.extend(change.channels_in.iter().map(|(channel, _)| rig::channel(*channel)));
    let line = |&(line, channel, role)| NewLine { line, channel, role, socket: None };
    edit.add_lines.extend(change.lines_in.iter().map(line));
    let refused = (0..change.refused).map(|_| &(0, 0, 0, Format::Raw));
    for (to, channel, port, format) in change.streams_in.iter().chain(refused) {
        let stream = rig::stream(*to, *channel, *port, *format);
        edit.add_streams.push(NewStream {
            stream,
            retention: Retention::None,
            continues: false,
            destination: TxDestination::Memory,
        });
    }
    edit.ready()
}

/// What came back must be what went.
fn check_back(edit: Edit, back: &Back) {
    assert_eq!(edit.add_streams.len(), back.refused, "only what cannot be is refused");
    assert!(edit.add_channels.is_empty() && edit.add_lines.is_empty() && edit.is_done() == (back.refused == 0));
    let Removed { channels, streams, destinations, .. } = edit.removed;
    let held = |channel: &Channel| {
        let drops = |role| channel.line_drops(role).get(DropReason::Removed);
        (drops(LineRole::A) + drops(LineRole::B), channel.counts().next_sequence.max(1))
    };
    let channels: BTreeMap<_, _> = channels.iter().map(|(index, channel)| (*index, held(channel))).collect();
    assert_eq!(channels, back.channels, "channels: packets that were held, and the next message");
    let blocks: BTreeMap<_, _> = streams.iter().map(|stream| (stream.destination(), stream.counts().blocks)).collect();
    assert_eq!(blocks, back.streams, "streams: blocks");
    assert_eq!(destinations.len(), streams.len());
}

fn run(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rig = Rig::new();
    let mut oracle = Oracle::default();
    let on = |role| Line { role, is_enabled: true, sent: 0 };
    oracle.sources.insert(0, Source::new(0, BTreeMap::from([(0, on(LineRole::A)), (1, on(LineRole::B))])));
    oracle.flows.insert(0, Flow { channel: 0, port: 0, format: Format::Raw, begin: 1 });
    let mut commands: Vec<Option<u16>> = vec![];
    let mut change: Option<Change> = None;
    let mut sent: BTreeMap<(usize, usize), Vec<Sent>> = BTreeMap::new();
    let mut backs = 0;
    for step in 0..STEPS + 200 {
        let is_end = step >= STEPS;
        if !is_end {
            oracle.send(&mut rng, &mut rig);
        }
        if commands.is_empty() && (rng.random_bool(0.2) || is_end) {
            let next = if is_end { oracle.everything() } else { oracle.change(&mut rng) };
            rig.link.send(Command::Edit(edit(&next))).expect("room");
            commands.push(None);
            for (line, ..) in next.lines_in.iter().filter(|_| rng.random_bool(0.9)) {
                rig.link.send(Command::SetLine { line: usize::from(*line), enabled: true }).expect("room");
                commands.push(Some(*line));
            }
            change = Some(next);
        }
        let applied = rig.applied();
        rig.cycle(if rng.random_bool(0.01) { 1_100_000_000 } else { rng.random_range(1..200_000) });
        if rig.applied() > applied {
            match commands.remove(0) {
                None => oracle.apply(&change.take().expect("sent"), &rig),
                Some(line) => {
                    let mut lines = oracle.sources.values_mut().flat_map(|source| source.lines.iter_mut());
                    lines.find(|(i, _)| **i == line).expect("added before").1.is_enabled = true;
                }
            }
        }
        oracle.sources.values_mut().for_each(Source::take_waiting);
        rig.worker.audit();
        for (port, to, payload) in rig.sent() {
            let view = mold::parse(&payload).expect("whole packets");
            assert!(!view.is_end, "no session ended");
            let is_raw = |block: &&[u8]| block.starts_with(&view.session);
            let blocks = (view.sequence..)
                .zip(&view.blocks)
                .map(|(i, block)| (view.session, i, is_raw(block).then(|| block.to_vec())));
            sent.entry((port, to)).or_default().extend(blocks);
        }
        if rng.random_bool(0.15) || is_end {
            while let Some(event) = rig.event() {
                if let Event::Edited(edit) = event {
                    check_back(*edit, &oracle.back[backs]);
                    backs += 1;
                }
            }
        }
        if is_end && oracle.sources.is_empty() && backs == oracle.back.len() {
            break;
        }
        rig.check_lines(
            oracle.sources.values().flat_map(|source| source.lines.iter().map(|(i, line)| (*i, line.sent))),
        );
    }
    assert!(commands.is_empty() && backs == oracle.back.len() && backs > 10, "{backs} edits came back");
    oracle.expected.retain(|_, messages| !messages.is_empty());
    sent.retain(|_, messages| !messages.is_empty());
    for (place, expected) in &oracle.expected {
        let got = sent.remove(place).unwrap_or_default();
        let wrong = expected.iter().zip(&got).position(|(a, b)| a != b).unwrap_or(expected.len().min(got.len()));
        assert!(
            *expected == got,
            "port and destination {place:?}: {} messages sent of {}, wrong from {wrong} on: {:?} instead of {:?}",
            got.len(),
            expected.len(),
            got.get(wrong),
            expected.get(wrong)
        );
    }
    assert!(sent.is_empty(), "sent to destinations that were not there: {:?}", sent.keys());
}

#[test]
fn every_stream_is_its_channel_for_as_long_as_it_is_there() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("FEEDHANDLER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("FEEDHANDLER_SEEDS").unwrap_or(SEEDS) + 1,
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed} (replay with FEEDHANDLER_SEED={seed})");
            std::panic::resume_unwind(panic);
        }
    }
}
