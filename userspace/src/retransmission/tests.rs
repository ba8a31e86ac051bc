//! The thread with real sockets on the loopback interface.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::*;
use crate::beside::Thread;
use crate::config::sample::{LINE, one_channel};
use crate::feed::transport::moldudp64::write_header;
use crate::metrics::RetransmissionCounts;
use crate::publish::Retainer;

const SESSION: [u8; 10] = *b"SESSION001";

/// A port that was free a moment ago.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One channel to two destinations, each with a server, with this in the table of the first.
fn plan(more: &str) -> Plan {
    let destinations = format!(
        r#"
        [[destination]]
        name = "records"
        channel = "itch/equities"
        interface = "lo"
        group = "239.255.1.1:30001"
        [destination.retransmission]
        address = "127.0.0.1:{}"
        {more}
        [[destination]]
        name = "messages"
        channel = "itch/equities"
        interface = "lo"
        group = "239.255.1.1:30002"
        format = "raw"
        [destination.retransmission]
        address = "127.0.0.1:{}"
        "#,
        free_port(),
        free_port()
    );
    one_channel(LINE, &destinations)
}

/// The servers as they run, and what feeds them.
struct Rig {
    plan: Plan,
    retainers: Vec<Retainer>,
    shared: Arc<WorkerShared>,
    running: Thread<Retransmission>,
}

impl Rig {
    fn new(more: &str) -> Self {
        let plan = plan(more);
        let shared = WorkerShared::new(plan.line_count(), 1, 2, 1);
        let mut running = Thread::new(Retransmission::new(vec![Arc::clone(&shared)]));
        let mut retainers = Vec::new();
        for destination in 0..2 {
            let (server, retainer) = prepare(&plan, destination, None).unwrap().expect("it has a server");
            running.with(|retransmission| retransmission.add(server)).unwrap();
            retainers.push(retainer);
        }
        running.run().unwrap();
        Self { plan, retainers, shared, running }
    }

