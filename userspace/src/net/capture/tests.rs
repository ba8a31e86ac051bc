//! Captures written here byte by byte after the formats' descriptions (libpcap's `pcap-savefile(5)`, the pcapng draft).
#![forbid(unsafe_code)]

use std::io::Write;

use proptest::prelude::*;

use super::*;

type Frames = Vec<(u64, Vec<u8>)>;

fn read(bytes: &[u8]) -> (Frames, Option<String>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut frames = vec![];
    let mut reader = match CaptureReader::open(file.path()) {
        Ok(reader) => reader,
        Err(error) => return (frames, Some(error.to_string())),
    };
    loop {
        match reader.next_frame() {
            Ok(Some(captured)) => frames.push((captured.utc_ns, captured.frame.to_vec())),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error.to_string())),
        }
    }
}

fn word(value: u32, big: bool) -> [u8; 4] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn half(value: u16, big: bool) -> [u8; 2] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn pcap(magic: u32, big: bool, link: u32, frames: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![];
    out.extend(word(magic, big));
    out.extend(half(2, big));
    out.extend(half(4, big));
    for value in [0, 0, 65_535, link] {
        out.extend(word(value, big));
    }
    for (seconds, fraction, frame) in frames {
        for value in [*seconds, *fraction, frame.len() as u32, frame.len() as u32] {
            out.extend(word(value, big));
        }
        out.extend(frame);
    }
    out
}

fn block(kind: u32, big: bool, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let len = word(padded as u32 + 12, big);
    let mut out = [word(kind, big), len].concat();
    out.extend(body);
    out.resize(8 + padded, 0);
    out.extend(len);
    out
}

fn section(big: bool) -> Vec<u8> {
    let mut body = word(0x1a2b_3c4d, big).to_vec();
    body.extend(half(1, big));
    body.extend(half(0, big));
    body.extend([0xff; 8]);
    block(0x0a0d_0d0a, big, &body)
}

fn interface(big: bool, link: u16, tsresol: Option<u8>, tsoffset: Option<i64>) -> Vec<u8> {
    let mut body = half(link, big).to_vec();
    body.extend([0; 2]);
    body.extend(word(0, big));
    if let Some(resolution) = tsresol {
        body.extend(half(9, big));
        body.extend(half(1, big));
        body.extend([resolution, 0, 0, 0]);
    }
    if let Some(offset) = tsoffset {
        body.extend(half(14, big));
        body.extend(half(8, big));
        body.extend(if big { offset.to_be_bytes() } else { offset.to_le_bytes() });
    }
    body.extend([0; 4]);
    block(1, big, &body)
}

fn packet(big: bool, interface: u32, ticks: u64, frame: &[u8]) -> Vec<u8> {
    let mut body = vec![];
    for value in [interface, (ticks >> 32) as u32, ticks as u32, frame.len() as u32, frame.len() as u32] {
        body.extend(word(value, big));
    }
    body.extend(frame);
    block(6, big, &body)
}

#[test]
fn classic_captures_of_both_precisions_and_byte_orders() {
    for big in [false, true] {
        let frames = [(7, 5, vec![1, 2, 3]), (8, 999_999, vec![]), (8, 999_999, vec![9; 1500])];
        let times = |per_tick: u64| -> Frames {
            frames
                .iter()
                .map(|(s, f, d)| (u64::from(*s) * 1_000_000_000 + u64::from(*f) * per_tick, d.clone()))
                .collect()
        };
        assert_eq!(read(&pcap(0xa1b2_c3d4, big, 1, &frames)), (times(1000), None), "microseconds, big endian: {big}");
        assert_eq!(read(&pcap(0xa1b2_3c4d, big, 1, &frames)), (times(1), None), "nanoseconds, big endian: {big}");
    }
}

