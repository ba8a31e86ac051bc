//! Real sockets over the loopback interface, with ports of the kernel's choice.
#![forbid(unsafe_code)]

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::*;
use crate::net::headers::Header;
use crate::net::socket::{SocketDestination, SocketTx};
use crate::net::{TxDestination, TxPort};

fn line(index: LineIndex, group: SocketAddrV4) -> SocketLine {
    SocketLine { line: index, group, interface: "lo".into(), source: None, subscribed: true }
}

/// A port that nobody else uses now.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn group(last: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(239, 255, 77, last), free_port())
}

fn sending_port(to: SocketAddrV4) -> SocketTx {
    sending_port_of(Ipv4Addr::LOCALHOST, to)
}

fn sending_port_of(source: Ipv4Addr, to: SocketAddrV4) -> SocketTx {
    let mut port = SocketTx::new("lo");
    let source = SocketAddrV4::new(source, 0);
    port.add_destination(Header { source_mac: [0; 6], dest_mac: [0; 6], vlan: 0, source, dest: to, ttl: 1 }).unwrap();
    port
}

fn send(frames: &Frames, port: &mut SocketTx, payload: &[u8]) {
    let mut frame = frames.alloc().unwrap();
    frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload.len()].copy_from_slice(payload);
    port.send(frames, frame, payload.len(), 0).unwrap();
}

/// Receives until so many datagrams are there, or two seconds have passed.
fn receive(frames: &Frames, port: &mut SocketRx, wanted: usize) -> Vec<(LineIndex, Vec<u8>, u64)> {
    let mut got = vec![];
    let give_up = Instant::now() + Duration::from_secs(2);
    let mut batch = Batch::new();
    while got.len() < wanted && Instant::now() < give_up {
        port.refill(frames);
        port.receive(frames, &mut batch);
        for received in batch.drain(..) {
            got.push((received.line, frames.payload(&received).to_vec(), received.received_ns));
            frames.free(received.frame);
        }
    }
    got
}

#[test]
fn datagrams_cross_in_batches_with_their_line_and_time() {
    let frames = Frames::heap(512, 2048);
    let (one, two) = (group(1), group(2));
    let mut rx = SocketRx::new(&[line(4, one), line(5, two)], &SocketOptions::default()).unwrap();
    let (mut to_one, mut to_two) = (sending_port(one), sending_port(two));
    let before = clock::monotonic_ns();
    for i in 0..150_u16 {
        send(&frames, if i % 3 == 0 { &mut to_two } else { &mut to_one }, &i.to_be_bytes());
    }
    to_one.flush(&frames);
    to_two.flush(&frames);
    assert_eq!((to_one.counts().frames, to_two.counts().frames), (100, 50));
    assert_eq!(to_one.counts().kicks, 2, "100 packets: one full batch and the rest");

    let got = receive(&frames, &mut rx, 150);
    let after = clock::monotonic_ns();
    assert_eq!(got.len(), 150);
    for (line, remainders) in [(4, &[1, 2][..]), (5, &[0][..])] {
        let expected: Vec<u16> = (0..150).filter(|i| remainders.contains(&(i % 3))).collect();
        let numbers: Vec<u16> = got
            .iter()
            .filter(|(of, ..)| *of == line)
            .map(|(_, payload, _)| u16::from_be_bytes(payload[..].try_into().unwrap()))
            .collect();
        assert_eq!(numbers, expected, "line {line}");
    }
    // The clocks' offset is known to a few microseconds; a wrong clock would be off by years.
    assert!(got.iter().all(|(.., at)| (before - 1_000_000..=after).contains(at)), "times of arrival");
    frames.assert_conserved(rx.frames_held(), to_one.frames_held() + to_two.frames_held(), 0);
}

#[test]
fn a_line_can_be_left_and_joined_again() {
    let frames = Frames::heap(256, 2048);
    let group = group(3);
    let off = SocketLine { subscribed: false, ..line(0, group) };
    let mut rx = SocketRx::new(&[off], &SocketOptions::default()).unwrap();
    let mut tx = sending_port(group);
    for (step, joined) in [false, true, false, true].into_iter().enumerate() {
        rx.set_line(0, joined).unwrap();
        rx.set_line(0, joined).unwrap();
        send(&frames, &mut tx, &[step as u8]);
        tx.flush(&frames);
        std::thread::sleep(Duration::from_millis(20));
        let got = receive_now(&frames, &mut rx);
        assert_eq!(got, if joined { vec![vec![step as u8]] } else { vec![] }, "step {step}");
    }
    frames.assert_conserved(rx.frames_held(), 0, 0);
}

