//! Multicast membership against a switch that snoops: a Linux bridge with a querier, and a real sender. What is counted is
//! what reaches the handler's port, by XDP.
#![forbid(unsafe_code)]

mod canary;
mod handler;
mod link;
mod switch;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use feedhandler::steering::{IgmpVersion, MembershipEvent, MembershipKey, Memberships, igmp_version};

use crate::turn::turn;
use handler::Handler;
use switch::{BYSTANDER, Counter, INTERFACE, MEMBERSHIP_INTERVAL, SOURCES, Sender, Switch, ip, wait_for};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 10, 0, 1);
const TO: SocketAddrV4 = SocketAddrV4::new(GROUP, 26400);

const NONE: [bool; 2] = [false, false];
const FIRST: [bool; 2] = [true, false];
const BOTH: [bool; 2] = [true, true];

/// Long enough for every membership that is not refreshed to be forgotten, and for several queries.
const SEVERAL_INTERVALS: Duration = MEMBERSHIP_INTERVAL.saturating_add(Duration::from_millis(1500));

/// Sockets that hold the group on the handler's interface, by the kernel.
fn users(switch: &Switch) -> u32 {
    let table = switch.inside(|| std::fs::read_to_string("/proc/thread-self/net/igmp").expect("the table"));
    let row = table.lines().find(|row| row.contains("01000AEF"));
    row.map_or(0, |row| row.split_ascii_whitespace().nth(1).expect("users").parse().expect("a number"))
}

fn any_source(version: u8) {
    let switch = Switch::new(version);
    let counter = Counter::new(&switch.handler, INTERFACE, TO);
    let bystander = Counter::new(&switch.bystander, BYSTANDER, TO);
    let _sender = Sender::start(&switch.source, SOURCES[0], TO);
    counter.keeps("not joined", Duration::from_millis(750), NONE);

    let memberships = Memberships::default();
    let join = || switch.inside(|| memberships.join(GROUP, INTERFACE, None).expect("joins"));
    let first = join();
    counter.wait_for("the group, once joined", FIRST);
    counter.keeps("joined", SEVERAL_INTERVALS, FIRST);
    let heard = switch.inside(|| igmp_version(INTERFACE).expect("the table"));
    let spoken = if version == 2 { IgmpVersion::V2 } else { IgmpVersion::V3 };
    assert_eq!(heard, Some(spoken), "the kernel follows the querier");

    let second = join();
    assert_eq!((users(&switch), memberships.counts().held), (1, 1), "two leases, one membership");
    drop(first);
    counter.keeps("joined by the other lease", SEVERAL_INTERVALS, FIRST);
    drop(second);
    assert_eq!((users(&switch), memberships.counts().held), (0, 0));
    counter.wait_for("the group to stay away, once left", NONE);
    assert_eq!(bystander.frames(), [0, 0], "the switch did not flood");
}

#[test]
fn any_source_with_igmp_v2() {
    any_source(2);
}

#[test]
fn any_source_with_igmp_v3() {
    any_source(3);
}

#[test]
fn only_the_source_that_was_asked_for_arrives_with_igmp_v3() {
    let switch = Switch::new(3);
    // By index: an address is not needed.
    ip(&switch.handler, &format!("addr flush dev {INTERFACE}"));
    let counter = Counter::new(&switch.handler, INTERFACE, TO);
    let _senders = SOURCES.map(|source| Sender::start(&switch.source, source, TO));
    counter.keeps("not joined", Duration::from_millis(500), NONE);

    let memberships = Memberships::default();
    let join = |source| switch.inside(|| memberships.join(GROUP, INTERFACE, source).expect("joins"));
    let specific = join(Some(SOURCES[0]));
    counter.wait_for("the source that was asked for", FIRST);
    counter.keeps("source-specific", SEVERAL_INTERVALS, FIRST);
    assert_eq!(switch.inside(|| memberships.check()), [], "the kernel holds it");

    // Both on one group: the union, for as long as both live, whichever goes first.
    let any = join(None);
    assert_eq!((users(&switch), memberships.counts().held), (2, 2));
    counter.wait_for("every source", BOTH);
    assert_eq!(switch.inside(|| memberships.check()), [], "the kernel holds both");
    drop(any);
    counter.wait_for("the second source to stay away", FIRST);
    let any = join(None);
    counter.wait_for("every source", BOTH);
    drop(specific);
    counter.keeps("the any-source lease alone", SEVERAL_INTERVALS, BOTH);
    drop(any);
    counter.wait_for("the group to stay away, once left", NONE);
}

#[test]
fn with_igmp_v2_no_source_can_be_asked_for_and_that_is_said() {
    let switch = Switch::new(2);
    let memberships = Memberships::default();
    let counter = Counter::new(&switch.handler, INTERFACE, TO);
    let _senders = SOURCES.map(|source| Sender::start(&switch.source, source, TO));
    let _lease = switch.inside(|| memberships.join(GROUP, INTERFACE, Some(SOURCES[0])).expect("joins"));
    counter.wait_for("every source: IGMPv2 knows none", BOTH);
    let mut events = Vec::new();
    wait_for("the querier to be heard", || {
        events.extend(switch.inside(|| memberships.check()));
        !events.is_empty()
    });
    let version =
        MembershipEvent::Version { interface: INTERFACE.to_owned(), version: IgmpVersion::V2, source_specific: 1 };
    assert_eq!(events, [version]);
    assert_eq!(switch.inside(|| memberships.check()), [], "said once");
}

