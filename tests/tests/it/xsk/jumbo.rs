//! Packets over several frames, over veth with an MTU of 9000.
#![forbid(unsafe_code)]

use feedhandler::net::xsk::XskRx;
use feedhandler::steering::FilterSettings;

use super::veth::steer_with;
use super::*;

/// Longest payload at this MTU.
const MOST: usize = 9000 - 28;

fn enlarge() {
    ip(&["link", "set", "fh0", "mtu", "9000"]);
    ip(&["link", "set", "fh1", "mtu", "9000"]);
}

fn settings() -> FilterSettings {
    FilterSettings { multi_buffer: true, ..COOKIE.into() }
}

/// A pool whose frames are so long, and a socket with a ring of so many entries that takes packets over several of them.
fn port(steering: &mut Steering, frame_bytes: u32, ring: u32, mode: Mode) -> (Frames, XskRx) {
    let frames = Frames::umem(2048, frame_bytes, ring, false).unwrap().with_jumbos(BATCH as u32 + 1);
    let pair = xsk::open(&frames, "fh0", 0, true, false, mode, ring, COOKIE).unwrap();
    let mut rx = pair.rx.unwrap();
    rx.refill(&frames);
    steering.set_socket(0, pair.fd).unwrap();
    (frames, rx)
}

/// Small and jumbo packets mixed, so many that the ring (of which a packet takes up to six entries) wraps many times and
/// calls end in the middle of packets.
fn receives_jumbos(mode: Mode, frame_bytes: u32) {
    const COUNT: u32 = 600;
    enlarge();
    let mut steering = steer_with(mode, settings());
    let (frames, mut rx) = port(&mut steering, frame_bytes, 64, mode);
    let room = frame_bytes as usize - 320;
    let exchange = exchange();
    let len = |i: u32| match i % 6 {
        0 => MOST,
        1 => 4 + i as usize,
        // A frame exactly, one byte more, and several.
        2 => room - 42,
        3 => room - 41,
        4 => (MOST + 42) / room * room - 42,
        _ => 4 + (i as usize * 7919) % (MOST - 4),
    };
    let mut sent = 0;
    while sent < COUNT {
        // What the ring has room for in any case.
        for i in sent..sent + 6 {
            assert_eq!(exchange.send_to(&payload(i, len(i)), &GROUP.into()).unwrap(), len(i));
        }
        let got = receive(&frames, &mut rx, 6);
        assert_eq!(got.len(), 6, "after {sent}: {:?} {:?}", rx.counts(), rx.drops());
        for (i, (line, received_ns, bytes)) in (sent..).zip(&got) {
            assert_eq!((*line, bytes.len()), (LINE, len(i)), "packet {i}");
            assert!(*bytes == payload(i, len(i)), "packet {i}");
            assert!(*received_ns > 0);
        }
        sent += 6;
    }
    rx.update_kernel_counts();
    let pieces = |i: u32| (len(i) + 42).div_ceil(room) as u64;
    let of_several: Vec<u64> = (0..COUNT).map(pieces).filter(|count| *count > 1).collect();
    let counts = rx.counts();
    assert_eq!(counts.frames, (0..COUNT).map(pieces).sum::<u64>());
    assert_eq!((counts.pieces, counts.gathered), (of_several.iter().sum(), of_several.len() as u64));
    assert_eq!((counts.kernel_rx_dropped, counts.kernel_rx_ring_full), (0, 0));
    assert_eq!(rx.drops().values().iter().sum::<u64>(), 0);
    assert_eq!(frames.free_jumbo_count(), BATCH + 1);
    frames.assert_conserved(rx.frames_held(), 0, 0);
}

#[test]
fn jumbo_packets_are_gathered_natively_from_frames_of_2048() {
    in_namespace("jumbo::jumbo_packets_are_gathered_natively_from_frames_of_2048", || {
        receives_jumbos(Mode::Native, 2048)
    });
}

