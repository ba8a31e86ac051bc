//! What a consumer found.
#![forbid(unsafe_code)]

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::ranges::RangeSet;

/// Findings of each kind that are kept with their text; all are counted.
const KEPT: usize = 6;

/// What can be wrong with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A message that at least one line carried did not come.
    Lost,
    /// A message came again.
    Doubled,
    /// A message came after a later one.
    Misordered,
    /// A record is missing, too many, or has a wrong field.
    Wrong,
    /// A packet is not MoldUDP64, or a block is not made of records.
    Malformed,
    /// A session, a sequence number or an end that does not belong to what was sent.
    Foreign,
    /// The order book kept from the records differs from the exchange's.
    Book,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What kind.
    pub fault: Fault,
    /// Sequence number.
    pub sequence: u64,
    /// In words.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at sequence {}: {}", self.fault, self.sequence, self.text)
    }
}

/// All findings: counted by kind, the first ones of each kind with their text.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// The first ones.
    pub first: Vec<Finding>,
    /// How many there are of each kind, messages for Lost.
    pub counts: std::collections::BTreeMap<Fault, u64>,
}

impl Findings {
    /// Adds a finding that stands for `count`.
    pub fn add(&mut self, fault: Fault, sequence: u64, count: u64, text: impl FnOnce() -> String) {
        *self.counts.entry(fault).or_default() += count;
        if self.first.iter().filter(|kept| kept.fault == fault).count() < KEPT {
            self.first.push(Finding { fault, sequence, text: text() });
        }
    }

    /// How many there are of a kind.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or(0)
    }

    /// True if nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

/// The consumer's account of one stream.
#[derive(Clone, Debug)]
pub struct Report {
    /// UDP payloads received.
    pub packets: u64,
    /// Message blocks received, empty ones included.
    pub blocks: u64,
    /// Records received and compared.
    pub records: u64,
    /// System records received and compared: that a session begins, or that messages are lost.
    pub notices: u64,
    /// Heartbeats and end-of-session packets received.
    pub heartbeats: u64,
    /// Messages that the stream left out, all sessions together: declared lost.
    pub gap_messages: u64,
    /// Runs of such messages.
    pub gaps: usize,
    /// Orders in the final book.
    pub book_orders: usize,
    /// Price levels in the final book.
    pub book_levels: usize,
    /// What is wrong.
    pub findings: Findings,
    /// Time from the kernel entry in the handler (`ts_recv`) to the consumer's receive call, nanoseconds, per packet
    /// (its newest record). On one host, so both are the same clock.
    pub entry_to_consumer: Histogram<u64>,
}

/// What one session should have been: for [`Checker::finish`](super::Checker::finish).
#[derive(Clone, Debug, Default)]
pub struct SessionAccount {
    /// Messages that no line carried.
    pub common_losses: RangeSet,
    /// Number after the last message.
    pub next_sequence: u64,
    /// Whether the stream must have said that the session is over.
    pub must_end: bool,
}

impl SessionAccount {
    /// The same of a session that never says that it ends: what all lines lost at its end nobody can know of.
    #[must_use]
    pub fn without_end(mut self) -> Self {
        self.must_end = false;
        let tail = self.common_losses.iter().find(|run| run.end == self.next_sequence);
        if let Some(tail) = tail {
            self.next_sequence = tail.start;
            let mut known = RangeSet::default();
            known.insert(0..tail.start);
            self.common_losses = self.common_losses.intersection(&known);
        }
        self
    }
}
