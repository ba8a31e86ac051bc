//! The newest messages of one output stream, by session and number: a ring of bytes with the blocks of sent packets, back to
//! back, and an index of them. Both have their size from the start: what comes new takes the place of the oldest.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::config::plan::TransportKind;
use crate::feed::Session;
use crate::feed::transport::moldudp64::{self, BLOCK_HEADER_BYTES, HEADER_BYTES};
use crate::feed::transport::{PacketHeader, PacketKind, check_blocks};

/// One entry of the index for so many bytes: smaller packets share one.
const BYTES_PER_RUN: usize = 256;

/// Packets that follow each other are one run as long as it is not longer than this: its blocks are walked through.
const RUN_BYTES: usize = 2048;

/// Sessions that are told apart at most: the oldest goes with all of its messages.
const MOST_SESSIONS: usize = 16;

/// Consecutive messages whose blocks lie back to back.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Sessions are numbered as they come, so that runs are in the order of (session, first).
    session: u32,
    /// Number of blocks.
    count: u32,
    first: u64,
    /// Where the blocks lie.
    start: u32,
    bytes: u32,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing is retained of the session.
    Session,
    /// The message is not retained any more, or never was.
    Gone,
    /// The message is not there yet.
    Ahead,
}

/// What is retained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Messages of all sessions.
    pub messages: u64,
    /// Bytes of their blocks.
    pub bytes: u64,
    /// First message of the newest session; 0 if there is none.
    pub first: u64,
    /// The number after its last message.
    pub next: u64,
}

/// The messages of one stream. Allocates in [`Store::new`] and never again.
#[derive(Debug)]
pub struct Store {
    bytes: Box<[u8]>,
    /// Where the next blocks go.
    head: usize,
    runs: VecDeque<Run>,
    most_runs: usize,
    sessions: VecDeque<(u32, Session)>,
    next_session: u32,
    messages: u64,
    used: u64,
}

impl Store {
    /// Retains so many bytes of blocks.
    ///
    /// # Panics
    /// If it is nothing, or 4 GiB and more.
    #[must_use]
    pub fn new(retain_bytes: usize) -> Self {
        assert!((1..u32::MAX as usize).contains(&retain_bytes), "{retain_bytes} bytes to retain");
        let most_runs = (retain_bytes / BYTES_PER_RUN).max(2);
        Self {
            bytes: vec![0; retain_bytes].into_boxed_slice(),
            head: 0,
            runs: VecDeque::with_capacity(most_runs + 1),
            most_runs,
            sessions: VecDeque::with_capacity(MOST_SESSIONS + 1),
            next_session: 0,
            messages: 0,
            used: 0,
        }
    }

    /// Retains the messages of a packet. False if it is none, or longer than everything. Packets without messages are nothing
    /// to retain.
    pub fn insert(&mut self, payload: &[u8]) -> bool {
        let Ok(header) = PacketHeader::parse(TransportKind::MoldUdp64, payload) else { return false };
        if header.kind != PacketKind::Data {
            return true;
        }
        let Ok(trailing) = check_blocks(TransportKind::MoldUdp64, payload, header.count) else { return false };
        let blocks = &payload[HEADER_BYTES..payload.len() - trailing];
        if blocks.len() > self.bytes.len() {
            return false;
        }
        let start = self.make_room(blocks.len());
        self.bytes[start..start + blocks.len()].copy_from_slice(blocks);
        self.head = start + blocks.len();
        self.messages += u64::from(header.count);
        self.used += blocks.len() as u64;
        // A session whose numbers begin again is another one of the same name.
        let goes_on = self.runs.back().is_some_and(|last| last.end() <= header.sequence);
        let session = match self.sessions.back() {
            Some((number, session)) if *session == header.session && goes_on => *number,
            _ => self.enter(header.session),
        };
        let run = Run {
            session,
            count: u32::from(header.count),
            first: header.sequence,
            start: start as u32,
            bytes: blocks.len() as u32,
        };
        match self.runs.back_mut().filter(|last| continues(last, &run)) {
            Some(last) => (last.count, last.bytes) = (last.count + run.count, last.bytes + run.bytes),
            None => self.runs.push_back(run),
        }
        if self.runs.len() > self.most_runs {
            self.evict();
        }
        while self.sessions.len() > MOST_SESSIONS {
            self.evict();
        }
        true
    }

    fn enter(&mut self, session: Session) -> u32 {
        let number = self.next_session;
        self.next_session += 1;
        self.sessions.push_back((number, session));
        number
    }

