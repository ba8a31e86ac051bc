//! Several queues and several workers: the real handler on a veth pair with six queues, where an AF_XDP sender chooses the
//! queue that each packet comes in on. And what a host cannot do is refused at start, with the remedy.
#![forbid(unsafe_code)]

mod rig;

use std::time::Duration;

use crate::turn::turn;
use rig::{CHANNELS, PER_PACKET, Rig, SPARE_QUEUE};

/// Packets per channel; each burst fits the queues of a veth pair.
const PACKETS: u64 = 600;
const BURST: u64 = 12;

/// Every channel on its own queue: each arrives once, in order and unchanged, and the counters of every queue add up.
fn deliver(mode: &str, workers: usize) {
    let _turn = turn();
    let rig = Rig::new();
    let running = rig.start(&rig.config(mode, workers));
    let mut receivers = rig.receivers();
    rig.exchange(mode, |exchange| {
        for start in (0..PACKETS).step_by(BURST as usize) {
            for channel in 0..CHANNELS {
                for number in start..start + BURST {
                    exchange.send(channel as u32, channel, number);
                }
            }
            exchange.flush();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    for (channel, receiver) in receivers.iter_mut().enumerate() {
        receiver.expect(channel, 0..PACKETS * PER_PACKET);
    }
    let status = running.status();
    println!("{mode}, {workers} workers: {}", status.summary());
    let sent: u64 = status.ports("tx").iter().map(|port| port.frames).sum();
    let heard: u64 = receivers.iter().map(|receiver| receiver.packets).sum();
    assert!(sent >= heard && heard > 0, "{sent} sent, {heard} heard");
    assert_eq!(status.ports("tx").len(), workers, "an output queue for each");
    let rx = status.ports("rx");
    assert_eq!(rx.iter().map(|port| port.queue).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for port in &rx {
        assert_eq!((port.frames, port.kernel_drops), (PACKETS, 0), "queue {}", port.queue);
        assert_eq!(port.worker, format!("w{}", port.queue as usize * workers / CHANNELS));
    }
    assert_eq!(status.verdict("fh-in", "redirected"), PACKETS * CHANNELS as u64);
    assert_eq!((status.verdict("fh-in", "pass_no_socket"), status.unmatched("unknown_group")), (0, 0));

    // The same channel on another queue. Of another worker: refused there, and counted.
    let mut next = PACKETS;
    let misled = |queue: u32| {
        rig.exchange(mode, |exchange| {
            exchange.send(queue, 0, next);
            exchange.flush();
        });
        std::thread::sleep(Duration::from_millis(300));
        running.status()
    };
    if workers > 1 {
        let status = misled(3);
        assert_eq!(status.unmatched("unknown_group"), 1, "{}", status.summary());
    }
    // Of nobody: the kernel's.
    assert_eq!(misled(SPARE_QUEUE).verdict("fh-in", "pass_no_socket"), 1);
    receivers[0].expect(0, 0..0);
    // Of its own worker: taken, once, wherever it comes in first.
    misled(1);
    let status = misled(0);
    assert_eq!(status.line_duplicates(0), 1, "{}", status.summary());
    receivers[0].expect(0, next * PER_PACKET..(next + 1) * PER_PACKET);
    next += 1;
    rig.exchange(mode, |exchange| {
        exchange.send(0, 0, next);
        exchange.flush();
    });
    receivers[0].expect(0, next * PER_PACKET..(next + 1) * PER_PACKET);
}

#[test]
fn two_workers_with_two_queues_each_deliver_natively() {
    deliver("native", 2);
}

#[test]
fn two_workers_with_two_queues_each_deliver_in_skb_mode() {
    deliver("skb", 2);
}

#[test]
fn one_worker_with_four_queues_delivers() {
    deliver("native", 1);
}

/// Kernel sockets know no queues: two workers share both interfaces, and each channel is still one worker's.
#[test]
fn two_workers_over_kernel_sockets_deliver() {
    let _turn = turn();
    let rig = Rig::new();
    let config = rig.config("socket", 2);
    let config: String =
        config.lines().filter(|line| !line.starts_with("queue = ")).map(|line| format!("{line}\n")).collect();
    let running = rig.start(&config);
    let mut receivers = rig.receivers();
    rig.exchange("socket", |exchange| {
        for number in 0..PACKETS {
            (0..CHANNELS).for_each(|channel| exchange.send(channel as u32, channel, number));
            if number % BURST == BURST - 1 {
                exchange.flush();
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
    for (channel, receiver) in receivers.iter_mut().enumerate() {
        receiver.expect(channel, 0..PACKETS * PER_PACKET);
    }
    let status = running.status();
    println!("socket, 2 workers: {}", status.summary());
    let rx: Vec<(String, u64, u64)> =
        status.ports("rx").into_iter().map(|port| (port.worker, port.frames, port.kernel_drops)).collect();
    assert_eq!(rx, [("w0".to_owned(), 2 * PACKETS, 0), ("w1".to_owned(), 2 * PACKETS, 0)]);
    assert_eq!((status.unmatched("unknown_group"), status.ports("tx").len()), (0, 2));
}

#[test]
fn what_the_host_cannot_do_is_refused_with_the_remedy() {
    let rig = Rig::new();
    let config = rig.config("native", 2);
    let refused = |config: &str, parts: &[&str]| {
        let complaint = rig.refusal(config);
        println!("{complaint}");
        for part in parts {
            assert!(complaint.contains(part), "`{part}` in: {complaint}");
        }
        let links = rig.handler.ip(&["link", "show"]).expect("ip link");
        assert!(!links.contains("xdp"), "left attached: {links}");
    };
    let queue = |from: &str, to: &str| config.replacen(from, to, 1);
    refused(
        &queue("interface = \"fh-in\"\nqueue = 3", "interface = \"fh-in\"\nqueue = 7"),
        &["`fh-in`", "receive queue 7 is not active, 6 are (0 to 5)", "`ethtool -L fh-in combined 8`"],
    );
    refused(
        &queue("interface = \"fh-out\"\nqueue = 1", "interface = \"fh-out\"\nqueue = 9"),
        &["`fh-out`", "transmit queue 9 is not active, 6 are"],
    );
    refused(
        &queue("interface = \"fh-in\"\nqueue = 3", "interface = \"fh-in\"\nqueue = 0"),
        &["queue 0 of interface `fh-in` would have two owners: worker `w0`", "worker `w1`", "as many workers as"],
    );
    rig.handler.ip(&["link", "set", "fh-in", "mtu", "9899"]).expect("ip link");
    refused(&config, &["`fh-in`", "MTU 9899", "up to 9898 (over several frames)", "mtu 9898", "\"socket\""]);
    rig.handler.ip(&["link", "set", "fh-in", "mtu", "9898"]).expect("ip link");
    drop(rig.start(&config));
    drop(rig.start(&config.replace("frame_bytes = 2048", "frame_bytes = 4096")));
    rig.handler.ip(&["link", "set", "fh-in", "mtu", "1500"]).expect("ip link");
    rig.handler.ip(&["link", "set", "fh-out", "mtu", "1400"]).expect("ip link");
    refused(&config, &["destination `out0`", "payload_bytes = 1472", "MTU 1400", "payload_bytes = 1372 or less"]);
    drop(rig.start(&config.replace("ttl = 1", "ttl = 1\npayload_bytes = 1372")));
}
