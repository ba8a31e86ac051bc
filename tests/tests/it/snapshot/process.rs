//! The handler as a process that is started in the middle of a day, over veth, with GLIMPSE servers on the exchange's host.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use feedhandler_testkit::consumer::{CheckSettings, Checker, Receiver, SessionAccount, joined_truth, utc_ns};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::glimpse::Glimpse;
use feedhandler_testkit::glimpse::server::{GlimpseServer, Manner};
use feedhandler_testkit::mold::{self, Packet, Session};
use feedhandler_testkit::ranges::RangeSet;
use feedhandler_testkit::truth::Truth;

use crate::site::Site;
use crate::turn::turn;

const SESSION: Session = *b"GLIMPSE001";

/// The handler is started when this message is next, and the snapshot is of a moment after that.
const FIRST: u64 = 5_000;
const NEXT: u64 = 5_500;

#[test]
fn started_in_the_middle_it_ends_in_the_books_of_the_whole_day() {
    let _turn = turn();
    let day = DaySettings { seed: 3, messages: 20_000, instruments: 60, live_orders: 2_000, recency: 0.6 };
    let (mut glimpse, mut truth) = (Glimpse::default(), Truth::default());
    for (number, message) in (1..).zip(Day::new(&day)) {
        if number < NEXT {
            glimpse.apply(&message);
        }
        truth.apply(&message);
    }
    let site = Site::new();
    let start = |port| {
        GlimpseServer::start(format!("10.9.1.2:{port}").parse().expect("an address"), "GLIMPSE001", glimpse.messages())
    };
    let servers = [19_001, 19_002].map(|port| site.far.enter(|| start(port)).expect("inside").expect("a server"));
    servers[0].behave([Manner::BreakOff(0.5)]);
    let config = site.config("late", |text| {
        text.replace("max_orders = 1000", &format!(
            "max_orders = 10_000\ngive_up_ms = 2000\nhold_packets = 8192\nstart = \"snapshot\"\n[feed.channel.snapshot]\n\
             servers = [\"{}\", \"{}\"]\nmessages_per_second = 50_000",
            servers[0].address(), servers[1].address()
        ))
        .replace("grpc =", "metrics = \"127.0.0.1:9184\"\ngrpc =")
    });
    let running = site.launch("late", site.command(&config));
    let started_ns = utc_ns();
    let mut receiver = site
        .far
        .enter(|| Receiver::join("239.20.0.1:30001".parse().expect("a group"), [10, 9, 2, 2].into()))
        .expect("inside")
        .expect("a socket");
    let midnights = feedhandler::config::midnights("America/New_York", started_ns).expect("a known zone");
    let midnight_ns = *midnights.iter().rfind(|midnight| **midnight <= started_ns).expect("a midnight");
    let check = CheckSettings { publisher_id: 2, midnight_ns, started_ns };
    let mut checker = Checker::new(check, vec![joined_truth(SESSION, &day, NEXT)]);

    let socket = site.sender();
    let sender = std::thread::spawn(move || send(&socket, &day));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !checker.has_ended() {
        assert!(Instant::now() < deadline, "at {}: {}", checker.next(), log(&running.log));
        if let Some((payload, received_ns)) = receiver.receive().expect("a socket") {
            checker.packet(payload, received_ns);
        }
    }
    let next = sender.join().expect("sent");
    assert_eq!(
        site.far.enter(|| receiver.dropped()).expect("inside").expect("a table"),
        0,
        "the consumer was too slow"
    );
    assert!(checker.book() == truth.book(), "the books are not those of the whole day");
    assert!(checker.book().len() > 500);
    let account = SessionAccount { common_losses: RangeSet::default(), next_sequence: next, must_end: true };
    let report = checker.finish(&[account]);
    assert!(report.findings.first.is_empty(), "{:?}\n{}", report.findings.first, log(&running.log));

    let metrics = site.namespace.enter(metrics).expect("inside").expect("served");
    for line in [
        "feedhandler_snapshot_attempts_total{channel=\"itch/one\"} 2",
        "feedhandler_snapshot_joined_total{channel=\"itch/one\"} 1",
        "feedhandler_snapshot_failed_total{channel=\"itch/one\",reason=\"broken_off\"} 1",
        "feedhandler_channel_snapshot_state{channel=\"itch/one\"} 3",
        "feedhandler_channel_messages_lost_total{channel=\"itch/one\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    let log = log(&running.log);
    for words in ["joined late: a snapshot is fetched", "before the end of the snapshot", "snapshot received"] {
        assert!(log.contains(words), "{words} in\n{log}");
    }
}

fn log(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn metrics() -> std::io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9184")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Sends the day from [`FIRST`] on, a packet per millisecond or so; returns the number after the last message.
fn send(socket: &std::net::UdpSocket, day: &DaySettings) -> u64 {
    let mut messages = Day::new(day);
    messages.by_ref().take(FIRST as usize - 1).for_each(drop);
    let mut sequence = FIRST;
    let mut messages = messages.peekable();
    while messages.peek().is_some() {
        let mut packet = Packet::new(&SESSION, sequence);
        for message in messages.by_ref().take(10) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            packet.push(&bytes);
        }
        sequence = packet.range().end;
        socket.send(&packet.into_payload()).expect("sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..3 {
        socket.send(&mold::end_of_session(&SESSION, sequence)).expect("sent");
        std::thread::sleep(Duration::from_millis(50));
    }
    sequence
}
