//! A capture as a workload: its multicast payloads with their times, and what they say by a simple reading.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

use crate::consumer::{Sent, SessionAccount, SessionTruth};
use crate::itch::Message;
use crate::mold::{self, Session};
use crate::ranges::RangeSet;

/// One UDP payload of the capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Since the first one, nanoseconds.
    pub(crate) at_ns: u64,
    /// Index into [`Capture::groups`].
    pub(crate) group: usize,
    pub(crate) payload: Vec<u8>,
}

/// A group of the capture, as it was on the wire: address, port, VLAN.
pub(crate) type Group = (Ipv4Addr, u16, u16);

/// A capture, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capture {
    pub(crate) packets: Vec<Captured>,
    /// In the order of the channels.
    pub(crate) groups: Vec<Group>,
    /// Groups of each channel, as indices: one, or two that carry the same session and so are lines A and B.
    pub(crate) channels: Vec<Range<usize>>,
}

/// One session of one group, by number.
#[derive(Clone, Debug)]
struct Walk {
    session: Session,
    first: u64,
    next: u64,
    messages: BTreeMap<u64, Sent>,
}

impl Capture {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        if bytes.starts_with(&[0x1F, 0x8B]) {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).context("broken gzip file")?;
            bytes = plain;
        }
        let mut capture = Self::default();
        let mut start_ns = None;
        read_frames(bytes, |time_ns, frame| {
            let Some((group, payload)) = multicast_payload(frame) else { return };
            let index = capture.groups.iter().position(|known| *known == group).unwrap_or_else(|| {
                capture.groups.push(group);
                capture.groups.len() - 1
            });
            let at_ns = time_ns.saturating_sub(*start_ns.get_or_insert(time_ns));
            capture.packets.push(Captured { at_ns, group: index, payload: payload.to_vec() });
        })
        .with_context(|| path.display().to_string())?;
        ensure!(!capture.packets.is_empty(), "{} has no UDP multicast packet", path.display());
        capture.find_channels();
        Ok(capture)
    }

    /// Puts groups that begin with the same session together, as lines of one channel.
    fn find_channels(&mut self) {
        let session = |group: usize| {
            let mut of_group = self.packets.iter().filter(|packet| packet.group == group);
            of_group.find_map(|packet| mold::parse(&packet.payload).ok()).map(|view| view.session)
        };
        let mut channels: Vec<Vec<usize>> = Vec::new();
        for group in 0..self.groups.len() {
            let twin = |channel: &&mut Vec<usize>| {
                channel.len() == 1 && session(group).is_some() && session(channel[0]) == session(group)
            };
            match channels.iter_mut().find(twin) {
                Some(channel) => channel.push(group),
                None => channels.push(vec![group]),
            }
        }
        let order = channels.concat();
        for packet in &mut self.packets {
            packet.group = order.iter().position(|group| *group == packet.group).expect("every group has a channel");
        }
        self.groups = order.iter().map(|group| self.groups[*group]).collect();
        for channel in channels {
            let first = self.channels.last().map_or(0, |before| before.end);
            self.channels.push(first..first + channel.len());
        }
    }

    /// What must come out of a channel, session by session, and the account of each.
    pub(crate) fn truth(&self, channel: usize) -> (Vec<SessionTruth>, Vec<SessionAccount>) {
        let groups = &self.channels[channel];
        let packets = self.packets.iter().filter(|packet| groups.contains(&packet.group));
        let payloads = packets.map(|packet| &packet.payload[..]);
        let walks = walk(payloads);
        let accounts = walks.iter().map(account).collect();
        let truths = walks.into_iter().map(|walk| {
            let messages = walk.messages;
            let sent = move |sequence: u64| messages.get(&sequence).copied().unwrap_or(Sent::Nothing);
            SessionTruth { session: walk.session, first: walk.first, joined: None, sent: Box::new(sent) }
        });
        (truths.collect(), accounts)
    }
}

/// Walks MoldUDP64 payloads in order of arrival. The first session begins where it is first seen, later ones with message
/// 1; nothing comes back to a session that was left; a malformed packet carries nothing.
fn walk<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Vec<Walk> {
    let mut walks: Vec<Walk> = Vec::new();
    for payload in payloads {
        let Ok(view) = mold::parse(payload) else { continue };
        if walks.last().is_none_or(|current| current.session != view.session) {
            if walks.iter().any(|old| old.session == view.session) {
                continue;
            }
            let first = if walks.is_empty() { view.sequence.max(1) } else { 1 };
            walks.push(Walk { session: view.session, first, next: first, messages: BTreeMap::new() });
        }
        let current = walks.last_mut().expect("pushed above");
        current.next = current.next.max(view.sequence + view.blocks.len() as u64);
        for (sequence, block) in (view.sequence..).zip(&view.blocks).filter(|(sequence, _)| *sequence >= current.first)
        {
            let sent = Message::decode(block).map_or(Sent::Opaque, Sent::Message);
            current.messages.entry(sequence).or_insert(sent);
        }
    }
    walks
}

fn account(walk: &Walk) -> SessionAccount {
    let (mut all, mut carried) = (RangeSet::default(), RangeSet::default());
    all.insert(walk.first..walk.next);
    walk.messages.keys().for_each(|sequence| carried.insert(*sequence..sequence + 1));
    SessionAccount { common_losses: all.difference(&carried), next_sequence: walk.next, must_end: false }
}

