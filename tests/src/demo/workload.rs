//! What the exchange sends: a generated day, or a capture.
#![forbid(unsafe_code)]

use anyhow::Result;

use super::Options;
use super::capture::Capture;
use crate::consumer::{SessionAccount, SessionTruth, day_truth};
use crate::day::{Day, DaySettings};
use crate::exchange::ExchangeSettings;
use crate::line::LineSettings;

/// Largest UDP payload with large packets.
const JUMBO_PAYLOAD_BYTES: usize = 8900;

/// What is sent, and how.
#[derive(Clone, Debug)]
pub(crate) enum Workload {
    /// A generated day on lines A and B.
    Day { day: DaySettings, exchange: ExchangeSettings },
    /// A capture: one line per group.
    Capture { capture: Capture, speed: f64 },
}

impl Workload {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        if let Some(path) = &options.capture {
            return Ok(Self::Capture { capture: Capture::read(path)?, speed: options.speed });
        }
        let messages = (options.rate * options.seconds) as u64;
        let day = DaySettings { seed: options.seed, messages, ..Default::default() };
        let day = Day::new(&day).settings().clone();
        let line = LineSettings {
            loss: options.loss,
            loss_burst: 2.0,
            duplicate: 0.01,
            reorder: 0.01,
            reorder_ns: 300_000,
            skew_ns: 0,
            jitter_ns: 2_000,
            corrupt: 0.0,
        };
        let jumbo = options.mtu > 1500;
        let usual = ExchangeSettings::default();
        let exchange = ExchangeSettings {
            payload_bytes: if jumbo {
                JUMBO_PAYLOAD_BYTES.min(usize::from(options.mtu) - 28)
            } else {
                usual.payload_bytes
            },
            // From one message to more than fit, and time enough for them to come together.
            packet_messages: if jumbo { 400 } else { options.packet_messages },
            packet_ns: if jumbo { 20_000_000 } else { 200_000 * u64::from(options.packet_messages) / 24 },
            seed: options.seed,
            rate: options.rate,
            quiet_every: day.messages / 3,
            common_loss: options.common_loss,
            lines: [line, LineSettings { skew_ns: 15_000, jitter_ns: 5_000, ..line }],
            ..usual
        };
        Ok(Self::Day { day, exchange })
    }

    /// What progress counts to: messages of a day, packets of a capture.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Day { day, .. } => day.messages,
            Self::Capture { capture, .. } => capture.packets.len() as u64,
        }
    }

    /// What must come out of each destination, and for a capture the account of it.
    pub(crate) fn truths(&self) -> Vec<(Vec<SessionTruth>, Vec<SessionAccount>)> {
        match self {
            Self::Day { day, exchange } => vec![(vec![day_truth(exchange.session, day)], Vec::new())],
            Self::Capture { capture, .. } => {
                (0..capture.channels.len()).map(|channel| capture.truth(channel)).collect()
            }
        }
    }

    /// How long sending takes.
    pub(crate) fn seconds(&self) -> f64 {
        match self {
            Self::Day { day, exchange } => day.messages as f64 / exchange.rate,
            Self::Capture { capture, speed } => {
                capture.packets.iter().map(|packet| packet.at_ns).max().unwrap_or(0) as f64 / 1e9 / speed
            }
        }
    }
}
