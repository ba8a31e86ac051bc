//! Checks a stream of packets against the truth, message by message.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use hdrhistogram::Histogram;

use super::compare::compare;
use super::notice::{Begins, Due};
use super::report::{Fault, Findings, Report, SessionAccount};
use crate::itch::Message;
use crate::mold::{self, Session};
use crate::ranges::RangeSet;
use crate::records::Shared;
use crate::truth::{self, Book, BookOrder, Expected, Truth};

/// How far `ts_recv` may lie outside of the run: the handler converts its monotonic clock with an offset that it reads
/// now and then.
const CLOCK_SLACK_NS: u64 = 50_000_000;

/// What the exchange sent under one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A message.
    Message(Message),
    /// A block that is not an ITCH 5.0 message: yields no record.
    Opaque,
    /// Nothing: the number was not used, or not seen on any line.
    Nothing,
}

/// What was sent in one session.
pub struct SessionTruth {
    /// Its name.
    pub session: Session,
    /// Number of the first message that must be delivered.
    pub first: u64,
    /// Number of the first message that is not a snapshot's, if the session was joined by one.
    pub joined: Option<u64>,
    /// Answers what was sent under a number; asked in ascending order, not for numbers that were left out.
    pub sent: Box<dyn FnMut(u64) -> Sent + Send>,
}

/// What holds for the whole run.
#[derive(Clone, Copy, Debug)]
pub struct CheckSettings {
    /// DBN publisher of the records.
    pub publisher_id: u16,
    /// The exchange's local midnight, UTC nanoseconds.
    pub midnight_ns: u64,
    /// Start of the run, UTC nanoseconds: nothing is received before.
    pub started_ns: u64,
}

/// A session that is over, or the current one.
struct Passed {
    session: Session,
    /// Its first message.
    first: u64,
    /// Whether it was said behind the snapshot, too, that it began with one; true if it did not.
    is_told_again: bool,
    /// It was joined after its beginning: whoever joins late must say so.
    is_late: bool,
    /// Messages before it are a snapshot's.
    joined: u64,
    gaps: RangeSet,
    next: u64,
    has_ended: bool,
}

/// The consumer's state: what it has seen, and the order book it keeps from the records alone.
pub struct Checker {
    settings: CheckSettings,
    /// Sessions still to come, the next one last.
    coming: Vec<SessionTruth>,
    sent: Box<dyn FnMut(u64) -> Sent + Send>,
    passed: Vec<Passed>,
    due: Due,
    truth: Truth,
    book: HashMap<(u32, u64), BookOrder>,
    report: Report,
}

impl Checker {
    /// A consumer that expects these sessions, in this order.
    #[must_use]
    pub fn new(settings: CheckSettings, mut sessions: Vec<SessionTruth>) -> Self {
        sessions.reverse();
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("legal bounds");
        let report = Report {
            packets: 0,
            blocks: 0,
            records: 0,
            notices: 0,
            heartbeats: 0,
            gap_messages: 0,
            gaps: 0,
            book_orders: 0,
            book_levels: 0,
            findings: Findings::default(),
            entry_to_consumer: histogram,
        };
        Self {
            settings,
            coming: sessions,
            sent: Box::new(|_| Sent::Nothing),
            passed: Vec::new(),
            due: Due::default(),
            truth: Truth::default(),
            book: HashMap::new(),
            report,
        }
    }

    /// Takes one UDP payload, received at `received_ns` UTC.
    pub fn packet(&mut self, payload: &[u8], received_ns: u64) {
        self.report.packets += 1;
        let view = match mold::parse(payload) {
            Ok(view) => view,
            Err(text) => {
                let at = self.next();
                return self.report.findings.add(Fault::Malformed, at, 1, || text);
            }
        };
        if !self.enter(&view.session) {
            let name = view.session.escape_ascii().to_string();
            let text = || format!("session '{name}' was not sent, or is over");
            return self.report.findings.add(Fault::Foreign, view.sequence, 1, text);
        }
        if view.blocks.is_empty() {
            self.heartbeat(view.sequence, view.is_end);
        }
        let mut newest_ns = 0;
        // Not an open range of sequences: it overflows behind the last number that there is.
        for (number, block) in (0..).zip(&view.blocks) {
            let sequence = view.sequence + number;
            self.report.blocks += 1;
            if self.take_number(sequence) {
                newest_ns = newest_ns.max(self.block(sequence, block, received_ns));
            }
        }
        if newest_ns > 0 {
            self.report.entry_to_consumer.saturating_record(received_ns.saturating_sub(newest_ns).max(1));
        }
    }

