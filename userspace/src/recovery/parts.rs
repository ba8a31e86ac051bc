//! Answers that are longer than what the way to the worker carries, as several packets.
#![forbid(unsafe_code)]

use crate::config::plan::TransportKind;
use crate::feed::transport::{self, PacketHeader, moldudp64};
use crate::net::handoff::HANDOFF_BYTES;

/// Gives a valid packet to `hand` as it is, or where it is too long as packets of at most [`HANDOFF_BYTES`] with the same
/// messages. Ends with false where `hand` does, or at a message that fits into no packet.
pub fn each(transport: TransportKind, payload: &[u8], mut hand: impl FnMut(&[u8]) -> bool) -> bool {
    if payload.len() <= HANDOFF_BYTES {
        return hand(payload);
    }
    let Ok(header) = PacketHeader::parse(transport, payload) else { return false };
    let mut part = Vec::with_capacity(HANDOFF_BYTES);
    let (mut sequence, mut count) = (header.sequence, 0);
    let mut flush = |part: &mut Vec<u8>, sequence: u64, count: u16| {
        if let Some(start) = part.first_chunk_mut() {
            moldudp64::write_header(start, &header.session, sequence, count);
        }
        let is_handed = count == 0 || hand(part);
        part.clear();
        is_handed
    };
    for message in transport::blocks(transport, payload, header.count) {
        let block = moldudp64::BLOCK_HEADER_BYTES + message.len();
        if part.len() + block > HANDOFF_BYTES {
            if !flush(&mut part, sequence, count) {
                return false;
            }
            (sequence, count) = (sequence + u64::from(count), 0);
        }
        if part.is_empty() {
            part.resize(moldudp64::HEADER_BYTES, 0);
        }
        let Ok(len) = u16::try_from(message.len()) else { return false };
        if part.len() + block > HANDOFF_BYTES {
            return false;
        }
        part.extend_from_slice(&len.to_be_bytes());
        part.extend_from_slice(message);
        count += 1;
    }
    flush(&mut part, sequence, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut packet = vec![0; moldudp64::HEADER_BYTES];
        let count = u16::try_from(messages.len()).unwrap();
        moldudp64::write_header(packet.first_chunk_mut().unwrap(), b"SESSION001", 7, count);
        for message in messages {
            packet.extend_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
            packet.extend_from_slice(message);
        }
        packet
    }

    fn parts(payload: &[u8], room: usize) -> (bool, Vec<Vec<u8>>) {
        let mut parts = Vec::new();
        let all = each(TransportKind::MoldUdp64, payload, |part| {
            parts.push(part.to_vec());
            parts.len() <= room
        });
        (all, parts)
    }

    #[test]
    fn a_long_answer_comes_in_parts_with_the_same_messages_and_numbers() {
        let messages: Vec<Vec<u8>> = (0..400_u16).map(|n| vec![n as u8; usize::from(n % 60)]).collect();
        let (all, got) = parts(&packet(&messages), 100);
        assert!(all && got.len() > 8);
        let (mut next, mut told) = (7, Vec::new());
        for part in &got {
            assert!(part.len() <= HANDOFF_BYTES);
            let header = PacketHeader::parse(TransportKind::MoldUdp64, part).unwrap();
            assert_eq!((header.session, header.sequence), (*b"SESSION001", next));
            assert_eq!(transport::check_blocks(TransportKind::MoldUdp64, part, header.count), Ok(0));
            told.extend(transport::blocks(TransportKind::MoldUdp64, part, header.count).map(<[u8]>::to_vec));
            next = header.end();
        }
        assert_eq!(told, messages);
        assert_eq!(parts(&packet(&messages), 2).1.len(), 3, "ends when there is no room");
        assert!(!parts(&packet(&messages), 2).0);
    }

    #[test]
    fn a_short_answer_comes_as_it_is_and_a_message_that_fits_nowhere_ends_it() {
        let short = packet(&[vec![1; 20]]);
        assert_eq!(parts(&short, 9), (true, vec![short]));
        let (all, got) = parts(&packet(&[vec![1; 20], vec![2; 1451], vec![3; 20]]), 9);
        assert_eq!((all, got.len()), (false, 1));
        let (all, got) = parts(&packet(&[vec![2; 1450], vec![3; 1450]]), 9);
        assert_eq!((all, got.iter().map(Vec::len).collect::<Vec<_>>()), (true, vec![1472, 1472]));
    }
}
