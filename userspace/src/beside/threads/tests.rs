//! Channels and destinations that come and go, with real threads and sockets on the loopback interface.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use super::*;
use crate::config::sample::{DESTINATION, LINE, one_channel};
use crate::feed::{Holes, JoinState};
use crate::metrics::{ChannelCounts, SnapshotCounts, SoupCounts};
use crate::net::handoff::{HandoffRx, handoff};
use crate::net::{Batch, Frames};
use crate::soup::{Packet, login};
use crate::worker::shared::Wanted;

const SESSION: [u8; 10] = *b"SESSION001";
const PATIENCE: Duration = Duration::from_secs(10);

/// The threads of a plan with one worker, and that worker's side of them.
struct Rig {
    threads: Arc<Threads>,
    shared: Arc<WorkerShared>,
    wants: rtrb::Producer<Wanted>,
    packets: HandoffRx,
    datagrams: HandoffRx,
}

impl Rig {
    fn new(plan: &Plan) -> Self {
        let shared = WorkerShared::new(plan.line_count(), plan.channels.len(), plan.destinations.len(), 4);
        let (wants, wanted) = rtrb::RingBuffer::new(8);
        let ((answers, _), (packets, packets_rx), (datagrams, datagrams_rx)) = (handoff(8), handoff(8), handoff(8));
        let of_worker = || Arc::clone(&shared);
        let ends = Ends {
            recovery: recovery::Ends { worker: 0, wanted, answers, shared: of_worker() },
            snapshot: snapshot::Ends { worker: 0, packets: Arc::new(Mutex::new(packets)), shared: of_worker() },
            source: source::Ends { worker: 0, datagrams, shared: of_worker() },
            shared: of_worker(),
        };
        Self { threads: Threads::new(vec![ends]), shared, wants, packets: packets_rx, datagrams: datagrams_rx }
    }

    /// Whether the threads of recovery, TCP channels and retransmission run.
    fn running(&self) -> [bool; 3] {
        let Threads { recovery, source, retransmission, .. } = &*self.threads;
        [locked(recovery).is_running(), locked(source).is_running(), locked(retransmission).is_running()]
    }
}

/// Takes what is in a ring; how many datagrams that were.
fn drain(rx: &mut HandoffRx) -> usize {
    let (frames, mut batch) = (Frames::heap(64, 2048), Batch::new());
    rx.receive(&frames, &mut batch);
    batch.drain(..).map(|received| frames.free(received.frame)).count()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(1));
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Accepts a connection and reads its login.
fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_exact(&mut [0; 49]).unwrap();
    stream
}

fn send(stream: &mut TcpStream, packets: &[Packet<'_>]) {
    let mut bytes = Vec::new();
    packets.iter().for_each(|packet| packet.write(&mut bytes).unwrap());
    stream.write_all(&bytes).unwrap();
}

fn over_tcp(server: SocketAddr) -> Plan {
    let channel = format!(
        "start = \"first\"\n[feed.channel.soupbintcp]\nservers = [\"{server}\"]\nusername = \"FMUSER\"\npassword = \"secret\"\n\
         reconnect_ms = 10"
    );
    one_channel(&channel, DESTINATION)
}

#[test]
fn threads_are_started_by_the_first_who_needs_them_and_not_before_privileges_are_given_up() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let table = format!("[feed.channel.recovery]\nservers = [\"{}\"]\n{LINE}", server.local_addr().unwrap());
    let plan = one_channel(&table, DESTINATION);
    let mut rig = Rig::new(&plan);
    drop(rig.threads.prepare(&plan, 0).unwrap());
    assert_eq!(rig.running(), [false; 3]);
    rig.threads.begin();
    let prepared = rig.threads.prepare(&plan, 0).unwrap();
    assert_eq!(rig.running(), [true, false, false]);
    assert_eq!(rig.threads.recover(0).unwrap(), None, "only prepared");
    // Told before it is started, as a worker may that has the channel already.
    rig.wants.push(Wanted { channel: 0, session: SESSION, holes: Holes::from_iter([(7, 9)]) }).unwrap();
    sleep(Duration::from_millis(5));
    rig.threads.start(prepared).unwrap();
    assert_eq!(server.recv(&mut [0; 64]).unwrap(), 20);
    assert_eq!(rig.threads.recover(0).unwrap(), Some(2));
    assert_eq!(server.recv(&mut [0; 64]).unwrap(), 20, "at once, not after a timeout");
    rig.threads.stop(0).unwrap();
    rig.threads.stop(0).unwrap();
    assert_eq!(rig.threads.recover(0).unwrap(), None);
    rig.threads.end_feeding();
    assert!(matches!(rig.threads.recover(0), Err(ThreadError::Gone("recovery"))));
    assert!(rig.threads.prepare(&plan, 0).is_ok() && rig.running() == [false; 3]);
}

