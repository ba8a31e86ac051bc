//! A channel over SoupBinTCP, from a server on another host through the handler's process to a consumer.
#![forbid(unsafe_code)]

mod rig;

use std::time::{Duration, Instant};

use feedhandler_testkit::consumer::{CheckSettings, Checker, Receiver, SessionAccount, day_truth, utc_ns};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::mold::{self, Packet};
use feedhandler_testkit::soup::{ServerSettings, Trouble};
use rig::{PATIENCE, Rig, message, messages};

use crate::site::Site;
use crate::turn::turn;

const DAY: DaySettings = DaySettings { seed: 9, messages: 20_000, instruments: 50, live_orders: 1_000, recency: 0.6 };
const SESSION: &[u8; 10] = b"DEMO000001";

fn day() -> impl Iterator<Item = Vec<u8>> {
    Day::new(&DAY).map(|message| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        bytes
    })
}

/// What the consumer sees of the day, until it is over: its report, and the books. The handler was started after `started_ns`.
fn follow(started_ns: u64, consumer: &mut Receiver, mut feed: impl FnMut()) -> (String, String) {
    let midnights = feedhandler::config::midnights("America/New_York", started_ns).expect("a known zone");
    let midnight_ns = *midnights.iter().rfind(|midnight| **midnight <= started_ns).expect("a midnight before now");
    let check = CheckSettings { publisher_id: 2, midnight_ns, started_ns };
    let mut checker = Checker::new(check, vec![day_truth(*SESSION, &DAY)]);
    let deadline = Instant::now() + 3 * PATIENCE;
    while !checker.has_ended() {
        feed();
        assert!(Instant::now() < deadline, "the day does not end: {} {:?}", checker.next(), checker.findings());
        if let Some((payload, now_ns)) = consumer.receive().expect("a socket") {
            checker.packet(payload, now_ns);
        }
    }
    let mut books: Vec<_> = checker.book().into_iter().map(|(key, order)| format!("{key:?} {order:?}")).collect();
    books.sort();
    let account = SessionAccount { next_sequence: DAY.messages + 1, must_end: true, ..SessionAccount::default() };
    let report = checker.finish(&[account]);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(report.book_orders > 100 && report.gap_messages == 0, "{report:?}");
    (format!("{} blocks, {} records", report.blocks, report.records), books.join("\n"))
}

#[test]
fn a_day_over_tcp_is_the_day_over_udp() {
    let _turn = turn();
    let over_tcp = {
        let rig = Rig::new(&[ServerSettings { pieces: 700, ..Default::default() }], "DEMO000001");
        rig.servers[0].append(day());
        rig.servers[0].end_session();
        let mut consumer = rig.consumer();
        let started_ns = utc_ns();
        let _running = rig.start("dbn", "first", "");
        follow(started_ns, &mut consumer, || {})
    };
    let over_udp = {
        let site = Site::new();
        let mut consumer = rig::consumer(&site);
        let config = site.config("udp", |text| {
            text.replace("\"native\"", "\"socket\"")
                .replace("max_orders = 1000", "max_orders = 100_000\nstart = \"first\"")
        });
        let started_ns = utc_ns();
        let _running = site.launch("udp", site.command(&config));
        let (sender, mut day, mut next) = (site.sender(), day().peekable(), 1);
        let mut due = Instant::now();
        follow(started_ns, &mut consumer, || {
            // Slowly: a line that nobody backs up must lose nothing here.
            if Instant::now() < due {
                return;
            }
            due = Instant::now() + Duration::from_micros(500);
            let mut packet = Packet::new(SESSION, next);
            while let Some(message) = day.next_if(|message| packet.has_room(message)) {
                packet.push(&message);
            }
            next = packet.range().end;
            let payload = if packet.count() > 0 { packet.into_payload() } else { mold::end_of_session(SESSION, next) };
            let _ = sender.send(&payload);
        })
    };
    println!("{}", over_tcp.0);
    assert_eq!(over_tcp.0, over_udp.0);
    assert!(over_tcp.1 == over_udp.1, "the books differ");
}

