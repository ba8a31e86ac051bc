//! The thread that fetches snapshots, over real sockets on the loopback interface, with a real worker on memory ports that goes
//! on receiving meanwhile.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use feedhandler::clock::monotonic_ns;
use feedhandler::config::midnights;
use feedhandler::feed::{ChannelState, JoinState};
use feedhandler::metrics::{ChannelCounts, SnapshotCounts};
use feedhandler::snapshot::{self, Snapshots, Waiting};
use feedhandler_testkit::consumer::{CheckSettings, Checker, Sent, SessionTruth, joined_truth};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::glimpse::server::{GlimpseServer, Manner};
use feedhandler_testkit::glimpse::{Glimpse, end};
use feedhandler_testkit::mold::{Packet, Session};
use feedhandler_testkit::soup::packet::{accepted, packet};

use feedhandler_testkit::bench_worker::{BenchWorker, plan_with};

use crate::turn::turn;

const SESSION: Session = *b"GLIMPSE001";
const ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

/// Number of the first live message, and of the first that the snapshot does not contain.
const FIRST: u64 = 2_000;
const NEXT: u64 = 2_040;

/// Long enough for whatever is to happen.
const LIMIT: Duration = Duration::from_secs(20);

fn day() -> DaySettings {
    DaySettings { seed: 5, messages: 60_000, instruments: 30, live_orders: 400, recency: 0.6 }
}

fn glimpse() -> Vec<Vec<u8>> {
    let mut glimpse = Glimpse::default();
    Day::new(&day()).take(NEXT as usize - 1).for_each(|message| glimpse.apply(&message));
    glimpse.messages()
}

fn server(messages: Vec<Vec<u8>>) -> GlimpseServer {
    GlimpseServer::start(ANY, std::str::from_utf8(&SESSION).expect("text"), messages).expect("a server")
}

/// A handler's channel that is joined late.
struct Late {
    bench: BenchWorker,
    running: Option<Snapshots>,
    checker: Checker,
    day: Day,
    sequence: u64,
    began: Instant,
    longest: Duration,
}

impl Late {
    /// With these servers and keys; `is_joined`: what comes out is what a snapshot makes of it.
    fn new(servers: &[&GlimpseServer], keys: &str, is_joined: bool) -> Self {
        let addresses: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
        let more = format!(
            "start = \"snapshot\"\n[feed.channel.snapshot]\nservers = [{}]\nusername = \"FMUSER\"\npassword = \"secret\"\n{keys}",
            addresses.join(", ")
        );
        let plan = plan_with(50, 8192, &more);
        let (bench, ends) = BenchWorker::joining(&plan);
        let started_ns = bench.base_ns.wrapping_add(bench.utc_offset_ns);
        let midnights = midnights("America/New_York", started_ns).expect("a known zone");
        let midnight_ns = *midnights.iter().rfind(|midnight| **midnight <= started_ns).expect("a midnight");
        let mut live = Day::new(&day());
        live.by_ref().take(FIRST as usize - 1).for_each(drop);
        let truth = if is_joined { joined_truth(SESSION, &day(), NEXT) } else { late_truth() };
        let checker = Checker::new(CheckSettings { publisher_id: 2, midnight_ns, started_ns }, vec![truth]);
        let mut snapshots = Snapshots::new(vec![ends.snapshot]);
        let job = snapshot::prepare(&plan, 0).expect("a login that can be sent").expect("it begins with a snapshot");
        snapshots.add(job, Waiting::new().expect("a thread"));
        let running = Some(snapshots);
        Self { bench, running, checker, day: live, sequence: FIRST, began: Instant::now(), longest: Duration::ZERO }
    }

    /// Sends and receives, a message per millisecond, until something is so.
    fn live_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            assert!(self.began.elapsed() < LIMIT, "{:?}\n{:?}", self.counts(), self.channel());
            let mut message = Vec::new();
            self.day.next().expect("the day is long enough").encode(&mut message);
            let mut packet = Packet::new(&SESSION, self.sequence);
            packet.push(&message);
            self.sequence += 1;
            let at_ns = monotonic_ns() - self.bench.base_ns;
            self.bench.inject(0, &packet.into_payload(), at_ns);
            let Self { bench, checker, longest, .. } = self;
            let utc_ns = (bench.base_ns + at_ns).wrapping_add(bench.utc_offset_ns);
            let before = Instant::now();
            bench.cycle(at_ns, |payload| checker.packet(payload, utc_ns));
            *longest = before.elapsed().max(*longest);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn channel(&self) -> ChannelCounts {
        self.bench.link.shared.channel(0)
    }

    fn counts(&self) -> SnapshotCounts {
        self.bench.link.shared.snapshots(0)
    }

