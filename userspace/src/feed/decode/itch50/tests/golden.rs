//! Real messages: `nasdaq-itch50-msgs.bin` and its decoded fields, `nasdaq-itch50-wire.pcap` through a channel.
#![forbid(unsafe_code)]

mod fields;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{LegacyPcapReader, PcapBlockOwned, PcapError};
use serde_json::Value;

use super::messages::Body;
use super::*;
use crate::config::plan::{DecoderKind, OnGap, StartAt, TransportKind};
use crate::feed::{Block, BlockSink, Channel, ChannelIndex, ChannelSettings, LineRole, Session};
use fields::named_fields;

/// A file of the captures folder; `None`, said aloud, where there is none.
fn capture(test: &str, name: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("FEEDHANDLER_CAPTURES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/captures")), PathBuf::from);
    let path = folder.join(name);
    if !path.exists() {
        // Not println!: libtest swallows that of tests that pass.
        let mut stdout = std::io::stdout();
        let _ = writeln!(
            stdout,
            "SKIPPED {test}: no {} (set FEEDHANDLER_CAPTURES to the folder of the captures)",
            path.display()
        );
        return None;
    }
    Some(std::fs::read(path).unwrap())
}

fn golden(test: &str, name: &str) -> Option<Value> {
    let bytes = capture(test, "golden.json")?;
    Some(serde_json::from_slice::<Value>(&bytes).unwrap()["files"][name].clone())
}

/// Sums of raw field values, as golden.json has them.
#[derive(Default)]
struct Sums {
    messages: u64,
    per_type: BTreeMap<String, u64>,
    timestamp_ns: u64,
    locate: u64,
    shares: u64,
    price: u64,
}

impl Sums {
    fn add(&mut self, message: &[u8]) {
        let (header, body) = messages::parse(message).unwrap();
        let (shares, price) = match body {
            Body::AddOrder(m) => (u64::from(m.shares), m.price),
            Body::AddOrderAttributed(m) => (u64::from(m.shares), m.price),
            Body::Trade(m) => (u64::from(m.shares), m.price),
            Body::OrderExecuted(m) => (u64::from(m.shares), 0),
            Body::OrderExecutedWithPrice(m) => (u64::from(m.shares), m.price),
            Body::OrderCancel(m) => (u64::from(m.shares), 0),
            Body::OrderReplace(m) => (u64::from(m.shares), m.price),
            Body::CrossTrade(m) => (m.shares, m.price),
            _ => (0, 0),
        };
        self.messages += 1;
        *self.per_type.entry(char::from(message[0]).to_string()).or_default() += 1;
        self.timestamp_ns += header.timestamp_ns;
        self.locate += u64::from(header.locate);
        self.shares += shares;
        self.price += u64::from(price);
    }

    fn check(&self, golden: &Value) {
        assert_eq!(golden["messages"], self.messages);
        assert_eq!(golden["per_type"], serde_json::to_value(&self.per_type).unwrap());
        assert_eq!(golden["sum_timestamp_ns"], self.timestamp_ns);
        assert_eq!(golden["sum_locate"], self.locate);
        assert_eq!(golden["sum_shares_AFPECXUQ"], self.shares);
        assert_eq!(golden["sum_price4_AFPUQC"], self.price);
    }
}