    /// Makes room for so many bytes in one piece; returns where.
    fn make_room(&mut self, bytes: usize) -> usize {
        let mut start = self.head;
        if start + bytes > self.bytes.len() {
            // What lies behind the head is older than all before it.
            while self.runs.front().is_some_and(|run| run.start as usize >= self.head) {
                self.evict();
            }
            start = 0;
        }
        while self.runs.front().is_some_and(|run| (start..start + bytes).contains(&(run.start as usize))) {
            self.evict();
        }
        start
    }

    fn evict(&mut self) {
        let Some(run) = self.runs.pop_front() else { return };
        self.messages -= u64::from(run.count);
        self.used -= u64::from(run.bytes);
        // A session goes with its last run: nothing is known of it any more.
        if self.runs.front().is_none_or(|next| next.session != run.session) {
            self.sessions.pop_front();
        }
    }

    /// Writes the answer to a request into `answer`: one packet of at most `most_bytes`, with the messages from `sequence` on,
    /// as many as are there without a hole, fit, and are asked for. Returns their number.
    ///
    /// # Errors
    /// Why there is nothing to answer.
    pub fn answer(
        &self,
        session: &Session,
        sequence: u64,
        count: u16,
        most_bytes: usize,
        answer: &mut Vec<u8>,
    ) -> Result<u16, Missing> {
        let mut at = self.find(session, sequence)?;
        let mut next = sequence;
        answer.clear();
        answer.resize(HEADER_BYTES, 0);
        let end = sequence.saturating_add(u64::from(count));
        while let Some(run) = self.runs.get(at).filter(|run| run.first <= next && next < run.end()) {
            let blocks = &self.bytes[run.start as usize..][..run.bytes as usize];
            let from = skip_blocks(blocks, next - run.first, usize::MAX).1;
            let wanted = end.min(run.end()) - next;
            let (taken, length) = skip_blocks(&blocks[from..], wanted, most_bytes.saturating_sub(answer.len()));
            answer.extend_from_slice(&blocks[from..from + length]);
            next += taken;
            at += 1;
            let is_same = self.runs.get(at).is_some_and(|following| following.session == run.session);
            if next < run.end() || next == end || !is_same {
                break;
            }
        }
        let got = u16::try_from(next - sequence).expect("not more than asked for");
        // An answer without messages would be a heartbeat.
        if got == 0 {
            return Err(Missing::Gone);
        }
        let header = answer.first_chunk_mut().expect("room was made for it");
        moldudp64::write_header(header, session, sequence, got);
        Ok(got)
    }

    /// The run that has a message. Of a name that came twice only the newer session counts: the same numbers may have been
    /// other messages before.
    fn find(&self, session: &Session, sequence: u64) -> Result<usize, Missing> {
        let newest = self.sessions.iter().rfind(|(_, name)| name == session);
        let (number, _) = *newest.ok_or(Missing::Session)?;
        let behind = self.runs.partition_point(|run| (run.session, run.first) <= (number, sequence));
        match behind.checked_sub(1).map(|at| (at, self.runs[at])).filter(|(_, run)| run.session == number) {
            Some((at, run)) if sequence < run.end() => Ok(at),
            // Between two runs there is a hole.
            Some(_) if self.runs.get(behind).is_none_or(|run| run.session != number) => Err(Missing::Ahead),
            _ => Err(Missing::Gone),
        }
    }

    /// What is retained now.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let newest = self.runs.back().map(|last| {
            let start = self.runs.partition_point(|run| run.session < last.session);
            (self.runs[start].first, last.end())
        });
        let (first, next) = newest.unwrap_or_default();
        Extent { messages: self.messages, bytes: self.used, first, next }
    }
}

/// Whether `next`, which was written behind `last`, is more of it.
fn continues(last: &Run, next: &Run) -> bool {
    last.session == next.session
        && last.end() == next.first
        && last.start + last.bytes == next.start
        && (last.bytes + next.bytes) as usize <= RUN_BYTES
}

/// Walks over at most `count` blocks as long as they take no more than `most_bytes`: how many they are, and their bytes.
fn skip_blocks(blocks: &[u8], count: u64, most_bytes: usize) -> (u64, usize) {
    let (mut skipped, mut at) = (0, 0);
    while skipped < count
        && let Some(length) = blocks.get(at..).and_then(<[u8]>::first_chunk::<BLOCK_HEADER_BYTES>)
    {
        let end = at + BLOCK_HEADER_BYTES + usize::from(u16::from_be_bytes(*length));
        if end > most_bytes || end > blocks.len() {
            break;
        }
        (skipped, at) = (skipped + 1, end);
    }
    (skipped, at)
}

#[cfg(test)]
mod tests;
