//! The thread with real sockets on the loopback interface.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::*;
use crate::config::sample::{DESTINATION, LINE, one_channel};
use crate::feed::Holes;
use crate::net::handoff::handoff;
use crate::net::{Batch, Frames};

const SESSION: [u8; 10] = *b"SESSION001";

fn plan(recovery: &str) -> Plan {
    one_channel(&format!("[feed.channel.recovery]\n{recovery}\n{LINE}"), DESTINATION)
}

/// Both ends of what connects the thread with a worker.
fn ends(plan: &Plan) -> (Ends, rtrb::Producer<Wanted>, crate::net::handoff::HandoffRx) {
    let (answers, rx) = handoff(8);
    let (wants, wanted) = rtrb::RingBuffer::new(8);
    let shared = WorkerShared::new(plan.line_count(), 1, 1, 2);
    (Ends { worker: 0, wanted, answers, shared }, wants, rx)
}

#[test]
fn a_server_that_is_not_there_is_left_for_one_that_answers() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Its port was free a moment ago, and nobody listens on it now: the kernel says so by ICMP.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // A timeout so long that only the refusal can be the reason to ask the other one.
    let plan = plan(&format!(
        "servers = [\"{nobody}\", \"{}\"]\nsource = \"127.0.0.1\"\nrequest_timeout_ms = 49",
        server.local_addr().unwrap()
    ));
    let (ends, mut wants, mut rx) = ends(&plan);
    let shared = Arc::clone(&ends.shared);
    let running = Recovery::new(&plan, vec![ends]).unwrap().start().unwrap().expect("there are servers");
    let holes = Holes::from_iter([(7, 9)]);
    wants.push(Wanted { channel: 0, session: SESSION, holes }).unwrap();

    let mut request = [0; 64];
    let (len, client) = server.recv_from(&mut request).expect("the second server is asked");
    assert_eq!(request[..len], *b"SESSION001\0\0\0\0\0\0\0\x07\0\x02");
    // From somewhere else: the kernel keeps it from the connected socket.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"SESSION001\0\0\0\0\0\0\0\x07\0\x01\0\x01?", client).unwrap();
    server.send_to(b"SESSION001\0\0\0\0\0\0\0\x07\0\x02\0\x01x\0\0", client).unwrap();

    let frames = Frames::heap(64, 2048);
    let mut batch = Batch::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while batch.is_empty() {
        assert!(Instant::now() < deadline, "no answer came through: {:?}", shared.recovery(0));
        rx.receive(&frames, &mut batch);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((batch.len(), batch[0].line), (1, plan.recovery_line(0)));
    assert_eq!(frames.payload(&batch[0])[20..], *b"\0\x01x\0\0");
    batch.drain(..).for_each(|received| frames.free(received.frame));
    wants.push(Wanted { channel: 0, session: SESSION, holes: Holes::new() }).unwrap();
    drop(running);
    let counts = shared.recovery(0);
    assert!(counts.failovers >= 1 && counts.send_errors >= 1 && counts.requests >= 2, "{counts:?}");
    assert_eq!((counts.recovered_messages, counts.rejected_unasked), (2, 0), "{counts:?}");
}

#[test]
fn a_source_address_of_another_host_is_named() {
    let plan = plan("servers = [\"127.0.0.1:9\"]\nsource = \"192.0.2.77\"");
    let error = Recovery::new(&plan, vec![ends(&plan).0]).unwrap_err().to_string();
    let start = "channel itch/equities: cannot send requests from 192.0.2.77: ";
    assert!(error.starts_with(start) && error.contains("recovery.source must be an address of this host"), "{error}");
}
