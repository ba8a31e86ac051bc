//! The worker as a whole: any bytes on any line, at any time, with lines switched on and off and answers that nobody asked
//! for. No panic, no frame lost; and what comes out is in order, nothing twice, nothing invented, and short of nothing that
//! is not counted as lost.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::OnceLock;

use feedhandler::config::plan::Plan;
use feedhandler::feed::ChannelState;
use feedhandler::net::RxPort;
use feedhandler::recovery::Ends;
use feedhandler::worker::shared::{Command, Wanted};

use super::input::{Input, session};
use super::output::message;
use crate::bench_worker::{BenchWorker, plan_with, port_with};
use crate::mold::{self, Packet, Session};
use crate::ranges::RangeSet;

const GIVE_UP_MS: u64 = 5;

/// Few, so that they run out.
const FRAMES: u32 = 96;
const HOLD_PACKETS: usize = 24;

/// Sessions that the handler remembers as left; one that comes back later is a new one to it.
const REMEMBERED: usize = 8;

/// Steps of one input at most.
const MOST_STEPS: usize = 600;

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let recovery =
            "[feed.channel.recovery]\nservers = [\"10.0.9.1:18000\"]\nrequest_timeout_ms = 1\nbackfill_ms = 20";
        let mut plan = plan_with(GIVE_UP_MS, HOLD_PACKETS, recovery);
        plan.channels[0].max_orders = 64;
        plan
    })
}

/// What came out of one session.
#[derive(Debug)]
struct Seen {
    next: u64,
    /// Messages that were left out.
    left_out: u64,
}

/// The output as it must be.
#[derive(Debug, Default)]
struct Oracle {
    /// In the order of their first packets.
    sessions: Vec<(Session, Seen)>,
    /// Message numbers that any packet claimed to have, by session.
    sent: HashMap<Session, RangeSet>,
}

impl Oracle {
    /// Remembers what a datagram claims to have, whether it is whole or not.
    fn inject(&mut self, payload: &[u8]) {
        let Some(header) = payload.first_chunk::<{ mold::HEADER_BYTES }>() else { return };
        let session: Session = header[..10].try_into().expect("ten bytes");
        let sequence = u64::from_be_bytes(header[10..18].try_into().expect("eight bytes"));
        let count = u16::from_be_bytes([header[18], header[19]]);
        if count != mold::END_OF_SESSION {
            self.sent.entry(session).or_default().insert(sequence..sequence.saturating_add(u64::from(count)));
        }
    }

    fn check(&mut self, payload: &[u8]) {
        let view = mold::parse(payload).expect("our output is MoldUDP64");
        if self.sessions.last().is_none_or(|(session, _)| *session != view.session) {
            let before = self.sessions.iter().rev().position(|(session, _)| *session == view.session);
            assert!(
                before.is_none_or(|ago| ago >= REMEMBERED),
                "a session that was left comes back: {:?}",
                self.sessions
            );
            self.sessions.push((view.session, Seen { next: 1, left_out: 0 }));
        }
        let (session, seen) = self.sessions.last_mut().expect("just put there");
        assert!(view.sequence >= seen.next, "{} after {} was next", view.sequence, seen.next);
        seen.left_out = seen.left_out.saturating_add(view.sequence - seen.next);
        let end = view.sequence + view.blocks.len() as u64;
        if !view.blocks.is_empty() {
            let sent = self.sent.get(session);
            let is_sent = |number| sent.is_some_and(|sent| sent.contains(number));
            assert!((view.sequence..end).all(is_sent), "{}..{end} was never sent", view.sequence);
        }
        seen.next = end;
    }
}

struct World {
    bench: BenchWorker,
    ends: Ends,
    now_ns: u64,
    last: Vec<u8>,
    oracle: Oracle,
}

