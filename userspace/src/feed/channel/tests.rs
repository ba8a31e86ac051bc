//! Every edge case of the MoldUDP64 receiver, and a property test against a naive oracle.
#![forbid(unsafe_code)]

mod claims;
mod copies;
mod edge_cases;
mod lines;
mod notices;
mod oracle;
mod recovery;
mod sessions;
mod snapshot;
mod soup;

use super::*;
use crate::config::plan::{DecoderKind, OnGap, StartAt};
use crate::feed::transport::moldudp64;
use crate::feed::{Block, BlockSink, Midnights};
use LineRole::{A, B, Recovery};

const SESSION: Session = *b"SESSION001";
const NEXT_SESSION: Session = *b"SESSION002";

/// What a channel delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Out {
    Message(Session, u64, Vec<u8>),
    Lost(Session, u64, u64),
    End(Session, u64),
}

#[derive(Default)]
struct Collect(Vec<Out>);

impl BlockSink for Collect {
    fn block(&mut self, block: &Block<'_>) {
        self.0.push(Out::Message(*block.session, block.sequence, block.message.to_vec()));
    }

    fn lost(&mut self, _: ChannelIndex, session: &Session, from: u64, to: u64) {
        self.0.push(Out::Lost(*session, from, to));
    }

    fn end_of_session(&mut self, _: ChannelIndex, session: &Session, next: u64) {
        self.0.push(Out::End(*session, next));
    }
}

fn settings() -> ChannelSettings {
    ChannelSettings {
        index: 3,
        transport: TransportKind::MoldUdp64,
        decoder: DecoderKind::Itch50,
        publisher_id: 2,
        gap_timeout_ns: 100,
        give_up_ns: 1000,
        on_gap: OnGap::Hold,
        stale_ns: 5000,
        backfill_ns: 0,
        hold_packets: 8,
        payload_bytes: 0,
        max_orders: 16,
        start: StartAt::Now,
        midnights: Midnights::utc(),
    }
}

/// The message that every test sends under this sequence; some are empty.
fn message(sequence: u64) -> Vec<u8> {
    let bytes = format!("?{sequence}").into_bytes();
    if sequence % 7 == 3 { Vec::new() } else { bytes }
}

/// A packet of `count` messages, or a heartbeat, or an end of session (`count` 0xFFFF).
fn packet(session: &Session, sequence: u64, count: u16) -> Vec<u8> {
    let mut header = [0; moldudp64::HEADER_BYTES];
    moldudp64::write_header(&mut header, session, sequence, count);
    let mut bytes = header.to_vec();
    if count != moldudp64::END_OF_SESSION {
        for sequence in sequence..sequence + u64::from(count) {
            let message = message(sequence);
            bytes.extend_from_slice(&(message.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&message);
        }
    }
    bytes
}

/// A channel with a clock, fed one packet at a time.
struct Rig {
    channel: Channel,
    out: Collect,
    now_ns: u64,
}

impl Rig {
    fn new(settings: ChannelSettings) -> Self {
        Self { channel: Channel::new(settings).unwrap(), out: Collect::default(), now_ns: 0 }
    }

    fn send(&mut self, role: LineRole, payload: &[u8]) -> Result<(), DropReason> {
        let result = self.channel.admit(7, role, payload, self.now_ns);
        self.channel.deliver(
            |slot| {
                assert_eq!(slot, 7);
                payload
            },
            0,
            &mut self.out,
        );
        result
    }

    fn data(&mut self, role: LineRole, sequence: u64, count: u16) -> Result<(), DropReason> {
        self.send(role, &packet(&SESSION, sequence, count))
    }

    fn poll(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.channel.poll(now_ns);
        self.channel.deliver(|_| unreachable!("nothing was admitted"), 0, &mut self.out);
    }

    /// What came out since the last call: `from-to` for messages in sequence and of right content, `lost from-to`,
    /// `end next`, `/` at a change of sessions. Ends are exclusive.
    fn take(&mut self) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut run: Option<(u64, u64)> = None;
        let mut session = None;
        for out in std::mem::take(&mut self.out.0) {
            let (Out::Message(of, ..) | Out::Lost(of, ..) | Out::End(of, ..)) = out;
            if session.replace(of).is_some_and(|before| before != of) {
                words.extend(run.take().map(|(from, to)| format!("{from}-{to}")));
                words.push("/".into());
            }
            let word = match out {
                Out::Message(_, sequence, bytes) => {
                    assert_eq!(bytes, message(sequence));
                    match &mut run {
                        Some((_, to)) if *to == sequence => *to += 1,
                        _ => {
                            words
                                .extend(run.replace((sequence, sequence + 1)).map(|(from, to)| format!("{from}-{to}")));
                        }
                    }
                    continue;
                }
                Out::Lost(_, from, to) => format!("lost {from}-{to}"),
                Out::End(_, next) => format!("end {next}"),
            };
            words.extend(run.take().map(|(from, to)| format!("{from}-{to}")));
            words.push(word);
        }
        words.extend(run.take().map(|(from, to)| format!("{from}-{to}")));
        words.join(" ")
    }

    fn line(&self, role: LineRole) -> LineCounts {
        self.channel.line_counts(role)
    }
}
