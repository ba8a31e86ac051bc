//! The thread against servers of plain sockets, and what comes out of the ring.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::beside::Thread;
use crate::config::sample::{DESTINATION, one_channel};
use crate::feed::transport::moldudp64::{self, Blocks};
use crate::feed::transport::{PacketHeader, PacketKind};
use crate::metrics::{SoupCounts, SoupState};
use crate::net::handoff::{HandoffRx, handoff};
use crate::net::{Batch, Frames};
use crate::soup::{Packet, Reject, login, packet};

const PATIENCE: Duration = Duration::from_secs(10);

fn plan(servers: &[SocketAddr], more: &str) -> Plan {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let channel = format!(
        r#"
        start = "first"
        [feed.channel.soupbintcp]
        servers = [{}]
        username = "FMUSER"
        password = "secret"
        reconnect_ms = 10
        {more}
        "#,
        servers.join(", ")
    );
    one_channel(&channel, DESTINATION)
}

/// The thread, and the worker's end of its ring.
struct Rig {
    shared: Arc<WorkerShared>,
    rx: HandoffRx,
    frames: Frames,
    line: u16,
    running: Thread<Source>,
}

impl Rig {
    fn new(plan: &Plan, datagrams: usize) -> Self {
        let (datagrams, rx) = handoff(datagrams);
        let shared = WorkerShared::new(plan.line_count(), 1, 1, 2);
        let ends = vec![Ends { worker: 0, datagrams, shared: Arc::clone(&shared) }];
        let mut running = Thread::new(Source::new(ends));
        running.run().unwrap();
        let link = prepare(plan, 0).unwrap().expect("it comes over TCP");
        running.with(|source| source.add(link)).unwrap();
        Self { shared, rx, frames: Frames::heap(256, 2048), line: plan.soup_line(0), running }
    }

    fn counts(&self) -> SoupCounts {
        self.shared.soup(0)
    }

    /// What has come: `session next` for a heartbeat, `end next`, and messages by their numbers.
    fn take(&mut self) -> Vec<String> {
        let mut batch = Batch::new();
        self.rx.receive(&self.frames, &mut batch);
        let mut words = Vec::new();
        for received in batch.drain(..) {
            assert_eq!(received.line, self.line);
            let payload = self.frames.payload(&received);
            let header = moldudp64::parse_header(payload).unwrap();
            let PacketHeader { session, sequence, count, kind } = header;
            let session = String::from_utf8_lossy(&session).trim().to_owned();
            match kind {
                PacketKind::Heartbeat => words.push(format!("{session} {sequence}")),
                PacketKind::EndOfSession => words.push(format!("end {sequence}")),
                PacketKind::Data => {
                    let blocks = (sequence..).zip(Blocks::new(payload, count));
                    words.extend(blocks.map(|(number, message)| format!("{number}={}", message.escape_ascii())));
                }
            }
            self.frames.free(received.frame);
        }
        words
    }

    /// Waits until so many words have come; heartbeats that repeat the last one do not count.
    fn wait(&mut self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut words: Vec<String> = Vec::new();
        while words.len() < count {
            assert!(Instant::now() < deadline, "{words:?} {:?}", self.counts());
            words.extend(self.take());
            std::thread::sleep(Duration::from_millis(1));
        }
        words
    }

