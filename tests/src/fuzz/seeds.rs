//! What the corpus begins with: inputs that go deep, made by the project's own code.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::input::session;
use super::output::{message, messages};
use crate::itch::TYPES;
use crate::mold::{self, Packet};

/// Every key once.
const WHOLE_CONFIG: &str = include_str!("../../../config/feedhandler.toml");

/// Inputs for a target, each with a name. The same at every call.
#[must_use]
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let inputs = match target {
        "moldudp64" => mold_packets(),
        "itch50" => itch_days(),
        "headers" => frames(),
        "config" => configs(),
        "capture" => captures(),
        "planner" => (0..6).map(|seed| planner_calls(&mut ChaCha8Rng::seed_from_u64(seed))).collect(),
        "output" => outputs(),
        "soup" => soup_streams(),
        "worker" => (0..8).map(|seed| worker_life(&mut ChaCha8Rng::seed_from_u64(seed))).collect(),
        _ => Vec::new(),
    };
    inputs.into_iter().enumerate().map(|(number, bytes)| (format!("seed-{number}"), bytes)).collect()
}

fn data_packet(first: u64, count: u64) -> Vec<u8> {
    let mut packet = Packet::new(&session(0), first);
    let mut bytes = Vec::new();
    for number in first..first + count {
        bytes.clear();
        message(number).encode(&mut bytes);
        packet.push(&bytes);
    }
    packet.into_payload()
}

fn mold_packets() -> Vec<Vec<u8>> {
    let mut empty_blocks = Packet::new(&session(1), u64::MAX - 3);
    (0..3).for_each(|_| empty_blocks.push(b""));
    let mut trailing = data_packet(9, 2);
    trailing.extend_from_slice(&[0; 6]);
    vec![
        data_packet(1, 12),
        mold::heartbeat(&session(0), 13),
        mold::end_of_session(&session(0), 13),
        empty_blocks.into_payload(),
        trailing,
    ]
}

/// Messages as the target reads them: the index of the type, and what follows the type.
fn itch_days() -> Vec<Vec<u8>> {
    let encode = |messages: &[crate::itch::Message]| {
        let mut input = Vec::new();
        for message in messages {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let index = TYPES.iter().position(|(code, _)| *code == bytes[0]).expect("a known type");
            input.push(u8::try_from(index).expect("few types"));
            input.extend_from_slice(&bytes[1..]);
        }
        input
    };
    let all = messages();
    let mut with_events = vec![0xF1];
    with_events.extend(encode(&all[..20]));
    with_events.push(0xF0);
    with_events.extend(encode(&all[20..40]));
    vec![encode(&all[..40]), encode(&all[150..230]), with_events]
}

/// Ethernet II, tags, IPv4 with so many bytes of options, UDP.
fn frame(tags: &[[u8; 4]], options: usize, payload: usize, padding: usize) -> Vec<u8> {
    let mut bytes = vec![0x01, 0x00, 0x5E, 0x0A, 0x00, 0x01, 2, 0, 0, 0, 0, 1];
    tags.iter().for_each(|tag| bytes.extend_from_slice(tag));
    bytes.extend_from_slice(&[8, 0]);
    let total = u16::try_from(20 + options + 8 + payload).expect("a short frame");
    let words = u8::try_from(5 + options / 4).expect("few options");
    bytes.extend_from_slice(&[0x40 | words, 0]);
    bytes.extend_from_slice(&total.to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 0x40, 0, 8, 17, 0, 0, 10, 0, 1, 1, 239, 10, 0, 1]);
    bytes.extend(std::iter::repeat_n(1, options));
    bytes.extend_from_slice(&30_000_u16.to_be_bytes());
    bytes.extend_from_slice(&26_400_u16.to_be_bytes());
    bytes.extend_from_slice(&(total - 20 - u16::try_from(options).expect("few")).to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend(std::iter::repeat_n(b'x', payload));
    bytes.extend(std::iter::repeat_n(0, padding));
    bytes
}

fn frames() -> Vec<Vec<u8>> {
    let (outer, inner) = ([0x88, 0xA8, 0x00, 0x05], [0x81, 0x00, 0x60, 0x07]);
    vec![
        frame(&[], 0, 40, 0),
        frame(&[], 8, 3, 7),
        frame(&[inner], 0, 40, 0),
        frame(&[outer, inner], 40, 0, 0),
        frame(&[outer, inner, inner], 0, 4, 0),
    ]
}

fn configs() -> Vec<Vec<u8>> {
    let mut bare = String::new();
    for line in WHOLE_CONFIG.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let _ = writeln!(bare, "{}", line.split(" #").next().unwrap_or_default().trim_end());
    }
    vec![bare.into_bytes(), crate::testbed::DEMO_CONFIG.as_bytes().to_vec()]
}