    fn join(&self) -> JoinState {
        JoinState::from_value(self.channel().snapshot_state)
    }

    /// Lives on for a while and ends; what the thread counted.
    fn finish(mut self) -> SnapshotCounts {
        let sequence = self.sequence;
        self.live_until(|late| late.sequence > sequence + 50);
        drop(self.running.take());
        let channel = self.channel();
        let first = self.checker.findings().first.first().map(ToString::to_string);
        assert_eq!(first, None, "{:?}", self.counts());
        assert_eq!((channel.messages_lost, channel.state), (0, ChannelState::Live as u64));
        assert_eq!(channel.next_sequence, self.sequence, "the live path is where the lines are");
        assert!(self.checker.next() + 64 >= self.sequence, "and what comes out is close behind");
        self.bench.worker.audit();
        self.counts()
    }
}

/// What comes out of a session that is joined late without a snapshot.
fn late_truth() -> SessionTruth {
    let mut day = Day::new(&day());
    let sent = move |sequence: u64| {
        while day.produced() + 1 < sequence && day.next().is_some() {}
        day.next().map_or(Sent::Nothing, Sent::Message)
    };
    SessionTruth { session: SESSION, first: FIRST, joined: None, sent: Box::new(sent) }
}

#[test]
fn a_snapshot_is_fetched_and_joined_however_tcp_cuts_it() {
    let _turn = turn();
    for manner in [Manner::Honest, Manner::Pieces(1), Manner::Pieces(3), Manner::Pieces(1000)] {
        let server = server(glimpse());
        server.behave([manner.clone()]);
        let mut late = Late::new(&[&server], "", true);
        late.live_until(|late| late.join() == JoinState::Joined);
        let counts = late.finish();
        assert_eq!((counts.attempts, counts.snapshots, counts.joined), (1, 1, 1), "{manner:?}");
        assert_eq!(counts.messages, glimpse().len() as u64 - 1);
        let login = packet(b'L', format!("FMUSER{:<10}{:>10}{:>20}", "secret", "", 1).as_bytes());
        assert_eq!(server.logins(), [login], "from the first message of the active session");
    }
}