    fn wait_for(&self, what: impl Fn(&SoupCounts) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !what(&self.counts()) {
            assert!(Instant::now() < deadline, "{:?}", self.counts());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Accepts a connection; what its login asks for.
fn accept(listener: &TcpListener) -> (TcpStream, String, u64) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 49];
    stream.read_exact(&mut bytes).unwrap();
    let (kind, payload) = packet::split(&bytes).unwrap().unwrap();
    assert_eq!((kind, &payload[..16]), (b'L', &b"FMUSERsecret    "[..]));
    let session = String::from_utf8_lossy(&payload[16..26]).trim().to_owned();
    (stream, session, packet::number_of(&payload[26..46]).unwrap())
}

fn send(stream: &mut TcpStream, packets: &[Packet<'_>]) {
    let mut bytes = Vec::new();
    packets.iter().for_each(|packet| packet.write(&mut bytes).unwrap());
    stream.write_all(&bytes).unwrap();
}

fn accepted(session: &str, next: u64) -> Packet<'static> {
    Packet::LoginAccepted { session: login::session(session).unwrap(), next }
}

#[test]
fn a_broken_stream_goes_on_at_the_other_server_with_the_next_message() {
    let ((one, first), (two, second)) = (listen(), listen());
    let mut rig = Rig::new(&plan(&[first, second], ""), 64);
    let (mut stream, session, sequence) = accept(&one);
    assert_eq!((session.as_str(), sequence), ("", 1));
    send(&mut stream, &[accepted("S1", 1), Packet::Sequenced(b"a"), Packet::Sequenced(b"b")]);
    // Half a message: it does not count as received.
    stream.write_all(b"\0\x05Scd").unwrap();
    drop(stream);
    let (mut stream, session, sequence) = accept(&two);
    assert_eq!((session.as_str(), sequence), ("S1", 3));
    send(&mut stream, &[accepted("S1", 3), Packet::Sequenced(b"cdef"), Packet::ServerHeartbeat]);
    assert_eq!(rig.wait(6), ["S1 1", "1=a", "2=b", "S1 3", "3=cdef", "S1 4"]);
    send(&mut stream, &[Packet::EndOfSession]);
    assert_eq!(rig.wait(1), ["end 4"]);
    // Who has ended logs out, and asks for the next session.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"\0\x01O"), "{rest:?}");
    let (mut stream, session, sequence) = accept(&one);
    assert_eq!((session.as_str(), sequence), ("", 1));
    assert_eq!(rig.counts().state, SoupState::Ended as u64);
    send(&mut stream, &[Packet::LoginRejected(Reject::NoSession)]);
    let (mut stream, ..) = accept(&two);
    send(&mut stream, &[accepted("S1", 4)]);
    let (mut stream, ..) = accept(&one);
    send(&mut stream, &[accepted("S2", 1), Packet::Sequenced(b"z")]);
    assert_eq!(rig.wait(2), ["S2 1", "1=z"]);
    rig.wait_for(|counts| counts.messages == 4);
    let counts = rig.counts();
    assert_eq!((counts.logins, counts.rejects, counts.old_sessions, counts.disconnects), (3, 1, 1, 1), "{counts:?}");
    rig.running.end();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"\0\x01O"), "the handler says goodbye when it stops: {rest:?}");
}

#[test]
fn who_is_not_authorised_stops_for_good() {
    let (one, first) = listen();
    let rig = Rig::new(&plan(&[first], ""), 64);
    let (mut stream, ..) = accept(&one);
    send(&mut stream, &[Packet::LoginRejected(Reject::NotAuthorised)]);
    rig.wait_for(|counts| counts.state == SoupState::Stopped as u64 && counts.rejects == 1);
    one.set_nonblocking(true).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(one.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "ten times the pause, and nobody came");
}

#[test]
fn servers_that_are_silent_or_wrong_or_not_there_are_left_for_the_next() {
    // The port was free a moment ago.
    let nobody = listen().1;
    let ((mute, first), (wrong, second)) = (listen(), listen());
    let plan = plan(&[nobody, first, second], "idle_ms = 150\nheartbeat_ms = 50");
    let mut rig = Rig::new(&plan, 64);
    let (_kept, ..) = accept(&mute);
    let (mut stream, ..) = accept(&wrong);
    send(&mut stream, &[accepted("S1", 1), Packet::Sequenced(b"a")]);
    stream.write_all(&[0, 0]).unwrap();
    assert_eq!(rig.wait(2), ["S1 1", "1=a"]);
    // Once more around: nobody, and then half a message and nothing more.
    let (mut stream, session, sequence) = accept(&mute);
    assert_eq!((session.as_str(), sequence), ("S1", 2));
    send(&mut stream, &[accepted("S1", 2)]);
    stream.write_all(b"\0\x09Shalf").unwrap();
    let (_kept, session, sequence) = accept(&wrong);
    assert_eq!((session.as_str(), sequence), ("S1", 2));
    assert_eq!(rig.wait(1), ["S1 2"]);
    rig.wait_for(|counts| counts.protocol_errors >= 3);
    assert!(rig.counts().connect_errors >= 2, "{:?}", rig.counts());
}