    /// A client of a destination's server.
    fn client(&self, destination: usize) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.plan.destinations[destination].retransmission.as_ref().unwrap().address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    fn wait_for(&self, destination: usize, is_so: impl Fn(&RetransmissionCounts) -> bool) -> RetransmissionCounts {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let counts = self.shared.retransmission(destination);
            if is_so(&counts) {
                return counts;
            }
            assert!(Instant::now() < deadline, "{counts:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn packet(sequence: u64, count: u16, blocks: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES];
    write_header(&mut header, &SESSION, sequence, count);
    [&header[..], blocks].concat()
}

#[test]
fn each_destination_answers_for_itself() {
    let mut rig = Rig::new("");
    assert!(
        rig.retainers[0].retain(&[&packet(1, 2, b"\0\x01a\0\x01b")])
            && rig.retainers[1].retain(&[&packet(1, 1, b"\0\0")])
    );
    let (records, messages) = (rig.client(0), rig.client(1));
    let mut buffer = [0; 2048];
    let mut ask = |socket: &UdpSocket, request: &[u8]| {
        socket.send(request).unwrap();
        let length = socket.recv(&mut buffer).expect("an answer");
        buffer[..length].to_vec()
    };
    assert_eq!(ask(&records, &packet(2, 5, b"")), packet(2, 1, b"\0\x01b"));
    assert_eq!(ask(&messages, &packet(1, 5, b"")), packet(1, 1, b"\0\0"));
    // Neither garbage nor what is not there is answered: what comes next is the answer to the request behind them.
    for garbage in [&b""[..], b"?", &[0xFF; 20], &[0xFF; 1400], &packet(3, 1, b""), &packet(1, 0, b"")] {
        records.send(garbage).unwrap();
    }
    assert_eq!(ask(&records, &packet(1, 1, b"")), packet(1, 1, b"\0\x01a"));
    let counts = rig.wait_for(0, |counts| counts.answers == 2 && counts.requests == 8);
    assert_eq!((counts.refused_malformed, counts.refused_count, counts.refused_ahead), (3, 2, 1), "{counts:?}");
    assert_eq!(rig.shared.retransmission(1).answers, 1);
}

#[test]
fn a_flood_is_bounded_and_the_store_goes_on() {
    let mut rig = Rig::new("requests_per_second = 1000\nclient_requests_per_second = 500");
    assert!(rig.retainers[0].retain(&[&packet(1, 1, b"\0\x01a")]));
    let client = rig.client(0);
    let started = Instant::now();
    let mut next = 2;
    while started.elapsed() < Duration::from_millis(500) {
        for _ in 0..100 {
            // The socket's buffer may be full: that is the kernel's drop, not ours.
            let _ = client.send(&packet(1, 1, b""));
        }
        assert!(rig.retainers[0].retain(&[&packet(next, 1, b"\0\x01b")]), "the ring is emptied meanwhile");
        next += 1;
    }
    let counts = rig.wait_for(0, |counts| counts.next_sequence == next);
    let allowed = 50 + 1 + started.elapsed().as_millis() as u64 / 2;
    assert!((50..=allowed).contains(&counts.answers), "{counts:?}, {allowed} allowed");
    assert!(counts.refused_client_overload > 1_000 && counts.refused_overload == 0, "{counts:?}");
    assert_eq!(counts.requests, counts.answers + counts.send_errors + counts.refused_client_overload, "{counts:?}");
}

#[test]
fn a_taken_port_and_an_address_of_another_host_are_named() {
    let plan = plan("");
    let _taken = prepare(&plan, 0, None).unwrap();
    let error = prepare(&plan, 0, None).unwrap_err().to_string();
    assert!(error.starts_with("destination records: cannot listen for requests on 127.0.0.1:"), "{error}");
    assert!(error.contains("in use") && error.contains("a UDP port that nobody else uses"), "{error}");
    let mut elsewhere = plan;
    elsewhere.destinations[0].retransmission = None;
    elsewhere.destinations[1].retransmission.as_mut().unwrap().address = "192.0.2.77:18000".parse().unwrap();
    let error = prepare(&elsewhere, 1, None).unwrap_err().to_string();
    assert!(error.starts_with("destination messages: cannot listen for requests on 192.0.2.77:18000"), "{error}");
    assert!(prepare(&elsewhere, 0, None).unwrap().is_none(), "nothing to serve");
}

#[test]
fn who_goes_frees_its_address_and_its_number_and_the_others_go_on() {
    let mut rig = Rig::new("");
    for retainer in &mut rig.retainers {
        assert!(retainer.retain(&[&packet(1, 1, b"\0\x01a")]));
    }
    let (gone, other) = (rig.client(0), rig.client(1));
    let mut buffer = [0; 64];
    for client in [&gone, &other] {
        client.send(&packet(1, 1, b"")).unwrap();
        client.recv(&mut buffer).expect("an answer");
    }
    rig.wait_for(0, |counts| counts.answers == 1);
    rig.running.with(|retransmission| retransmission.remove(0)).unwrap();
    assert_eq!(rig.shared.retransmission(0), RetransmissionCounts::default(), "who takes its number begins at zero");
    assert!(!rig.retainers[0].retain(&[&[0; 1 << 16]]), "no ring has room for this");
    // The kernel says that nobody listens there any more.
    gone.send(&packet(1, 1, b"")).unwrap();
    assert_eq!(gone.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    other.send(&packet(1, 1, b"")).unwrap();
    other.recv(&mut buffer).expect("the other one still answers");

    let (server, mut retainer) = prepare(&rig.plan, 0, None).expect("the address is free").unwrap();
    rig.running.with(|retransmission| retransmission.add(server)).unwrap();
    gone.send(&packet(1, 1, b"")).unwrap();
    rig.wait_for(0, |counts| counts.requests == 1 && counts.answers == 0);
    assert!(retainer.retain(&[&packet(7, 1, b"\0\x01b")]));
    rig.wait_for(0, |counts| counts.next_sequence == 8);
    gone.send(&packet(7, 1, b"")).unwrap();
    let length = gone.recv(&mut buffer).expect("an answer of its own");
    assert_eq!(buffer[..length], packet(7, 1, b"\0\x01b"));
}

#[test]
fn who_takes_the_place_of_another_takes_its_address_without_a_pause() {
    let mut rig = Rig::new("");
    let address = rig.plan.destinations[0].retransmission.as_ref().unwrap().address;
    let socket = rig.running.with(move |retransmission| retransmission.socket(address)).unwrap();
    let (server, mut retainer) = prepare(&rig.plan, 0, socket).expect("the address is its own").unwrap();
    assert!(retainer.retain(&[&packet(1, 1, b"\0\x01b")]));
    let client = rig.client(0);
    rig.running.with(|retransmission| retransmission.remove(0)).unwrap();
    client.send(&packet(1, 1, b"")).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    rig.running.with(|retransmission| retransmission.add(server)).unwrap();
    let mut buffer = [0; 64];
    let length = client.recv(&mut buffer).expect("a request of the time between waits in the socket");
    assert_eq!(buffer[..length], packet(1, 1, b"\0\x01b"));
}
