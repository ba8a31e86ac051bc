//! Busy polling of an AF_XDP socket, on a veth whose "interrupts" are deferred: it is the receiving thread that fetches.
#![forbid(unsafe_code)]

use std::fs;
use std::time::{Duration, Instant};

use feedhandler::config::plan::Mode;
use feedhandler::net::busy_poll::BusyPoll;
use feedhandler::net::xsk::XskRx;
use feedhandler::net::{Batch, Frames};

use super::veth::{GROUP, exchange, in_namespace, open, payload, pool, receive, steer};

/// How long the driver leaves packets lying when nobody fetches them.
const DEFERRED: Duration = Duration::from_secs(1);

/// A counter of this namespace's `TcpExt` lines in /proc/net/netstat.
fn netstat(name: &str) -> u64 {
    let table = fs::read_to_string("/proc/net/netstat").unwrap();
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let column = names.split(' ').position(|column| column == name).expect(name);
    values.split(' ').nth(column).unwrap().parse().unwrap()
}

fn defer_interrupts() {
    fs::write("/sys/class/net/fh0/gro_flush_timeout", DEFERRED.as_nanos().to_string()).unwrap();
    fs::write("/sys/class/net/fh0/napi_defer_hard_irqs", "1000").unwrap();
}

/// Sends packets one by one, each once the one before was received; the time that all took.
fn ping(frames: &Frames, port: &mut XskRx, numbers: std::ops::Range<u32>) -> Duration {
    let exchange = exchange();
    let start = Instant::now();
    for i in numbers {
        exchange.send_to(&payload(i, 100), &GROUP.into()).unwrap();
        let got = receive(frames, port, 1);
        assert_eq!(got.len(), 1, "packet {i}: {:?}", port.counts());
        assert_eq!(got[0].2, payload(i, 100));
    }
    start.elapsed()
}

#[test]
fn the_receiving_thread_drives_the_driver() {
    in_namespace("busy_poll::the_receiving_thread_drives_the_driver", || {
        let frames = pool();
        let mut steering = steer(Mode::Native);
        let mut pair = open(&frames, "fh0", true, true, Mode::Native);
        pair.set_busy_poll(BusyPoll { duration_us: 50, budget: 64, prefer: true }).unwrap();
        let mut rx = pair.rx.unwrap();
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();
        // The first packet tells the socket which NAPI is its own.
        ping(&frames, &mut rx, 0..1);
        defer_interrupts();
        ping(&frames, &mut rx, 1..2);
        let (before, kicks) = (netstat("BusyPollRxPackets"), rx.counts().kicks);
        let took = ping(&frames, &mut rx, 2..22);
        let polled = netstat("BusyPollRxPackets") - before;
        println!("20 packets in {took:?}, {polled} of them fetched by polling, {} kicks", rx.counts().kicks - kicks);
        assert!(took < DEFERRED, "the driver's timer brought them: {took:?}");
        assert_eq!(polled, 20);
        assert!(rx.counts().kicks - kicks >= 20 && rx.counts().kick_errors == 0, "{:?}", rx.counts());
        frames.assert_conserved(rx.frames_held(), 0, 0);
    });
}

#[test]
fn without_it_nothing_is_fetched_by_polling() {
    in_namespace("busy_poll::without_it_nothing_is_fetched_by_polling", || {
        let frames = pool();
        let mut steering = steer(Mode::Native);
        let mut pair = open(&frames, "fh0", true, false, Mode::Native);
        pair.set_busy_poll(BusyPoll::default()).unwrap();
        let mut rx = pair.rx.unwrap();
        rx.refill(&frames);
        steering.set_socket(0, pair.fd).unwrap();
        ping(&frames, &mut rx, 0..20);
        let kicks = rx.counts().kicks;
        let mut batch = Batch::new();
        (0..100).for_each(|_| rx.receive(&frames, &mut batch));
        assert_eq!((rx.counts().kicks, netstat("BusyPollRxPackets")), (kicks, 0), "no system call without a packet");
    });
}
