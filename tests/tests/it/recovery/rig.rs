//! One run of the simulation of recovery.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use feedhandler::config::midnights;
use feedhandler::config::plan::Plan;
use feedhandler::metrics::RecoveryCounts;
use feedhandler::recovery::{Ends, Planner, planner_settings, request_packet};
use feedhandler::worker::shared::Wanted;
use feedhandler_testkit::consumer::{CheckSettings, Checker, SessionAccount, day_truth};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings, Transmission};
use feedhandler_testkit::mold;
use feedhandler_testkit::ranges::RangeSet;
use feedhandler_testkit::retransmission::{RetransmissionServer, ServerSettings};

use feedhandler_testkit::bench_worker::{BenchWorker, plan_with};

const STEP_NS: u64 = 100_000;
const GIVE_UP_MS: u64 = 60;

/// What is simulated.
pub struct Scenario {
    pub messages: u64,
    pub exchange: ExchangeSettings,
    /// Without any, nobody is asked.
    pub servers: Vec<ServerSettings>,
    pub hold_packets: usize,
    /// Share of the messages that are sent before the handler is there.
    pub join: f64,
}

impl Scenario {
    /// A day without servers, followed from its start.
    pub fn new(exchange: ExchangeSettings) -> Self {
        Self { messages: super::MESSAGES, exchange, servers: Vec::new(), hold_packets: 16_384, join: 0.0 }
    }

    fn plan(&self) -> Plan {
        if self.servers.is_empty() {
            return plan_with(GIVE_UP_MS, self.hold_packets, "");
        }
        // The planner counts servers; their addresses are for the thread's sockets, which are not here.
        let servers: Vec<String> = (1..).zip(&self.servers).map(|(i, _)| format!("\"10.0.9.{i}:18000\"")).collect();
        let recovery = format!(
            "[feed.channel.recovery]\nservers = [{}]\nrequest_timeout_ms = 2\nrequests_per_second = 20_000\n\
             outstanding_requests = 32",
            servers.join(", ")
        );
        plan_with(GIVE_UP_MS, self.hold_packets, &recovery)
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub wrong: Vec<String>,
    /// Messages that were declared lost.
    pub lost: u64,
    /// Messages that no line carried while the handler was there.
    pub on_no_line: u64,
    /// Messages that were sent before it was there.
    pub missed: u64,
    pub hold_evicted: u64,
    pub counts: RecoveryCounts,
}

impl Outcome {
    pub fn rejected(&self) -> u64 {
        let counts = &self.counts;
        counts.rejected_malformed + counts.rejected_session + counts.rejected_empty + counts.rejected_unasked
    }
}

/// The recovery thread and its servers, in simulated time.
pub struct Asker {
    pub planner: Planner,
    ends: Ends,
    line: u16,
    servers: Vec<RetransmissionServer<Day>>,
    /// Time, server, answer.
    in_flight: BinaryHeap<Reverse<(u64, usize, Vec<u8>)>>,
}

impl Asker {
    /// The thread of a plan with as many servers as these.
    pub fn new(plan: &Plan, ends: Ends, servers: Vec<RetransmissionServer<Day>>) -> Self {
        let recovery = plan.channels[0].recovery.as_ref().expect("servers");
        let planner = Planner::new(planner_settings(&plan.channels[0], recovery));
        Self { planner, ends, line: plan.recovery_line(0), servers, in_flight: BinaryHeap::new() }
    }

    /// What the thread does in a cycle, with the answers that have arrived by now.
    pub fn cycle(&mut self, plan: &Plan, published: u64, base_ns: u64, now_ns: u64) {
        while let Ok(Wanted { session, holes, .. }) = self.ends.wanted.pop() {
            self.planner.want(session, holes, now_ns);
        }
        while self.in_flight.peek().is_some_and(|next| next.0.0 <= now_ns) && self.ends.answers.has_room() {
            let Some(Reverse((_, server, payload))) = self.in_flight.pop() else { break };
            if self.planner.answer(server, &payload, now_ns).is_ok() {
                assert!(self.ends.answers.hand(self.line, &payload, base_ns + now_ns), "there was room");
            }
        }
        while let Some(ask) = self.planner.next(now_ns) {
            let server = &mut self.servers[ask.server];
            server.advance(published);
            let packet = request_packet(plan.channels[0].transport, &ask);
            let answers = server.request(&packet, now_ns);
            self.in_flight.extend(answers.into_iter().map(|(at_ns, payload)| Reverse((at_ns, ask.server, payload))));
        }
    }
}

/// Everything that runs, and its time.
struct Rig {
    plan: Plan,
    bench: BenchWorker,
    asker: Option<Asker>,
    checker: Checker,
    /// UTC of the simulated time 0, nanoseconds.
    started_ns: u64,
    now_ns: u64,
}

impl Rig {
    fn cycle(&mut self, published: u64) {
        let Self { bench, checker, started_ns, now_ns, .. } = self;
        bench.cycle(*now_ns, |payload| checker.packet(payload, *started_ns + *now_ns));
        if let Some(asker) = &mut self.asker {
            asker.cycle(&self.plan, published, self.bench.base_ns, self.now_ns);
        }
    }

