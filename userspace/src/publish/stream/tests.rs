#![forbid(unsafe_code)]

use super::*;
use crate::feed::Directory;
use crate::net::memory::MemoryTx;
use crate::net::{Frames, TxPort};
use crate::publish::retention;

const SESSION: Session = *b"SESSION001";

/// A stream on a memory port, with as many frames as the test wants.
struct Bench {
    frames: [Frames; 1],
    ports: [Option<TxPort>; 1],
    stream: Stream,
}

impl Bench {
    fn new(format: Format, payload_bytes: usize, frame_count: u32) -> Self {
        let mut port = TxPort::Memory(MemoryTx::new());
        let group = "239.1.1.1:1".parse().unwrap();
        let header = crate::net::headers::Header::multicast([2; 6], 0, "10.0.0.1:1".parse().unwrap(), group, 1);
        let destination = port.add_destination(header.unwrap()).unwrap();
        let settings = StreamSettings { destination, channel: 0, port: 0, format, payload_bytes };
        let mut stream = Stream::new(settings);
        stream.set_input(&SESSION, 1, true);
        Self { frames: [Frames::heap(frame_count, 2048)], ports: [Some(port)], stream }
    }

    fn block(&mut self, sequence: u64, message: &[u8], records: &[u8]) {
        self.noticed(sequence, b"", message, records);
    }

    fn noticed(&mut self, sequence: u64, notice: &[u8], message: &[u8], records: &[u8]) {
        let directory = Directory::new();
        let block = Block {
            channel: 0,
            session: &SESSION,
            sequence,
            notice,
            message,
            records,
            record_count: u8::from(!records.is_empty()),
            directory: &directory,
        };
        self.stream.block(&block, &mut Outlets::new(&self.frames, &mut self.ports));
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        Outlets::new(&self.frames, &mut self.ports).flush();
        let [Some(TxPort::Memory(port))] = &mut self.ports else { unreachable!() };
        port.take().into_iter().map(|(_, payload)| payload).collect()
    }
}

fn packet(sequence: u64, count: u16, blocks: &[&[u8]]) -> Vec<u8> {
    let mut bytes = SESSION.to_vec();
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&count.to_be_bytes());
    for block in blocks {
        bytes.extend_from_slice(&u16::try_from(block.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(block);
    }
    bytes
}

#[test]
fn the_packet_is_the_specification_s() {
    let mut bench = Bench::new(Format::Dbn, 1472, 8);
    bench.block(5, b"m", b"abc");
    bench.block(6, b"m", b"");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(5, 2, &[b"abc", b""])]);
}

#[test]
fn raw_blocks_hold_the_exchange_s_own_messages() {
    let mut bench = Bench::new(Format::Raw, 1472, 8);
    bench.block(1, b"message", b"records");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 1, &[b"message"])]);
}

#[test]
fn a_notice_stands_in_front_of_the_records_and_only_of_records() {
    let mut bench = Bench::new(Format::Dbn, 1472, 8);
    bench.noticed(1, b"notice", b"m", b"records");
    bench.noticed(2, b"notice", b"m", b"");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 2, &[b"noticerecords", b"notice"])]);
    assert_eq!(bench.stream.counts().records, 3);
    let mut bench = Bench::new(Format::Raw, 1472, 8);
    bench.noticed(1, b"notice", b"m", b"records");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 1, &[b"m"])]);
}

#[test]
fn without_room_for_both_the_records_go_without_the_notice() {
    let mut bench = Bench::new(Format::Dbn, 20 + 2 + 10, 8);
    bench.noticed(1, b"notice", b"m", b"12345");
    bench.noticed(2, b"notice", b"m", b"1234");
    bench.noticed(3, b"notice", b"m", &[0; 11]);
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    let sent = [packet(1, 1, &[b"12345"]), packet(2, 1, &[b"notice1234"]), packet(3, 1, &[b"notice"])];
    assert_eq!(bench.sent(), sent);
    assert_eq!(bench.stream.drops().get(DropReason::Oversized), 2);
}

#[test]
fn a_jump_in_sequence_closes_the_packet() {
    let mut bench = Bench::new(Format::Dbn, 1472, 8);
    bench.block(1, b"", b"a");
    bench.block(4, b"", b"b");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 1, &[b"a"]), packet(4, 1, &[b"b"])]);
}

#[test]
fn a_full_packet_is_sent_and_the_block_opens_the_next() {
    let mut bench = Bench::new(Format::Dbn, 20 + 2 * 12, 8);
    for sequence in 1..=3 {
        bench.block(sequence, b"", &[7; 10]);
    }
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 2, &[&[7; 10], &[7; 10]]), packet(3, 1, &[&[7; 10]])]);
}

#[test]
fn a_block_too_large_is_counted_and_its_number_is_still_consumed() {
    let mut bench = Bench::new(Format::Dbn, 64, 8);
    bench.block(1, b"", b"a");
    bench.block(2, b"", &[0; 43]);
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 2, &[b"a", b""])]);
    assert_eq!(bench.stream.drops().get(DropReason::Oversized), 1);
}

#[test]
fn empty_blocks_wait_for_the_next_record_or_the_heartbeat() {
    let mut bench = Bench::new(Format::Dbn, 1472, 8);
    let tick =
        |bench: &mut Bench, now_ns| bench.stream.tick(now_ns, &mut Outlets::new(&bench.frames, &mut bench.ports));
    bench.block(1, b"m", b"");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert!(bench.sent().is_empty());
    bench.block(2, b"m", b"r");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 2, &[b"", b"r"])]);
    // What was just sent is dated by the next tick; a second later the empty block goes, and then heartbeats.
    tick(&mut bench, 10);
    bench.block(3, b"m", b"");
    tick(&mut bench, HEARTBEAT_NS);
    assert!(bench.sent().is_empty());
    tick(&mut bench, HEARTBEAT_NS + 10);
    assert_eq!(bench.sent(), [packet(3, 1, &[b""])]);
    tick(&mut bench, HEARTBEAT_NS + 11);
    tick(&mut bench, 2 * HEARTBEAT_NS + 11);
    assert_eq!(bench.sent(), [packet(4, 0, &[])]);
}