#[test]
fn pcapng_times_follow_the_interface() {
    for big in [false, true] {
        let mut bytes = section(big);
        bytes.extend(interface(big, 1, None, None));
        bytes.extend(interface(big, 1, Some(9), None));
        bytes.extend(interface(big, 1, Some(0x80 | 10), Some(100)));
        bytes.extend(interface(big, 101, None, None));
        bytes.extend(packet(big, 0, 5, b"us"));
        bytes.extend(packet(big, 1, 6 << 32, b"ns"));
        bytes.extend(packet(big, 2, 1536, b"binary"));
        bytes.extend(packet(big, 3, 1, b"raw IP: left out"));
        bytes.extend(block(0x0bad, big, b"unknown blocks are passed over"));
        let expected: Frames = vec![(5000, b"us".into()), (6 << 32, b"ns".into()), (101_500_000_000, b"binary".into())];
        assert_eq!(read(&bytes), (expected, None), "big endian: {big}");
    }
}

#[test]
fn gzip_is_recognised_by_content_and_damage_in_it_is_an_error() {
    let frames = [(1, 0, vec![1; 60]), (2, 0, vec![2; 60])];
    let plain = pcap(0xa1b2_3c4d, false, 1, &frames);
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    assert_eq!(read(&packed), read(&plain));
    let (_, error) = read(&packed[..packed.len() - 12]);
    assert!(error.is_some(), "a cut gzip file must not look like a shorter capture");
}

#[test]
fn errors_name_the_file_the_offset_and_what_is_wrong() {
    let whole = pcap(0xa1b2_c3d4, false, 1, &[(1, 0, vec![1; 10]), (2, 0, vec![2; 10])]);
    let (frames, error) = read(&whole[..whole.len() - 1]);
    let error = error.unwrap();
    assert_eq!(frames.len(), 1, "frames before the damage are delivered");
    assert!(error.contains("offset 50: the file ends within a block"), "{error}");

    let (_, error) = read(&pcap(0xa1b2_c3d4, false, 101, &[]));
    assert!(error.unwrap().contains("link type 101 is not Ethernet"));

    let mut long = pcap(0xa1b2_c3d4, false, 1, &[]);
    for value in [1_u32, 0, u32::MAX, 10] {
        long.extend(value.to_le_bytes());
    }
    let (_, error) = read(&long);
    assert!(error.as_ref().unwrap().contains("offset 24: the file ends within a block"), "{error:?}");
    long.resize(2 * MAX_BUFFER_BYTES, 0);
    let (_, error) = read(&long);
    assert!(error.as_ref().unwrap().contains("offset 24: a block longer than 16777216 bytes"), "{error:?}");

    for junk in [&b""[..], b"x", b"#!/bin/sh\necho not a capture at all"] {
        let (_, error) = read(junk);
        assert!(error.as_ref().unwrap().contains("not a capture"), "{error:?}");
    }
    let missing = CaptureReader::open(Path::new("no/such/file.pcap")).unwrap_err().to_string();
    assert!(missing.starts_with("no/such/file.pcap: "), "{missing}");

    let mut bytes = section(false);
    bytes.extend(packet(false, 0, 1, b"x"));
    assert!(read(&bytes).1.unwrap().contains("interface 0, of which there is no description"));
}

#[test]
fn a_block_longer_than_the_first_buffer_is_read() {
    let mut bytes = section(false);
    bytes.extend(interface(false, 1, None, None));
    bytes.extend(block(0x0bad, false, &vec![7; 3 * BUFFER_BYTES]));
    bytes.extend(packet(false, 0, 1, b"after"));
    assert_eq!(read(&bytes), (vec![(1000, b"after".to_vec())], None));
}

proptest! {
    #[test]
    fn any_bytes_end_in_frames_or_an_error(mut bytes: Vec<u8>, cut in 0_usize..300, ng: bool) {
        let mut start = if ng {
            [section(false), interface(false, 1, Some(3), None), packet(false, 0, 1, &[1; 50])].concat()
        } else {
            pcap(0xa1b2_c3d4, false, 1, &[(1, 1, vec![1; 50])])
        };
        start.truncate(cut);
        start.append(&mut bytes);
        let _ = read(&start);
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0_usize..200, flip in 1_u8..) {
        let mut bytes = [section(false), interface(false, 1, Some(6), Some(1)), packet(false, 0, 1, &[1; 50])].concat();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let _ = read(&bytes);
    }
}
