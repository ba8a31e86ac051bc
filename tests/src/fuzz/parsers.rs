//! One parser each.
#![forbid(unsafe_code)]

use std::io::Cursor;
use std::path::Path;

use feedhandler::config::plan::{DecoderKind, TransportKind};
use feedhandler::config::{Config, Host};
use feedhandler::feed::channel::{MAX_HOLD_PACKETS, MAX_ORDERS};
use feedhandler::feed::decode::{Decoder, Records};
use feedhandler::feed::midnights::Midnights;
use feedhandler::feed::transport::moldudp64::Blocks;
use feedhandler::feed::transport::{PacketHeader, PacketKind, check_blocks};
use feedhandler::net::capture::CaptureReader;
use xdp_ebpf::headers;

use super::input::Input;
use crate::itch::TYPES;
use crate::mold;
use crate::records::{DEFINITION, IMBALANCE, MAPPING, MBO, Record, STATUS};

/// The handler's reading of MoldUDP64 against the simulator's own: they accept the same packets and see the same in them.
pub(super) fn moldudp64(data: &[u8]) {
    let _ = Blocks::new(data, u16::MAX).count();
    let read = PacketHeader::parse(TransportKind::MoldUdp64, data)
        .and_then(|header| Ok((header, check_blocks(TransportKind::MoldUdp64, data, header.count)?)));
    let Ok((header, trailing)) = read else {
        assert!(mold::parse(data).is_err(), "the handler refuses it ({read:?}), the simulator does not");
        return;
    };
    assert_eq!(mold::parse(data).is_ok(), trailing == 0, "{trailing} bytes are left");
    let view = mold::parse(&data[..data.len() - trailing]).expect("the handler takes it");
    assert_eq!((view.session, view.sequence), (header.session, header.sequence));
    assert_eq!(view.is_end, header.kind == PacketKind::EndOfSession);
    assert_eq!(header.end(), header.sequence + view.blocks.len() as u64);
    assert_eq!(view.blocks, Blocks::new(data, header.count).collect::<Vec<_>>());
}

/// Any messages: each yields whole records of known types, and says in them whose they are.
pub(super) fn itch50(data: &[u8]) {
    let mut input = Input(data);
    let mut decoder = Decoder::new(DecoderKind::Itch50, 2, 64, Midnights::utc());
    let (mut records, mut message, mut sequence) = (Records::new(), Vec::new(), 1_u64);
    while let Some(what) = input.u8() {
        message.clear();
        match what {
            // A known type at its length; what is missing of it at the end of the input is 0.
            0..0x80 => {
                let (code, len) = TYPES[usize::from(what) % TYPES.len()];
                message.push(code);
                message.extend_from_slice(input.up_to(len - 1));
                message.resize(len, 0);
            }
            0xF0 => decoder.lost(),
            0xF1 => decoder.begin_session(),
            0xF2 => sequence = input.number().unwrap_or(u64::MAX),
            _ => message.extend_from_slice(input.up_to(usize::from(what - 0x80))),
        }
        records.clear();
        decoder.prefetch(&message);
        decoder.decode(&message, sequence, sequence.wrapping_mul(1 << 32), &mut records);
        let mut rest = records.bytes();
        let mut count = 0;
        while !rest.is_empty() {
            let record = Record::cut(&mut rest).expect("a whole record");
            let kind = (record.rtype(), record.len());
            assert!([MBO, STATUS, DEFINITION, IMBALANCE, MAPPING].contains(&kind), "{kind:x?}");
            let locate = u32::from(u16::from_be_bytes([message[1], message[2]]));
            assert_eq!(record.instrument(), locate, "of a message {}", message[0].escape_ascii());
            count += 1;
        }
        assert_eq!(count, records.count());
        sequence = sequence.wrapping_add(1);
    }
}

/// Any frame: what is found lies within it, and what Ethernet pads behind it changes nothing.
pub(super) fn headers(data: &[u8]) {
    let Ok(parsed) = headers::parse(data) else { return };
    let end = usize::from(parsed.payload_offset) + usize::from(parsed.payload_len);
    assert!(end <= data.len(), "{parsed:?} in {} bytes", data.len());
    assert!(parsed.payload_offset >= 42 && parsed.key.dst_ip[0] >> 4 == 0xE && parsed.key.vlan < 4096, "{parsed:?}");
    let padded = [data, &[0xA5; 46]].concat();
    assert_eq!(headers::parse(&padded[..]), Ok(parsed));
    assert!(headers::parse(&data[..end - 1]).is_err(), "a frame that is too short for {parsed:?}");
}

/// Any text: a plan that can be built, or an error that names the file.
pub(super) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(&text, "fuzz.toml", &Host { cores: vec![0, 1] }) {
        Ok(plan) => {
            assert!(!plan.channels.is_empty() && !plan.workers.is_empty());
            for channel in plan.channels.values() {
                assert!((1..=MAX_HOLD_PACKETS).contains(&channel.hold_packets), "{}", channel.hold_packets);
                assert!((1..=MAX_ORDERS).contains(&channel.max_orders), "{}", channel.max_orders);
                assert!(channel.worker < plan.workers.len() && channel.lines.is_empty() == channel.soup.is_some());
            }
        }
        Err(error) => assert!(error.to_string().contains("fuzz.toml"), "{error}"),
    }
}

/// Any file: frames, then its end or an error.
pub(super) fn capture(data: &[u8]) {
    /// A compressed file of this size can hold millions.
    const MOST_FRAMES: usize = 1_000;
    let Ok(mut reader) = CaptureReader::read(Path::new("fuzz.pcap"), Cursor::new(data.to_vec())) else { return };
    let is_plain = !data.starts_with(&[0x1F, 0x8B]);
    let mut bytes = 0;
    for _ in 0..MOST_FRAMES {
        match reader.next_frame() {
            Ok(Some(captured)) => bytes += captured.frame.len(),
            Ok(None) => break,
            Err(error) => {
                assert!(error.to_string().contains("fuzz.pcap"), "{error}");
                break;
            }
        }
    }
    assert!(!is_plain || bytes <= data.len(), "{bytes} bytes of frames in a file of {}", data.len());
}
