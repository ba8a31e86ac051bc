//! System records: what the stream says of itself, against what the consumer sees by the numbers.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::mold::Session;
use crate::records::Record;

/// What a right handler says when lines had been silent. Only it knows, so it may stand at any end.
const BACK: &str = "was silent and is back";

/// How a session begins for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// With its first message.
    New,
    /// After it.
    Late,
    /// With a snapshot of what was before.
    Joined,
}

/// What must be said in front of the next block.
#[derive(Clone, Debug, Default)]
pub(super) struct Due {
    /// A session before this one ended with messages that did not come.
    left: Option<(Session, Range<u64>)>,
    /// The session begins with this message, and how.
    begins: Option<(u64, Begins)>,
    /// Messages that did not come since the last block.
    lost: Option<Range<u64>>,
}

fn name(session: &Session) -> String {
    session.trim_ascii().iter().map(|byte| if matches!(byte, b' '..=b'~') { *byte as char } else { '?' }).collect()
}

fn lost(session: &Session, run: &Range<u64>) -> String {
    format!("session {}: messages {} to {} lost", name(session), run.start, run.end - 1)
}

impl Due {
    /// The next session is entered.
    pub(super) fn enter(&mut self, left: Option<Session>, first: u64, how: Begins) {
        if let (Some(session), Some(run)) = (left, self.lost.take()) {
            self.left = Some((session, run));
        }
        self.begins = Some((first, how));
    }

    /// A snapshot with which the session began at `first` is over.
    pub(super) fn joined_again(&mut self, first: u64) {
        self.begins = Some((first, Begins::Joined));
    }

    /// Messages `run` are left out.
    pub(super) fn lost(&mut self, run: Range<u64>) {
        if !run.is_empty() {
            let start = self.lost.as_ref().map_or(run.start, |before| before.start);
            self.lost = Some(start..run.end);
        }
    }

    fn text(&self, session: &Session) -> String {
        let begins = self.begins.map(|(first, how)| {
            let words = match how {
                Begins::New => format!("begins at message {first}"),
                Begins::Late => format!("joined at message {first}, what came before is unknown"),
                Begins::Joined => format!("begins with a snapshot, at message {first}"),
            };
            format!("session {}: {words}", name(session))
        });
        let left = self.left.as_ref().map(|(left, run)| lost(left, run));
        let lost = self.lost.as_ref().map(|run| lost(session, run));
        let sentences: Vec<String> = [left, begins, lost].into_iter().flatten().collect();
        sentences.join("; ")
    }

    /// Cuts the system record off a block's front, if there is one, and compares it with what is due; then nothing is due any
    /// more. Returns whether there was one, and what is wrong.
    pub(super) fn settle(
        &mut self,
        block: &mut &[u8],
        session: &Session,
        publisher_id: u16,
        received: &Range<u64>,
    ) -> (bool, Option<String>) {
        let want = std::mem::take(self).text(session);
        let mut rest = *block;
        let record = if rest.is_empty() { None } else { Record::cut(&mut rest).ok() };
        let Some(system) = record.and_then(|record| record.system()) else {
            let wrong = (!want.is_empty()).then(|| format!("nothing in front of it says \"{want}\""));
            return (false, wrong);
        };
        *block = rest;
        let back = format!("session {}: {BACK}", name(session));
        let said =
            system.text.strip_suffix(&back).map_or(&*system.text, |said| said.strip_suffix("; ").unwrap_or(said));
        let wrong = if said != want {
            Some(format!("the record in front of it says \"{}\" instead of \"{want}\"", system.text))
        } else if (system.publisher_id, system.code) != (publisher_id, 255) || !received.contains(&system.ts_event) {
            Some(format!("the record in front of it is {system:?}"))
        } else {
            None
        };
        (true, wrong)
    }
}

/// The record that a right handler writes when this is due: for the tests of what checks handlers.
#[cfg(test)]
pub(super) fn encode(due: &mut Due, session: &Session, publisher_id: u16, ts_event: u64) -> Vec<u8> {
    let text = std::mem::take(due).text(session);
    if text.is_empty() { Vec::new() } else { crate::records::tests::encode_system(&text, publisher_id, ts_event) }
}