/// A pcap file, either byte order, and a pcapng file with one interface.
fn captures() -> Vec<Vec<u8>> {
    let frame = frame(&[], 0, 20, 0);
    let len = u32::try_from(frame.len()).expect("short");
    let pcap = |bytes: fn(u32) -> [u8; 4], half: fn(u16) -> [u8; 2]| {
        let mut file = Vec::new();
        file.extend(bytes(0xA1B2_3C4D));
        file.extend([half(2), half(4)].concat());
        [0, 0, 65_535, 1].into_iter().for_each(|word| file.extend(bytes(word)));
        for second in 0..2 {
            [second, 7, len, len + 4].into_iter().for_each(|word| file.extend(bytes(word)));
            file.extend_from_slice(&frame);
        }
        file
    };
    let mut next = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let body_len = body.len().next_multiple_of(4);
        let total = u32::try_from(body_len + 12).expect("short").to_le_bytes();
        next.extend(kind.to_le_bytes());
        next.extend(total);
        next.extend_from_slice(body);
        next.extend(std::iter::repeat_n(0, body_len - body.len()));
        next.extend(total);
    };
    let section = [&0x1A2B_3C4D_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xFF; 8]].concat();
    block(0x0A0D_0D0A, &section);
    // if_tsresol 9, if_tsoffset 1.
    let interface = [1, 0, 0, 0, 0, 0, 4, 0, 9, 0, 1, 0, 9, 0, 0, 0, 14, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    block(1, &interface);
    let head = [0, 1, 2, len, len].map(u32::to_le_bytes).concat();
    block(6, &[&head[..], &frame].concat());
    block(3, &[&len.to_le_bytes()[..], &frame].concat());
    vec![pcap(u32::to_le_bytes, u16::to_le_bytes), pcap(u32::to_be_bytes, u16::to_be_bytes), next]
}

/// Holes, requests and answers.
fn planner_calls(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..12 {
        input.extend([0, 2, rng.random_range(0..50), rng.random_range(0..100), 3, rng.random_range(0..60), 7]);
        for _ in 0..4 {
            input.extend([4, rng.random_range(0..4), 5, rng.random_range(0..4), rng.random(), 7]);
        }
        input.extend([1, 0, rng.random_range(50..255), 7, 1, rng.random_range(0..20), 0, 7]);
    }
    input.extend([2, 7, 6, 7]);
    input
}

/// Packets without records, and records of every kind.
fn outputs() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for (first, count) in [(1, 3), (4, 2), (9, 4)] {
        let mut packet = Packet::new(&session(0), first);
        (0..count).for_each(|_| packet.push(b""));
        let payload = packet.into_payload();
        packets.extend([0, u8::try_from((payload.len() - 10) / 4).expect("short")]);
        packets.extend_from_slice(&payload[10..10 + (payload.len() - 10) / 4 * 4]);
    }
    let records = [(0xA0, 56), (0x12, 40), (0x16, 176), (0x14, 112), (0x13, 520)].map(|(rtype, len): (u8, usize)| {
        let mut record = vec![0; len];
        (record[0], record[1]) = (u8::try_from(len / 4).expect("short"), rtype);
        record
    });
    let mut packet = Packet::new(&session(0), 1);
    records.iter().for_each(|record| packet.push(record));
    vec![packets, records.concat(), packet.into_payload()]
}

/// Mostly a stream as it should be on two lines, with losses, late packets, lies and switches between.
fn worker_life(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut input = Vec::new();
    let (mut number, mut session) = (1_u8, 0_u8);
    for _ in 0..60 {
        let count = rng.random_range(1..6);
        for line in 0..2_u8 {
            if rng.random_bool(0.85) {
                input.extend([session << 5 | line << 3 | 1, number, count]);
            }
        }
        number = number.saturating_add(count).min(240);
        match rng.random_range(0..16) {
            0 => input.extend([session << 5 | 3, number]),
            1 => input.extend([session << 5 | 2, number, rng.random(), 0, rng.random(), rng.random()]),
            2 => input.extend([0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
            3 => input.extend([4, 0, rng.random()]),
            4 => input.extend([6, 5, 5, 6 | 1 << 5]),
            5 => input.extend([session << 5 | 2 << 3 | 1, number.saturating_sub(9).max(1), 9]),
            6 => input.push(7 | 3 << 5),
            7 if number > 150 => (number, session) = (1, session + 1),
            _ => {}
        }
        session %= 4;
        input.push(5);
    }
    input
}

/// A login that is accepted, messages, a heartbeat, the end; and one that is refused.
fn soup_streams() -> Vec<Vec<u8>> {
    let packet = |kind: u8, payload: &[u8]| {
        let len = u16::try_from(payload.len() + 1).expect("short");
        [&len.to_be_bytes()[..], &[kind], payload].concat()
    };
    let accepted = packet(b'A', format!("{:>10}{:>20}", "FUZZ000001", 7).as_bytes());
    let day =
        [accepted, packet(b'S', b"one"), packet(b'H', b""), packet(b'S', b""), packet(b'+', b"?"), packet(b'Z', b"")];
    vec![[&[2, 4][..], &day.concat()].concat(), [&[0, 0][..], &packet(b'J', b"A")].concat()]
}
