//! A carrier that goes and comes back without the interface being set down: nothing makes the kernel report its groups.
#![forbid(unsafe_code)]

use std::io::Read;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use feedhandler::steering::{MembershipEvent, Memberships};
use socket2::{Domain, Protocol, Socket, Type};

use crate::inside::{self, Pair};

const PAIR: Pair = [("fh0", [10, 9, 0, 1]), ("fh1", [10, 9, 0, 2])];
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 10, 0, 1);

/// Hears the IGMP that arrives at any interface of the namespace.
struct Ear(Socket);

impl Ear {
    fn new() -> Self {
        const ETH_P_IP: u16 = 0x0800;
        let protocol = Protocol::from(i32::from(ETH_P_IP.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// Whether a report of the group came since the last call.
    fn heard(&self) -> bool {
        let mut heard = false;
        let mut buffer = [0; 256];
        while let Ok(bytes) = (&self.0).read(&mut buffer) {
            let packet = &buffer[..bytes];
            heard |= packet.get(9) == Some(&2) && packet.windows(4).any(|window| window == GROUP.octets());
        }
        heard
    }
}

fn carrier(up: bool) {
    let state = if up { "up" } else { "down" };
    assert!(Command::new("ip").args(["link", "set", "fh1", state]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::fs::read_to_string("/sys/class/net/fh0/carrier").unwrap().trim() != if up { "1" } else { "0" } {
        assert!(Instant::now() < deadline, "the carrier of fh0");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn groups_are_reported_again_when_the_carrier_comes_back() {
    inside::in_namespace("membership::link::groups_are_reported_again_when_the_carrier_comes_back", &[PAIR], || {
        let ear = Ear::new();
        let memberships = Memberships::default();
        let _lease = memberships.join(GROUP, "fh0", None).unwrap();
        // The kernel reports a new membership twice, within a second.
        std::thread::sleep(Duration::from_millis(2500));
        assert!(ear.heard(), "reported at the join");
        assert_eq!(memberships.check(), []);

        carrier(false);
        carrier(true);
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!ear.heard(), "the kernel does it by itself: then check need not");

        assert_eq!(memberships.check(), [MembershipEvent::Reported { interface: "fh0".into(), memberships: 1 }]);
        std::thread::sleep(Duration::from_millis(200));
        assert!(ear.heard(), "reported again");
        assert_eq!(memberships.check(), []);
        assert_eq!(memberships.counts().reported, 1);

        let begun = Instant::now();
        for _ in 0..100 {
            assert_eq!(memberships.check(), []);
        }
        let each = begun.elapsed() / 100;
        assert!(each < Duration::from_millis(5), "{each:?} is too much for ten a second");
    });
}
