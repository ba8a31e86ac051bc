//! The recovery planner: whatever is wanted and whatever comes back, it asks for nothing that is not missing, keeps its
//! budget, and believes nothing that it has not asked for.
#![forbid(unsafe_code)]

use feedhandler::config::plan::TransportKind;
use feedhandler::feed::Session;
use feedhandler::recovery::{Ask, Planner, PlannerSettings};

use super::input::{Input, session};
use crate::mold::{self, Packet};
use crate::ranges::RangeSet;

const SETTINGS: PlannerSettings = PlannerSettings {
    transport: TransportKind::MoldUdp64,
    servers: 2,
    timeout_ns: 2_000_000,
    requests_per_second: 10_000,
    outstanding: 4,
};

/// Requests at once and then one per interval: the most that may be sent by a time.
fn budget(now_ns: u64) -> u64 {
    SETTINGS.outstanding as u64 + now_ns / (1_000_000_000 / u64::from(SETTINGS.requests_per_second)) + 1
}

struct State {
    planner: Planner,
    session: Option<Session>,
    wanted: RangeSet,
    asks: Vec<Ask>,
    now_ns: u64,
}

/// Calls of the planner in any order.
pub(super) fn planner(data: &[u8]) {
    let mut state = State {
        planner: Planner::new(SETTINGS),
        session: None,
        wanted: RangeSet::default(),
        asks: Vec::new(),
        now_ns: 0,
    };
    let mut input = Input(data);
    while state.step(&mut input).is_some() {}
    let requests = state.planner.counts().requests;
    assert_eq!(requests, state.asks.len() as u64);
    assert!(requests <= budget(state.now_ns), "{requests} requests in {} ns", state.now_ns);
}

impl State {
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let what = input.u8()?;
        let server = usize::from(what >> 7);
        match what % 8 {
            0 => self.want(session(what >> 3), input)?,
            1 => self.now_ns += u64::from(input.u16()?) * 1_000,
            2 => self.planner.refused(server, self.now_ns),
            3 => {
                let len = usize::from(input.u8()?);
                self.answer(server, input.up_to(len));
            }
            4 | 5 => self.answer_well(what, input)?,
            6 => self.planner.not_handed(),
            _ => self.ask(),
        }
        Some(())
    }

    fn want(&mut self, session: Session, input: &mut Input<'_>) -> Option<()> {
        let (mut holes, mut from) = (Vec::new(), 1_u64);
        for _ in 0..input.u8()? % 5 {
            from = from.saturating_add(input.number()?).min(u64::MAX - 2);
            let to = from.saturating_add(input.number()?.max(1)).min(u64::MAX - 1);
            holes.push((from, to));
            from = to;
        }
        self.wanted = RangeSet::default();
        holes.iter().for_each(|(from, to)| self.wanted.insert(*from..*to));
        self.session = Some(session);
        self.planner.want(session, holes, self.now_ns);
        assert_eq!(self.planner.is_busy(), !self.wanted.is_empty());
        Some(())
    }

    fn ask(&mut self) {
        let before = self.asks.len();
        while let Some(ask) = self.planner.next(self.now_ns) {
            assert!(self.asks.len() - before <= SETTINGS.outstanding, "more at once than may be outstanding");
            assert!(ask.server < SETTINGS.servers && Some(ask.session) == self.session && ask.count > 0, "{ask:?}");
            let mut asked = RangeSet::default();
            asked.insert(ask.sequence..ask.sequence + u64::from(ask.count));
            assert!(asked.difference(&self.wanted).is_empty(), "{ask:?} of {}", self.wanted);
            self.asks.push(ask);
        }
    }

    fn answer(&mut self, server: usize, payload: &[u8]) {
        if self.planner.answer(server, payload, self.now_ns).is_err() {
            return;
        }
        let view = mold::parse(payload).or_else(|_| {
            // Bytes behind the last block are allowed.
            (mold::HEADER_BYTES..payload.len()).find_map(|end| mold::parse(&payload[..end]).ok()).ok_or("no packet")
        });
        let view = view.expect("what is believed is a packet");
        let count = view.blocks.len() as u64;
        let is_answer = |ask: &Ask| {
            (ask.server, ask.session, ask.sequence) == (server, view.session, view.sequence)
                && count <= u64::from(ask.count)
        };
        assert!(count > 0 && self.asks.iter().any(is_answer), "{view:?} was not asked for");
    }

    /// An answer to one of the newest requests: honest, or with another count, number, session or server.
    fn answer_well(&mut self, what: u8, input: &mut Input<'_>) -> Option<()> {
        let back = usize::from(input.u8()?) % 16;
        let Some(ask) = self.asks.iter().rev().nth(back).copied() else { return Some(()) };
        let bend = if what % 8 == 4 { 0 } else { input.u8()? };
        let mut packet = Packet::new(&ask.session, ask.sequence.wrapping_add(u64::from(bend & 1)));
        let cut = if bend & 2 > 0 { 1 + u16::from(bend >> 5) } else { ask.count + u16::from(bend >> 2 & 1) };
        for _ in 0..cut {
            packet.push(b"");
        }
        let server = if bend & 8 > 0 { 1 - ask.server } else { ask.server };
        self.answer(server, &packet.into_payload());
        Some(())
    }
}
