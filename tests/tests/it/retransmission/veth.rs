//! The real process between two hosts: one consumer heals what it loses on purpose, another one just listens, and a third
//! client asks for everything again and again, with garbage in between, far over its limit.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use feedhandler_testkit::consumer::{
    CheckSettings, Checker, Client, Receiver, Report, SessionAccount, day_truth, request, utc_ns,
};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings};
use feedhandler_testkit::mold;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{LOSS, midnight_before};
use crate::accounting::metrics::Metrics;
use crate::site::Site;
use crate::turn::turn;

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 9, 2, 1), 18_000);
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 20, 0, 1), 30_001);
const HEALER: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 2);
const GREEDY: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 3);
const CLIENT_REQUESTS_PER_SECOND: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn day() -> DaySettings {
    DaySettings { seed: 5, messages: 40_000, instruments: 100, live_orders: 2_000, recency: 0.6 }
}

fn exchange() -> Exchange<Day> {
    let settings = ExchangeSettings { seed: 5, rate: 20_000.0, ..ExchangeSettings::default() };
    Exchange::new(settings, Day::new(&day()))
}

fn checker() -> Checker {
    let started_ns = utc_ns();
    let check = CheckSettings { publisher_id: 2, midnight_ns: midnight_before(started_ns), started_ns };
    Checker::new(check, vec![day_truth(*b"DEMO000001", &day())])
}

/// Sends line A of the day at its pace.
fn publish(socket: &UdpSocket) -> u64 {
    let mut exchange = exchange();
    let mut started = Instant::now();
    for transmission in exchange.by_ref() {
        if transmission.line == 0 {
            let at = Duration::from_nanos(transmission.at_ns);
            std::thread::sleep(at.saturating_sub(started.elapsed()));
            // Whoever was kept from its core goes on from there: what it would catch up at once is lost on a line that is alone.
            let late = started.elapsed().saturating_sub(at);
            if late > Duration::from_millis(2) {
                started += late;
            }
            socket.send(&transmission.payload).expect("sent");
        }
    }
    exchange.next_sequence()
}

/// A consumer that loses this share of everything that comes; with `socket` it asks for what it misses.
fn consume(mut receiver: Receiver, socket: Option<&UdpSocket>, loss: f64, seed: u64) -> (Client, Checker) {
    receiver.socket().set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
    let (mut client, mut checker) = (Client::new(1, 20_000_000), checker());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let started = Instant::now();
    let mut buffer = [0; 2048];
    while (client.is_missing() || !checker.has_ended()) && started.elapsed() < PATIENCE {
        if let Some((payload, received_ns)) = receiver.receive().expect("the socket works")
            && !rng.random_bool(loss)
        {
            client.packet(payload, |payload| checker.packet(payload, received_ns));
        }
        let Some(socket) = socket else { continue };
        while let Ok(length) = socket.recv(&mut buffer) {
            if !rng.random_bool(loss) {
                client.packet(&buffer[..length], |payload| checker.packet(payload, utc_ns()));
            }
        }
        while let Some(request) = client.request(started.elapsed().as_nanos() as u64) {
            // A full buffer is one more loss.
            let _ = socket.send(&request);
        }
    }
    (client, checker)
}

/// Asks for everything, in pieces and again and again, with garbage in between; the answers that came.
fn be_greedy(socket: &UdpSocket, is_over: &AtomicBool) -> (u64, Duration) {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let (mut answers, mut buffer) = (0, [0; 2048]);
    let started = Instant::now();
    while !is_over.load(Relaxed) {
        for _ in 0..32 {
            let mut bytes = request(b"DEMO000001", rng.random_range(1..50_000), rng.random_range(1..=0xFFFE));
            match rng.random_range(0..20) {
                0 => bytes = vec![rng.random(); rng.random_range(0..1472)],
                1 => bytes[rng.random_range(0..10)] ^= 1,
                2 => bytes[18..].copy_from_slice(if rng.random_bool(0.5) { &[0, 0] } else { &[0xFF, 0xFF] }),
                _ => {}
            }
            let _ = socket.send(&bytes);
        }
        while socket.recv(&mut buffer).is_ok() {
            answers += 1;
        }
        // Far more than it may have, and still not all of a core that the handler may need.
        std::thread::sleep(Duration::from_millis(1));
    }
    (answers, started.elapsed())
}