#[test]
fn a_loss_moves_the_heartbeat_on() {
    let mut bench = Bench::new(Format::Dbn, 1472, 8);
    bench.block(1, b"", b"a");
    bench.stream.skip_to(&SESSION, 9, &mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 1, &[b"a"])]);
    bench.stream.tick(1, &mut Outlets::new(&bench.frames, &mut bench.ports));
    bench.stream.tick(HEARTBEAT_NS + 1, &mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(9, 0, &[])]);
}

#[test]
fn heartbeats_are_sent_before_the_first_message_and_not_while_the_input_is_dead() {
    let mut bench = Bench::new(Format::Dbn, 1472, 8);
    bench.stream.tick(HEARTBEAT_NS, &mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 0, &[])]);
    bench.stream.set_input(&SESSION, 1, false);
    bench.stream.tick(2 * HEARTBEAT_NS, &mut Outlets::new(&bench.frames, &mut bench.ports));
    assert!(bench.sent().is_empty());
    bench.stream.set_input(b"SESSION002", 7, true);
    bench.stream.tick(3 * HEARTBEAT_NS, &mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent()[0][..18], *b"SESSION002\0\0\0\0\0\0\0\x07", "the session that is heard now");
}

#[test]
fn the_end_of_session_follows_what_is_open_and_is_repeated() {
    let mut bench = Bench::new(Format::Dbn, 1472, 8);
    bench.block(1, b"", b"a");
    bench.stream.end_of_session(&SESSION, 2, &mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(1, 1, &[b"a"]), packet(2, END_OF_SESSION, &[])]);
    let mut repeats = 0;
    for tick in 0..200 {
        bench.stream.tick(tick * HEARTBEAT_NS, &mut Outlets::new(&bench.frames, &mut bench.ports));
        repeats += bench.sent().len();
    }
    assert_eq!(repeats, END_REPEATS as usize);
}

#[test]
fn what_could_not_be_sent_is_announced_by_the_heartbeat() {
    let mut bench = Bench::new(Format::Dbn, 1472, 1);
    bench.stream.tick(1, &mut Outlets::new(&bench.frames, &mut bench.ports));
    let hoard = bench.frames[0].alloc().unwrap();
    bench.block(1, b"", b"a");
    bench.frames[0].free(hoard);
    bench.stream.tick(HEARTBEAT_NS, &mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(2, 0, &[])], "a consumer sees that message 1 is missing");
}

#[test]
fn packets_with_messages_are_retained_as_they_are_sent_and_also_if_they_cannot_be() {
    let mut bench = Bench::new(Format::Dbn, 1472, 8);
    let (retainer, mut retained) = retention(64);
    bench.stream.retain(retainer);
    bench.block(1, b"", b"abc");
    bench.stream.tick(1, &mut Outlets::new(&bench.frames, &mut bench.ports));
    bench.block(2, b"", b"");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    bench.stream.tick(2 * HEARTBEAT_NS, &mut Outlets::new(&bench.frames, &mut bench.ports));
    bench.block(3, b"", &[7; 30]);
    bench.stream.end_of_session(&SESSION, 4, &mut Outlets::new(&bench.frames, &mut bench.ports));
    let sent = bench.sent();
    assert_eq!(sent.len(), 3, "{sent:?}");
    let mut buffer = [0; 64];
    let length = retained.next(&mut buffer).unwrap();
    assert_eq!(buffer[..length], packet(1, 2, &[b"abc", b""]));
    assert_eq!(retained.next(&mut buffer), None);
    // The second did not fit beside the first: sent all the same, and counted.
    assert_eq!((&sent[1], bench.stream.counts().not_retained), (&packet(3, 1, &[&[7; 30]]), 1));
    bench.block(5, b"", b"e");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!((retained.next(&mut buffer), bench.stream.counts().not_retained), (Some(23), 1));
}

#[test]
fn without_a_frame_each_lost_block_is_counted_and_the_next_one_starts_anew() {
    let mut bench = Bench::new(Format::Dbn, 1472, 1);
    let hoard = bench.frames[0].alloc().unwrap();
    bench.block(1, b"", b"a");
    bench.block(2, b"", b"b");
    assert_eq!(bench.stream.drops().get(DropReason::NoFreeFrame), 2);
    bench.frames[0].free(hoard);
    bench.block(3, b"", b"c");
    bench.stream.flush(&mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(3, 1, &[b"c"])]);
    bench.frames[0].assert_conserved(0, 0, 0);
}

#[test]
fn a_stream_that_begins_within_a_session_says_where_and_also_that_it_is_over() {
    let mut bench = Bench::new(Format::Dbn, 1472, 8);
    bench.stream.begin(&SESSION, 7, false);
    bench.stream.tick(HEARTBEAT_NS, &mut Outlets::new(&bench.frames, &mut bench.ports));
    assert_eq!(bench.sent(), [packet(7, 0, &[])]);
    bench.stream.begin(&SESSION, 9, true);
    for tick in 2..4 {
        bench.stream.tick(tick * HEARTBEAT_NS, &mut Outlets::new(&bench.frames, &mut bench.ports));
        assert_eq!(bench.sent(), [packet(9, END_OF_SESSION, &[])]);
    }
}
