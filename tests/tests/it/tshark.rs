//! Wireshark's own MoldUDP64 dissector reads our output: an implementation that shares nothing with this project.
#![forbid(unsafe_code)]

use std::process::Command;

use feedhandler::net::headers::{HEADER_BYTES, Header, Template};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings};

use feedhandler_testkit::bench_worker::{BenchWorker, plan};

/// A classic pcap file (Ethernet, microseconds, little-endian) of these frames.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for (frame, number) in frames.iter().zip(0_u32..) {
        let length = u32::try_from(frame.len()).expect("a frame");
        for word in [number, 0, length, length] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(frame);
    }
    file
}

/// The frames that the worker sends for a small generated day.
fn output() -> (Vec<Vec<u8>>, u64) {
    let day = DaySettings { seed: 5, messages: 5_000, instruments: 50, live_orders: 500, recency: 0.6 };
    let mut exchange = Exchange::new(ExchangeSettings::default(), Day::new(&day));
    let plan = plan(20, 512);
    let header = Header::multicast(
        [2, 0, 0, 0, 0, 1],
        0,
        "10.0.0.1:30000".parse().expect("an address"),
        plan.destinations[0].group,
        8,
    );
    let template = Template::new(&header.expect("multicast"));
    let mut bench = BenchWorker::new(&plan);
    let mut frames = Vec::new();
    for transmission in exchange.by_ref() {
        bench.inject(u16::try_from(transmission.line).expect("two lines"), &transmission.payload, transmission.at_ns);
        bench.cycle(transmission.at_ns, |payload| {
            let mut frame = vec![0; HEADER_BYTES];
            template.write(&mut frame, payload.len());
            frame.extend_from_slice(payload);
            frames.push(frame);
        });
    }
    (frames, exchange.next_sequence())
}

#[test]
fn tshark_dissects_the_output_without_a_malformed_packet() {
    let (frames, next_sequence) = output();
    assert!(frames.len() > 100);
    let files = tempfile::TempDir::new().expect("a folder");
    let file = files.path().join("output.pcap");
    std::fs::write(&file, pcap(&frames)).expect("a file");
    let mut tshark = Command::new("tshark");
    tshark.args(["-d", "udp.port==30001,moldudp64", "-o", "ip.check_checksum:TRUE", "-T", "fields", "-r"]).arg(&file);
    for field in [
        "moldudp64.session",
        "moldudp64.sequence",
        "moldudp64.count",
        "ip.checksum.status",
        "_ws.malformed",
        "_ws.expert",
    ] {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("tshark: `cargo xtask setup` installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().count(), frames.len());
    let mut expected = 1;
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [session, sequence, count, checksum, malformed, expert] = fields[..] else { panic!("{line}") };
        assert_eq!((session, checksum, malformed), ("DEMO000001", "1", ""), "{line}");
        assert_eq!(sequence.parse::<u64>().ok(), Some(expected), "{line}");
        let count: u64 = count.parse().expect("a number");
        // Of a header alone it remarks (severity: comment) that it might also be a request packet.
        assert!(expert.is_empty() || (count == 0xFFFF && expert.contains("Comment")), "{line}");
        if count != 0xFFFF {
            expected += count;
        }
    }
    assert_eq!(expected, next_sequence, "all messages are in the packets that tshark read");
}
