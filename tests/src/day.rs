//! A seeded, spec-exact TotalView-ITCH 5.0 trading day.
//!
//! The day is an iterator: it holds the instruments and the live orders, never the messages, so tens of millions of
//! messages cost no more memory than the orders that are open. The same settings give the same day, bit for bit, so a
//! checker runs a second instance instead of being told what was sent.
//!
//! Order of events: *TotalView-ITCH 5.0*, system event codes and the trading-day sections.
#![forbid(unsafe_code)]

mod admin;
mod flow;
mod script;

use std::collections::VecDeque;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::itch::{Body, Message, Symbol};

/// What kind of day.
#[derive(Clone, Debug, PartialEq)]
pub struct DaySettings {
    /// Everything random follows from it.
    pub seed: u64,
    /// Messages of the whole day, exactly; raised to [`MIN_MESSAGES`] if lower.
    pub messages: u64,
    /// Instruments; lowered so that the fixed part of the day is at most half of the messages.
    pub instruments: u16,
    /// Live orders that the flow hovers around once it has reached them.
    pub live_orders: usize,
    /// Share (0–1) of executions, cancels, deletes and replaces that hit one of the newest 256 orders instead of any
    /// live order. Real orders die young; 0 is the worst case for an order store's cache.
    pub recency: f64,
}

impl Default for DaySettings {
    fn default() -> Self {
        Self { seed: 1, messages: 1_000_000, instruments: 500, live_orders: 20_000, recency: 0.6 }
    }
}

/// The shortest day: below it not every message type would find its place.
pub const MIN_MESSAGES: u64 = 4_000;

/// Messages per instrument outside the flow: R, H, Y, L, two crosses.
const FIXED_PER_INSTRUMENT: u64 = 6;

/// One security of the day.
#[derive(Clone, Debug)]
struct Instrument {
    stock: Symbol,
    /// Middle of its book, Price(4). Bids stay below it and asks above, so the book never crosses.
    middle: u32,
    round_lot: u32,
}

/// An order in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveOrder {
    /// Order reference number, unique for the day.
    pub reference: u64,
    /// Stock locate.
    pub locate: u16,
    /// `B` or `S`.
    pub side: u8,
    /// Shares left.
    pub shares: u32,
    /// Price(4).
    pub price: u32,
}

/// The day; iterates over its messages in order.
#[derive(Clone, Debug)]
pub struct Day {
    settings: DaySettings,
    rng: ChaCha8Rng,
    instruments: Vec<Instrument>,
    orders: Vec<LiveOrder>,
    next_reference: u64,
    next_match: u64,
    /// Match numbers of late prints, for broken trades.
    prints: VecDeque<u64>,
    clock_ns: u64,
    segment: usize,
    /// Messages before the current segment.
    segment_start: u64,
    /// Messages up to the end of the current segment, if it is a flow.
    segment_end: u64,
    /// Messages that are decided already, with their locates.
    queue: VecDeque<(u16, Body)>,
    produced: u64,
}

/// A stretch of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    /// A fixed list of messages.
    Script(script::Script),
    /// Random order flow.
    Flow(flow::Flow),
}

/// One hour in nanoseconds.
const HOUR_NS: u64 = 3_600_000_000_000;
/// One minute in nanoseconds.
const MINUTE_NS: u64 = HOUR_NS / 60;

/// The day's stretches, with the time of day at which each begins.
const SEGMENTS: [(Segment, u64); 10] = [
    (Segment::Script(script::Script::Directory), 3 * HOUR_NS),
    (Segment::Script(script::Script::SystemStart), 4 * HOUR_NS),
    (Segment::Flow(flow::Flow::PreMarket), 4 * HOUR_NS + 1),
    (Segment::Flow(flow::Flow::OpeningImbalance), 9 * HOUR_NS + 25 * MINUTE_NS),
    (Segment::Script(script::Script::Open), 9 * HOUR_NS + 30 * MINUTE_NS),
    (Segment::Flow(flow::Flow::Continuous), 9 * HOUR_NS + 31 * MINUTE_NS),
    (Segment::Flow(flow::Flow::ClosingImbalance), 15 * HOUR_NS + 50 * MINUTE_NS),
    (Segment::Script(script::Script::Close), 16 * HOUR_NS),
    (Segment::Flow(flow::Flow::PostMarket), 16 * HOUR_NS + MINUTE_NS),
    (Segment::Script(script::Script::End), 20 * HOUR_NS),
];

