//! The thread with real sockets on the loopback interface.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::*;
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
    _running: Beside,
}

impl Rig {
    fn new(more: &str) -> Self {
        let plan = plan(more);
        let shared = WorkerShared::new(plan.line_count(), 1, 2, 1);
        let (mut retainers, mut ends) = (Vec::new(), Vec::new());
        for destination in 0..2 {
            let (retainer, retained) = retention(1 << 16);
            retainers.push(retainer);
            ends.push(Ends { destination, retained, shared: Arc::clone(&shared) });
        }
        let sockets = Sockets::bind(&plan).unwrap();
        let running = Retransmission::new(&plan, sockets, ends).start().unwrap().expect("there are servers");
        Self { plan, retainers, shared, _running: running }
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
    let _taken = Sockets::bind(&plan).unwrap();
    let error = Sockets::bind(&plan).unwrap_err().to_string();
    assert!(error.starts_with("destination records: cannot listen for requests on 127.0.0.1:"), "{error}");
    assert!(error.contains("in use") && error.contains("a UDP port that nobody else uses"), "{error}");
    let mut elsewhere = plan;
    elsewhere.destinations[0].retransmission = None;
    elsewhere.destinations[1].retransmission.as_mut().unwrap().address = "192.0.2.77:18000".parse().unwrap();
    let error = Sockets::bind(&elsewhere).unwrap_err().to_string();
    assert!(error.starts_with("destination messages: cannot listen for requests on 192.0.2.77:18000"), "{error}");
    elsewhere.destinations[1].retransmission = None;
    let none = Retransmission::new(&elsewhere, Sockets::bind(&elsewhere).unwrap(), Vec::new());
    assert!(none.start().unwrap().is_none(), "nothing to serve, no thread");
}
