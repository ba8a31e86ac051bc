//! One run of the simulation of a late start: exchange → lossy lines → the real worker, into which a snapshot is handed as the
//! thread hands it over → the consumer's check.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use feedhandler::config::midnights;
use feedhandler::config::plan::Plan;
use feedhandler::feed::JoinState;
use feedhandler::net::handoff::Handoff;
use feedhandler::snapshot::Spin;
use feedhandler_testkit::consumer::{CheckSettings, Checker, SessionAccount, joined_truth};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings};
use feedhandler_testkit::glimpse::Glimpse;
use feedhandler_testkit::line::LineSettings;
use feedhandler_testkit::mold;
use feedhandler_testkit::ranges::RangeSet;
use feedhandler_testkit::retransmission::{RetransmissionServer, ServerSettings};
use feedhandler_testkit::truth::Truth;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::recovery::rig::{Asker, messages_of};
use feedhandler_testkit::bench_worker::{BenchWorker, plan_with};

const STEP_NS: u64 = 100_000;
const GIVE_UP_MS: u64 = 60;

/// What is simulated.
pub struct Scenario {
    pub seed: u64,
    pub messages: u64,
    pub exchange: ExchangeSettings,
    /// Share of the messages that are sent before the handler is there.
    pub join: f64,
    /// Retransmission servers.
    pub servers: usize,
    /// The snapshot is taken so many messages after the first that could be seen.
    pub taken: i64,
    /// Time from then until it is handed over.
    pub late_ns: u64,
    /// Attempts before it that came to nothing.
    pub attempts: u32,
    pub hold_packets: usize,
}

impl Scenario {
    pub fn new(seed: u64, rng: &mut ChaCha8Rng) -> Self {
        let mut line = || LineSettings {
            loss: rng.random_range(0.0..0.06),
            loss_burst: rng.random_range(1.0..4.0),
            duplicate: rng.random_range(0.0..0.05),
            reorder: rng.random_range(0.0..0.05),
            reorder_ns: rng.random_range(1..2_000_000),
            skew_ns: rng.random_range(0..1_000_000),
            jitter_ns: rng.random_range(0..100_000),
            corrupt: rng.random_range(0.0..0.01),
        };
        let lines = [line(), line()];
        let exchange = ExchangeSettings {
            seed,
            rate: rng.random_range(20_000.0..100_000.0),
            packet_messages: rng.random_range(1..40),
            common_loss: 0.001,
            lines,
            ..ExchangeSettings::default()
        };
        let join = rng.random_range(0.2..0.7);
        Self {
            seed,
            messages: 6_000,
            exchange,
            join,
            servers: 0,
            taken: 0,
            late_ns: 0,
            attempts: 0,
            hold_packets: 16_384,
        }
    }

    fn plan(&self) -> Plan {
        let servers = "[feed.channel.recovery]\nservers = [\"10.0.9.1:18000\"]\nrequest_timeout_ms = 2\n\
                       requests_per_second = 20_000\noutstanding_requests = 32\n";
        let snapshot = "start = \"snapshot\"\n[feed.channel.snapshot]\nservers = [\"10.0.9.1:19000\"]\n";
        let servers = if self.servers > 0 { servers } else { "" };
        plan_with(GIVE_UP_MS, self.hold_packets, &format!("{snapshot}{servers}"))
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub wrong: Vec<String>,
    pub lost: u64,
    pub recovered: u64,
    pub snapshot_messages: u64,
    pub hold_evicted: u64,
    /// The snapshot was of a time before the first packet.
    pub was_older: bool,
}

/// The snapshot's thread in simulated time.
struct Hand {
    packets: Arc<Mutex<Handoff>>,
    line: u16,
    /// What is to be handed, and when at the earliest, the last first.
    script: Vec<(u64, Vec<u8>)>,
    rng: ChaCha8Rng,
}

impl Hand {
    fn cycle(&mut self, base_ns: u64, now_ns: u64) {
        let mut most = self.rng.random_range(0..6);
        while most > 0
            && let Some((at_ns, packet)) = self.script.last()
            && *at_ns <= now_ns
        {
            let mut packets = self.packets.lock().expect("nobody panics here");
            if !packets.hand(self.line, packet, base_ns + now_ns) {
                break;
            }
            self.script.pop();
            most -= 1;
        }
    }
}

struct Rig {
    plan: Plan,
    bench: BenchWorker,
    asker: Option<Asker>,
    hand: Hand,
    checker: Checker,
    started_ns: u64,
    now_ns: u64,
}

impl Rig {
    fn cycle(&mut self, published: u64) {
        let Self { bench, checker, started_ns, now_ns, .. } = self;
        bench.cycle(*now_ns, |payload| checker.packet(payload, *started_ns + *now_ns));
        self.hand.cycle(self.bench.base_ns, self.now_ns);
        if let Some(asker) = &mut self.asker {
            asker.cycle(&self.plan, published, self.bench.base_ns, self.now_ns);
        }
    }