/// A life of a worker, by bytes.
pub(super) fn worker(data: &[u8]) {
    let (mut bench, ends) = BenchWorker::recovering_on(plan(), port_with(plan(), FRAMES, 256));
    // What is drawn must not depend on when it is run.
    bench.base_ns = 1 << 40;
    let mut world = World { bench, ends, now_ns: 0, last: Vec::new(), oracle: Oracle::default() };
    let mut input = Input(data);
    for _ in 0..MOST_STEPS {
        if world.step(&mut input).is_none() {
            break;
        }
        world.bench.worker.audit();
    }
    world.finish();
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let what = input.u8()?;
        let line = what >> 3 & 3;
        match what % 8 {
            0 => {
                let len = usize::from(input.u8()?) * 7;
                let payload = input.up_to(len).to_vec();
                self.inject(line, payload);
            }
            1 | 2 => {
                let payload = packet(what, input)?;
                self.inject(line, payload);
            }
            3 => {
                let session = session(what >> 5);
                let next = input.number()?;
                let is_end = what >> 7 > 0;
                self.inject(
                    line,
                    if is_end { mold::end_of_session(&session, next) } else { mold::heartbeat(&session, next) },
                );
            }
            4 => {
                self.now_ns += u64::from(input.u16()?) * 64_000;
                self.cycle();
            }
            5 => self.cycle(),
            6 => {
                let command = Command::SetLine { line: usize::from(line), enabled: what >> 5 & 1 > 0 };
                // A full queue is an answer, too.
                let _ = self.bench.link.send(command);
            }
            _ => {
                for _ in 0..=usize::from(what >> 5) * 12 {
                    self.inject(line, self.last.clone());
                }
            }
        }
        Some(())
    }

    /// On line A or B, as an answer, or with a line number that does not exist.
    fn inject(&mut self, line: u8, payload: Vec<u8>) {
        self.oracle.inject(&payload);
        match line {
            0 | 1 => self.bench.inject(u16::from(line), &payload, self.now_ns),
            2 => {
                // A full queue or a payload that is too long: the thread counts it and asks again.
                let _ = self.ends.answers.hand(plan().recovery_line(0), &payload, self.bench.base_ns + self.now_ns);
            }
            _ => self.bench.inject(77, &payload, self.now_ns),
        }
        self.last = payload;
    }

    fn cycle(&mut self) {
        let Self { bench, oracle, now_ns, .. } = self;
        bench.cycle(*now_ns, |payload| oracle.check(payload));
        while let Ok(Wanted { holes, .. }) = self.ends.wanted.pop() {
            let is_sorted = holes.windows(2).all(|pair| pair[0].1 <= pair[1].0);
            assert!(is_sorted && holes.iter().all(|(from, to)| from < to), "{holes:?}");
        }
    }

    fn backlog(&mut self) -> usize {
        let Some(RxPort::Memory(rx)) = self.bench.worker.rx_mut(0) else { unreachable!("a memory port") };
        rx.backlog()
    }

    /// Silence until everything is given up, then heartbeats until everything is told: a stale channel tells nothing.
    fn finish(mut self) {
        let _ = self.bench.link.send(Command::SetLine { line: 0, enabled: true });
        // Batches of at least one.
        for _ in 0..MOST_STEPS * 100 {
            self.cycle();
            if self.backlog() == 0 {
                break;
            }
        }
        for step_ns in [100_000, 1_000_000, 1_000_000_000] {
            for _ in 0..40 {
                self.now_ns += step_ns;
                self.cycle();
                let shared = &self.bench.link.shared;
                let counts = shared.channel(0);
                if step_ns == 1_000_000_000 && counts.state != ChannelState::Unknown as u64 {
                    let heartbeat = mold::heartbeat(&shared.sessions[0].load(), counts.next_sequence);
                    self.inject(0, heartbeat);
                }
            }
        }
        self.cycle();
        self.bench.worker.audit();
        assert_eq!(self.backlog(), 0, "datagrams wait although there is nothing to do");
        let shared = &self.bench.link.shared;
        let counts = shared.channel(0);
        let unsent = [&shared.destination_drops[0], &shared.tx_drops[0]];
        if unsent.iter().all(|drops| drops.load().iter().sum::<u64>() == 0) {
            let left_out = self.oracle.sessions.iter().fold(0_u64, |sum, (_, seen)| sum.saturating_add(seen.left_out));
            assert_eq!(left_out, counts.messages_lost, "left out, and declared lost\n{:?}", self.oracle.sessions);
            let next = self.oracle.sessions.last().map_or(0, |(_, seen)| seen.next);
            assert_eq!(next, counts.next_sequence, "next in the output, and in the channel");
        }
    }
}

/// A data packet of a session, with the messages that belong under its numbers; or one that lies.
fn packet(what: u8, input: &mut Input<'_>) -> Option<Vec<u8>> {
    let first = input.number()?;
    let shape = input.u8()?;
    let mut packet = Packet::new(&session(what >> 5), first);
    let mut bytes = Vec::new();
    for number in (0..u64::from(shape % 16)).map(|n| first.wrapping_add(n)) {
        bytes.clear();
        message(number).encode(&mut bytes);
        packet.push(&bytes);
    }
    let mut payload = packet.into_payload();
    if what % 8 == 2 {
        let value = input.u16()?;
        match shape >> 6 {
            0 => payload[18..20].copy_from_slice(&value.to_be_bytes()),
            1 => payload.truncate(usize::from(value)),
            2 => payload.extend_from_slice(input.up_to(usize::from(value) % 600)),
            _ => {
                let at = usize::from(value) % payload.len();
                payload[at] ^= input.u8()?;
            }
        }
    }
    Some(payload)
}
