//! AF_XDP ports over veth: the real program, real sockets, real frames. Needs root and iproute2.
//!
//! Each test has a namespace of its own with two veth pairs. `fh0` and `fo0` are the handler's ends; `fh1` and `fo1` are
//! plain kernel interfaces with addresses of other networks, which stand for the exchange and the consumer.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};

use feedhandler::clock::monotonic_ns;
use feedhandler::config::plan::Mode;
use feedhandler::metrics::DropReason;
use feedhandler::net::xsk::{self, XskPair};
use feedhandler::net::{BATCH, Batch, Frames, Header};
use feedhandler::steering::Steering;
use xdp_ebpf::{GroupKey, GroupRule};

use veth::{
    COOKIE, GROUP, LINE, OUT, RING, consume, consumer, exchange, header, in_namespace, ip, open, payload, pool,
    receive, receive_one, rule, send, settle, steer,
};

mod busy_poll;
mod jumbo;
mod tags;
mod veth;

fn receives(mode: Mode) {
    const COUNT: u32 = 1000;
    let frames = pool();
    let mut steering = steer(mode);
    let XskPair { rx, tx, fd, .. } = open(&frames, "fh0", true, false, mode);
    assert!(tx.is_none());
    let mut rx = rx.unwrap();
    rx.refill(&frames);
    assert_eq!(rx.frames_held(), RING as usize);
    steering.set_socket(0, fd).unwrap();

    let before = monotonic_ns();
    let exchange = exchange();
    let mut got = vec![];
    // More than the rings hold, in portions that they do.
    for chunk in 0..COUNT / 100 {
        for i in chunk * 100..(chunk + 1) * 100 {
            exchange.send_to(&payload(i, 4 + i as usize % 1400), &GROUP.into()).unwrap();
        }
        got.extend(receive(&frames, &mut rx, 100));
    }
    let after = monotonic_ns();
    assert_eq!(got.len(), COUNT as usize, "{:?} {:?}", rx.counts(), rx.drops());
    let mut last_ns = before;
    for (i, (line, received_ns, bytes)) in got.iter().enumerate() {
        assert_eq!(*line, LINE);
        assert_eq!(*bytes, payload(i as u32, 4 + i % 1400), "packet {i}");
        assert!((last_ns..=after).contains(received_ns), "packet {i} arrived at {received_ns}, {last_ns}..={after}");
        last_ns = *received_ns;
    }
    rx.update_kernel_counts();
    assert_eq!((rx.counts().frames, rx.counts().kernel_rx_dropped), (u64::from(COUNT), 0));
    assert_eq!(rx.drops().values().iter().sum::<u64>(), 0);
    frames.assert_conserved(rx.frames_held(), 0, 0);
}

#[test]
fn receives_natively_with_line_time_and_payload() {
    in_namespace("receives_natively_with_line_time_and_payload", || receives(Mode::Native));
}

#[test]
fn receives_in_skb_mode_with_line_time_and_payload() {
    in_namespace("receives_in_skb_mode_with_line_time_and_payload", || receives(Mode::Skb));
}

#[test]
fn frames_without_our_stamp_are_parsed_in_user_space() {
    in_namespace("frames_without_our_stamp_are_parsed_in_user_space", || {
        let frames = pool();
        // The program stamps another cookie than the socket expects, as if the metadata were somebody else's.
        let mut steering = Steering::attach("fh0", Mode::Native, COOKIE + 1).unwrap();
        let (key, rule) = rule();
        let other = GroupKey { dst_port: key.dst_port + 1, ..key };
        steering.insert_rule(key, rule).unwrap();
        steering.insert_rule(other, rule).unwrap();
        let pair = open(&frames, "fh0", true, false, Mode::Native);
        let mut rx = pair.rx.unwrap();
        rx.set_rules(&[(key, GroupRule { line: 99, ..rule })]);
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();
        let exchange = exchange();
        let before = monotonic_ns();
        exchange.send_to(b"unknown here", &SocketAddrV4::new(*GROUP.ip(), other.dst_port).into()).unwrap();
        exchange.send_to(b"known", &GROUP.into()).unwrap();
        let got = receive(&frames, &mut rx, 1);
        assert_eq!((got[0].0, &got[0].2[..]), (99, &b"known"[..]));
        assert!((before..=monotonic_ns()).contains(&got[0].1));
        assert_eq!(rx.drops().get(DropReason::UnknownGroup), 1);
        frames.assert_conserved(rx.frames_held(), 0, 0);
    });
}