#[test]
fn a_channel_over_tcp_logs_out_and_is_not_stopped_before_the_worker_has_taken_its_datagrams() {
    let (listener, address) = listen();
    let plan = over_tcp(address);
    let mut rig = Rig::new(&plan);
    rig.threads.begin();
    let start = |rig: &Rig| rig.threads.start(rig.threads.prepare(&plan, 0).unwrap()).unwrap();
    let accepted = || Packet::LoginAccepted { session: login::session("S1").unwrap(), next: 1 };
    for round in 0..2 {
        start(&rig);
        let mut stream = accept(&listener);
        send(&mut stream, &[accepted(), Packet::Sequenced(b"a"), Packet::Sequenced(b"b")]);
        wait_for("messages", || rig.shared.soup(0).messages == 2);
        assert_eq!(rig.shared.soup(0).logins, 1, "its own, not those of round {}", round - 1);
        if round == 0 {
            let stuck = rig.threads.stop(0).unwrap_err();
            assert!(matches!(stuck, ThreadsError::NotTaken(0)), "{stuck}");
        } else {
            let threads = Arc::clone(&rig.threads);
            let stopping = std::thread::spawn(move || threads.stop(0));
            sleep(Duration::from_millis(100));
            assert!(!stopping.is_finished(), "its datagrams lie in the ring");
            assert!(drain(&mut rig.datagrams) >= 2);
            stopping.join().unwrap().unwrap();
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"\0\x01O"), "{rest:?}");
        assert_eq!(rig.shared.soup(0), SoupCounts::default());
        drain(&mut rig.datagrams);
    }
    listener.set_nonblocking(true).unwrap();
    sleep(Duration::from_millis(50));
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "who has gone does not come back");
}

#[test]
fn the_thread_of_a_snapshot_ends_with_its_channel_and_the_next_has_one_of_its_own() {
    let (listener, address) = listen();
    let table = format!(
        "start = \"snapshot\"\n[feed.channel.snapshot]\nservers = [\"{address}\"]\nusername = \"FMUSER\"\npassword = \"secret\"\n{LINE}"
    );
    let plan = one_channel(&table, DESTINATION);
    let mut rig = Rig::new(&plan);
    rig.threads.begin();
    // Prepared, and then not wanted after all: nobody waits for anything for long.
    drop(rig.threads.prepare(&plan, 0).unwrap());
    rig.shared.sessions[0].store(&SESSION);
    for _ in 0..2 {
        let late = ChannelCounts { sessions: 1, snapshot_state: JoinState::Awaited as u64, ..ChannelCounts::default() };
        rig.threads.start(rig.threads.prepare(&plan, 0).unwrap()).unwrap();
        rig.shared.channels[0].store(&late.values());
        let mut stream = accept(&listener);
        wait_for("an attempt", || rig.shared.snapshots(0).attempts == 1);
        // It has told the worker that an attempt begins.
        assert_eq!(drain(&mut rig.packets), 1);
        let asked = Instant::now();
        rig.threads.stop(0).unwrap();
        assert!(asked.elapsed() < Duration::from_secs(2));
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rig.shared.snapshots(0), SnapshotCounts::default());
        // What the worker does when the number is given to another.
        rig.shared.channels[0].store(&ChannelCounts::default().values());
    }
    assert!(locked(&rig.threads.snapshots).as_ref().is_some_and(|snapshots| snapshots.is_empty()));
}

#[test]
fn a_destination_is_replaced_at_its_address_and_another_cannot_have_it() {
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("{DESTINATION}[destination.retransmission]\naddress = \"{address}\"\n");
    let plan = one_channel(LINE, &server);
    let rig = Rig::new(&plan);
    rig.threads.begin();
    let mut prepared = rig.threads.prepare_destination(&plan, 0).unwrap();
    assert!(prepared.take_retainer().is_some() && prepared.take_retainer().is_none());
    assert_eq!(rig.running(), [false, false, true]);
    assert!(PreparedDestination::new(&plan, 0).is_err(), "the address is bound by what is prepared");
    rig.threads.start_destination(prepared).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(address).unwrap();
    client.send(b"?").unwrap();
    wait_for("a request", || rig.shared.retransmission(0).requests == 1);
    let prepared = rig.threads.prepare_destination(&plan, 0).expect("it goes on with the socket");
    rig.threads.stop_destination(0).unwrap();
    assert_eq!(rig.shared.retransmission(0).requests, 0);
    client.send(b"?").unwrap();
    client.send(b"?").expect("the address is still bound");
    rig.threads.start_destination(prepared).unwrap();
    wait_for("its requests", || rig.shared.retransmission(0).requests == 2);
    rig.threads.end_serving();
    UdpSocket::bind(address).expect("its sockets are closed");
    assert!(matches!(rig.threads.stop_destination(0), Err(ThreadsError::Thread(ThreadError::Gone(_)))));
}

#[test]
fn what_cannot_be_had_is_said_before_anything_is_changed() {
    let mut plan = over_tcp(listen().1);
    let rig = Rig::new(&plan);
    rig.threads.begin();
    let folder = tempfile::tempdir().unwrap();
    let password = crate::config::plan::Password::File(folder.path().join("password"));
    plan.channels[0].soup.as_mut().unwrap().password = password;
    let error = rig.threads.prepare(&plan, 0).unwrap_err().to_string();
    assert!(error.starts_with("channel itch/equities: cannot read the password from "), "{error}");
    assert_eq!(rig.running(), [false; 3]);
    let error = SourceError::PasswordFile {
        channel: "itch/equities".to_owned(),
        path: "/etc/secret".into(),
        error: io::Error::from(io::ErrorKind::PermissionDenied),
    };
    let says =
        "cannot read the password from /etc/secret: permission denied; for a channel that comes while the handler runs";
    assert!(error.to_string().contains(says), "{error}");
}