/// What can be wrong: what the server does, and the counter that says so.
type Wrong = (&'static str, Manner, fn(&SnapshotCounts) -> u64);

fn hostile() -> Vec<Wrong> {
    let said = |packets: &[Vec<u8>]| Manner::Say([&[accepted(&SESSION, 1)], packets].concat().concat());
    let spin = |messages: &[Vec<u8>]| said(&messages.iter().map(|message| packet(b'S', message)).collect::<Vec<_>>());
    let whole = glimpse();
    let with_end = |next: u64| spin(&[&whole[..whole.len() - 1], &[end(next)]].concat());
    let with = |message: Vec<u8>| spin(&[&whole[..10], &[message]].concat());
    let event = |kind: u8, bytes: usize| [vec![kind], vec![b' '; bytes - 1]].concat();
    let malformed = |counts: &SnapshotCounts| counts.failed_malformed;
    let silent = |counts: &SnapshotCounts| counts.failed_silent;
    let broken_off = |counts: &SnapshotCounts| counts.failed_broken_off;
    let login = |counts: &SnapshotCounts| counts.failed_login;
    vec![
        ("breaks off at once", Manner::BreakOff(0.0), broken_off),
        ("breaks off in the middle", Manner::BreakOff(0.5), broken_off),
        ("breaks off just before the end", Manner::BreakOff(0.9999), broken_off),
        ("ends its session before the end", said(&[packet(b'Z', b"")]), broken_off),
        ("mute", Manner::Stall(0.0), silent),
        ("stalls within a message", Manner::Stall(0.5), silent),
        ("only heartbeats", Manner::Idle(0.5), silent),
        ("floods with nothing", Manner::Flood, silent),
        ("password", Manner::Say(packet(b'J', b"A")), login),
        ("no session", Manner::Say(packet(b'J', b"S")), login),
        ("other session", Manner::Say(accepted(b"OTHER00001", 1)), |counts| counts.failed_session),
        ("not from the first message", Manner::Say(accepted(&SESSION, 7)), malformed),
        ("no number", Manner::Say(packet(b'A', b"GLIMPSE001                 4x2")), malformed),
        ("answers twice", said(&[accepted(&SESSION, 1)]), malformed),
        ("data before the answer", Manner::Say(packet(b'S', b"x")), malformed),
        ("a packet of no length", said(&[vec![0, 0]]), malformed),
        ("an event", with(event(b'E', 31)), malformed),
        ("too short", with(event(b'A', 35)), malformed),
        ("too long a message", with(event(b'A', 60_000)), malformed),
        ("no end's number", with(event(b'G', 21)), malformed),
        ("nothing in it", spin(&[end(NEXT)]), malformed),
        ("of the first moment", with_end(1), |counts| counts.failed_numbers),
        ("more than was before it", with_end(whole.len() as u64 - 1), |counts| counts.failed_numbers),
        ("of the far future", with_end(1 << 40), |counts| counts.failed_ahead),
        ("of the end of time", with_end(u64::MAX), |counts| counts.failed_ahead),
        ("without end", spin(&vec![whole[0].clone(); 5_000]), |counts| counts.failed_too_long),
    ]
}

const KEYS: &str = "timeout_ms = 300\nmax_messages = 2000\n";

#[test]
fn a_server_that_does_wrong_is_left_for_one_that_does_not() {
    let _turn = turn();
    for (what, manner, reason) in hostile() {
        let (bad, good) = (server(glimpse()), server(glimpse()));
        bad.behave([manner]);
        let mut late = Late::new(&[&bad, &good], KEYS, true);
        late.live_until(|late| late.join() == JoinState::Joined);
        let counts = late.finish();
        println!("{what}: {counts:?}");
        assert_eq!((reason(&counts), counts.joined, counts.attempts), (1, 1, 2), "{what}: {counts:?}");
    }
}

#[test]
fn servers_that_all_do_wrong_cost_the_books_and_never_the_live_path() {
    let _turn = turn();
    for (what, manner, reason) in hostile() {
        let bad = server(glimpse());
        bad.behave(vec![manner; 100]);
        let mut late = Late::new(&[&bad], "timeout_ms = 300\nmax_messages = 2000\ngive_up_ms = 400", false);
        late.live_until(|late| late.join() == JoinState::GivenUp);
        let waited = late.began.elapsed();
        let counts = late.finish();
        assert!(reason(&counts) >= 1 && counts.joined == 0, "{what}: {counts:?}");
        assert!(waited < Duration::from_secs(5), "{what}: {waited:?}");
    }
}

#[test]
fn a_refused_password_is_not_tried_again_and_nobody_waits_for_it() {
    let _turn = turn();
    let bad = [server(vec![]), server(vec![])];
    bad.iter().for_each(|bad| bad.behave(vec![Manner::Say(packet(b'J', b"A")); 9]));
    let mut late = Late::new(&[&bad[0], &bad[1]], "give_up_ms = 3_600_000", false);
    late.live_until(|late| late.join() == JoinState::GivenUp);
    let counts = late.finish();
    assert_eq!((counts.failed_login, counts.attempts, bad[0].connections()), (2, 2, 1));
}

#[test]
fn a_server_that_breaks_off_is_asked_again_and_one_that_trickles_is_left() {
    let _turn = turn();
    let server_again = server(glimpse());
    server_again.behave([Manner::BreakOff(0.3), Manner::BreakOff(0.8)]);
    let mut late = Late::new(&[&server_again], "", true);
    late.live_until(|late| late.join() == JoinState::Joined);
    let counts = late.finish();
    assert_eq!((counts.failed_broken_off, counts.attempts, counts.joined), (2, 3, 1));

    let (slow, good) = (server(glimpse()), server(glimpse()));
    slow.behave([Manner::Trickle(Duration::from_millis(50))]);
    let mut late = Late::new(&[&slow, &good], "timeout_ms = 300\ngive_up_ms = 2000", true);
    late.live_until(|late| late.join() == JoinState::Joined);
    let counts = late.finish();
    assert_eq!((counts.failed_silent, counts.joined), (1, 1), "{counts:?}");
}

#[test]
fn nobody_listens_and_another_session_can_be_allowed() {
    let _turn = turn();
    let good = GlimpseServer::start(ANY, "OWN", glimpse()).expect("a server");
    let mut late = Late::new(&[&good], "same_session = false", true);
    late.live_until(|late| late.join() == JoinState::Joined);
    assert_eq!(late.finish().joined, 1);

    let (gone, good) = (server(vec![]), server(glimpse()));
    let mut late = Late::new(&[&gone, &good], "", true);
    drop(gone);
    late.live_until(|late| late.join() == JoinState::Joined);
    assert_eq!(late.finish().failed_connect, 1);
}

#[test]
fn a_session_seen_from_its_first_message_asks_nobody() {
    let _turn = turn();
    let server = server(glimpse());
    let mut late = Late::new(&[&server], "", true);
    late.sequence = 1;
    late.day = Day::new(&day());
    late.live_until(|late| late.sequence > 50);
    drop(late.running.take());
    assert_eq!((late.join(), server.connections(), late.counts().attempts), (JoinState::None, 0, 0));
}