#[test]
fn sends_from_a_transmit_only_socket_in_bursts_beyond_one_kick() {
    in_namespace("sends_from_a_transmit_only_socket_in_bursts_beyond_one_kick", || {
        let frames = pool();
        let consumer = consumer("fh1");
        let XskPair { rx, tx, .. } = open(&frames, "fh0", false, true, Mode::Native);
        assert!(rx.is_none());
        let mut tx = tx.unwrap();
        let destination = tx.add_destination(&header("fh0", [10, 9, 1, 77]));
        let mut sent = 0;
        // 1, 32, 33, a batch, more than a batch, nearly the ring, and more than the ring holds.
        for burst in [1, 32, 33, BATCH as u32, 100, RING - 1, 2 * RING + 5] {
            for i in 0..burst {
                send(&frames, &mut tx, &payload(sent + i, 600), destination).unwrap();
            }
            tx.flush(&frames);
            let got = consume(&consumer, burst as usize);
            assert_eq!(got.len(), burst as usize, "burst of {burst}: {:?} {:?}", tx.counts(), tx.drops());
            for (i, bytes) in got.iter().enumerate() {
                assert_eq!(*bytes, payload(sent + i as u32, 600), "burst of {burst}, packet {i}");
            }
            sent += burst;
            settle(&frames, &mut tx);
            frames.assert_conserved(0, 0, 0);
        }
        assert_eq!(tx.counts().frames, u64::from(sent));
        assert!(tx.counts().kicks >= u64::from(sent / 32), "{:?}", tx.counts());
        assert_eq!(tx.drops().values().iter().sum::<u64>(), 0);
        tx.update_kernel_counts();
        assert_eq!(tx.counts().kernel_tx_invalid, 0);
    });
}

#[test]
fn a_packet_that_fits_no_frame_is_refused_and_a_full_ring_says_so() {
    in_namespace("a_packet_that_fits_no_frame_is_refused_and_a_full_ring_says_so", || {
        let frames = pool();
        let mut tx = open(&frames, "fh0", false, true, Mode::Native).tx.unwrap();
        let destination = tx.add_destination(&header("fh0", [10, 9, 1, 77]));
        let frame = frames.alloc().unwrap();
        let too_long = frames.payload_capacity() + 1;
        assert_eq!(tx.send(&frames, frame, too_long, destination), Err(DropReason::BadBounds));
        frames.assert_conserved(0, 0, 0);

        // With the link down the kernel takes nothing: the ring fills, and sending says so instead of losing silently.
        ip(&["link", "set", "fh0", "down"]);
        let mut queued = 0;
        let full = loop {
            match send(&frames, &mut tx, b"waits", destination) {
                Ok(()) => queued += 1,
                Err(reason) => break reason,
            }
            assert!(queued <= RING, "more than the ring holds");
        };
        assert_eq!((full, queued), (DropReason::TxFull, RING), "{:?}", tx.counts());
        assert_eq!((tx.drops().get(DropReason::TxFull), tx.counts().kick_errors > 0), (1, true));
        frames.assert_conserved(0, tx.frames_held(), 0);
    });
}

#[test]
fn forwards_to_another_interface_on_the_same_umem() {
    const COUNT: u32 = 200;
    in_namespace("forwards_to_another_interface_on_the_same_umem", || {
        let frames = pool();
        let mut steering = steer(Mode::Native);
        let pair = open(&frames, "fh0", true, false, Mode::Native);
        let mut tx = open(&frames, "fo0", false, true, Mode::Native).tx.unwrap();
        let destination = tx.add_destination(&header("fo0", [10, 9, 3, 77]));
        let mut rx = pair.rx.unwrap();
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();
        let consumer = consumer("fo1");
        let exchange = exchange();
        for i in 0..COUNT {
            exchange.send_to(&payload(i, 4 + i as usize * 7), &GROUP.into()).unwrap();
        }
        let mut batch = Batch::new();
        let mut forwarded = 0;
        let give_up = Instant::now() + Duration::from_secs(3);
        while forwarded < COUNT && Instant::now() < give_up {
            rx.receive(&frames, &mut batch);
            for received in batch.drain(..) {
                tx.forward(&frames, received, destination).unwrap();
                forwarded += 1;
            }
            tx.flush(&frames);
            tx.reclaim(&frames);
            rx.refill(&frames);
            frames.assert_conserved(rx.frames_held(), tx.frames_held(), 0);
        }
        let got = consume(&consumer, COUNT as usize);
        assert_eq!(got.len(), COUNT as usize, "{:?} {:?} {:?}", rx.counts(), tx.counts(), tx.drops());
        for (i, bytes) in got.iter().enumerate() {
            assert_eq!(*bytes, payload(i as u32, 4 + i * 7), "packet {i}");
        }
        settle(&frames, &mut tx);
        frames.assert_conserved(rx.frames_held(), 0, 0);
    });
}