/// The same as the XDP program's: of one group from several sources each is a line of its own.
#[test]
fn two_sources_of_one_group_are_two_lines() {
    let frames = Frames::heap(256, 2048);
    let group = group(8);
    let sources = [1, 2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let of = |index: usize| SocketLine { source: Some(sources[index]), ..line(index as LineIndex, group) };
    let mut rx = SocketRx::new(&[of(0), of(1)], &SocketOptions::default()).unwrap();
    for (number, source) in (0_u8..).zip([sources[1], sources[2], sources[0]]) {
        let mut tx = sending_port_of(source, group);
        send(&frames, &mut tx, &[number]);
        tx.flush(&frames);
    }
    let mut got = receive(&frames, &mut rx, 2);
    got.sort_unstable();
    let got: Vec<_> = got.iter().map(|(line, payload, _)| (*line, payload[0])).collect();
    assert_eq!(got, [(0, 2), (1, 0)], "and nothing of the third source");
    assert_eq!(receive_now(&frames, &mut rx), Vec::<Vec<u8>>::new());
    frames.assert_conserved(rx.frames_held(), 0, 0);
}

fn receive_now(frames: &Frames, port: &mut SocketRx) -> Vec<Vec<u8>> {
    let mut batch = Batch::new();
    port.refill(frames);
    port.receive(frames, &mut batch);
    let payloads = batch.iter().map(|received| frames.payload(received).to_vec()).collect();
    for received in batch.drain(..) {
        frames.free(received.frame);
    }
    payloads
}

#[test]
fn a_line_with_a_source_takes_that_source_alone() {
    let frames = Frames::heap(256, 2048);
    let (here, elsewhere) = (group(7), group(8));
    let from = |index, group, source: [u8; 4]| SocketLine { source: Some(source.into()), ..line(index, group) };
    let lines = [from(1, here, [127, 0, 0, 1]), from(2, elsewhere, [127, 9, 9, 9])];
    let mut rx = SocketRx::new(&lines, &SocketOptions::default()).unwrap();
    let mut ports = [here, elsewhere].map(sending_port);
    for joined in [true, false, true] {
        rx.set_line(1, joined).unwrap();
        rx.set_line(2, joined).unwrap();
        for tx in &mut ports {
            send(&frames, tx, b"x");
            tx.flush(&frames);
        }
        std::thread::sleep(Duration::from_millis(20));
        let got: Vec<LineIndex> = receive(&frames, &mut rx, 1).iter().map(|(line, _, _)| *line).collect();
        assert_eq!(got, if joined { vec![1] } else { vec![] });
        assert!(receive_now(&frames, &mut rx).is_empty(), "line 2 asks for another source");
    }
}

#[test]
fn too_long_datagrams_are_dropped_and_the_kernels_drops_counted() {
    let frames = Frames::heap(256, 2048);
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port());
    let options = SocketOptions { receive_buffer_bytes: 4096, ..SocketOptions::default() };
    let mut rx = SocketRx::new(&[line(0, address)], &options).unwrap();
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    plain.send_to(&vec![0; frames.payload_capacity() + 1], address).unwrap();
    assert_eq!(receive_now(&frames, &mut rx), Vec::<Vec<u8>>::new());
    assert_eq!(rx.drops().get(DropReason::TooLong), 1);

    for _ in 0..50 {
        plain.send_to(&[1; 1000], address).unwrap();
    }
    let got = receive_now(&frames, &mut rx).len();
    rx.update_kernel_counts();
    rx.update_kernel_counts();
    assert!(got < 50, "the buffer is too small for all");
    assert_eq!(got as u64 + rx.counts().kernel_rx_dropped, 50, "received or counted as dropped");
    frames.assert_conserved(rx.frames_held(), 0, 0);
}

#[test]
fn a_datagram_says_what_was_lost_before_it() {
    let frames = Frames::heap(256, 2048);
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port());
    let options = SocketOptions { receive_buffer_bytes: 4096, ..SocketOptions::default() };
    let mut rx = SocketRx::new(&[line(0, address)], &options).unwrap();
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut got = 0;
    for round in 1..=3 {
        for _ in 0..50 {
            plain.send_to(&[1; 1000], address).unwrap();
        }
        got += receive_now(&frames, &mut rx).len() as u64;
        // The flood's own survivors were queued before the loss; the next datagram comes behind it.
        plain.send_to(&[2; 10], address).unwrap();
        got += receive_now(&frames, &mut rx).len() as u64;
        assert_eq!(got + rx.counts().kernel_rx_dropped, round * 51, "without asking the kernel");
        rx.update_kernel_counts();
        assert_eq!(got + rx.counts().kernel_rx_dropped, round * 51, "and not twice");
    }
    assert!(rx.counts().kernel_rx_dropped > 0);
}

