//! The legs of a message's way, and how they are put together from its times.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::Samples;
use super::receive::{Arrival, Arrivals};
use super::send::SentAt;

/// One leg of the way from the schedule to the consumer, in table order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    /// The intended time to the stamp just before the send call: how late the sender was.
    IntendedToSent,
    /// The stamp to the kernel's entry at the handler: the XDP program, or the kernel's receive stamp.
    SentToEntry,
    /// Kernel entry to the worker; the handler's own figure.
    EntryToWorker,
    /// The worker to the batch decoded; the handler's own figure.
    WorkerToDecoded,
    /// Decoded to sent; the handler's own figure.
    DecodedToSent,
    /// Kernel entry at the handler to the kernel's receive stamp at the consumer: the handler and the link out.
    EntryToConsumerKernel,
    /// Kernel entry at the handler to the return of the consumer's receive call.
    EntryToConsumer,
    /// The stamp before the send call to the return of the consumer's receive call.
    SentToConsumer,
    /// The whole way, from the intended time.
    IntendedToConsumer,
}

impl Leg {
    /// Every leg.
    pub const ALL: [Self; 9] = [
        Self::IntendedToSent,
        Self::SentToEntry,
        Self::EntryToWorker,
        Self::WorkerToDecoded,
        Self::DecodedToSent,
        Self::EntryToConsumerKernel,
        Self::EntryToConsumer,
        Self::SentToConsumer,
        Self::IntendedToConsumer,
    ];

    /// The handler's name of the stage, if the handler measures it.
    #[must_use]
    pub const fn stage(self) -> Option<&'static str> {
        match self {
            Self::EntryToWorker => Some("entry_to_worker"),
            Self::WorkerToDecoded => Some("worker_to_decoded"),
            Self::DecodedToSent => Some("decoded_to_sent"),
            _ => None,
        }
    }

    /// The table's words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::IntendedToSent => "intended → send call",
            Self::SentToEntry => "send call → kernel entry",
            Self::EntryToWorker => "entry → worker",
            Self::WorkerToDecoded => "worker → decoded",
            Self::DecodedToSent => "decoded → sent",
            Self::EntryToConsumerKernel => "entry → consumer's kernel",
            Self::EntryToConsumer => "entry → consumer",
            Self::SentToConsumer => "send call → consumer",
            Self::IntendedToConsumer => "intended → consumer, all",
        }
    }
}

/// The samples of one run, by leg; those of the handler are not among them.
#[derive(Clone, Debug, Default)]
pub(super) struct Legs {
    pub(super) samples: BTreeMap<Leg, Samples>,
    /// Messages that never arrived.
    pub(super) lost: u64,
    /// Legs that came out negative: the clocks' offset as the handler knew it was wrong. Recorded as 0.
    pub(super) negative: u64,
}

impl Legs {
    /// Puts together what was sent and what arrived, from message `warm_up` on. `utc_offset_ns` is UTC − CLOCK_MONOTONIC.
    pub(super) fn new(sent: &[SentAt], arrivals: &Arrivals, warm_up: usize, utc_offset_ns: u64) -> Self {
        let mut legs = Self::default();
        for (sent, arrival) in sent.iter().zip(&arrivals.messages).skip(warm_up) {
            match arrival {
                Some(arrival) => legs.record(sent, arrival, utc_offset_ns),
                None => {
                    legs.lost += 1;
                    legs.record_leg(Leg::IntendedToSent, sent.intended_ns, sent.stamp_ns);
                }
            }
        }
        for (leg, samples) in &mut legs.samples {
            // The sender's own lateness is known of lost messages too.
            samples.lost = if *leg == Leg::IntendedToSent { 0 } else { legs.lost };
        }
        legs
    }

    fn record(&mut self, sent: &SentAt, arrival: &Arrival, utc_offset_ns: u64) {
        let SentAt { intended_ns, stamp_ns } = *sent;
        let received_ns = arrival.received_ns;
        self.record_leg(Leg::IntendedToSent, intended_ns, stamp_ns);
        self.record_leg(Leg::SentToConsumer, stamp_ns, received_ns);
        self.record_leg(Leg::IntendedToConsumer, intended_ns, received_ns);
        if let Some(entry_utc_ns) = arrival.entry_utc_ns {
            let entry_ns = entry_utc_ns.wrapping_sub(utc_offset_ns);
            let kernel_ns = arrival.kernel_utc_ns.wrapping_sub(utc_offset_ns);
            self.record_leg(Leg::SentToEntry, stamp_ns, entry_ns);
            self.record_leg(Leg::EntryToConsumerKernel, entry_ns, kernel_ns);
            self.record_leg(Leg::EntryToConsumer, entry_ns, received_ns);
        }
    }

    fn record_leg(&mut self, leg: Leg, from_ns: u64, to_ns: u64) {
        self.negative += u64::from(to_ns < from_ns);
        self.samples.entry(leg).or_default().record(to_ns.saturating_sub(from_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legs_are_put_together_by_number_and_lost_messages_count() {
        let offset_ns = 1_000_000;
        let sent = |ns| SentAt { intended_ns: ns, stamp_ns: ns + 5 };
        let arrival = |ns: u64| Arrival {
            entry_utc_ns: Some(ns + 25 + offset_ns),
            kernel_utc_ns: ns + 65 + offset_ns,
            received_ns: ns + 105,
        };
        let sent = [sent(100), sent(200), sent(300), sent(400)];
        let messages = vec![Some(arrival(100)), Some(arrival(200)), None, Some(arrival(390))];
        let legs = Legs::new(&sent, &Arrivals { messages, doubled: 0 }, 1, offset_ns);
        assert_eq!(legs.lost, 1);
        let quantiles = |leg: Leg| [0.3, 0.6, 1.0].map(|quantile| legs.samples[&leg].quantile_ns(quantile));
        assert_eq!(quantiles(Leg::IntendedToSent), [Some(5); 3]);
        assert_eq!(quantiles(Leg::SentToEntry), [Some(10), Some(20), None]);
        assert_eq!(quantiles(Leg::EntryToConsumerKernel), [Some(40), Some(40), None]);
        assert_eq!(quantiles(Leg::EntryToConsumer), [Some(80), Some(80), None]);
        assert_eq!(quantiles(Leg::SentToConsumer), [Some(90), Some(100), None]);
        assert_eq!(quantiles(Leg::IntendedToConsumer), [Some(95), Some(105), None]);
        assert_eq!(legs.negative, 0);
    }
}
