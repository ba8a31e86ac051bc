//! Namespaces with veth pairs, and both ends' senders and receivers.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use feedhandler::config::plan::Mode;
use feedhandler::metrics::DropReason;
use feedhandler::net::interface::Interface;
use feedhandler::net::xsk::{self, XskPair, XskRx, XskTx};
use feedhandler::net::{Batch, Frames, Header, PAYLOAD_OFFSET, Received};
use feedhandler::steering::{FilterSettings, Steering};
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};
use xdp_ebpf::{GroupKey, GroupRule};

use crate::inside::{self, Pair};
use crate::turn::turn;

/// The handler's end and the far end of each pair, in networks of their own.
const PAIRS: [Pair; 2] =
    [[("fh0", [10, 9, 0, 1]), ("fh1", [10, 9, 1, 1])], [("fo0", [10, 9, 2, 1]), ("fo1", [10, 9, 3, 1])]];

pub(super) const COOKIE: u16 = 0x5eed;
pub(super) const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 10, 0, 1), 26_400);
pub(super) const OUT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 20, 0, 1), 30_001);
pub(super) const LINE: u16 = 7;
pub(super) const RING: u32 = 256;
pub(super) const FRAMES: u32 = 2048;

pub(super) fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `body` in a namespace of its own, in turn: what it sends has to fit into rings that somebody empties.
pub(super) fn in_namespace(test: &str, body: impl FnOnce()) {
    let _turn = (!inside::is_inside()).then(turn);
    inside::in_namespace(&format!("xsk::{test}"), &PAIRS, body);
}

/// A kernel socket that sends to groups out of `fh1`.
pub(super) fn exchange() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.bind(&SocketAddrV4::new(Ipv4Addr::new(10, 9, 1, 1), 0).into()).unwrap();
    socket.set_multicast_if_v4(&Ipv4Addr::new(10, 9, 1, 1)).unwrap();
    socket
}

/// A kernel socket that receives [`OUT`] on an interface, knowing nothing of our data path.
pub(super) fn consumer(interface: &str) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_multicast_all_v4(false).unwrap();
    socket.set_recv_buffer_size(4 << 20).unwrap();
    socket.bind(&OUT.into()).unwrap();
    let index = Interface::read(interface).unwrap().index;
    socket.join_multicast_v4_n(OUT.ip(), &InterfaceIndexOrAddress::Index(index)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.into()
}

/// Headers from a neighbour of the consumer's interface (an own address would be dropped as a martian).
pub(super) fn header(from: &str, source: [u8; 4]) -> Header {
    let mac = Interface::read(from).unwrap().mac;
    Header::multicast(mac, 0, SocketAddrV4::new(source.into(), 30_000), OUT, 8).unwrap()
}

pub(super) fn steer(mode: Mode) -> Steering {
    steer_with(mode, COOKIE.into())
}

pub(super) fn steer_with(mode: Mode, settings: FilterSettings) -> Steering {
    let mut steering = Steering::attach("fh0", mode, settings).unwrap();
    let (key, rule) = rule();
    steering.insert_rule(key, rule).unwrap();
    steering
}

pub(super) fn rule() -> (GroupKey, GroupRule) {
    let key = GroupKey { dst_ip: GROUP.ip().octets(), dst_port: GROUP.port(), vlan: 0 };
    (key, GroupRule { source_ip: [0; 4], line: LINE, flags: 0 })
}

pub(super) fn pool() -> Frames {
    Frames::umem(FRAMES, 2048, RING, false).unwrap()
}

pub(super) fn open(frames: &Frames, interface: &str, rx: bool, tx: bool, mode: Mode) -> XskPair {
    xsk::open(frames, interface, 0, rx, tx, mode, RING, COOKIE).unwrap()
}

/// Payload of packet `i`: its number, and then bytes that depend on it.
pub(super) fn payload(i: u32, len: usize) -> Vec<u8> {
    let mut bytes = i.to_be_bytes().to_vec();
    bytes.extend((4..len).map(|at| (at as u32).wrapping_mul(31).wrapping_add(i) as u8));
    bytes
}

/// What a receiver got: line, arrival, payload.
pub(super) type Got = Vec<(u16, u64, Vec<u8>)>;

/// Receives until so many datagrams are there, or three seconds have passed.
pub(super) fn receive(frames: &Frames, port: &mut XskRx, wanted: usize) -> Got {
    let mut got = vec![];
    let mut batch = Batch::new();
    let give_up = Instant::now() + Duration::from_secs(3);
    while got.len() < wanted && Instant::now() < give_up {
        port.receive(frames, &mut batch);
        for received in batch.drain(..) {
            got.push((received.line, received.received_ns, frames.payload(&received).to_vec()));
            frames.free(received.frame);
        }
        port.refill(frames);
    }
    got
}

pub(super) fn send(frames: &Frames, port: &mut XskTx, bytes: &[u8], destination: usize) -> Result<(), DropReason> {
    let mut frame = frames.alloc().expect("a free frame");
    frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + bytes.len()].copy_from_slice(bytes);
    port.send(frames, frame, bytes.len(), destination)
}

/// Flushes and reclaims until every frame is back, or a second has passed.
pub(super) fn settle(frames: &Frames, port: &mut XskTx) {
    let give_up = Instant::now() + Duration::from_secs(1);
    while port.frames_held() > 0 && Instant::now() < give_up {
        port.flush(frames);
        port.reclaim(frames);
    }
    assert_eq!(port.frames_held(), 0, "frames that the kernel keeps: {:?}", port.counts());
}

pub(super) fn consume(socket: &UdpSocket, wanted: usize) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2048];
    let mut got = vec![];
    while got.len() < wanted {
        match socket.recv(&mut buffer) {
            Ok(len) => got.push(buffer[..len].to_vec()),
            Err(_) => break,
        }
    }
    got
}

/// Receives one datagram, to be forwarded.
pub(super) fn receive_one(frames: &Frames, port: &mut XskRx) -> Received {
    let mut batch = Batch::new();
    let give_up = Instant::now() + Duration::from_secs(3);
    while batch.is_empty() && Instant::now() < give_up {
        port.receive(frames, &mut batch);
        port.refill(frames);
    }
    assert_eq!(batch.len(), 1, "{:?} {:?}", port.counts(), port.drops());
    batch.remove(0)
}