#[test]
fn receives_and_sends_on_one_socket_with_and_without_tag() {
    in_namespace("receives_and_sends_on_one_socket_with_and_without_tag", || {
        let frames = pool();
        let mut steering = steer(Mode::Native);
        let pair = open(&frames, "fh0", true, true, Mode::Native);
        let (mut rx, mut tx) = (pair.rx.unwrap(), pair.tx.unwrap());
        let plain = tx.add_destination(&header("fh0", [10, 9, 1, 77]));
        let tagged = tx.add_destination(&Header { vlan: 5, ..header("fh0", [10, 9, 1, 77]) });
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();

        // At the other end the kernel takes what is untagged, and a second filter what is tagged.
        let (consumer, exchange) = (consumer("fh1"), exchange());
        let far_frames = pool();
        let mut far_steering = Steering::attach("fh1", Mode::Native, COOKIE).unwrap();
        let key = GroupKey { dst_ip: OUT.ip().octets(), dst_port: OUT.port(), vlan: 5 };
        far_steering.insert_rule(key, GroupRule { source_ip: [10, 9, 1, 77], line: 1, flags: 0 }).unwrap();
        let far = open(&far_frames, "fh1", true, false, Mode::Native);
        let mut far_rx = far.rx.unwrap();
        far_rx.refill(&far_frames);
        far_steering.set_socket(0, far.fd).unwrap();

        for (i, to) in [plain, tagged, plain, tagged].into_iter().enumerate() {
            let bytes = payload(i as u32, 900);
            exchange.send_to(&bytes, &GROUP.into()).unwrap();
            let received = receive_one(&frames, &mut rx);
            tx.forward(&frames, received, to).unwrap();
            tx.flush(&frames);
            match to == tagged {
                true => assert_eq!(receive(&far_frames, &mut far_rx, 1)[0].2, bytes, "packet {i}"),
                false => assert_eq!(consume(&consumer, 1), [bytes], "packet {i}"),
            }
        }
        send(&frames, &mut tx, b"built here", tagged).unwrap();
        settle(&frames, &mut tx);
        assert_eq!(receive(&far_frames, &mut far_rx, 1)[0].2, b"built here");
        frames.assert_conserved(rx.frames_held(), 0, 0);
        far_frames.assert_conserved(far_rx.frames_held(), 0, 0);
    });
}

#[test]
fn tagged_input_is_forwarded_untagged() {
    in_namespace("tagged_input_is_forwarded_untagged", || {
        let frames = pool();
        let mut steering = Steering::attach("fh0", Mode::Native, COOKIE).unwrap();
        let (key, rule) = rule();
        steering.insert_rule(GroupKey { vlan: 5, ..key }, rule).unwrap();
        let pair = open(&frames, "fh0", true, false, Mode::Native);
        let mut tx = open(&frames, "fo0", false, true, Mode::Native).tx.unwrap();
        let destination = tx.add_destination(&header("fo0", [10, 9, 3, 77]));
        let mut rx = pair.rx.unwrap();
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();

        let exchange_frames = pool();
        let mut exchange = open(&exchange_frames, "fh1", false, true, Mode::Native).tx.unwrap();
        let source = SocketAddrV4::new(Ipv4Addr::new(10, 9, 1, 1), 1);
        let to_group = Header::multicast([2, 0, 0, 0, 0, 9], 5, source, GROUP, 1).unwrap();
        let to_group = exchange.add_destination(&to_group);
        let consumer = consumer("fo1");
        for i in 0..3 {
            send(&exchange_frames, &mut exchange, &payload(i, 1000), to_group).unwrap();
            settle(&exchange_frames, &mut exchange);
            let received = receive_one(&frames, &mut rx);
            assert_eq!(received.payload_offset, 46, "behind a tag");
            tx.forward(&frames, received, destination).unwrap();
            tx.flush(&frames);
            assert_eq!(consume(&consumer, 1), [payload(i, 1000)]);
        }
        settle(&frames, &mut tx);
        frames.assert_conserved(rx.frames_held(), 0, 0);
    });
}