#[test]
fn a_worker_that_takes_nothing_stops_the_server_and_loses_nothing() {
    const MESSAGES: u64 = 200_000;
    let (one, first) = listen();
    let mut rig = Rig::new(&plan(&[first], "idle_ms = 500\nheartbeat_ms = 50"), 4);
    let (mut stream, ..) = accept(&one);
    let writer = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        accepted("S1", 1).write(&mut bytes).unwrap();
        for number in 1..=MESSAGES {
            Packet::Sequenced(format!("message {number:>40}").as_bytes()).write(&mut bytes).unwrap();
        }
        stream.write_all(&bytes).unwrap();
        stream
    });
    // Longer than idle_ms: that we do not read is not the server's silence.
    std::thread::sleep(Duration::from_millis(800));
    assert!(!writer.is_finished(), "TCP did not hold the server back");
    let counts = rig.counts();
    assert!(counts.full > 0 && counts.messages < MESSAGES && counts.protocol_errors == 0, "{counts:?}");
    let mut next = 1;
    let deadline = Instant::now() + PATIENCE;
    while next <= MESSAGES {
        assert!(Instant::now() < deadline, "{next} {:?}", rig.counts());
        for word in rig.take().iter().filter(|word| word.contains('=')) {
            assert_eq!(*word, format!("{next}=message {next:>40}"));
            next += 1;
        }
    }
    drop(writer.join().unwrap());
}

#[test]
fn what_a_login_or_a_long_message_leaves_out_is_told_and_given_up_before_what_follows() {
    let (one, first) = listen();
    let mut rig = Rig::new(&plan(&[first], ""), 64);
    let (mut stream, ..) = accept(&one);
    let (asked, long) = (Instant::now(), [b'x'; packer::MESSAGE_BYTES + 1]);
    let packets = [accepted("S1", 5), Packet::Sequenced(b"a"), Packet::Sequenced(&long), Packet::Sequenced(b"b")];
    send(&mut stream, &packets);
    assert_eq!(rig.wait(1), ["S1 5"]);
    assert_eq!(rig.wait(2), ["5=a", "S1 7"]);
    // give_up_ms is 50.
    assert!(asked.elapsed() >= Duration::from_millis(60), "what follows waited until the gap was given up");
    assert_eq!(rig.wait(1), ["7=b"]);
    assert!(asked.elapsed() >= Duration::from_millis(120));
    rig.wait_for(|counts| counts.messages == 3);
    assert_eq!((rig.counts().gaps, rig.counts().oversized), (1, 1));
}

#[test]
fn a_password_comes_from_its_file_and_is_in_no_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let (one, first) = listen();
    let mut plan = plan(&[first], "");
    plan.channels[0].soup.as_mut().unwrap().password = Password::File(path.clone());
    let error = prepare(&plan, 0).unwrap_err().to_string();
    assert!(
        error.starts_with("channel itch/equities: cannot read the password from ") && error.contains("No such file")
    );
    std::fs::write(&path, "much too long for it\n").unwrap();
    let error = prepare(&plan, 0).unwrap_err().to_string();
    assert!(error.contains("at most 10") && !error.contains("much"), "{error}");
    std::fs::write(&path, "secret\n").unwrap();
    let running = Rig::new(&plan, 8);
    accept(&one);
    drop(running);
    assert!(!format!("{plan:?}").contains("secret"));
}
