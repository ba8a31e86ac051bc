//! Every frame that a generator sends is in exactly one counter at each step of its way in: the links, the XDP program's
//! verdicts, the rings, the drop reasons. Each counter that the wire can move is moved, and the sums are exact.
//!
//! What the wire cannot move: `rx_ring_full`, because a port never lends more frames than its RX ring holds; `not_udp`,
//! `unknown_group` and `bad_bounds`, because a frame that the program redirected carries its stamp (`xsk` has tests of
//! those with a foreign cookie).
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, XskMap};
use feedhandler_testkit::mold::{Packet, Session, heartbeat};
use socket2::{Domain, Socket, Type};
use xdp_ebpf::frames::table;
use xdp_ebpf::{GroupKey, GroupRule, Verdict};

use crate::turn::turn;
use checks::{check_feedctl, check_interface, check_lines};
use site::{GIVE_UP_MS, LINES, Site, group, typed};

mod checks;
mod generator;
pub mod metrics;
mod site;

use Verdict::{DropNoRule, DropWrongSource, PassNoRule, PassNoSocket, PassNotMulticast, PassWrongSource, Redirected};

/// The receiving interfaces, by what becomes of unsubscribed multicast on each.
const DROPS: usize = 0;
const PASSES: usize = 1;

const FIRST: Session = *b"SESSION001";
const SECOND: Session = *b"SESSION002";

/// The sources of line B of channel one, and of channels two and three.
const B: [u8; 4] = [10, 9, 2, 2];
const TWO: [u8; 4] = [10, 9, 1, 21];
const THREE: [u8; 4] = [10, 9, 1, 22];
const NOBODY: [u8; 4] = [10, 9, 1, 23];

/// One message of a type that no decoder knows.
fn message(session: &Session, sequence: u64) -> Vec<u8> {
    let mut packet = Packet::new(session, sequence);
    packet.push(b"?");
    packet.into_payload()
}

/// Every kind of frame, on both interfaces. None of its groups has a line here.
fn every_kind_of_frame(site: &mut Site) {
    for case in table().into_iter().filter(|case| case.frame.len() >= 14) {
        let has_rule = matches!(case.verdict, Redirected | PassWrongSource);
        site.send(PASSES, &case.frame, if has_rule { PassNoRule } else { case.verdict });
        site.send(DROPS, &case.frame, if has_rule { DropNoRule } else { case.verdict_dropping });
    }
}

fn a(site: &mut Site, payload: &[u8]) {
    site.datagram(DROPS, NOBODY, LINES[0], payload, Redirected);
}

fn b(site: &mut Site, payload: &[u8], verdict: Verdict) {
    site.datagram(PASSES, B, LINES[1], payload, verdict);
}

fn shared(site: &mut Site, source: [u8; 4], sequence: u64, verdict: Verdict) {
    site.datagram(DROPS, source, LINES[2], &message(&FIRST, sequence), verdict);
}

/// Channel one, up to the end of its first session: everything that its lines can have against a packet.
fn every_drop_reason(site: &mut Site) {
    (1..=10).for_each(|sequence| a(site, &message(&FIRST, sequence)));
    site.settle();
    (1..=10).for_each(|sequence| b(site, &message(&FIRST, sequence), Redirected)); // duplicate
    (0..3).for_each(|_| a(site, &heartbeat(&FIRST, 11)));
    a(site, &[]); // truncated_header
    a(site, &message(&FIRST, 11)[..19]); // truncated_header
    let mut lying = message(&FIRST, 11);
    lying[19] = 3;
    a(site, &lying); // truncated_blocks
    a(site, &message(&FIRST, 0)); // bad_sequence
    // Eleven is missing and there is room for four: two of A's are dropped, whichever port is asked first.
    (13..=17).for_each(|sequence| a(site, &message(&FIRST, sequence))); // hold_full, twice
    b(site, &message(&FIRST, 12), Redirected);
    site.settle();
    std::thread::sleep(Duration::from_millis(GIVE_UP_MS + 200));
    // A jump that no second packet confirms: the doubled one at once, the first when the line has gone on.
    (0..2).for_each(|_| a(site, &message(&FIRST, 1 << 30))); // unconfirmed, twice
    site.settle();
    std::thread::sleep(Duration::from_millis(GIVE_UP_MS + 200));
    a(site, &message(&FIRST, 18));
    site.settle();
    a(site, &message(&SECOND, 1));
    site.settle();
    b(site, &message(&SECOND, 1), Redirected); // confirms the session; duplicate
    site.settle();
    a(site, &message(&FIRST, 19)); // old_session
}

/// One group from two sources, each a channel of its own, one of which goes and comes back.
fn sources_of_one_group(site: &mut Site) {
    (1..=5).for_each(|sequence| shared(site, TWO, sequence, Redirected));
    (1..=7).for_each(|sequence| shared(site, THREE, sequence, Redirected));
    (1..=3).for_each(|sequence| shared(site, NOBODY, sequence, DropWrongSource));
    (1..=4).for_each(|_| site.datagram(PASSES, NOBODY, LINES[1], &message(&FIRST, 1), PassWrongSource));
    site.settle();
    assert!(site.feedctl(&["unsubscribe", "--channel", "itch/two"]).status.success());
    shared(site, TWO, 6, DropWrongSource);
    shared(site, THREE, 8, Redirected);
    site.settle();
    assert!(site.feedctl(&["subscribe", "--channel", "itch/two"]).status.success());
    shared(site, TWO, 6, Redirected);
    shared(site, THREE, 9, Redirected);
}

