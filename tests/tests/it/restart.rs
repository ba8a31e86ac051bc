//! `kill -9` and a new start, with traffic running.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use feedhandler_testkit::consumer::Receiver;
use feedhandler_testkit::mold::{self, Packet};

use crate::site::Site;
use crate::turn::turn;

const MESSAGE: &[u8; 12] = b"S\0\0\0\0\0\0\0\0\0\x01O";

/// Messages that have to come out, in order, before the kill and after the start.
const MESSAGES: usize = 200;

/// Takes message numbers as they come out until there are so many; ends the test when nothing comes.
fn sequences(consumer: &mut Receiver, after: u64) -> Vec<u64> {
    let mut all = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while all.len() < MESSAGES {
        assert!(Instant::now() < deadline, "the stream does not go on: {} messages after {after}", all.len());
        let Some((payload, _)) = consumer.receive().expect("a socket") else { continue };
        let view = mold::parse(payload).expect("MoldUDP64");
        all.extend((view.sequence..).zip(&view.blocks).map(|(sequence, _)| sequence).filter(|one| *one > after));
    }
    all
}

fn assert_gapless(sequences: &[u64]) {
    let jump = sequences.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert!(jump.is_none(), "not in order: {jump:?}");
}

fn killed_and_started_again(mode: &str) {
    let _turn = turn();
    let site = Site::new();
    let group = "239.20.0.1:30001".parse().expect("a group");
    let consumer = site.far.enter(|| Receiver::join(group, Ipv4Addr::new(10, 9, 2, 2)));
    let mut consumer = consumer.expect("inside").expect("a socket");
    let (sender, stop) = (site.sender(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stop = scopeguard(&stop);
        scope.spawn(|| {
            for sequence in 1.. {
                if stop.load(Relaxed) {
                    break;
                }
                let mut packet = Packet::new(b"0000000001", sequence);
                packet.push(MESSAGE);
                let _ = sender.send(&packet.into_payload());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut first = site.start_in("killed", mode);
        let before = sequences(&mut consumer, 0);
        assert_gapless(&before);
        first.child.kill().expect("SIGKILL");
        // At once: what the dead process still has is waited for by the new one.
        let again = site.start_in("killed", mode);
        first.child.wait().expect("gone");
        // What the first one had still sent lies in the consumer's buffer.
        let newest = drain(&mut consumer).max(before.last().copied().unwrap_or(0));
        let after = sequences(&mut consumer, newest);
        assert_gapless(&after);
        let status = again.feedctl(&["--output", "json", "status"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
        assert_eq!(status["ready"], true, "{status}");
        assert_eq!(site.attached(), mode != "socket");
    });
}

/// Ends the sender also when the test fails.
fn scopeguard(stop: &AtomicBool) -> impl Drop + '_ {
    struct Guard<'a>(&'a AtomicBool);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    Guard(stop)
}

/// Takes what is there; the newest message number of it.
fn drain(consumer: &mut Receiver) -> u64 {
    let mut newest = 0;
    let end = Instant::now() + Duration::from_millis(50);
    while Instant::now() < end {
        if let Some((payload, _)) = consumer.receive().expect("a socket") {
            let view = mold::parse(payload).expect("MoldUDP64");
            newest = newest.max(view.sequence + view.blocks.len() as u64).saturating_sub(1);
        }
    }
    newest
}

#[test]
fn a_killed_handler_goes_on_after_its_start_natively() {
    killed_and_started_again("native");
}

#[test]
fn a_killed_handler_goes_on_after_its_start_in_skb_mode() {
    killed_and_started_again("skb");
}

#[test]
fn a_killed_handler_goes_on_after_its_start_with_kernel_sockets() {
    killed_and_started_again("socket");
}
