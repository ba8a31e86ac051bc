//! The consumer: a plain kernel UDP socket on another host, its own reading of MoldUDP64 and DBN, and a check of every
//! record against the exchange's truth. It knows nothing of the handler's data path.
#![forbid(unsafe_code)]

mod check;
mod client;
mod compare;
mod notice;
mod report;
mod socket;
#[cfg(test)]
mod tests;

pub use check::{CheckSettings, Checker, Sent, SessionTruth};
pub use client::{Client, request};
pub use report::{Fault, Finding, Findings, Report, SessionAccount};
pub use socket::{Receiver, utc_ns};

use crate::day::{Day, DaySettings};
use crate::glimpse::Glimpse;
use crate::mold::Session;

/// The truth of a generated day, published as one session from message 1: a second instance of the generator.
#[must_use]
pub fn day_truth(session: Session, settings: &DaySettings) -> SessionTruth {
    let mut day = Day::new(settings);
    let sent = move |sequence: u64| {
        while day.produced() + 1 < sequence && day.next().is_some() {}
        day.next().map_or(Sent::Nothing, Sent::Message)
    };
    SessionTruth { session, first: 1, joined: None, sent: Box::new(sent) }
}

/// The same, joined by a snapshot of all messages before `next`: its messages stand for those.
#[must_use]
pub fn joined_truth(session: Session, settings: &DaySettings, next: u64) -> SessionTruth {
    let mut day = Day::new(settings);
    let mut glimpse = Glimpse::default();
    day.by_ref().take(usize::try_from(next - 1).expect("fits")).for_each(|message| glimpse.apply(&message));
    let spin = glimpse.spin();
    let first = next - spin.len() as u64;
    let sent = move |sequence: u64| {
        if sequence < next {
            let at = sequence.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            return at.map_or(Sent::Nothing, |at| Sent::Message(spin[at]));
        }
        while day.produced() + 1 < sequence && day.next().is_some() {}
        day.next().map_or(Sent::Nothing, Sent::Message)
    };
    SessionTruth { session, first, joined: Some(next), sent: Box::new(sent) }
}