#[test]
fn another_program_may_share_the_group_only_with_reuse_port() {
    let frames = Frames::heap(256, 2048);
    for reuse_port in [false, true] {
        let group = group(8);
        let options = SocketOptions { reuse_port, ..SocketOptions::default() };
        let mut rx = SocketRx::new(&[line(0, group)], &options).unwrap();
        let other = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        other.set_reuse_port(true).unwrap();
        assert_eq!(other.bind(&group.into()).is_ok(), reuse_port);
        if reuse_port {
            other.join_multicast_v4(group.ip(), &Ipv4Addr::LOCALHOST).unwrap();
            let mut tx = sending_port(group);
            send(&frames, &mut tx, b"for both");
            tx.flush(&frames);
            assert_eq!(receive(&frames, &mut rx, 1)[0].1, b"for both");
            let mut buffer = [0; 16];
            let plain = UdpSocket::from(other);
            plain.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            assert_eq!(plain.recv(&mut buffer).unwrap(), 8);
        }
    }
}

#[test]
fn forwarding_moves_the_frame_without_copying() {
    let frames = Frames::heap(256, 2048);
    let (inward, outward) = (group(4), group(5));
    let mut rx = SocketRx::new(&[line(0, inward)], &SocketOptions::default()).unwrap();
    let mut end = SocketRx::new(&[line(9, outward)], &SocketOptions::default()).unwrap();
    let (mut source, mut tx) = (sending_port(inward), sending_port(outward));
    send(&frames, &mut source, b"hello");
    source.flush(&frames);
    let mut batch = Batch::new();
    let give_up = Instant::now() + Duration::from_secs(2);
    while batch.is_empty() && Instant::now() < give_up {
        rx.refill(&frames);
        rx.receive(&frames, &mut batch);
    }
    tx.forward(&frames, batch.pop().unwrap(), 0).unwrap();
    frames.assert_conserved(rx.frames_held(), 1, 0);
    tx.flush(&frames);
    let got = receive(&frames, &mut end, 1);
    assert_eq!((got[0].0, &got[0].1[..]), (9, &b"hello"[..]));
    frames.assert_conserved(rx.frames_held() + end.frames_held(), 0, 0);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let absent = SocketLine { interface: "fh-none".into(), ..line(0, group(6)) };
    let error = SocketRx::new(&[absent], &SocketOptions::default()).unwrap_err().to_string();
    assert!(error.contains("fh-none"), "{error}");

    let mut port = SocketTx::new("lo");
    let header = |source: &str, vlan| Header {
        source_mac: [0; 6],
        dest_mac: [0; 6],
        vlan,
        source: source.parse().unwrap(),
        dest: group(7),
        ttl: 1,
    };
    assert!(matches!(port.add_destination(header("127.0.0.1:0", 5)), Err(SocketError::Vlan { vlan: 5, .. })));
    let error = port.add_destination(header("192.0.2.7:0", 0)).unwrap_err().to_string();
    assert!(error.contains("cannot bind the source"), "{error}");
}

#[test]
fn sockets_of_lines_and_destinations_come_and_go() {
    let frames = Frames::heap(512, 2048);
    let (one, two) =
        (SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()), SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()));
    let options = SocketOptions::default();
    let mut rx = SocketRx::new(&[line(4, one)], &options).unwrap();
    rx.make_room(2);
    rx.add(LineSocket::open(&line(5, two), &options).unwrap()).unwrap();
    let third = LineSocket::open(&line(6, SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port())), &options).unwrap();
    assert!(rx.add(third).is_err(), "no room");

    let to = |dest| {
        let source = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let header = Header { source_mac: [0; 6], dest_mac: [0; 6], vlan: 0, source, dest, ttl: 1 };
        TxDestination::Socket(SocketDestination::open("lo", header).unwrap())
    };
    let mut tx = TxPort::Socket(SocketTx::new("lo"));
    tx.make_room(1);
    let send = |tx: &mut TxPort, payload: &[u8]| {
        let mut frame = frames.alloc().unwrap();
        frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload.len()].copy_from_slice(payload);
        tx.send(&frames, frame, payload.len(), 0)
    };
    assert!(tx.put_destination(0, TxDestination::Memory).is_err(), "of another kind");
    assert!(matches!(tx.put_destination(0, to(one)), Ok(None)));
    send(&mut tx, b"to one").unwrap();
    tx.flush(&frames);
    // The number is used again: what was sent before has its own address, what comes after the new one.
    assert!(matches!(tx.put_destination(0, to(two)), Ok(Some(TxDestination::Socket(_)))));
    send(&mut tx, b"to two").unwrap();
    tx.flush(&frames);
    let mut got: Vec<_> = receive(&frames, &mut rx, 2).into_iter().map(|(line, payload, _)| (line, payload)).collect();
    got.sort_unstable();
    assert_eq!(got, [(4, b"to one".to_vec()), (5, b"to two".to_vec())]);
    assert!(tx.take_destination(0).is_some());
    assert_eq!(send(&mut tx, b"to nobody"), Err(DropReason::Removed));

    assert!(rx.remove(4).is_some() && rx.remove(4).is_none());
    let mut tx = sending_port(two);
    self::send(&frames, &mut tx, b"still");
    tx.flush(&frames);
    assert_eq!(receive(&frames, &mut rx, 1)[0].1, b"still");
    frames.assert_conserved(rx.frames_held(), 0, 0);
}