#[test]
fn jumbo_packets_are_gathered_natively_from_frames_of_4096() {
    in_namespace("jumbo::jumbo_packets_are_gathered_natively_from_frames_of_4096", || {
        receives_jumbos(Mode::Native, 4096)
    });
}

#[test]
fn jumbo_packets_are_gathered_in_skb_mode() {
    in_namespace("jumbo::jumbo_packets_are_gathered_in_skb_mode", || receives_jumbos(Mode::Skb, 2048));
}

#[test]
fn jumbo_packets_without_our_stamp_are_parsed_in_user_space() {
    in_namespace("jumbo::jumbo_packets_without_our_stamp_are_parsed_in_user_space", || {
        enlarge();
        let mut steering = steer_with(Mode::Native, FilterSettings { cookie: COOKIE + 1, ..settings() });
        let (frames, mut rx) = port(&mut steering, 2048, 64, Mode::Native);
        let (key, rule) = rule();
        rx.set_rules(&[(key, GroupRule { line: 99, ..rule })]);
        let exchange = exchange();
        for i in 0..20 {
            exchange.send_to(&payload(i, MOST), &GROUP.into()).unwrap();
            let got = receive(&frames, &mut rx, 1);
            assert!(got[0].0 == 99 && got[0].2 == payload(i, MOST), "packet {i}");
        }
        frames.assert_conserved(rx.frames_held(), 0, 0);
    });
}

/// What goes wrong where a packet is longer than the longest: the link's MTU was raised behind the handler's back.
#[test]
fn a_packet_longer_than_the_longest_is_dropped_and_counted_and_the_next_is_not() {
    in_namespace("jumbo::a_packet_longer_than_the_longest_is_dropped_and_counted_and_the_next_is_not", || {
        enlarge();
        let mut steering = steer_with(Mode::Native, settings());
        let (frames, mut rx) = port(&mut steering, 2048, 64, Mode::Native);
        ip(&["link", "set", "fh1", "mtu", "16000"]);
        ip(&["link", "set", "fh0", "mtu", "16000"]);
        let exchange = exchange();
        let longest = frames.longest_payload();
        for i in 0..10 {
            for len in [longest + 1, 15_000, longest, 100] {
                exchange.send_to(&payload(i, len), &GROUP.into()).unwrap();
            }
            let got = receive(&frames, &mut rx, 2);
            let got: Vec<_> = got.iter().map(|(_, _, bytes)| bytes.clone()).collect();
            assert!(got == [payload(i, longest), payload(i, 100)], "{:?} {:?}", rx.counts(), rx.drops());
        }
        assert_eq!(rx.drops().get(DropReason::TooLong), 20);
        assert_eq!(rx.drops().values().iter().sum::<u64>(), 20);
        frames.assert_conserved(rx.frames_held(), 0, 0);
    });
}

/// The kernel, not we, keeps what is longer than a frame from a socket that did not ask for it, and counts it.
#[test]
fn a_socket_without_jumbo_buffers_gets_no_pieces() {
    in_namespace("jumbo::a_socket_without_jumbo_buffers_gets_no_pieces", || {
        enlarge();
        let refused = Steering::attach("fh0", Mode::Native, COOKIE).unwrap_err().to_string();
        assert!(refused.contains("native XDP"), "the program for one buffer: {refused}");
        let mut steering = steer_with(Mode::Native, settings());
        let frames = pool();
        let pair = open(&frames, "fh0", true, false, Mode::Native);
        let mut rx = pair.rx.unwrap();
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();
        let exchange = exchange();
        for len in [MOST, 1687, 1686] {
            exchange.send_to(&payload(1, len), &GROUP.into()).unwrap();
        }
        let got = receive(&frames, &mut rx, 1);
        assert_eq!(got[0].2, payload(1, 1686));
        rx.update_kernel_counts();
        assert_eq!((rx.counts().frames, rx.counts().kernel_rx_dropped), (1, 2));
        frames.assert_conserved(rx.frames_held(), 0, 0);
    });
}
