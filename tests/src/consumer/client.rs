//! A MoldUDP64 client that heals its own gaps, by the receiver algorithm of the specification: packets ahead of a gap are
//! kept, what is missing is asked for, and comes out in order. It knows no socket and no clock.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::mold::{self, Packet, Session};

/// Requests that wait for an answer at most.
const OUTSTANDING: usize = 16;

/// Messages that are asked for at a time.
const PIECE: u64 = 100;

/// A consumer's end of one stream.
#[derive(Debug)]
pub struct Client {
    timeout_ns: u64,
    session: Option<Session>,
    /// Next message to deliver.
    next: u64,
    /// The number after the last message that is known to exist.
    known: u64,
    /// The session ends before this number.
    end: Option<u64>,
    /// Messages ahead of a gap, by number.
    held: BTreeMap<u64, Vec<u8>>,
    /// First messages of the holes that are asked for, and when.
    asked: BTreeMap<u64, u64>,
    /// Messages that were missing when they were asked for and came since.
    wanted: BTreeSet<u64>,
    /// Requests made.
    pub requests: u64,
    /// Messages that had been asked for and came.
    pub recovered: u64,
}

impl Client {
    /// A client that wants everything from message `first` of the first session that it hears of; it asks again after
    /// `timeout_ns`.
    #[must_use]
    pub fn new(first: u64, timeout_ns: u64) -> Self {
        Self {
            timeout_ns,
            session: None,
            next: first,
            known: first,
            end: None,
            held: BTreeMap::new(),
            asked: BTreeMap::new(),
            wanted: BTreeSet::new(),
            requests: 0,
            recovered: 0,
        }
    }

    /// Takes a payload, live or an answer; `deliver` gets what is next in order, as packets again.
    pub fn packet(&mut self, payload: &[u8], mut deliver: impl FnMut(&[u8])) {
        // What is no packet is for the checker to report.
        let Ok(view) = mold::parse(payload) else { return deliver(payload) };
        if *self.session.get_or_insert(view.session) != view.session {
            return deliver(payload);
        }
        self.known = self.known.max(view.sequence + view.blocks.len() as u64);
        if view.is_end {
            self.end = Some(view.sequence);
        }
        for (sequence, block) in (view.sequence..).zip(&view.blocks).filter(|(sequence, _)| *sequence >= self.next) {
            self.recovered += u64::from(self.wanted.remove(&sequence));
            self.held.entry(sequence).or_insert_with(|| block.to_vec());
        }
        let mut packet = Packet::new(&view.session, self.next);
        while let Some(block) = self.held.remove(&self.next) {
            if !packet.has_room(&block) {
                deliver(&std::mem::replace(&mut packet, Packet::new(&view.session, self.next)).into_payload());
            }
            packet.push(&block);
            self.next += 1;
        }
        if packet.count() > 0 {
            deliver(&packet.into_payload());
        }
        if let Some(end) = self.end.take_if(|end| *end == self.next) {
            deliver(&mold::end_of_session(&view.session, end));
        }
        self.asked = self.asked.split_off(&self.next);
    }

    /// Whether something that is known to exist is missing.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.next < self.known
    }

    /// A request to send now, if there is one. Call it until there is none.
    pub fn request(&mut self, now_ns: u64) -> Option<Vec<u8>> {
        let session = self.session?;
        self.asked.retain(|_, asked_ns| *asked_ns + self.timeout_ns > now_ns);
        if self.asked.len() >= OUTSTANDING {
            return None;
        }
        let hole = self.holes().find(|hole| !self.asked.contains_key(&hole.start))?;
        let count = (hole.end - hole.start).min(PIECE);
        self.asked.insert(hole.start, now_ns);
        self.wanted.extend(hole.start..hole.start + count);
        self.requests += 1;
        Some(request(&session, hole.start, u16::try_from(count).expect("at most a piece")))
    }

    /// What is missing, in order.
    fn holes(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut from = self.next;
        let kept = self.held.keys().copied().chain([self.known]);
        kept.filter_map(move |sequence| {
            let hole = from..sequence;
            from = sequence + 1;
            (!hole.is_empty()).then_some(hole)
        })
    }
}

/// A request packet.
#[must_use]
pub fn request(session: &Session, sequence: u64, count: u16) -> Vec<u8> {
    let mut bytes = mold::heartbeat(session, sequence);
    bytes[18..].copy_from_slice(&count.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Session = *b"SESSION001";

    fn packet(first: u64, blocks: &[&[u8]]) -> Vec<u8> {
        let mut packet = Packet::new(&SESSION, first);
        blocks.iter().for_each(|block| packet.push(block));
        packet.into_payload()
    }

    #[test]
    fn what_is_missing_is_asked_for_and_everything_comes_out_once_in_order() {
        let mut client = Client::new(1, 10);
        let mut out = Vec::new();
        client.packet(&packet(1, &[b"a"]), |payload| out.push(payload.to_vec()));
        client.packet(&packet(4, &[b"d"]), |payload| out.push(payload.to_vec()));
        client.packet(&mold::end_of_session(&SESSION, 6), |payload| out.push(payload.to_vec()));
        assert_eq!(out, [packet(1, &[b"a"])]);
        let requests: Vec<_> = std::iter::from_fn(|| client.request(0)).collect();
        assert_eq!(requests, [request(&SESSION, 2, 2), request(&SESSION, 5, 1)]);
        assert!(client.request(9).is_none() && client.request(10).is_some(), "again after the timeout");
        out.clear();
        client.packet(&packet(2, &[b"b"]), |payload| out.push(payload.to_vec()));
        client.packet(&packet(1, &[b"a", b"b", b"c"]), |payload| out.push(payload.to_vec()));
        assert_eq!(out, [packet(2, &[b"b"]), packet(3, &[b"c", b"d"])]);
        client.packet(&packet(5, &[b""]), |payload| out.push(payload.to_vec()));
        assert_eq!(out[2..], [packet(5, &[b""]), mold::end_of_session(&SESSION, 6)]);
        assert!(!client.is_missing() && client.request(99).is_none());
        assert_eq!((client.requests, client.recovered), (3, 3));
    }
}