/// What passes is really the kernel's, and what is dropped nobody's.
fn the_kernels_share(site: &mut Site) {
    let unsubscribed = group(9);
    let (multicast, unicast) = site
        .near
        .enter(|| {
            // Beside the canaries of the lines, which have the same port.
            let multicast = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            multicast.set_reuse_address(true).unwrap();
            multicast.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, unsubscribed.port()).into()).unwrap();
            let multicast = UdpSocket::from(multicast);
            for own in [[10, 9, 1, 1], [10, 9, 2, 1]] {
                multicast.join_multicast_v4(unsubscribed.ip(), &own.into()).unwrap();
            }
            (multicast, UdpSocket::bind(("10.9.1.1", 5556)).unwrap())
        })
        .unwrap();
    site.datagram(DROPS, [10, 9, 1, 2], unsubscribed, b"dropped", DropNoRule);
    site.datagram(PASSES, [10, 9, 2, 2], unsubscribed, b"passed", PassNoRule);
    site.far.enter(|| UdpSocket::bind("10.9.1.2:0").unwrap().send_to(b"unicast", "10.9.1.1:5556").unwrap()).unwrap();
    site.count(DROPS, PassNotMulticast, 1);
    let receive = |socket: &UdpSocket| {
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut buffer = [0; 64];
        socket.recv(&mut buffer).ok().map(|len| String::from_utf8_lossy(&buffer[..len]).into_owned())
    };
    assert_eq!(receive(&unicast).as_deref(), Some("unicast"));
    assert_eq!(receive(&multicast).as_deref(), Some("passed"));
    assert_eq!(receive(&multicast), None);
}

/// A handler that does not run for a while: its rings take what they have room for.
fn starve(site: &mut Site) {
    const FLOOD: u64 = 300;
    site.settle();
    site.stop();
    (0..FLOOD).for_each(|_| a(site, &message(&SECOND, 1)));
    site.go_on();
    let metrics = site.settle();
    let dropped = metrics.sum("port_kernel_rx_dropped_total", &[("interface", "fh-in")]);
    assert!(dropped > FLOOD / 2, "{dropped}; {}", metrics.shown());
}

/// More than the veth's own queue takes, and than the rings do.
fn overflow(site: &mut Site) {
    // The queue has 256 places, as many as the kernel sends at once, and gives used ones back sixteen at a time: so long as
    // some are owed, a whole batch does not fit.
    while site.sent(DROPS) % 16 != 8 {
        a(site, &message(&SECOND, 1));
    }
    site.settle();
    site.flood(DROPS, &generator::datagram(NOBODY, LINES[0], &message(&SECOND, 1)), Redirected);
}

/// What can only be had by laying hands on the maps: a rule for a line that is off, and a queue without a socket.
fn tampered_maps(site: &mut Site) {
    site.settle();
    assert!(site.feedctl(&["unsubscribe", "--channel", "itch/one", "--line", "B"]).status.success());
    b(site, &message(&SECOND, 2), PassNoRule);
    site.settle();
    let key = GroupKey { dst_ip: LINES[1].ip().octets(), dst_port: LINES[1].port(), vlan: 0 };
    let rule = GroupRule { source_ip: B, line: 1, flags: 0 };
    let mut rules: HashMap<MapData, [u8; 8], [u8; 8]> = typed(Map::HashMap(site.map(PASSES, "RULES")));
    rules.insert(key.to_bytes(), rule.to_bytes(), 0).unwrap();
    (0..3).for_each(|_| b(site, &message(&SECOND, 2), Redirected)); // not_subscribed
    site.settle();
    let mut sockets: XskMap<MapData> = typed(Map::XskMap(site.map(PASSES, "XSKS")));
    sockets.unset(0).unwrap();
    (0..2).for_each(|_| b(site, &message(&SECOND, 2), PassNoSocket));
}

fn adds_up(mode: &str) {
    let _turn = turn();
    let mut site = Site::new(mode);
    every_kind_of_frame(&mut site);
    every_drop_reason(&mut site);
    sources_of_one_group(&mut site);
    the_kernels_share(&mut site);
    starve(&mut site);
    overflow(&mut site);
    tampered_maps(&mut site);
    let metrics = site.settle();
    check_interface(&site, &metrics, DROPS, mode == "native");
    check_interface(&site, &metrics, PASSES, mode == "native");
    check_lines(&metrics);
    check_feedctl(&site, &metrics);
    for verdict in Verdict::ALL {
        assert!(site.sent.iter().any(|sent| sent.contains_key(verdict.label())), "no frame for {}", verdict.label());
    }
    let (link, _) = site.link_counts(DROPS);
    let ring = metrics.sum("port_kernel_rx_dropped_total", &[]);
    println!(
        "{mode}: {} frames, {} lost in the veth's queue, {ring} in the ring",
        site.sent(0) + site.sent(1),
        link.dropped
    );
}

#[test]
fn every_frame_is_counted_once_at_each_step_natively() {
    adds_up("native");
}

#[test]
fn every_frame_is_counted_once_at_each_step_in_skb_mode() {
    adds_up("skb");
}