    fn advance(&mut self, to_ns: u64, published: u64) {
        while self.now_ns + STEP_NS < to_ns {
            self.now_ns += STEP_NS;
            self.cycle(published);
        }
        self.now_ns = self.now_ns.max(to_ns);
    }
}

/// The packets of a snapshot of all messages before `next`, as the thread makes them of what a server sends.
pub fn packets(session: &mold::Session, day: &DaySettings, next: u64) -> Vec<Vec<u8>> {
    let mut glimpse = Glimpse::default();
    Day::new(day).take(usize::try_from(next - 1).expect("fits")).for_each(|message| glimpse.apply(&message));
    let mut spin = Spin::new(1_000_000);
    let end = glimpse.messages().iter().find_map(|message| spin.push(message).expect("a legal snapshot"));
    let snapshot = spin.finish(end.expect("it has an end")).expect("shorter than the day");
    let mut packets = vec![mold::heartbeat(session, next)];
    snapshot.packets(session, |packet, _| {
        packets.push(packet.to_vec());
        true
    });
    packets
}

/// What the thread hands over, and when: attempts that come to nothing, then the snapshot; the last first.
fn script(scenario: &Scenario, packets: Vec<Vec<u8>>, now_ns: u64) -> Vec<(u64, Vec<u8>)> {
    let (late_ns, attempts) = (scenario.late_ns, u64::from(scenario.attempts));
    let begins = mold::heartbeat(&scenario.exchange.session, 0);
    let attempt = |n| (now_ns + late_ns * n / (attempts + 1), begins.clone());
    let snapshot = packets.into_iter().map(|packet| (now_ns + late_ns, packet));
    let mut script: Vec<_> = (0..attempts).map(attempt).chain(snapshot).collect();
    script.reverse();
    script
}

pub fn run(scenario: &Scenario) -> Outcome {
    let Scenario { seed, messages, .. } = *scenario;
    let day = DaySettings { seed, messages, instruments: 50, live_orders: 1_000, recency: 0.6 };
    let session = scenario.exchange.session;
    let plan = scenario.plan();
    let joined = (messages as f64 * scenario.join) as u64;
    let next = joined.saturating_add_signed(scenario.taken);
    let (bench, ends) = BenchWorker::joining(&plan);
    let started_ns = bench.base_ns.wrapping_add(bench.utc_offset_ns);
    let midnights = midnights("America/New_York", started_ns).expect("a known zone");
    let midnight_ns = *midnights.iter().rfind(|midnight| **midnight <= started_ns).expect("a midnight before now");
    let settings = ServerSettings { seed, session, loss: 0.02, ..ServerSettings::default() };
    let server = || vec![RetransmissionServer::new(settings, Day::new(&day))];
    let asker = plan.channels[0].recovery.is_some().then(|| Asker::new(&plan, ends.recovery, server()));
    let hand = Hand {
        packets: ends.snapshot.packets,
        line: plan.snapshot_line(0),
        script: Vec::new(),
        rng: ChaCha8Rng::seed_from_u64(seed ^ 0x5714),
    };
    let check = CheckSettings { publisher_id: 2, midnight_ns, started_ns };
    let checker = Checker::new(check, vec![joined_truth(session, &day, next)]);
    let mut rig = Rig { plan, bench, asker, hand, checker, started_ns, now_ns: 0 };
    let mut exchange = Exchange::new(scenario.exchange.clone(), Day::new(&day));
    let (mut carried, mut first, mut announced) = (RangeSet::default(), None, false);
    while let Some(transmission) = exchange.next() {
        let published = exchange.next_sequence();
        if published <= joined {
            rig.now_ns = transmission.at_ns;
            continue;
        }
        rig.advance(transmission.at_ns, published);
        // What is seen of the day begins here; a damaged or empty packet begins nothing.
        let messages = messages_of(&transmission);
        if first.is_none() && messages.is_empty() {
            continue;
        }
        first.get_or_insert(messages.start);
        carried.insert(messages);
        let line = u16::try_from(transmission.line).expect("two lines");
        rig.bench.inject(line, &transmission.payload, rig.now_ns);
        if !transmission.at_ns.is_multiple_of(3) {
            rig.cycle(published);
        }
        // The lines must have shown the snapshot's number, as the thread sees to.
        if !announced && rig.bench.link.shared.channel(0).known_sequence >= next {
            announced = true;
            rig.hand.script = script(scenario, packets(&session, &day, next), rig.now_ns);
        }
    }
    let end_ns = rig.now_ns + 4 * GIVE_UP_MS * 1_000_000;
    rig.advance(end_ns, exchange.next_sequence());
    rig.bench.worker.audit();
    let was_older = first.is_some_and(|first| next < first);
    finish(rig, &day, &exchange, &carried, (next, was_older))
}

fn finish(
    rig: Rig,
    day: &DaySettings,
    exchange: &Exchange<Day>,
    carried: &RangeSet,
    (next, was_older): (u64, bool),
) -> Outcome {
    let counts = rig.bench.link.shared.channel(0);
    let mut behind = RangeSet::default();
    behind.insert(next..exchange.next_sequence());
    let common_losses = if rig.asker.is_some() { RangeSet::default() } else { behind.difference(carried) };
    let lost_expected = common_losses.count();
    let mut wrong = Vec::new();
    if JoinState::from_value(counts.snapshot_state) != JoinState::Joined {
        wrong.push(format!("the join stands at {}", counts.snapshot_state));
    }
    if rig.asker.is_some() {
        let mut truth = Truth::default();
        for message in Day::new(day) {
            truth.apply(&message);
        }
        if rig.checker.book() != truth.book() {
            wrong.push("the books are not those of a day followed from the start".to_owned());
        }
    }
    let account = SessionAccount { common_losses, next_sequence: exchange.next_sequence(), must_end: true };
    let report = rig.checker.finish(&[account]);
    wrong.extend(report.findings.first.iter().map(ToString::to_string));
    if counts.messages_lost != lost_expected {
        wrong.push(format!("{} messages counted as lost instead of {lost_expected}", counts.messages_lost));
    }
    Outcome {
        wrong,
        lost: counts.messages_lost,
        recovered: rig.asker.map_or(0, |asker| asker.planner.counts().recovered_messages),
        snapshot_messages: counts.snapshot_messages,
        hold_evicted: counts.hold_evicted,
        was_older,
    }
}