/// When everything is over.
const DAY_END_NS: u64 = 20 * HOUR_NS + 5 * MINUTE_NS;

impl Day {
    /// Begins the day.
    #[must_use]
    pub fn new(settings: &DaySettings) -> Self {
        let mut settings = settings.clone();
        settings.messages = settings.messages.max(MIN_MESSAGES);
        let affordable = settings.messages / (2 * FIXED_PER_INSTRUMENT);
        settings.instruments = settings.instruments.clamp(8, u16::try_from(affordable).unwrap_or(u16::MAX).max(8));
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let instruments = (0..settings.instruments).map(|i| Instrument::new(i, &mut rng)).collect();
        let mut day = Self {
            orders: Vec::with_capacity(settings.live_orders + settings.live_orders / 8),
            next_reference: rng.random_range(1..1000),
            next_match: rng.random_range(1..1000),
            settings,
            rng,
            instruments,
            prints: VecDeque::new(),
            clock_ns: 0,
            segment: 0,
            segment_start: 0,
            segment_end: 0,
            queue: VecDeque::new(),
            produced: 0,
        };
        day.enter_segment();
        day
    }

    /// The settings in force, after the limits were applied.
    #[must_use]
    pub fn settings(&self) -> &DaySettings {
        &self.settings
    }

    /// Orders in the book now: the day's own truth, in no particular order.
    #[must_use]
    pub fn live_orders(&self) -> &[LiveOrder] {
        &self.orders
    }

    /// Number of messages so far.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.produced
    }

    fn enter_segment(&mut self) {
        if let Some((segment, start_ns)) = SEGMENTS.get(self.segment) {
            self.clock_ns = self.clock_ns.max(*start_ns);
            self.segment_start = self.produced;
            match segment {
                Segment::Script(script) => self.write_script(*script),
                Segment::Flow(_) => self.segment_end = self.flow_end(),
            }
        }
    }

    /// Index of the message that ends the current flow: what is left over for flows is shared out by their weights.
    fn flow_end(&self) -> u64 {
        let scripted = |from: usize| -> u64 {
            SEGMENTS[from..]
                .iter()
                .map(|(s, _)| if let Segment::Script(s) = s { self.script_length(*s) } else { 0 })
                .sum()
        };
        let weight = |segments: &[(Segment, u64)]| -> u64 {
            segments.iter().map(|(s, _)| if let Segment::Flow(f) = s { f.weight() } else { 0 }).sum()
        };
        let flow_total = self.settings.messages - scripted(0);
        let scripted_before = scripted(0) - scripted(self.segment);
        scripted_before + flow_total * weight(&SEGMENTS[..=self.segment]) / weight(&SEGMENTS)
    }

    /// Moves the clock on by about the time that is left in the segment, divided by the messages that are left in it.
    fn tick(&mut self, messages_left: u64) {
        let end_ns = SEGMENTS.get(self.segment + 1).map_or(DAY_END_NS, |next| next.1);
        let mean_ns = end_ns.saturating_sub(self.clock_ns) / (messages_left + 1);
        let step_ns = self.rng.random_range(0..=2 * mean_ns);
        self.clock_ns = (self.clock_ns + step_ns).min(end_ns.max(self.clock_ns + 1) - 1);
    }

    fn emit(&mut self, locate: u16, body: Body) -> Message {
        self.produced += 1;
        let tracking = if self.rng.random_ratio(1, 8) { self.rng.random_range(0..16) * 2 } else { 0 };
        Message { locate, tracking, timestamp_ns: self.clock_ns, body }
    }
}

impl Iterator for Day {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((locate, body)) = self.queue.pop_front() {
                self.tick(self.queue.len() as u64 + self.flow_messages_left());
                return Some(self.emit(locate, body));
            }
            let (segment, _) = SEGMENTS.get(self.segment)?;
            match segment {
                Segment::Flow(flow) if self.flow_messages_left() > 0 => {
                    let left = self.flow_messages_left();
                    self.tick(left);
                    let (locate, body) = self.flow_message(*flow, left);
                    return Some(self.emit(locate, body));
                }
                _ => {
                    self.segment += 1;
                    self.enter_segment();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