    /// Number of the next message of the current session; 0 before the first.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.passed.last().map_or(0, |passed| passed.next)
    }

    /// Whether the last session has been declared over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.coming.is_empty() && self.passed.last().is_some_and(|passed| passed.has_ended)
    }

    /// What was wrong so far.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.report.findings
    }

    /// The order book as kept from the records.
    #[must_use]
    pub fn book(&self) -> Book {
        self.book.iter().map(|(key, order)| (*key, *order)).collect()
    }

    /// Closes the account: `accounts` says, per session in order, what no line carried and where the session ended.
    #[must_use]
    pub fn finish(mut self, accounts: &[SessionAccount]) -> Report {
        self.compare_books();
        for (i, account) in accounts.iter().enumerate() {
            match self.passed.get(i) {
                Some(_) => self.settle(i, account),
                None => self.report.findings.add(Fault::Lost, 0, account.next_sequence, || {
                    format!("nothing came of session {} of {}", i + 1, accounts.len())
                }),
            }
        }
        let book = self.book();
        self.report.book_orders = book.len();
        self.report.book_levels = truth::levels(&book).len();
        self.report
    }

    fn settle(&mut self, index: usize, account: &SessionAccount) {
        let Passed { gaps, next, has_ended, .. } = &mut self.passed[index];
        let findings = &mut self.report.findings;
        if *next < account.next_sequence {
            let text = || format!("the stream stopped at {next}, the exchange went on to {}", account.next_sequence);
            findings.add(Fault::Foreign, *next, 1, text);
            gaps.insert(*next..account.next_sequence);
        } else if *next > account.next_sequence {
            let text = || format!("the stream went on to {next}, the exchange stopped at {}", account.next_sequence);
            findings.add(Fault::Foreign, *next, 1, text);
        }
        for run in gaps.difference(&account.common_losses).iter() {
            let text = || format!("{}–{} left out although a line carried them", run.start, run.end - 1);
            findings.add(Fault::Lost, run.start, run.end - run.start, text);
        }
        for run in account.common_losses.difference(gaps).iter() {
            let text = || format!("{}–{} delivered although no line carried them", run.start, run.end - 1);
            findings.add(Fault::Foreign, run.start, run.end - run.start, text);
        }
        if account.must_end && !*has_ended {
            findings.add(Fault::Lost, *next, 1, || "the end of the session was not announced".to_owned());
        }
        self.report.gap_messages += gaps.count();
        self.report.gaps += gaps.runs();
    }

    /// Makes the packet's session the current one; false if it is not to be expected.
    fn enter(&mut self, session: &Session) -> bool {
        if self.passed.last().is_some_and(|passed| passed.session == *session) {
            return true;
        }
        if self.coming.last().is_none_or(|next| next.session != *session) {
            return false;
        }
        let SessionTruth { session, first, joined, sent } = self.coming.pop().expect("looked at above");
        self.compare_books();
        self.sent = sent;
        self.truth = std::mem::take(&mut self.truth).following();
        self.book.clear();
        let how = match joined {
            Some(_) => Begins::Joined,
            None if first > 1 => Begins::Late,
            None => Begins::New,
        };
        self.due.enter(self.passed.last().map(|passed| passed.session), first, how);
        self.passed.push(Passed {
            session,
            is_late: first > 1 && joined.is_none(),
            joined: joined.unwrap_or(0),
            first,
            is_told_again: joined.is_none(),
            gaps: RangeSet::default(),
            next: first,
            has_ended: false,
        });
        true
    }

    fn heartbeat(&mut self, sequence: u64, is_end: bool) {
        self.report.heartbeats += 1;
        let current = self.passed.last_mut().expect("the session was entered");
        if sequence < current.next {
            let next = current.next;
            let text = || format!("a heartbeat announces {sequence} as next, after {next} was");
            self.report.findings.add(Fault::Misordered, sequence, 1, text);
            return;
        }
        current.gaps.insert(current.next..sequence);
        self.due.lost(current.next..sequence);
        current.next = sequence;
        current.has_ended |= is_end;
    }

    /// Accounts for a message's number; false if it is not the next one or a later one.
    fn take_number(&mut self, sequence: u64) -> bool {
        let current = self.passed.last_mut().expect("the session was entered");
        if sequence < current.next {
            let (fault, what) = if current.gaps.contains(sequence) {
                (Fault::Misordered, "came after later messages")
            } else {
                (Fault::Doubled, "came again")
            };
            let next = current.next;
            self.report.findings.add(fault, sequence, 1, || format!("{what}, when {next} was next"));
            return false;
        }
        if current.has_ended {
            self.report.findings.add(Fault::Foreign, sequence, 1, || "came after the end of the session".to_owned());
        }
        current.gaps.insert(current.next..sequence);
        self.due.lost(current.next..sequence);
        current.next = sequence + 1;
        true
    }

    /// Compares one block's records; returns the newest receive time in them, 0 if none has one.
    fn block(&mut self, sequence: u64, mut block: &[u8], received_ns: u64) -> u64 {
        let earliest_ns = self.settings.started_ns - CLOCK_SLACK_NS;
        let received = earliest_ns..received_ns + CLOCK_SLACK_NS;
        let current = self.passed.last_mut().expect("the session was entered");
        let session = current.session;
        if sequence >= current.joined && !std::mem::replace(&mut current.is_told_again, true) {
            self.due.joined_again(current.first);
        }
        let (has_notice, wrong) = self.due.settle(&mut block, &session, self.settings.publisher_id, &received);
        self.report.notices += u64::from(has_notice);
        if let Some(text) = wrong {
            self.report.findings.add(Fault::Wrong, sequence, 1, || text);
        }
        let message = match (self.sent)(sequence) {
            Sent::Message(message) => Some(message),
            Sent::Opaque => None,
            Sent::Nothing => {
                self.report.findings.add(Fault::Foreign, sequence, 1, || "nothing was sent under it".to_owned());
                return 0;
            }
        };
        let current = self.passed.last().expect("the session was entered");
        let mut shared = Shared {
            publisher_id: self.settings.publisher_id,
            instrument: 0,
            ts_event: 0,
            sequence: sequence as u32,
            is_bad_book: current.is_late || !current.gaps.is_empty(),
            is_snapshot: sequence < current.joined,
        };
        self.truth.set_snapshot(shared.is_snapshot);
        let mut expected: &[Expected] = &[];
        if let Some(message) = &message {
            shared.instrument = u32::from(message.locate);
            shared.ts_event = self.settings.midnight_ns + message.timestamp_ns;
            shared.is_bad_book |= self.truth.is_suspect(message.locate);
            expected = self.truth.apply(message);
        }
        let compared = compare(block, expected, &shared, &received, &mut self.book);
        self.report.records += compared.records;
        if let Some((fault, text)) = compared.fault {
            let code = message.map_or('?', |message| message.body.code() as char);
            self.report.findings.add(fault, sequence, 1, || format!("message {code}: {text}"));
        }
        compared.newest_ns
    }

    fn compare_books(&mut self) {
        let (own, exchange) = (self.book(), self.truth.book());
        let next = self.next();
        for (instrument, order_id) in own.keys().chain(exchange.keys().filter(|key| !own.contains_key(key))) {
            let key = (*instrument, *order_id);
            let (is, want) = (own.get(&key), exchange.get(&key));
            if is != want {
                let text = || {
                    let words = |order: Option<&BookOrder>| order.map_or("no order".to_owned(), |o| format!("{o:?}"));
                    format!("instrument {instrument}, order {order_id}: {} instead of {}", words(is), words(want))
                };
                self.report.findings.add(Fault::Book, next, 1, text);
            }
        }
    }
}