#[test]
fn whatever_a_server_does_wrong_nothing_is_lost_or_repeated() {
    let _turn = turn();
    let settings =
        [ServerSettings { pieces: 50, ..Default::default() }, ServerSettings { seed: 2, ..Default::default() }];
    let rig = Rig::new(&settings, "S1");
    rig.servers.iter().for_each(|server| server.append(messages(1..9_001)));
    rig.servers[0].go_wrong([
        Trouble::CloseWithin { after: 500 },
        Trouble::Stall { after: 700 },
        Trouble::Mute,
        Trouble::Garbage { after: 0 },
        Trouble::Early,
        Trouble::Close { after: 1_000 },
    ]);
    rig.servers[1].go_wrong([
        Trouble::Stall { after: 0 },
        Trouble::Empty { after: 300 },
        Trouble::NoAnswer,
        Trouble::Twice,
        Trouble::NoNumber,
        Trouble::CloseWithin { after: 1 },
    ]);
    let mut consumer = rig.consumer();
    let running = rig.start("raw", "first", "idle_ms = 200\nheartbeat_ms = 50");
    let mut got = rig.receive(&mut consumer, 9_000);
    // The stream is at its end; what comes now comes at once, through the connection that was left.
    rig.servers.iter().for_each(|server| server.append(messages(9_001..9_101)));
    got.extend(rig.receive(&mut consumer, 100));
    assert!(got.iter().map(|(_, sequence, _)| *sequence).eq(1..9_101), "each once, in order");
    assert!(got.iter().all(|(session, sequence, bytes)| session == "S1" && *bytes == message(*sequence)));
    let logins: u64 = rig.servers.iter().map(|server| server.counts().logins).sum();
    let metric = |name: &str| rig.metric(&format!("feedhandler_soupbintcp_{name}{{channel=\"itch/one\"}}"));
    println!("{logins} logins, {} protocol errors", metric("protocol_errors_total"));
    assert!(metric("protocol_errors_total") >= 8 && metric("disconnects_total") >= 8 && logins >= 9);
    // The handler asked for none twice.
    rig.settles("feedhandler_soupbintcp_messages_total{channel=\"itch/one\"}", 9_100);
    assert_eq!(metric("gaps_total") + metric("rejects_total"), 0);
    rig.settles("feedhandler_soupbintcp_state{channel=\"itch/one\",state=\"logged_in\"}", 1);
    assert_eq!(rig.metric("feedhandler_channel_messages_lost_total{channel=\"itch/one\"}"), 0);
    let table = running.feedctl(&["status"]).stdout;
    let table = String::from_utf8_lossy(&table).into_owned();
    assert!(table.contains("SoupBinTCP") && table.contains("logged_in"), "{table}");
}

#[test]
fn a_flood_of_nothing_costs_nothing_and_is_survived() {
    let _turn = turn();
    let rig = Rig::new(&[ServerSettings::default()], "S1");
    rig.servers[0].append(messages(1..101));
    rig.servers[0].go_wrong([Trouble::Flood { after: 50 }]);
    let mut consumer = rig.consumer();
    let _running = rig.start("raw", "first", "");
    let mut got = rig.receive(&mut consumer, 50);
    let skipped = || rig.metric("feedhandler_soupbintcp_skipped_total{channel=\"itch/one\"}");
    let deadline = Instant::now() + PATIENCE;
    while skipped() < 1_000 {
        assert!(Instant::now() < deadline, "{}", skipped());
    }
    rig.servers[0].cut();
    got.extend(rig.receive(&mut consumer, 50));
    assert!(got.iter().map(|(_, sequence, _)| *sequence).eq(1..101));
}

