//! The consumer: a plain kernel UDP socket on another host, its own reading of MoldUDP64 and DBN, and a check of every
//! record against the exchange's truth. It knows nothing of the handler's data path.
#![forbid(unsafe_code)]

mod check;
mod client;
mod compare;
mod report;
mod socket;
#[cfg(test)]
mod tests;

pub use check::{CheckSettings, Checker, Sent, SessionTruth};
pub use client::{Client, request};
pub use report::{Fault, Finding, Findings, Report, SessionAccount};
pub use socket::{Receiver, utc_ns};

use crate::day::{Day, DaySettings};
use crate::mold::Session;

/// The truth of a generated day, published as one session from message 1: a second instance of the generator.
#[must_use]
pub fn day_truth(session: Session, settings: &DaySettings) -> SessionTruth {
    let mut day = Day::new(settings);
    let sent = move |sequence: u64| {
        while day.produced() + 1 < sequence && day.next().is_some() {}
        day.next().map_or(Sent::Nothing, Sent::Message)
    };
    SessionTruth { session, first: 1, sent: Box::new(sent) }
}
