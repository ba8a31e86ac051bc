//! The real process between two hosts: one destination takes all of a channel, the other a part of it.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use feedhandler::config::plan::{RecordKind, RoutePlan};
use feedhandler_testkit::consumer::Receiver;
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings};
use feedhandler_testkit::mold;

use super::oracle::{Blocks, Oracle, add_packet, symbols, without_notice};
use crate::site::Site;
use crate::turn::turn;

const CONSUMER: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 2);
const PATIENCE: Duration = Duration::from_secs(30);

fn day() -> DaySettings {
    DaySettings { seed: 8, messages: 20_000, instruments: 60, live_orders: 1_000, recency: 0.6 }
}

/// Everything of a group until the session ends.
fn receive(mut receiver: Receiver) -> Blocks {
    receiver.socket().set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    let (mut blocks, started) = (Blocks::new(), Instant::now());
    while started.elapsed() < PATIENCE {
        let Some((payload, _)) = receiver.receive().expect("the socket works") else { continue };
        if mold::parse(payload).expect("a packet").is_end {
            return blocks;
        }
        add_packet(&mut blocks, payload);
    }
    panic!("no end of session after {} messages", blocks.len());
}

fn publish(socket: &UdpSocket) {
    let settings = ExchangeSettings { seed: 8, rate: 10_000.0, ..ExchangeSettings::default() };
    let mut started = Instant::now();
    for transmission in Exchange::new(settings, Day::new(&day())).filter(|transmission| transmission.line == 0) {
        let at = Duration::from_nanos(transmission.at_ns);
        std::thread::sleep(at.saturating_sub(started.elapsed()));
        // Whoever was kept from its core goes on from there.
        started += started.elapsed().saturating_sub(at + Duration::from_millis(2));
        socket.send(&transmission.payload).expect("sent");
    }
}

#[test]
fn one_of_two_destinations_takes_a_part() {
    let _turn = turn();
    let site = Site::new();
    let all = symbols(&Day::new(&day()));
    let words = |symbols: &[[u8; 8]]| {
        let word = |symbol: &[u8; 8]| format!("\"{}\"", String::from_utf8_lossy(symbol).trim_end());
        symbols.iter().map(word).collect::<Vec<_>>().join(", ")
    };
    let route = RoutePlan { instruments: all[..6].to_vec(), records: vec![RecordKind::Mbo, RecordKind::Status] };
    let config = site.config("routes", |text| {
        text.replace("max_orders = 1000", "max_orders = 100_000\nstart = \"first\"\nhold_packets = 4096")
            + "[[destination]]\nname = \"some\"\nchannel = \"itch/one\"\ninterface = \"fh-out\"\n"
            + &format!("group = \"239.20.0.2:30001\"\ninstruments = [{}]\n", words(&route.instruments))
            + "records = [\"mbo\", \"status\"]\n"
    });
    let running = site.launch("routes", site.command(&config));
    let join = |last| {
        let group = SocketAddrV4::new(Ipv4Addr::new(239, 20, 0, last), 30_001);
        site.far.enter(|| Receiver::join(group, CONSUMER)).expect("inside").expect("joined")
    };
    let (whole, some, sender) = (join(1), join(2), site.sender());
    let (whole, some) = std::thread::scope(|scope| {
        let (whole, some) = (scope.spawn(|| receive(whole)), scope.spawn(|| receive(some)));
        publish(&sender);
        (whole.join().expect("received"), some.join().expect("received"))
    });
    assert_eq!((whole.len(), some.len()), (20_000, 20_000), "every number of both");
    let mut oracle = Oracle::new(route);
    let (mut taken, mut filtered) = (0, 0);
    for (key, block) in &whole {
        let records = without_notice(block);
        let expected = oracle.dbn(records);
        (taken, filtered) = match expected.is_empty() {
            true => (taken, filtered + u64::from(!records.is_empty())),
            false => (taken + 1, filtered),
        };
        assert_eq!(without_notice(&some[key]), expected, "message {}", key.1);
    }
    assert!(taken > 500, "{taken} taken");
    let status = String::from_utf8(running.feedctl(&["status"]).stdout).expect("text");
    let row = status.lines().find(|line| line.contains("239.20.0.2:30001")).expect("a row of the destination");
    let cells: Vec<&str> = row.split_whitespace().filter(|cell| cell.chars().all(|c| c.is_ascii_digit())).collect();
    assert_eq!((cells[2], cells[3]), ("20000", filtered.to_string().as_str()), "{row}");
}