fn scrape(site: &Site) -> Metrics {
    let text = site.namespace.enter(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:9184")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: here\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    Metrics::parse(text.expect("inside").expect("metrics"))
}

/// A socket on the consumers' host that sends requests and does not wait for answers.
fn requester(site: &Site, address: Ipv4Addr) -> UdpSocket {
    let open = || -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(SocketAddrV4::new(address, 0))?;
        socket.connect(SERVER)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    site.far.enter(open).expect("inside").expect("a socket")
}

fn settle(checker: Checker, next_sequence: u64) -> Report {
    let account = SessionAccount { next_sequence, must_end: true, ..SessionAccount::default() };
    checker.finish(&[account])
}

#[test]
fn a_consumer_heals_its_gaps_while_another_one_asks_for_everything() {
    let _turn = turn();
    let site = Site::new();
    site.far.ip(&["addr", "add", "10.9.2.3/24", "dev", "far-out"]).expect("a second address");
    let config = site.config("resend", |text| {
        let server = format!(
            "[destination.retransmission]\naddress = \"{SERVER}\"\nclient_requests_per_second = \
             {CLIENT_REQUESTS_PER_SECOND}\nallow = [\"10.9.2.0/24\"]\n"
        );
        text.replace("max_orders = 1000", "max_orders = 100_000\nstart = \"first\"\nhold_packets = 4096")
            .replace("name = \"resend\"\n", "name = \"resend\"\nmetrics = \"127.0.0.1:9184\"\n")
            + &server
    });
    let running = site.launch("resend", site.command(&config));
    let join = || site.far.enter(|| Receiver::join(GROUP, HEALER)).expect("inside").expect("joined");
    let (healing, listening) = (join(), join());
    let (healer, greedy, sender) = (requester(&site, HEALER), requester(&site, GREEDY), site.sender());
    let is_over = AtomicBool::new(false);
    let ((client, healed), (listener, heard), (answers, elapsed), next_sequence) = std::thread::scope(|scope| {
        let healing = scope.spawn(|| consume(healing, Some(&healer), LOSS, 1));
        let listening = scope.spawn(|| consume(listening, None, 0.0, 2));
        let greedy = scope.spawn(|| be_greedy(&greedy, &is_over));
        let next_sequence = publish(&sender);
        let (healed, heard) = (healing.join().expect("healed"), listening.join().expect("heard"));
        is_over.store(true, Relaxed);
        (healed, heard, greedy.join().expect("answered"), next_sequence)
    });
    // What the handler counted first: it says which side is to blame.
    let metrics = scrape(&site);
    let server = |name: &str| metrics.sum(&format!("retransmission_{name}"), &[("destination", "out")]);
    let refused = |reason| metrics.sum("retransmission_refused_total", &[("reason", reason)]);
    println!(
        "healer: {} messages recovered by {} requests; greedy: {answers} answers in {elapsed:?}\nserver: {} requests, {} \
         answers, refused: {} malformed, {} count, {} session, {} gone, {} ahead, {} client's limit, {} all's limit",
        client.recovered,
        client.requests,
        server("requests_total"),
        server("answers_total"),
        refused("malformed"),
        refused("count"),
        refused("session"),
        refused("gone"),
        refused("ahead"),
        refused("client_overload"),
        refused("overload")
    );
    assert_eq!(metrics.sum("channel_messages_lost_total", &[]), 0, "on the way in");
    assert_eq!(metrics.sum("channel_messages_total", &[]), next_sequence - 1);
    for reason in ["no_free_frame", "tx_full", "tx_error", "link_lost", "oversized"] {
        assert_eq!(metrics.sum("drops_total", &[("reason", reason)]), 0, "{reason}");
    }
    assert_eq!(metrics.sum("destination_not_retained_total", &[]), 0);
    // The consumer that just listens did not notice anything, and the one that lost has it all.
    for (who, checker) in [("listener", heard), ("healer", healed)] {
        let report = settle(checker, next_sequence);
        assert!(report.findings.is_empty(), "{who}: {:#?}", report.findings);
        assert_eq!((report.gap_messages, report.blocks), (0, next_sequence - 1), "{who}");
    }
    assert_eq!(listener.requests, 0);
    assert!(client.recovered > next_sequence / 50, "{} recovered", client.recovered);
    // The greedy one got its share and no more, and each refusal has its reason.
    let most = CLIENT_REQUESTS_PER_SECOND * (elapsed.as_millis() as u64 + 200) / 1000;
    assert!(answers <= most && answers > most / 20, "{answers} of at most {most}");
    assert!(server("answers_total") <= most + client.requests, "{} answers", server("answers_total"));
    for reason in ["malformed", "count", "session", "ahead", "client_overload"] {
        assert!(refused(reason) > 0, "{reason}");
    }
    assert_eq!((refused("network"), server("next_sequence")), (0, next_sequence));
    assert_eq!((server("retained_messages"), server("first_sequence")), (next_sequence - 1, 1));
    after_the_end(&healer);
    drop(running);
}

/// The session is over, and its first message can still be had; so can all others.
fn after_the_end(socket: &UdpSocket) {
    socket.set_nonblocking(false).expect("blocking");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let (mut next, mut buffer) = (1, [0; 2048]);
    for _ in 0..200 {
        socket.send(&request(b"DEMO000001", next, 500)).expect("sent");
        // Answers of before may still come; a lost one is asked for again.
        while let Ok(length) = socket.recv(&mut buffer) {
            let view = mold::parse(&buffer[..length]).expect("a packet");
            if view.sequence == next {
                next += view.blocks.len() as u64;
                break;
            }
        }
    }
    assert!(next > 1_000, "only up to {next}");
}