    /// Goes on to a time, a step at a time.
    fn advance(&mut self, to_ns: u64, published: u64) {
        while self.now_ns + STEP_NS < to_ns {
            self.now_ns += STEP_NS;
            self.cycle(published);
        }
        self.now_ns = self.now_ns.max(to_ns);
    }
}

/// The messages of a data packet; empty for what carries none, or is damaged.
pub fn messages_of(transmission: &Transmission) -> std::ops::Range<u64> {
    let view = mold::parse(&transmission.payload).ok().filter(|view| !view.is_end);
    view.map_or(0..0, |view| view.sequence..view.sequence + view.blocks.len() as u64)
}

pub fn run(scenario: &Scenario) -> Outcome {
    let day = DaySettings {
        seed: scenario.exchange.seed,
        messages: scenario.messages,
        instruments: 50,
        live_orders: 1_000,
        recency: 0.6,
    };
    let session = scenario.exchange.session;
    let plan = scenario.plan();
    let (bench, ends) = if scenario.servers.is_empty() {
        (BenchWorker::new(&plan), None)
    } else {
        let (bench, ends) = BenchWorker::recovering(&plan);
        (bench, Some(ends))
    };
    let started_ns = bench.base_ns.wrapping_add(bench.utc_offset_ns);
    let midnights = midnights("America/New_York", started_ns).expect("a known zone");
    let midnight_ns = *midnights.iter().rfind(|midnight| **midnight <= started_ns).expect("a midnight before now");
    let check = CheckSettings { publisher_id: 2, midnight_ns, started_ns };
    let server = |settings: &ServerSettings| {
        let settings = ServerSettings { session, ..settings.clone() };
        RetransmissionServer::new(settings, Day::new(&day))
    };
    let asker = ends.map(|ends| Asker::new(&plan, ends, scenario.servers.iter().map(server).collect()));
    let checker = Checker::new(check, vec![day_truth(session, &day)]);
    let mut rig = Rig { plan, bench, asker, checker, started_ns, now_ns: 0 };
    let mut exchange = Exchange::new(scenario.exchange.clone(), Day::new(&day));
    let joined = (scenario.messages as f64 * scenario.join) as u64;
    let (mut carried, mut missed) = (RangeSet::default(), 0);
    while let Some(transmission) = exchange.next() {
        let published = exchange.next_sequence();
        if published <= joined {
            missed = published;
            rig.now_ns = transmission.at_ns;
            continue;
        }
        rig.advance(transmission.at_ns, published);
        let line = u16::try_from(transmission.line).expect("two lines");
        carried.insert(messages_of(&transmission));
        rig.bench.inject(line, &transmission.payload, rig.now_ns);
        // Sometimes several datagrams wait for one cycle, so that batches have more than one.
        if !transmission.at_ns.is_multiple_of(3) {
            rig.cycle(published);
        }
    }
    // A backfill outlives a silence of twenty times give_up_ms.
    let give_ups = if scenario.join > 0.0 { 24 } else { 4 };
    let end_ns = rig.now_ns + give_ups * GIVE_UP_MS * 1_000_000;
    rig.advance(end_ns, exchange.next_sequence());
    rig.bench.worker.audit();
    finish(rig, &exchange, &carried, missed, !scenario.servers.is_empty())
}

fn finish(rig: Rig, exchange: &Exchange<Day>, carried: &RangeSet, missed: u64, has_servers: bool) -> Outcome {
    let counts = rig.bench.link.shared.channel(0);
    let mut all = RangeSet::default();
    all.insert(1..exchange.next_sequence());
    let on_no_line = all.difference(carried);
    let planner = rig.asker.as_ref().map_or_else(RecoveryCounts::default, |asker| *asker.planner.counts());
    // What came out although no line carried it was recovered; how much is the planner's account.
    let is_recovered = planner.recovered_messages > 0;
    let common_losses = if is_recovered { RangeSet::default() } else { on_no_line.clone() };
    let lost_expected = common_losses.count();
    let account = SessionAccount { common_losses, next_sequence: exchange.next_sequence(), must_end: true };
    let report = rig.checker.finish(&[account]);
    let mut wrong: Vec<String> = report.findings.first.iter().map(ToString::to_string).collect();
    if counts.messages_lost != lost_expected {
        wrong.push(format!("{} messages counted as lost instead of {lost_expected}", counts.messages_lost));
    }
    if let Some(asker) = &rig.asker
        && asker.planner.is_busy()
    {
        wrong.push("the worker still wants something".to_owned());
    }
    assert_eq!(has_servers, rig.asker.is_some());
    Outcome {
        wrong,
        lost: counts.messages_lost,
        on_no_line: on_no_line.count(),
        missed,
        hold_evicted: counts.hold_evicted,
        counts: planner,
    }
}
