//! The thread with real sockets on the loopback interface.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::*;
use crate::beside::Thread;
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

/// The thread with the plan's channel.
fn running(plan: &Plan, ends: Ends) -> Thread<Recovery> {
    let mut thread = Thread::new(Recovery::new(vec![ends]));
    let channel = prepare(plan, 0).unwrap().expect("there are servers");
    thread.with(|recovery| recovery.add(channel, monotonic_ns())).unwrap();
    thread.run().unwrap();
    thread
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
    let running = running(&plan, ends);
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
    let error = prepare(&plan, 0).unwrap_err().to_string();
    let start = "channel itch/equities: cannot send requests from 192.0.2.77: ";
    assert!(error.starts_with(start) && error.contains("recovery.source must be an address of this host"), "{error}");
}

/// A plan of two channels with these recovery tables.
fn two_channels(first: &str, second: &str) -> Plan {
    let second = format!(
        "[[feed.channel]]\nname = \"second\"\n[feed.channel.recovery]\n{second}\n\
         [[feed.channel.line]]\nname = \"A\"\ninterface = \"lo\"\ngroup = \"239.255.1.3:26400\"\n{DESTINATION}"
    );
    let first = format!("give_up_ms = 60000\n[feed.channel.recovery]\n{first}\n{LINE}");
    one_channel(&first, &second)
}

fn server() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let keys = format!("servers = [\"{}\"]\nsource = \"127.0.0.1\"", socket.local_addr().unwrap());
    (socket, keys)
}

/// The first message and the number of messages of the next request, and who asks.
fn request(server: &UdpSocket) -> Option<(u64, u16, SocketAddr)> {
    let mut request = [0; 64];
    let (len, client) = server.recv_from(&mut request).ok()?;
    assert_eq!(len, 20);
    let sequence = u64::from_be_bytes(request[10..18].try_into().unwrap());
    Some((sequence, u16::from_be_bytes([request[18], request[19]]), client))
}