/// Calls `take` with the time (UTC nanoseconds) and the bytes of every Ethernet frame.
fn read_frames(bytes: Vec<u8>, mut take: impl FnMut(u64, &[u8])) -> Result<()> {
    let Ok(mut reader) = create_reader(1 << 20, Cursor::new(bytes)) else { bail!("neither pcap nor pcapng") };
    // Ticks per second of each interface: of a pcap file, or of the interfaces of a pcapng section.
    let mut resolutions = vec![1_000_000];
    loop {
        match reader.next() {
            Ok((length, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) if header.is_nanosecond_precision() => {
                        resolutions = vec![1_000_000_000];
                    }
                    PcapBlockOwned::Legacy(packet) => {
                        let fraction_ns = u64::from(packet.ts_usec) * (1_000_000_000 / resolutions[0]);
                        take(u64::from(packet.ts_sec) * 1_000_000_000 + fraction_ns, packet.data);
                    }
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => resolutions.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                        resolutions.push(interface.ts_resolution().filter(|ticks| *ticks > 0).unwrap_or(1_000_000));
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                        let per_second = resolutions.get(packet.if_id as usize).copied().unwrap_or(1_000_000);
                        let time_ns = u128::from(ticks) * 1_000_000_000 / u128::from(per_second);
                        let length = packet.data.len().min(packet.caplen as usize);
                        take(u64::try_from(time_ns).unwrap_or(u64::MAX), &packet.data[..length]);
                    }
                    _ => {}
                }
                reader.consume(length);
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => {
                if reader.reader_exhausted() {
                    return Ok(()); // The file was cut off in the middle of a packet; what was whole has been read.
                }
                if reader.refill().is_err() {
                    bail!("unreadable");
                }
            }
            Err(error) => bail!("broken capture: {error:?}"),
        }
    }
}

/// The group and the payload of a whole UDP datagram to a multicast address; `None` for everything else.
fn multicast_payload(frame: &[u8]) -> Option<(Group, &[u8])> {
    let u16_at = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let (mut at, mut vlan) = (12, 0);
    while matches!(u16_at(at)?, 0x8100 | 0x88A8) {
        if vlan == 0 {
            vlan = u16_at(at + 2)? & 0x0FFF;
        }
        at += 4;
    }
    if u16_at(at)? != 0x0800 {
        return None;
    }
    let ip = at + 2;
    let header_bytes = usize::from(frame.get(ip)? & 0x0F) * 4;
    let is_fragment = u16_at(ip + 6)? & 0x3FFF != 0;
    let group = Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(ip + 16..ip + 20)?).ok()?);
    if frame[ip] >> 4 != 4 || header_bytes < 20 || is_fragment || frame[ip + 9] != 17 || !group.is_multicast() {
        return None;
    }
    let udp = ip + header_bytes;
    let length = usize::from(u16_at(udp + 4)?);
    Some(((group, u16_at(udp + 2)?, vlan), frame.get(udp + 8..udp + length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(session: &Session, first: u64, messages: &[&[u8]]) -> Vec<u8> {
        let mut packet = mold::Packet::new(session, first);
        messages.iter().for_each(|message| packet.push(message));
        packet.into_payload()
    }

    #[test]
    fn groups_of_one_session_are_lines_of_one_channel() {
        let captured = |group, session| Captured { at_ns: 0, group, payload: packet(session, 1, &[b"a"]) };
        let (one, two) = (b"SESSION  1", b"SESSION  2");
        let mut capture = Capture {
            packets: vec![captured(0, one), captured(1, two), captured(2, one), captured(3, one)],
            groups: (0..4).map(|port| (Ipv4Addr::new(239, 0, 0, 1), port, 0)).collect(),
            channels: Vec::new(),
        };
        capture.find_channels();
        assert_eq!(capture.channels, [0..2, 2..3, 3..4]);
        assert_eq!(capture.groups.iter().map(|group| group.1).collect::<Vec<_>>(), [0, 2, 1, 3]);
        assert_eq!(capture.packets.iter().map(|packet| packet.group).collect::<Vec<_>>(), [0, 2, 1, 3]);
    }

    #[test]
    fn the_walk_takes_each_message_once_and_accounts_for_holes() {
        let (one, two) = (b"SESSION  1", b"SESSION  2");
        let payloads = [
            packet(one, 10, &[b"a", b"b"]),
            packet(one, 9, &[b"too early"]),
            packet(one, 11, &[b"again", b"c"]),
            b"garbage".to_vec(),
            packet(one, 15, &[b"d"]),
            packet(two, 2, &[b"x"]),
            packet(one, 13, &[b"too late"]),
        ];
        let walks = walk(payloads.iter().map(|payload| &payload[..]));
        assert_eq!(walks.len(), 2);
        assert_eq!((walks[0].first, walks[0].next), (10, 16));
        assert_eq!(account(&walks[0]).common_losses.to_string(), "13–14");
        assert_eq!((walks[1].first, walks[1].next), (1, 3));
        assert_eq!(account(&walks[1]).common_losses.to_string(), "1–1");
    }

    #[test]
    fn a_frame_with_two_tags_and_padding_yields_its_payload() {
        let mut frame = vec![0; 12];
        frame.extend([0x88, 0xA8, 0, 7, 0x81, 0, 0, 9, 8, 0]);
        frame.extend([0x45, 0, 0, 31, 0, 0, 0x40, 0, 8, 17, 0, 0, 10, 0, 0, 1, 239, 1, 2, 3]);
        frame.extend([0, 1, 0x67, 0x20, 0, 11, 0, 0, b'a', b'b', b'c', 0, 0, 0]);
        let group = (Ipv4Addr::new(239, 1, 2, 3), 26_400, 7);
        assert_eq!(multicast_payload(&frame), Some((group, &b"abc"[..])));
        for cut in 0..frame.len() - 3 {
            assert_eq!(multicast_payload(&frame[..cut]), None, "{cut} bytes");
        }
    }
}
