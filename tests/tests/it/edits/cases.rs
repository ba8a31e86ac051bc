//! Edits one at a time.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::Duration;

use feedhandler::config::plan::Format;
use feedhandler::feed::LineRole;
use feedhandler::net::handoff::handoff;
use feedhandler::net::socket::{LineSocket, SocketLine, SocketOptions, SocketRx};
use feedhandler::net::{Frames, Port, RxPort, TxDestination};
use feedhandler::publish::retention;
use feedhandler::worker::edit::{Edit, NewLine, NewStream, Retention};
use feedhandler::worker::shared::{Command, Event};
use feedhandler_testkit::mold::{self, Packet, Session};

use super::rig::{self, Rig};

const SESSION: Session = *b"SESSION001";
const SECOND_NS: u64 = 1_000_000_000;

fn packet(from: u64, to: u64) -> Vec<u8> {
    let mut packet = Packet::new(&SESSION, from);
    (from..to).for_each(|i| packet.push(format!("?{i}").as_bytes()));
    packet.into_payload()
}

/// Has the worker carry it out; it must do all of it.
fn edit(rig: &mut Rig, edit: Edit) -> Box<Edit> {
    rig.link.send(Command::Edit(edit.ready())).expect("room");
    rig.cycle(1);
    while let Some(event) = rig.event() {
        if let Event::Edited(edit) = event {
            assert!(edit.is_done(), "{edit:?}");
            return edit;
        }
    }
    panic!("the edit did not come back");
}

fn stream(destination: usize, retention: Retention) -> NewStream {
    let stream = rig::stream(destination, 0, 0, Format::Raw);
    NewStream { stream, retention, continues: true, destination: TxDestination::Memory }
}

/// The numbers of all messages in these packets, and whether one says that the session is over.
fn numbers(packets: &[Vec<u8>]) -> (Vec<u64>, bool) {
    let views: Vec<_> = packets.iter().map(|payload| mold::parse(payload).expect("whole")).collect();
    let numbers = views.iter().flat_map(|view| (view.sequence..).take(view.blocks.len())).collect();
    (numbers, views.iter().any(|view| view.is_end))
}

#[test]
fn who_retains_does_not_notice_that_the_stream_was_replaced() {
    let mut rig = Rig::new();
    let (retainer, mut retained) = retention(1 << 16);
    rig.worker.retain(0, retainer);
    for (step, kept) in [Retention::Kept, Retention::None].into_iter().enumerate() {
        let first = 1 + 6 * step as u64;
        rig.inject(0, 0, &packet(first, first + 3));
        rig.cycle(1);
        edit(&mut rig, Edit { remove_streams: vec![0], add_streams: vec![stream(0, kept)], ..Edit::default() });
        rig.inject(0, 1, &packet(first + 3, first + 6));
        rig.cycle(1);
    }
    let mut buffer = [0; 2048];
    let mut packets = vec![];
    while let Some(length) = retained.next(&mut buffer) {
        packets.push(buffer[..length].to_vec());
    }
    assert_eq!(numbers(&packets).0, (1..10).collect::<Vec<_>>(), "kept once, and then no more");
    let sent: Vec<_> = rig.sent().into_iter().map(|(.., payload)| payload).collect();
    assert_eq!(numbers(&sent).0, (1..13).collect::<Vec<_>>());
}

#[test]
fn a_stream_that_is_added_says_where_the_session_is_and_that_it_is_over() {
    let mut rig = Rig::new();
    rig.inject(0, 0, &packet(1, 4));
    rig.cycle(1);
    edit(&mut rig, Edit { add_streams: vec![stream(3, Retention::None)], ..Edit::default() });
    rig.sent();
    rig.cycle(2 * SECOND_NS);
    let views = |rig: &mut Rig, destination| -> Vec<_> {
        let sent = rig.sent().into_iter().filter(|(_, to, _)| *to == destination);
        sent.map(|(.., payload)| mold::parse(&payload).map(|view| (view.sequence, view.is_end)).expect("whole"))
            .collect()
    };
    assert_eq!(views(&mut rig, 3), [(4, false)], "a heartbeat with the next number");
    rig.inject(0, 0, &mold::end_of_session(&SESSION, 4));
    rig.cycle(1);
    edit(&mut rig, Edit { add_streams: vec![stream(4, Retention::None)], ..Edit::default() });
    rig.sent();
    rig.cycle(2 * SECOND_NS);
    assert_eq!(views(&mut rig, 4), [(4, true)]);
}

#[test]
fn the_recovery_thread_hears_of_holes_and_that_the_channel_is_gone() {
    let mut rig = Rig::new();
    let (wants, mut wanted) = rtrb::RingBuffer::new(8);
    edit(&mut rig, Edit { wants: Some(wants), ..Edit::default() });
    rig.inject(0, 0, &packet(1, 2));
    rig.inject(0, 0, &packet(4, 5));
    rig.cycle(SECOND_NS);
    rig.cycle(SECOND_NS);
    let told = wanted.pop().expect("a hole is told");
    assert_eq!((told.channel, told.holes.as_slice()), (0, &[(2, 4)][..]));
    // Another way to tell it is not taken: there is one.
    let (second, _wanted) = rtrb::RingBuffer::new(8);
    assert!(edit(&mut rig, Edit { wants: Some(second), ..Edit::default() }).wants.is_some());
    let remove = Edit { remove_streams: vec![0], remove_channels: vec![0], ..Edit::default() };
    assert_eq!(edit(&mut rig, remove).removed.channels.len(), 1);
    assert!(wanted.pop().is_ok_and(|told| told.channel == 0 && told.holes.is_empty()));
    // In its place another one: what the first wanted is not taken for told.
    let line = NewLine { line: 0, channel: 0, role: LineRole::A, socket: None };
    edit(&mut rig, Edit { add_channels: vec![rig::channel(0)], add_lines: vec![line], ..Edit::default() });
    rig.link.send(Command::SetLine { line: 0, enabled: true }).expect("room");
    rig.cycle(1);
    rig.inject(0, 0, &packet(1, 2));
    rig.inject(0, 0, &packet(4, 5));
    rig.cycle(SECOND_NS);
    rig.cycle(SECOND_NS);
    assert!(wanted.pop().is_ok_and(|told| told.holes.as_slice() == [(2, 4)]));
}