#[test]
fn channels_come_and_go_while_another_recovers_and_it_loses_nothing() {
    const MESSAGES: u64 = 30_000;
    let ((busy, first), (idle, second)) = (server(), server());
    let first = format!("{first}\nrequests_per_second = 100000\noutstanding_requests = 64\nrequest_timeout_ms = 20");
    let plan = two_channels(&first, &second);
    let (answers, mut rx) = handoff(64);
    let (mut wants, wanted) = rtrb::RingBuffer::new(8);
    let shared = WorkerShared::new(plan.line_count(), 2, 1, 2);
    let ends = Ends { worker: 0, wanted, answers, shared: Arc::clone(&shared) };
    let mut running = running(&plan, ends);
    let serving = std::thread::spawn(move || {
        while let Some((sequence, count, client)) = request(&busy) {
            let mut packet = vec![0; 20 + 2 * usize::from(count)];
            moldudp64::write_header(packet.first_chunk_mut().unwrap(), &SESSION, sequence, count);
            busy.send_to(&packet, client).unwrap();
        }
    });
    let mut missing = GapSet::default();
    missing.insert(1..MESSAGES + 1);
    let (frames, mut batch) = (Frames::heap(256, 2048), Batch::new());
    let (mut told, mut turns) = (MESSAGES + 1, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Some(hole) = missing.first() {
        assert!(Instant::now() < deadline, "{hole:?} {:?}", shared.recovery(0));
        if told != missing.count() {
            let holes = Holes::from_iter([(hole.start, hole.end)]);
            if wants.push(Wanted { channel: 0, session: SESSION, holes }).is_ok() {
                told = missing.count();
            }
        }
        rx.receive(&frames, &mut batch);
        for received in batch.drain(..) {
            assert_eq!(received.line, plan.recovery_line(0));
            let header = moldudp64::parse_header(frames.payload(&received)).unwrap();
            missing.remove(&(header.sequence..header.end()));
            frames.free(received.frame);
        }
        let channel = prepare(&plan, 1).unwrap().unwrap();
        running.with(|recovery| recovery.add(channel, monotonic_ns())).unwrap();
        let handed = running.with(|recovery| recovery.remove(1, monotonic_ns())).unwrap();
        assert_eq!(handed.map(|handed| handed.worker), Some(0));
        turns += 1;
    }
    assert!(turns > 2, "{turns} times while it was busy");
    assert_eq!(shared.recovery(0).recovered_messages, MESSAGES);
    assert!(request(&idle).is_none(), "nobody misses anything there");
    running.end();
    serving.join().unwrap();
}

#[test]
fn who_goes_closes_its_sockets_and_leaves_nothing_to_who_takes_its_number() {
    let (asked, keys) = server();
    let plan = plan(&keys);
    let (ends, mut wants, _rx) = ends(&plan);
    let shared = Arc::clone(&ends.shared);
    let mut running = running(&plan, ends);
    let miss = |from| Wanted { channel: 0, session: SESSION, holes: Holes::from_iter([(from, from + 2)]) };
    wants.push(miss(7)).unwrap();
    let (_, _, client) = request(&asked).expect("it is asked");
    // The newest that it missed is not taken yet when it goes.
    wants.push(miss(9)).unwrap();
    let handed = running.with(|recovery| recovery.remove(0, monotonic_ns())).unwrap();
    assert_eq!(handed, Some(Handed { worker: 0, datagrams: 0 }));
    assert_eq!(shared.recovery(0), RecoveryCounts::default());
    // The kernel says that nobody listens there any more.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(client).unwrap();
    stranger.send(b"?").unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(stranger.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    // Nor does one that had nobody to ask, but a worker that told what it missed all the same.
    wants.push(miss(11)).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(running.with(|recovery| recovery.remove(0, monotonic_ns())).unwrap(), None);
    let (asked, keys) = server();
    let plan = self::plan(&keys);
    let channel = prepare(&plan, 0).unwrap().unwrap();
    running.with(|recovery| recovery.add(channel, monotonic_ns())).unwrap();
    assert_eq!(request(&asked), None, "what its predecessor missed");
    // What it misses itself is asked for, also if the worker was faster to say so than it was to come.
    running.with(|recovery| recovery.remove(0, monotonic_ns())).unwrap();
    wants.push(miss(20)).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let channel = prepare(&plan, 0).unwrap().unwrap();
    running.with(|recovery| recovery.add(channel, monotonic_ns())).unwrap();
    assert_eq!(request(&asked).map(|(sequence, count, _)| (sequence, count)), Some((20, 2)));
}

#[test]
fn who_will_not_wait_is_not_kept_by_a_server_that_is_silent() {
    let ((silent, first), (other, _)) = (server(), server());
    let servers = format!("\", \"{}\"]", other.local_addr().unwrap());
    let first = format!("{}\nrequest_timeout_ms = 9999", first.replacen("\"]", &servers, 1));
    let plan = two_channels(&first, &server().1);
    let (ends, mut wants, _rx) = ends(&plan);
    let mut running = running(&plan, ends);
    assert_eq!(running.with(|recovery| recovery.hurry(0, monotonic_ns())).unwrap(), Some(0), "nothing is missing");
    assert_eq!(running.with(|recovery| recovery.hurry(1, monotonic_ns())).unwrap(), None, "it is not here");
    wants.push(Wanted { channel: 0, session: SESSION, holes: Holes::from_iter([(7, 9), (20, 21)]) }).unwrap();
    let ask = |server| request(server).map(|(sequence, count, _)| (sequence, count));
    assert_eq!([ask(&silent), ask(&silent), ask(&other)], [Some((7, 2)), Some((20, 1)), None]);
    assert_eq!(running.with(|recovery| recovery.hurry(0, monotonic_ns())).unwrap(), Some(3));
    assert_eq!([ask(&other), ask(&other), ask(&silent)], [Some((7, 2)), Some((20, 1)), None]);
}
