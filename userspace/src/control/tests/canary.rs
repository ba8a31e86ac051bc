//! A canary that cannot be opened at once.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;

use super::*;
use crate::steering::SETTLE_NS;

/// The loopback interface in every network namespace.
const LO: Option<u32> = Some(1);
const SECOND_NS: u64 = 1_000_000_000;

#[test]
fn a_canary_that_could_not_be_opened_is_absent_and_is_tried_again() {
    let bench = Bench::with_mode(Mode::Native);
    let (desk, to) = (&bench.desk, SocketAddrV4::new(bench.groups[0], 26400));
    let values = || [0, 1].map(|line| desk.canary_packets(line));
    assert_eq!(values(), [Some(0), Some(0)], "not subscribed: nothing is to be heard");
    // Somebody has the port of line A to himself.
    let other = std::net::UdpSocket::bind(to).unwrap();
    [0, 1].into_iter().for_each(|line| desk.arm_canary(line));
    assert_eq!(values(), [None, Some(0)]);
    drop(other);
    let now_ns = monotonic_ns();
    desk.poll_canary(0, LO, now_ns);
    assert_eq!(values(), [None, Some(0)], "tried again after a second, not at every look");
    desk.poll_canary(0, None, now_ns + 2 * SECOND_NS);
    assert_eq!(values(), [None, Some(0)], "the interface is not there");
    desk.poll_canary(0, LO, now_ns + 2 * SECOND_NS);
    assert_eq!(values(), [Some(0), Some(0)]);

    // It hears.
    let settled_ns = now_ns + 2 * SECOND_NS + SETTLE_NS;
    desk.poll_canary(0, LO, settled_ns);
    let _lease = desk.join_group(0).unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_ip_multicast_if(&sender, &Ipv4Addr::LOCALHOST).unwrap();
    sender.send_to(&[0; 100], to).unwrap();
    desk.poll_canary(0, LO, settled_ns);
    assert_eq!(values(), [Some(1), Some(0)]);

    // The interface was made again while somebody else takes the port; what was heard before is not lost.
    let heard_ns = settled_ns + 3 * SECOND_NS;
    desk.disarm_canary(0);
    let other = std::net::UdpSocket::bind(to).unwrap();
    desk.arm_canary(0);
    assert_eq!(values(), [None, Some(0)]);
    drop(other);
    desk.poll_canary(0, LO, heard_ns);
    assert_eq!(values(), [Some(1), Some(0)]);
}