/// What is handed over waits for its turn while lines go, and is taken, once, when a channel goes.
#[test]
fn what_another_thread_hands_over_is_taken_when_a_channel_goes_and_not_for_a_line() {
    let mut rig = Rig::new();
    let (mut feed, rx) = handoff(256);
    let port = Port { frames: Frames::heap(512, 2048), rx: Some(RxPort::Handoff(rx)), tx: None };
    edit(&mut rig, Edit { ports: vec![(1, Box::new(port))], ..Edit::default() });
    let recovered = u16::try_from(rig::LINES).expect("few");
    // What is handed over is what the lines have lost.
    rig.inject(0, 0, &packet(1, 2));
    rig.inject(0, 0, &packet(202, 203));
    rig.cycle(1);
    for i in 2..=201 {
        assert!(feed.hand(recovered, &packet(i, i + 1), 1));
    }
    edit(&mut rig, Edit { remove_lines: vec![0], ..Edit::default() });
    assert!(feed.taken() <= 64, "one batch per duty cycle, and {} were taken", feed.taken());
    edit(&mut rig, Edit { remove_streams: vec![0], remove_channels: vec![0], ..Edit::default() });
    assert_eq!(feed.taken(), 200);
    let sent: Vec<_> = rig.sent_by(0).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(numbers(&sent).0, (1..203).collect::<Vec<_>>());
}

/// With the queue full it cannot be taken back: whoever has the number next says what is missing then.
#[test]
fn what_could_not_be_taken_back_is_told_anew_by_who_has_the_number_next() {
    let mut rig = Rig::new();
    let (wants, mut wanted) = rtrb::RingBuffer::new(1);
    edit(&mut rig, Edit { wants: Some(wants), ..Edit::default() });
    rig.inject(0, 0, &packet(1, 2));
    rig.inject(0, 0, &packet(4, 5));
    rig.cycle(SECOND_NS);
    rig.cycle(SECOND_NS);
    let line = NewLine { line: 0, channel: 0, role: LineRole::A, socket: None };
    let again = Edit {
        remove_streams: vec![0],
        remove_channels: vec![0],
        add_channels: vec![rig::channel(0)],
        add_lines: vec![line],
        ..Edit::default()
    };
    edit(&mut rig, again);
    assert!(wanted.pop().is_ok_and(|told| told.holes.as_slice() == [(2, 4)]));
    rig.link.send(Command::SetLine { line: 0, enabled: true }).expect("room");
    rig.cycle(1);
    rig.inject(0, 0, &packet(1, 2));
    rig.cycle(SECOND_NS);
    rig.cycle(SECOND_NS);
    assert!(wanted.pop().is_ok_and(|told| told.holes.is_empty()), "nothing is missing any more");
}

/// A port over kernel sockets comes into a vacant place; then its lines come and go, and nothing that came is forgotten.
#[test]
fn a_line_over_a_kernel_socket_comes_and_goes_with_all_that_it_received() {
    let mut rig = Rig::new();
    let options = SocketOptions::default();
    let mut rx = SocketRx::new(&[], &options).expect("no socket, no refusal");
    rx.make_room(1);
    let port = Port { frames: Frames::heap(256, 2048), rx: Some(RxPort::Socket(rx)), tx: None };
    let ports = vec![(1, Box::new(port))];
    let back = edit(&mut rig, Edit { remove_lines: vec![0, 1], ports, ..Edit::default() });
    assert!(matches!(back.ports[0].1.rx, Some(RxPort::Memory(_))), "what was there is handed back");

    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for round in 0..3_u64 {
        let free = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let group = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free);
        let line = SocketLine { line: 5, group, interface: "lo".into(), source: None, subscribed: false };
        let socket = Some((1, LineSocket::open(&line, &options).expect("the loopback interface")));
        let line = NewLine { line: 5, channel: 0, role: LineRole::B, socket };
        edit(&mut rig, Edit { add_lines: vec![line], ..Edit::default() });
        assert_eq!(rig.link.shared.line(5).packets, 0, "round {round}");
        rig.link.send(Command::SetLine { line: 5, enabled: true }).expect("room");
        rig.cycle(1);
        // More than one batch, and none of it was taken when the line goes.
        for i in 0..100 {
            let first = 1 + 100 * round + i;
            sender.send_to(&packet(first, first + 1), group).expect("loopback");
        }
        thread::sleep(Duration::from_millis(20));
        let back = edit(&mut rig, Edit { remove_lines: vec![5], ..Edit::default() });
        assert_eq!(back.removed.sockets.len(), 1);
        assert_eq!(rig.link.shared.line(5).packets, 100, "its last counters stay until the number is used again");
    }
    rig.cycle(1);
    let sent: Vec<_> = rig.sent_by(0).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(numbers(&sent).0, (1..=300).collect::<Vec<_>>());
    rig.worker.audit();
}
