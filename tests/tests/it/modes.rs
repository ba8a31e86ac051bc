//! The mode ladder on real interfaces: what is forced and cannot be had is refused with what would work; what is not forced
//! ends in the best that can be had, and says so.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use feedhandler_testkit::consumer::Receiver;
use feedhandler_testkit::mold::{self, Packet};
use serde_json::Value;

use crate::site::{Running, Site};

const MESSAGE: &[u8; 12] = b"S\0\0\0\0\0\0\0\0\0\x01O";

fn interfaces(running: &Running) -> Value {
    let output = running.feedctl(&["--output", "json", "status"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["interfaces"].clone()
}

/// The lines' interface, and the other end, with room for packets of this size.
fn enlarge(site: &Site, mtu: &str) {
    site.namespace.ip(&["link", "set", "fh-in", "mtu", mtu]).expect("ip link");
    site.far.ip(&["link", "set", "far-in", "mtu", mtu]).expect("ip link");
}

/// Sends packets of so many bytes at most until one comes through.
fn carries(site: &Site, running: &Running, bytes: usize) {
    let consumer = || Receiver::join("239.20.0.1:30001".parse().expect("a group"), Ipv4Addr::new(10, 9, 2, 2));
    let mut consumer = site.far.enter(consumer).expect("inside").expect("a socket");
    let sender = site.sender();
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut sequence = 1;
    // The worker joins at its own turn: what is sent before is not its.
    loop {
        let mut packet = Packet::with_room(b"0000000001", sequence, bytes);
        while packet.has_room(MESSAGE) {
            packet.push(MESSAGE);
        }
        sequence = packet.range().end;
        let payload = packet.into_payload();
        assert!(payload.len() + MESSAGE.len() + 2 > bytes);
        sender.send(&payload).expect("sent");
        let is_message = |payload: &[u8]| !mold::parse(payload).expect("MoldUDP64").blocks.is_empty();
        if consumer.receive().expect("a socket").is_some_and(|(payload, _)| is_message(payload)) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "nothing came: {}",
            std::fs::read_to_string(&running.log).unwrap_or_default()
        );
    }
}

#[test]
fn a_forced_mode_that_is_not_to_be_had_says_why_and_what_would_work() {
    let site = Site::new();
    let complaint = site.refusal(&site.config("zero-copy", |text| text.replace("\"native\"", "\"zero-copy\"")));
    for part in ["fh-in", "\"zero-copy\" cannot be had", "no zero-copy AF_XDP", "`native`, `skb`, `socket`"] {
        assert!(complaint.contains(part), "`{part}` in: {complaint}");
    }
    assert!(!site.attached());
    enlarge(&site, "12000");
    let complaint = site.refusal(&site.config("large", |text| text));
    for part in ["\"native\" cannot be had", "12000", "mtu 9898", "`socket`"] {
        assert!(complaint.contains(part), "`{part}` in: {complaint}");
    }
    assert!(!site.attached());
}

#[test]
fn auto_takes_the_best_that_works_and_names_what_did_not() {
    let site = Site::new();
    let running = site.start_in("auto", "auto");
    let interfaces = interfaces(&running);
    for interface in [&interfaces[0], &interfaces[1]] {
        assert_eq!((&interface["mode_wanted"], &interface["mode_in_force"]), (&"auto".into(), &"native".into()));
        let refused = interface["modes_refused"].as_array().expect("a list");
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0]["mode"], "zero-copy");
    }
    let log = std::fs::read_to_string(&running.log).expect("its log");
    assert_eq!(log.matches("in_force=\"native\"").count(), 2, "logged once for each: {log}");
    assert!(site.attached());
}

#[test]
fn auto_ends_in_kernel_sockets_where_packets_may_be_longer_than_any_buffer_and_they_carry_the_stream() {
    let site = Site::new();
    enlarge(&site, "12000");
    let running = site.start_in("sockets", "auto");
    let interfaces = interfaces(&running);
    assert_eq!(interfaces[0]["mode_in_force"], "socket");
    let refused = interfaces[0]["modes_refused"].as_array().expect("a list");
    let modes: Vec<_> = refused.iter().map(|refused| refused["mode"].as_str().expect("a word")).collect();
    assert_eq!(modes, ["zero-copy", "native", "skb"]);
    assert!(refused[2]["why"].as_str().expect("a reason").contains("12000"), "{refused:?}");
    assert_eq!(interfaces[1]["mode_in_force"], "native", "the output has frames that suffice");
    assert!(!site.attached(), "nothing is left of what was tried");

    carries(&site, &running, 9878);
}

#[test]
fn auto_and_skb_take_packets_over_several_frames_where_the_mtu_demands_it() {
    let site = Site::new();
    enlarge(&site, "9000");
    for (mode, in_force) in [("auto", "native"), ("skb", "skb")] {
        let running = site.start_in(mode, mode);
        assert_eq!(interfaces(&running)[0]["mode_in_force"], in_force);
        let links = site.namespace.ip(&["-d", "link", "show", "dev", "fh-in"]).expect("ip link");
        assert!(links.contains("name feed_filter_sg"), "{links}");
        let log = std::fs::read_to_string(&running.log).expect("its log");
        assert!(log.contains("jumbo=true"), "{log}");
        carries(&site, &running, 8972);
    }
    // With the usual MTU nothing of it is there.
    enlarge(&site, "1500");
    let running = site.start_in("usual", "auto");
    let links = site.namespace.ip(&["-d", "link", "show", "dev", "fh-in"]).expect("ip link");
    assert!(links.contains("name feed_filter ") && !links.contains("feed_filter_sg"), "{links}");
    carries(&site, &running, 1472);
}

#[test]
fn auto_does_not_end_in_kernel_sockets_where_they_would_lose_the_vlan() {
    let site = Site::new();
    enlarge(&site, "12000");
    let config = site.config("tagged", |text| {
        text.replace("\"native\"", "\"auto\"").replace("239.10.0.1:26400\"", "239.10.0.1:26400\"\nvlan = 7")
    });
    let complaint = site.refusal(&config);
    for part in ["no mode works", "zero-copy: ", "native: ", "skb: ", "socket: kernel sockets cannot choose VLAN 7"] {
        assert!(complaint.contains(part), "`{part}` in: {complaint}");
    }
    assert!(!site.attached());
}
