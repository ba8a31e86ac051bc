//! Consumers heal their own gaps: in simulation (exchange → the real worker → a consumer that loses a part of everything, and
//! the real store and limits), and over veth with the real process, while another client asks for everything again and again.
#![forbid(unsafe_code)]

mod veth;

use std::net::Ipv4Addr;

use feedhandler::config::midnights;
use feedhandler::config::plan::{Network, Rates, RetransmissionPlan};
use feedhandler::publish::{Retained, retention};
use feedhandler::retransmission::Responder;
use feedhandler_testkit::consumer::{CheckSettings, Checker, Client, SessionAccount, day_truth};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use feedhandler_testkit::bench_worker::{BenchWorker, plan};

/// What a consumer loses of what is sent to it, and of its requests.
const LOSS: f64 = 0.05;

const CONSUMER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

/// A server without limits worth mentioning.
pub fn responder(retain_bytes: usize) -> Responder {
    let rates = Rates { requests_per_second: 1_000_000, bytes_per_second: 1 << 40 };
    let plan = RetransmissionPlan {
        address: "10.0.0.1:18000".parse().expect("an address"),
        retain_bytes,
        rates,
        client_rates: rates,
        allow: vec![Network::new(Ipv4Addr::UNSPECIFIED, 0).expect("everybody")],
    };
    Responder::new(&plan, 1472)
}

/// Takes what the worker has sent meanwhile.
pub fn take_sent(retained: &mut Retained, responder: &mut Responder, buffer: &mut [u8]) {
    while let Some(length) = retained.next(buffer) {
        responder.retain(&buffer[..length]);
    }
}

/// The midnight that times count from at `utc_ns`.
pub fn midnight_before(utc_ns: u64) -> u64 {
    let all = midnights("America/New_York", utc_ns).expect("a known zone");
    *all.iter().rfind(|midnight| **midnight <= utc_ns).expect("a midnight before now")
}

/// The consumer, and the way between it and the server.
struct Consumer {
    client: Client,
    checker: Checker,
    rng: ChaCha8Rng,
    started_ns: u64,
}

impl Consumer {
    fn take(&mut self, payload: &[u8], now_ns: u64) {
        if !self.rng.random_bool(LOSS) {
            self.client.packet(payload, |payload| self.checker.packet(payload, self.started_ns + now_ns));
        }
    }

    fn heal(&mut self, responder: &mut Responder, now_ns: u64) {
        while let Some(request) = self.client.request(now_ns) {
            if self.rng.random_bool(LOSS) {
                continue;
            }
            if let Ok(answer) = responder.request(CONSUMER, &request, now_ns) {
                let answer = answer.to_vec();
                self.take(&answer, now_ns);
            }
        }
    }
}

/// A day with this share of it before the consumer is there; how many messages were recovered.
fn heals(seed: u64, join: f64) -> u64 {
    let day = DaySettings { seed, messages: 6_000, instruments: 50, live_orders: 1_000, recency: 0.6 };
    let settings = ExchangeSettings { seed, packet_messages: 1 + (seed % 40) as u16, ..ExchangeSettings::default() };
    let mut bench = BenchWorker::new(&plan(20, 512));
    let (retainer, mut retained) = retention(1 << 20);
    bench.worker.retain(0, retainer);
    let mut responder = responder(4 << 20);
    let mut buffer = vec![0; 1 << 16];
    let started_ns = bench.base_ns.wrapping_add(bench.utc_offset_ns);
    let check = CheckSettings { publisher_id: 2, midnight_ns: midnight_before(started_ns), started_ns };
    let mut consumer = Consumer {
        client: Client::new(1, 1_000_000),
        checker: Checker::new(check, vec![day_truth(settings.session, &day)]),
        rng: ChaCha8Rng::seed_from_u64(seed),
        started_ns,
    };
    let mut exchange = Exchange::new(settings, Day::new(&day));
    let mut now_ns = 0;
    let mut cycle = |bench: &mut BenchWorker, now_ns, is_there| {
        bench.cycle(now_ns, |payload| {
            if is_there {
                consumer.take(payload, now_ns);
            }
        });
        take_sent(&mut retained, &mut responder, &mut buffer);
        consumer.heal(&mut responder, now_ns);
        consumer.checker.has_ended() && !consumer.client.is_missing()
    };
    while let Some(transmission) = exchange.next() {
        now_ns = transmission.at_ns;
        bench.inject(u16::try_from(transmission.line).expect("two lines"), &transmission.payload, now_ns);
        cycle(&mut bench, now_ns, exchange.next_sequence() as f64 > join * day.messages as f64);
    }
    let deadline_ns = now_ns + 40_000_000_000;
    while now_ns < deadline_ns {
        now_ns += 10_000_000;
        if cycle(&mut bench, now_ns, true) {
            break;
        }
    }
    let next_sequence = exchange.next_sequence();
    let recovered = consumer.client.recovered;
    let account = SessionAccount { next_sequence, must_end: true, ..SessionAccount::default() };
    let report = consumer.checker.finish(&[account]);
    assert!(report.findings.is_empty(), "seed {seed}: {:#?}", report.findings);
    assert_eq!((report.gap_messages, report.blocks), (0, next_sequence - 1), "seed {seed}");
    let counts = responder.counts();
    assert_eq!((counts.unfit, counts.retained_messages, counts.next_sequence), (0, next_sequence - 1, next_sequence));
    recovered
}

#[test]
fn a_consumer_that_loses_a_part_of_everything_has_it_all_in_the_end() {
    let recovered: u64 = (1..=24).map(|seed| heals(seed, 0.0)).sum();
    assert!(recovered > 24 * 6_000 / 30, "{recovered} messages recovered");
    println!("recovered: {recovered} of {}", 24 * 6_000);
}

#[test]
fn a_consumer_that_comes_late_has_the_session_from_its_first_message() {
    let recovered: u64 = (1..=8).map(|seed| heals(seed, 0.6)).sum();
    assert!(recovered > 8 * 6_000 * 6 / 10, "{recovered} messages recovered");
}
