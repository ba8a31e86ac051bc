//! Small captures through the replay: everything in them is accounted for, and damage ends a file, not the replay.
#![forbid(unsafe_code)]

use std::io::Write as _;

use super::*;
use crate::config::{Config, Host};
use crate::net::headers::{HEADER_BYTES, Header, Template};

const CONFIG: &str = r#"
[handler]
name = "replay"
[[interface]]
name = "any"
[[worker]]
name = "w0"
[[feed]]
name = "itch"
transport = "moldudp64"
decoder = "itch50"
publisher_id = 2
time_zone = "America/New_York"
[[feed.channel]]
name = "c"
max_orders = 1000
[[feed.channel.line]]
name = "A"
interface = "any"
group = "239.10.0.1:26400"
"#;

fn plan() -> Plan {
    Config::parse(CONFIG, "replay.toml", &Host { cores: vec![] }).unwrap()
}

/// A frame to the line's group: MoldUDP64 with these messages, or with bytes that are none.
fn frame(payload: &[u8], group: &str) -> Vec<u8> {
    let header = Header::multicast([2; 6], 0, "10.0.0.1:1".parse().unwrap(), group.parse().unwrap(), 8).unwrap();
    let template = Template::new(&header);
    let mut frame = vec![0; HEADER_BYTES];
    template.write(&mut frame, payload.len());
    frame.truncate(template.len());
    frame.extend(payload);
    frame
}

fn packet(sequence: u64, messages: &[&[u8]]) -> Vec<u8> {
    let mut payload = b"SESSION001".to_vec();
    payload.extend(sequence.to_be_bytes());
    payload.extend((messages.len() as u16).to_be_bytes());
    for message in messages {
        payload.extend((message.len() as u16).to_be_bytes());
        payload.extend(*message);
    }
    payload
}

/// A classic little-endian pcap file with nanoseconds.
fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![];
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, link] {
        bytes.extend(word.to_le_bytes());
    }
    for (frame, ns) in frames.iter().zip(1_u32..) {
        for word in [1_700_000_000, ns, frame.len() as u32, frame.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}

fn file(bytes: &[u8]) -> tempfile::TempPath {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.into_temp_path()
}

fn run(files: &[&tempfile::TempPath]) -> Result<Report, ReplayError> {
    replay(&plan(), &files.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>())
}

#[test]
fn every_frame_is_accounted_for_by_line_type_and_reason() {
    let to_line = |payload: &[u8]| frame(payload, "239.10.0.1:26400");
    let mut torn = packet(4, &[b"Sx"]);
    torn.pop();
    let mut arp = to_line(b"");
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut cut = to_line(&packet(9, &[b"Sx"]));
    cut.pop();
    let capture = file(&pcap(
        1,
        &[
            to_line(&packet(1, &[b"Sx", b"?x", b""])),
            to_line(&packet(1, &[b"Sx", b"?x", b""])),
            to_line(&torn),
            frame(b"other", "239.10.0.9:26400"),
            arp.clone(),
            arp,
            cut,
        ],
    ));
    let report = run(&[&capture]).unwrap();
    assert_eq!((report.frames, report.unknown_group), (7, 1));
    assert_eq!(report.no_datagram, BTreeMap::from([("pass_arp", 2), ("pass_truncated", 1)]));
    let line = &report.lines[0];
    assert_eq!((line.packets, line.messages, line.duplicates), (3, 6, 1));
    assert_eq!(line.messages_by_type, BTreeMap::from([('-', 2), ('?', 2), ('S', 2)]));
    assert_eq!(line.drops, BTreeMap::from([("duplicate", 1), ("truncated_blocks", 1)]));
    assert_eq!(report.channels[0].messages_by_type, BTreeMap::from([('-', 1), ('?', 1), ('S', 1)]));
    let text = report.to_string();
    assert!(text.contains("no datagram: pass_arp 2  pass_truncated 1"), "{text}");
    assert!(text.contains("itch/c A by type: - 2  ? 2  S 2"), "{text}");
}

/// As live: of one group from two sources each is a line of its own. But a capture may come from elsewhere, so a source
/// that no line names still belongs to the group's (last) line.
#[test]
fn sources_of_one_group_are_told_apart() {
    let line = |name: &str, source: &str| {
        let group = "interface = \"any\"\ngroup = \"239.10.0.1:26400\"";
        format!("[[feed.channel.line]]\nname = \"{name}\"\n{group}\nsource = \"{source}\"\n")
    };
    let (head, _) = CONFIG.split_once("[[feed.channel.line]]").unwrap();
    let text = format!("{head}{}{}", line("A", "10.0.0.1"), line("B", "10.0.0.2"));
    let plan = Config::parse(&text, "replay.toml", &Host { cores: vec![] }).unwrap();
    let from = |last: u8, sequence| {
        let mut frame = frame(&packet(sequence, &[b"Sx"]), "239.10.0.1:26400");
        frame[29] = last;
        frame
    };
    let capture = file(&pcap(1, &[from(1, 1), from(2, 1), from(1, 2), from(3, 2)]));
    let report = replay(&plan, &[capture.to_path_buf()]).unwrap();
    assert_eq!(report.lines.iter().map(|line| (line.packets, line.duplicates)).collect::<Vec<_>>(), [(2, 0), (2, 2)]);
}

#[test]
fn damage_ends_a_file_and_is_told_while_the_others_go_on() {
    let frames: Vec<_> = [1, 2].map(|sequence| frame(&packet(sequence, &[b"Sx"]), "239.10.0.1:26400")).into();
    let whole = pcap(1, &frames);
    let (damaged, rest) = (file(&whole[..whole.len() - 1]), file(&whole));
    let report = run(&[&damaged, &rest]).unwrap();
    assert_eq!(report.files.iter().map(|file| file.frames).collect::<Vec<_>>(), [1, 2]);
    let damage = report.files[0].damage.as_deref().unwrap();
    let offset = 24 + 16 + frames[0].len();
    assert!(damage.contains(&format!("offset {offset}: the file ends within a block")), "{damage}");
    assert!(damage.starts_with(damaged.to_str().unwrap()) && report.files[1].damage.is_none());
    assert_eq!(report.channels[0].counts["messages"], 2, "the other file has both");
    assert!(report.to_string().contains("DAMAGED, read up to there (1 frames)"), "{report}");
    assert!(serde_json::to_string(&report).unwrap().contains("the file ends within a block"));
}

#[test]
fn what_is_no_capture_at_all_is_refused() {
    for bytes in [&b"not a capture"[..], &pcap(101, &[vec![0; 20]])] {
        let (good, bad) = (file(&pcap(1, &[])), file(bytes));
        let error = run(&[&good, &bad]).unwrap_err().to_string();
        assert!(error.starts_with(bad.to_str().unwrap()), "{error}");
    }
}

#[test]
fn frames_of_other_link_types_are_told() {
    let mut bytes = vec![];
    let mut block = |kind: u32, words: &[u32]| {
        let len = (words.len() as u32 + 3) * 4;
        for word in [&[kind, len][..], words, &[len]].concat() {
            bytes.extend(word.to_le_bytes());
        }
    };
    block(0x0a0d_0d0a, &[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]);
    // Link type 101: raw IP.
    block(1, &[101, 0]);
    block(6, &[0, 0, 1, 4, 4, 0]);
    let report = run(&[&file(&bytes)]).unwrap();
    assert_eq!((report.frames, report.files[0].skipped_not_ethernet), (0, 1));
    assert!(report.to_string().contains("left out 1 frames of interfaces that are not Ethernet"), "{report}");
}