#[test]
fn a_flood_without_free_frames_loses_loudly_and_no_frame() {
    in_namespace("a_flood_without_free_frames_loses_loudly_and_no_frame", || {
        let frames = pool();
        let mut steering = steer(Mode::Native);
        let pair = open(&frames, "fh0", true, false, Mode::Native);
        let mut rx = pair.rx.unwrap();
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();
        let exchange = exchange();
        let flood = 3 * RING;
        for i in 0..flood {
            exchange.send_to(&payload(i, 100), &GROUP.into()).unwrap();
        }
        let got = receive(&frames, &mut rx, flood as usize).len() as u64;
        rx.update_kernel_counts();
        let redirected = steering.line_stats(LINE).unwrap().packets;
        let lost = rx.counts().kernel_rx_dropped + rx.counts().kernel_rx_ring_full;
        assert_eq!(got, u64::from(RING), "what the rings hold");
        assert_eq!(got + lost, redirected, "{:?}", rx.counts());
        // Having been refilled, it works on.
        exchange.send_to(b"after", &GROUP.into()).unwrap();
        assert_eq!(receive(&frames, &mut rx, 1)[0].2, b"after");
        frames.assert_conserved(rx.frames_held(), 0, 0);
    });
}

#[test]
fn what_cannot_be_opened_says_why() {
    in_namespace("what_cannot_be_opened_says_why", || {
        let frames = pool();
        let other = pool();
        let first = open(&frames, "fh0", true, true, Mode::Native);
        assert_eq!(first.in_force(), Mode::Native);
        let refuse = |frames: &Frames, interface: &str, queue, mode| {
            xsk::open(frames, interface, queue, true, false, mode, RING, COOKIE).unwrap_err().to_string()
        };
        let busy = "fh0 queue 0 already has an AF_XDP socket (EBUSY)";
        assert!(refuse(&other, "fh0", 0, Mode::Native).starts_with(busy));
        assert!(refuse(&frames, "fh0", 0, Mode::Native).starts_with(busy), "twice on one UMEM");
        let absent = refuse(&other, "fh9", 0, Mode::Native);
        assert!(absent.contains("fh9") && absent.contains("no such interface"), "{absent}");
        let queue = refuse(&other, "fo0", 17, Mode::Native);
        assert!(queue.contains("queue 17") && queue.contains("is there such a queue?"), "{queue}");
        let zero_copy = refuse(&other, "fo0", 0, Mode::ZeroCopy);
        assert!(zero_copy.contains("the driver cannot do zero-copy"), "{zero_copy}");
        let heap = refuse(&Frames::heap(64, 2048), "fo0", 0, Mode::Native);
        assert!(heap.contains("needs frames in a UMEM"), "{heap}");
        assert!(refuse(&other, "fo0", 0, Mode::Socket).contains("is not an AF_XDP socket"));
        // After all these refusals the same pool can still open one, in the mode that the driver has.
        let opened = open(&other, "fo0", true, true, Mode::Auto);
        assert_eq!(opened.in_force(), Mode::Native);
    });
}

#[test]
fn a_killed_owner_frees_the_queue_at_once() {
    const HOLD: &str = "FEEDHANDLER_TEST_HOLD_QUEUE";
    const TEST: &str = "a_killed_owner_frees_the_queue_at_once";
    if let Some(marker) = std::env::var_os(HOLD) {
        let frames = pool();
        let mut steering = steer(Mode::Native);
        let pair = open(&frames, "fh0", true, true, Mode::Native);
        let mut rx = pair.rx.unwrap();
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();
        std::fs::write(marker, "open").unwrap();
        std::thread::sleep(Duration::from_secs(30));
        return;
    }
    in_namespace(TEST, || {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("open");
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("xsk::{TEST}")])
            .env(HOLD, &marker)
            .spawn()
            .unwrap();
        let give_up = Instant::now() + Duration::from_secs(10);
        while !marker.exists() {
            assert!(Instant::now() < give_up, "the other process did not open its socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        exchange().send_to(b"to the other process", &GROUP.into()).unwrap();
        holder.kill().unwrap();
        holder.wait().unwrap();

        let frames = pool();
        let pair = open(&frames, "fh0", true, false, Mode::Native);
        let mut steering = steer(Mode::Native);
        let mut rx = pair.rx.unwrap();
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();
        exchange().send_to(b"to us", &GROUP.into()).unwrap();
        assert_eq!(receive(&frames, &mut rx, 1)[0].2, b"to us");
        frames.assert_conserved(rx.frames_held(), 0, 0);
    });
}