#[test]
fn memberships_outlive_their_link() {
    let switch = Switch::new(3);
    let (memberships, source) = (Memberships::default(), SOURCES[0]);
    let other = Ipv4Addr::new(239, 10, 0, 2);
    let leases = switch
        .inside(|| {
            [(GROUP, None), (other, Some(source))].map(|(group, source)| memberships.join(group, INTERFACE, source))
        })
        .map(|lease| lease.expect("joins"));
    let check = || switch.inside(|| memberships.check());
    let _senders = [TO, SocketAddrV4::new(other, TO.port())].map(|to| Sender::start(&switch.source, source, to));
    let arrive = |what: &str| {
        for group in [GROUP, other] {
            let counter = Counter::new(&switch.handler, INTERFACE, SocketAddrV4::new(group, TO.port()));
            counter.wait_for(&format!("{group} {what}"), FIRST);
        }
    };
    arrive("before");
    assert_eq!(check(), []);

    ip(&switch.handler, &format!("link set {INTERFACE} down"));
    wait_for("the switch to forget", || !switch.forwards(GROUP, INTERFACE));
    assert_eq!(check(), [], "the kernel holds what an interface that is down has joined");
    ip(&switch.handler, &format!("link set {INTERFACE} up"));
    arrive("after down and up");
    assert_eq!(check(), []);

    // Out of the namespace and back: the same index, as if nothing had been.
    for (from, to) in [(&switch.handler, &switch.source), (&switch.source, &switch.handler)] {
        ip(from, &format!("link set {INTERFACE} netns {}", to.name()));
    }
    ip(&switch.handler, &format!("link set {INTERFACE} up"));
    let keys = [MembershipKey { interface: INTERFACE.to_owned(), group: GROUP, source: None }, leases[1].key().clone()];
    assert_eq!(check(), keys.clone().map(MembershipEvent::Rejoined));
    arrive("after a journey");

    ip(&switch.handler, &format!("link del {INTERFACE}"));
    let missing = check();
    assert!(
        matches!(&missing[..], [MembershipEvent::Missing { key, reason }, _] if *key == keys[0] && reason.contains("does not exist")),
        "{missing:?}"
    );
    assert_eq!((memberships.counts().missing, memberships.missing().len(), check()), (2, 2, vec![]), "said once");
    switch.plug_handler();
    assert_eq!(check(), keys.map(MembershipEvent::Rejoined));
    arrive("after the link was made again");
    let counts = memberships.counts();
    assert_eq!((counts.held, counts.missing, counts.rejoined), (2, 0, 4));
    drop(leases);
    assert_eq!(memberships.counts().held, 0);
}

#[test]
fn the_handler_keeps_its_groups_on_a_snooping_switch() {
    let _turn = turn();
    let switch = Switch::new(3);
    ip(&switch.handler, "link add fh-out type veth peer name far-out");
    ip(&switch.handler, "addr add 10.61.0.1/24 dev fh-out");
    ip(&switch.handler, "link set far-out up");
    ip(&switch.handler, "link set fh-out up");
    let bystander = Counter::new(&switch.bystander, BYSTANDER, TO);
    let _sender = Sender::start(&switch.source, SOURCES[0], TO);
    let line = format!(
        "[[feed.channel.line]]\nname = \"A\"\ninterface = \"{INTERFACE}\"\ngroup = \"{TO}\"\nsource = \"{}\"",
        SOURCES[0]
    );
    let handler = Handler::start(&switch.handler, "native", &line, "fh-out");
    let packets = || handler.line("packets").expect("a count");
    let arrives = || {
        let before = packets();
        std::thread::sleep(Duration::from_millis(250));
        packets() > before
    };
    wait_for("packets", arrives);
    let end = std::time::Instant::now() + SEVERAL_INTERVALS;
    while std::time::Instant::now() < end {
        assert!(arrives(), "the switch forgot: {}", handler.log());
    }
    assert_eq!(handler.status()["interfaces"][0]["igmp_version"], 3);
    handler.switch("unsubscribe");
    wait_for("the switch to stop forwarding", || !switch.forwards(GROUP, INTERFACE));
    handler.switch("subscribe");
    wait_for("packets again", arrives);
    assert_eq!(handler.line("canary_packets"), Some(0));

    // Another handler's interface went with its driver and came back.
    ip(&switch.handler, &format!("link del {INTERFACE}"));
    wait_for("the loss to be seen", || {
        let status = handler.status();
        status["not_ready_reasons"].to_string().contains("239.10.0.1 on `fh-in` from 10.60.0.1 is not joined")
    });
    switch.plug_handler();
    wait_for("the switch to forward again", || switch.forwards(GROUP, INTERFACE));
    assert!(handler.log().contains("membership was lost, joined again"), "{}", handler.log());
    assert_eq!(bystander.frames(), [0, 0], "the switch did not flood");
}
