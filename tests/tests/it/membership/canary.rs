//! The canary: silent while steering works, whatever is switched meanwhile, and loud when it does not.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, XskMap};
use aya::programs::loaded_programs;
use feedhandler_testkit::lab::{End, Namespace, connect};
use xdp_ebpf::GroupKey;

use super::handler::Handler;
use super::switch::{Sender, wait_for};
use crate::turn::turn;

const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 10, 0, 1), 26400);
const LINE: &str = "[[feed.channel.line]]\nname = \"A\"\ninterface = \"fh-in\"\ngroup = \"239.10.0.1:26400\"";

/// A handler's host and an exchange that sends all the time: without a switch everything arrives, joined or not.
struct Site {
    handler: Namespace,
    _far: Namespace,
    _sender: Sender,
}

impl Site {
    fn new() -> Self {
        let (handler, far) = (Namespace::new("canary").expect("root"), Namespace::new("far").expect("root"));
        for (number, (near, away)) in (1..).zip([("fh-in", "far-in"), ("fh-out", "far-out")]) {
            connect([
                End { namespace: &handler, name: near, address: [10, 9, number, 1].into() },
                End { namespace: &far, name: away, address: [10, 9, number, 2].into() },
            ])
            .expect("a veth pair");
        }
        let sender = Sender::start_every(Duration::from_micros(200), &far, [10, 9, 1, 2].into(), TO);
        Self { handler, _far: far, _sender: sender }
    }

    /// Maps of the program on the handler's interface, as anybody with the privilege can open them.
    fn map(&self, name: &str) -> Map {
        let text = self.handler.ip(&["-d", "link", "show", "dev", "fh-in"]).expect("ip link");
        let (_, behind) = text.split_once("prog/xdp id ").expect("a program");
        let id: u32 = behind.split_whitespace().next().and_then(|id| id.parse().ok()).expect("a number");
        let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id).expect("loaded");
        let maps = program.map_ids().expect("maps").expect("maps");
        let named = |id: &u32| aya::maps::MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(name));
        let data = MapData::from_id(maps.into_iter().find(named).expect("the map")).expect("the map");
        if name == "XSKS" { Map::XskMap(data) } else { Map::HashMap(data) }
    }
}

fn canary(handler: &Handler) -> u64 {
    handler.line("canary_packets").expect("a canary")
}

const BROKEN: &str = "steering is broken";

#[test]
fn no_false_alarm_at_start_toggle_or_stop() {
    let _turn = turn();
    let site = Site::new();
    let handler = Handler::start(&site.handler, "native", LINE, "fh-out");
    for round in 0..100 {
        if round % 10 == 0 {
            // Every tenth time the canary has long settled, and counts.
            std::thread::sleep(Duration::from_millis(250));
        }
        handler.switch("unsubscribe");
        handler.switch("subscribe");
    }
    let packets = handler.line("packets").expect("a count");
    wait_for("packets", || handler.line("packets") > Some(packets + 200));
    assert_eq!(canary(&handler), 0, "{}", handler.log());
    std::thread::sleep(Duration::from_millis(250));
    let metric = ["feedhandler_canary_packets_total{channel=\"itch/one\",line=\"A\"} 0"];
    assert_eq!(Handler::metrics(&site.handler, "feedhandler_canary_packets_total"), metric);
    let list = handler.feedctl(&["list"]).expect("a table");
    assert!(list.contains("CANARY"), "{list}");
    let log = handler.stop();
    assert!(!log.contains(BROKEN), "{log}");
}

fn alarms(mode: &str) {
    let _turn = turn();
    let site = Site::new();
    let handler = Handler::start(&site.handler, mode, LINE, "fh-out");
    wait_for("packets", || handler.line("packets") > Some(200));
    assert_eq!(canary(&handler), 0);

    // The rule is deleted behind the handler's back.
    let mut rules: HashMap<MapData, [u8; 8], [u8; 8]> = site.map("RULES").try_into().expect("a hash map");
    let key = GroupKey { dst_ip: TO.ip().octets(), dst_port: TO.port(), vlan: 0 }.to_bytes();
    let rule = rules.get(&key, 0).expect("the line's rule");
    rules.remove(&key).expect("it was there");
    wait_for("the canary", || canary(&handler) > 100);
    let status = handler.status();
    let reasons = status["not_ready_reasons"].to_string();
    assert!(status["ready"] == false && reasons.contains("line A of `itch/one` is not steered"), "{reasons}");
    rules.insert(key, rule, 0).expect("put back");
    wait_for("readiness", || handler.status()["ready"] == true);
    let before = canary(&handler);
    assert_eq!(handler.log().matches(BROKEN).count(), 1, "one line for one burst: {}", handler.log());

    // The socket is taken out of the map.
    let mut sockets: XskMap<MapData> = site.map("XSKS").try_into().expect("an XSKMAP");
    sockets.unset(0).expect("it was there");
    wait_for("the canary", || canary(&handler) > before + 100);
    assert_eq!(handler.log().matches(BROKEN).count(), 2, "{}", handler.log());
    let log = handler.stop();
    assert!(log.contains("the kernel's stack gets no more of them"), "{log}");
}

#[test]
fn a_lost_rule_and_a_lost_socket_are_heard_in_native_mode() {
    alarms("native");
}

#[test]
fn a_lost_rule_and_a_lost_socket_are_heard_in_skb_mode() {
    alarms("skb");
}

#[test]
fn two_lines_on_one_group_share_a_membership_and_know_their_own_packets() {
    let _turn = turn();
    let site = Site::new();
    let second = LINE.replace("\"A\"", "\"B\"").replace("26400", "26401");
    let handler = Handler::start(&site.handler, "native", &format!("{LINE}\n{second}"), "fh-out");
    let held = || Handler::metrics(&site.handler, "feedhandler_memberships{");
    let joined = || site.handler.joined_groups("fh-in").expect("the table").contains(TO.ip());
    assert_eq!((held(), joined()), (vec!["feedhandler_memberships{} 1".to_owned()], true));
    // The group stays joined for B, so that all of A's packets pass to the kernel: as they should.
    assert!(handler.feedctl(&["unsubscribe", "--line", "A"]).is_some(), "{}", handler.log());
    std::thread::sleep(Duration::from_millis(500));
    assert!(joined(), "left with the first line");
    let status = handler.status();
    let canaries = [0, 1].map(|line| status["channels"][0]["lines"][line]["group"]["canary_packets"].as_u64());
    assert_eq!(canaries, [Some(0), Some(0)], "{}", handler.log());
    assert!(handler.feedctl(&["unsubscribe", "--line", "B"]).is_some(), "{}", handler.log());
    assert!(!joined(), "not left with the last line");
}

#[test]
fn kernel_sockets_have_no_canary() {
    let _turn = turn();
    let site = Site::new();
    let handler = Handler::start(&site.handler, "socket", LINE, "fh-out");
    wait_for("packets", || handler.line("packets") > Some(200));
    assert_eq!(handler.line("canary_packets"), None);
    let table = site.handler.enter(|| std::fs::read_to_string("/proc/thread-self/net/udp")).expect("inside");
    let bound = table.expect("the table").matches("01000AEF:6720").count();
    assert_eq!(bound, 1, "the port's own socket only");
}