#[test]
fn a_refused_login_is_loud_and_not_tried_again() {
    let _turn = turn();
    let login = Some(("FMUSER".to_owned(), "other".to_owned()));
    let rig = Rig::new(&[ServerSettings { login, ..Default::default() }], "S1");
    let running = rig.start("raw", "first", "");
    let stopped = || rig.metric("feedhandler_soupbintcp_state{channel=\"itch/one\",state=\"stopped\"}");
    let deadline = Instant::now() + PATIENCE;
    while stopped() != 1 {
        assert!(Instant::now() < deadline, "{}", running.words());
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rig.servers[0].counts().connections, 1, "thirty times the pause");
    assert_eq!(rig.metric("feedhandler_ready{}"), 0);
    let status = running.feedctl(&["--output", "json", "status"]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    let reasons = status["not_ready_reasons"].to_string();
    assert!(reasons.contains("itch/one") && reasons.contains("not authorised"), "{reasons}");
    let words = running.words();
    assert!(words.contains("ERROR") && words.contains("not authorised"), "{words}");
    assert!(!words.contains("secret"), "the password is in the log: {words}");
}

#[test]
fn sessions_end_and_begin_again_announced_or_not() {
    let _turn = turn();
    let rig = Rig::new(&[ServerSettings::default()], "S1");
    let server = &rig.servers[0];
    server.append(messages(1..11));
    let mut consumer = rig.consumer();
    let running = rig.start("raw", "first", "");
    let all = |got: &[rig::Got], session: &str, numbers: std::ops::Range<u64>| {
        assert!(got.iter().all(|(of, sequence, bytes)| of == session && *bytes == message(*sequence)), "{got:?}");
        assert!(got.iter().map(|(_, sequence, _)| *sequence).eq(numbers), "{got:?}");
    };
    all(&rig.receive(&mut consumer, 10), "S1", 1..11);
    server.end_session();
    assert_eq!(rig.end(&mut consumer), ("S1".to_owned(), 11));
    let ready = || rig.metric("feedhandler_ready{}");
    assert_eq!(ready(), 1, "between sessions is no fault: {}", running.words());
    server.begin_session("S2");
    server.append(messages(1..6));
    all(&rig.receive(&mut consumer, 5), "S2", 1..6);
    // The server is started anew, and says nothing of it: the session is not available any more.
    server.begin_session("S3");
    server.append(messages(1..4));
    all(&rig.receive(&mut consumer, 3), "S3", 1..4);
    rig.settles("feedhandler_channel_sessions_total{channel=\"itch/one\"}", 3);
    assert_eq!(rig.metric("feedhandler_channel_messages_lost_total{channel=\"itch/one\"}"), 0);
    // After a break without a new session it is the same one that is asked for, by its name.
    let logins = server.counts().logins;
    server.cut();
    let deadline = Instant::now() + PATIENCE;
    while server.counts().logins == logins {
        assert!(Instant::now() < deadline, "does not come back: {}", running.words());
        std::thread::sleep(Duration::from_millis(1));
    }
    server.append(messages(4..5));
    all(&rig.receive(&mut consumer, 1), "S3", 4..5);
    assert_eq!(server.asked().last(), Some(&("S3".to_owned(), 4)));
}

#[test]
fn a_late_start_is_served_from_the_first_message_or_from_now_and_a_gap_is_loud() {
    let _turn = turn();
    let rig = Rig::new(&[ServerSettings::default()], "S1");
    let server = &rig.servers[0];
    server.append(messages(1..5_001));
    let mut consumer = rig.consumer();
    let sequences = |got: &[rig::Got]| -> Vec<u64> { got.iter().map(|(_, sequence, _)| *sequence).collect() };
    {
        let _running = rig.start("raw", "first", "");
        assert!(sequences(&rig.receive(&mut consumer, 5_000)).into_iter().eq(1..5_001));
    }
    {
        let _running = rig.start("raw", "now", "");
        assert_eq!(sequences(&rig.receive(&mut consumer, 1)), [5_000], "the most recently generated message");
        server.append(messages(5_001..5_003));
        assert_eq!(sequences(&rig.receive(&mut consumer, 2)), [5_001, 5_002]);
    }
    server.forget(1_001);
    let running = rig.start("raw", "first", "");
    assert!(sequences(&rig.receive(&mut consumer, 4_002)).into_iter().eq(1_001..5_003));
    rig.settles("feedhandler_channel_messages_lost_total{channel=\"itch/one\"}", 1_000);
    rig.settles("feedhandler_soupbintcp_gaps_total{channel=\"itch/one\"}", 1);
    assert!(running.words().contains("the server begins later"), "{}", running.words());
    // Control logs it, in its own time.
    let deadline = Instant::now() + PATIENCE;
    while !running.words().contains("messages lost") {
        assert!(Instant::now() < deadline, "{}", running.words());
        std::thread::sleep(Duration::from_millis(10));
    }
}