fn split(mut file: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = file.split_first_chunk::<2>() {
        let (message, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        messages.push(message);
        file = rest;
    }
    messages
}

#[test]
fn real_messages_have_the_golden_sums() {
    let (test, name) = ("real_messages_have_the_golden_sums", "nasdaq-itch50-msgs.bin");
    let (Some(file), Some(golden)) = (capture(test, name), golden(test, name)) else { return };
    let mut sums = Sums::default();
    split(&file).into_iter().for_each(|message| sums.add(message));
    sums.check(&golden);
}

#[test]
fn every_field_of_every_real_message_is_as_decoded_elsewhere() {
    let test = "every_field_of_every_real_message_is_as_decoded_elsewhere";
    let (Some(file), Some(lines)) =
        (capture(test, "nasdaq-itch50-msgs.bin"), capture(test, "nasdaq-itch50-msgs.jsonl"))
    else {
        return;
    };
    let lines = String::from_utf8(lines).unwrap();
    let messages = split(&file);
    assert_eq!(messages.len(), lines.lines().count());
    for (message, line) in messages.into_iter().zip(lines.lines()) {
        let expected: Value = serde_json::from_str(line).unwrap();
        let (header, body) = messages::parse(message).unwrap();
        assert_eq!(expected["loc"], header.locate, "{line}");
        assert_eq!(expected["trk"], header.tracking, "{line}");
        assert_eq!(expected["ts"], header.timestamp_ns, "{line}");
        for (name, value) in named_fields(&body) {
            assert_eq!(expected[name], value, "{name} of {line}");
        }
    }
}

/// What a channel delivered.
#[derive(Default)]
struct Collect {
    sums: Sums,
    records: Vec<(u64, Vec<u8>)>,
    lost: Vec<(u64, u64)>,
    sequences: Vec<u64>,
}

impl BlockSink for Collect {
    fn block(&mut self, block: &Block<'_>) {
        self.sums.add(block.message);
        self.sequences.push(block.sequence);
        self.records.push((block.sequence, block.records.to_vec()));
    }

    fn lost(&mut self, _: ChannelIndex, _: &Session, from: u64, to: u64) {
        self.lost.push((from, to));
    }

    fn end_of_session(&mut self, _: ChannelIndex, _: &Session, _: u64) {
        panic!("nothing ends in this file");
    }
}

fn channel() -> Channel {
    Channel::new(ChannelSettings {
        payload_bytes: 0,
        index: 0,
        transport: TransportKind::MoldUdp64,
        decoder: DecoderKind::Itch50,
        publisher_id: 2,
        gap_timeout_ns: 0,
        give_up_ns: 0,
        on_gap: OnGap::Hold,
        stale_ns: 0,
        backfill_ns: 0,
        hold_packets: 8,
        max_orders: 1000,
        start: StartAt::Now,
        midnights: Midnights::new(vec![MIDNIGHT]),
    })
    .unwrap()
}

/// (UTC nanoseconds, UDP payload) of each packet: one VLAN tag, IPv4 without options, as this file has them.
fn packets(file: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut reader = LegacyPcapReader::new(1 << 16, file).unwrap();
    let mut packets = Vec::new();
    loop {
        match reader.next() {
            Ok((used, block)) => {
                if let PcapBlockOwned::Legacy(packet) = block {
                    let utc_ns = u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_usec);
                    let udp_length = usize::from(u16::from_be_bytes([packet.data[42], packet.data[43]]));
                    packets.push((utc_ns, packet.data[46..38 + udp_length].to_vec()));
                }
                reader.consume(used);
            }
            Err(PcapError::Eof) => return packets,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_wire_capture_goes_through_channels_with_the_golden_counts() {
    let (test, name) = ("the_wire_capture_goes_through_channels_with_the_golden_counts", "nasdaq-itch50-wire.pcap");
    let (Some(file), Some(golden)) = (capture(test, name), golden(test, name)) else { return };
    let mut sums = Sums::default();
    for (line, expected) in golden["lines"].as_object().unwrap() {
        let (mut channel, mut out) = (channel(), Collect::default());
        for (utc_ns, payload) in
            packets(&file).iter().filter(|(_, payload)| line.as_bytes().starts_with(&payload[..10]))
        {
            channel.admit(0, LineRole::A, payload, *utc_ns).unwrap();
            // Every packet of this file opens a gap that nobody will fill.
            channel.poll(*utc_ns);
            channel.deliver(|_| payload, 0, &mut out);
        }
        let counts = channel.counts();
        assert_eq!(expected["packets"], channel.line_counts(LineRole::A).packets);
        assert_eq!(expected["messages"], counts.messages);
        assert_eq!(expected["first_seq"], out.sequences[0]);
        assert_eq!(expected["last_seq"], *out.sequences.last().unwrap());
        let lost: u64 = out.lost.iter().map(|(from, to)| to - from).sum();
        assert_eq!(lost + counts.messages, counts.next_sequence - out.sequences[0]);
        assert_eq!((counts.messages_lost, counts.decode_errors, counts.unknown_types), (lost, 0, 0));
        out.records.iter().for_each(|(_, records)| assert_eq!(records.len() % 8, 0));
        for (sequence, _) in &out.records {
            assert!(out.lost.iter().all(|(from, to)| sequence < from || sequence >= to));
        }
        sums.messages += out.sums.messages;
        sums.timestamp_ns += out.sums.timestamp_ns;
        sums.locate += out.sums.locate;
        sums.shares += out.sums.shares;
        sums.price += out.sums.price;
        for (kind, count) in out.sums.per_type {
            *sums.per_type.entry(kind).or_default() += count;
        }
    }
    sums.check(&golden);
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter(u8::is_ascii_hexdigit).map(|c| char::from(c).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Packet 2 of the wire capture: an Add Order of 1,600 IVOO at 87.39, as MoldUDP64 payload and as MboMsg. A channel that
/// begins with it joins the session late and says so.
#[test]
fn a_real_add_becomes_the_known_bytes() {
    let payload = hex("30303030313030353942 0000000000e12f59 0001 0024
        41 1598 0000 1f1aced85306 000000000166b53e 42 00000640 49564f4f20202020 000d55ac");
    let record = hex("0ea00200 98150000 06d363a6afb77d17 3eb5660100000000 8093d95814000000 40060000 80 00 41 42
        d65666a6afb77d17 d0830200 592fe100");
    let mut records = Records::new();
    let mut itch = Itch50::new(2, 100, Midnights::new(vec![MIDNIGHT]));
    itch.decode(&payload[22..], 14_757_721, 1_692_711_000_000_059_094, &mut records);
    assert_eq!(records.bytes()[size_of::<SymbolMappingMsg>()..], record);
    let mut late = record;
    late[36] |= dbn::flags::MAYBE_BAD_BOOK;

    let (mut channel, mut out) = (channel(), Collect::default());
    // The channel's clock is monotonic; the offset makes it UTC.
    channel.admit(0, LineRole::B, &payload, 59_094).unwrap();
    channel.deliver(|_| &payload, 1_692_711_000_000_000_000, &mut out);
    let (sequence, records) = &out.records[0];
    let (mapping, add) = records.split_at(size_of::<SymbolMappingMsg>());
    assert_eq!((*sequence, add), (14_757_721, &late[..]));
    assert_eq!(&mapping[16..22], b"\x01IVOO\0");
    assert_eq!(&mapping[88..94], b"\x005528\0");
    assert_eq!(channel.counts().first_sequence, 14_757_721);
}
