//! The exchange: numbers the messages of a day, packs them for lines A and B apart, and sends them through the lines.
//!
//! An iterator of transmissions in order of time, so it drives sockets and in-process simulations alike.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::itch::Message;
use crate::line::{Line, LineSent, LineSettings};
use crate::mold::{self, Packet, Session};
use crate::ranges::RangeSet;

/// How the exchange sends. Times are nanoseconds since its start.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeSettings {
    /// Everything random follows from it.
    pub seed: u64,
    /// Session name.
    pub session: Session,
    /// Messages per second, on average over the time that is not quiet.
    pub rate: f64,
    /// Share of messages (0–1) that come in bursts at ten times the rate; the rest is slower accordingly.
    pub burst_share: f64,
    /// Messages after which a line closes a packet: drawn anew for each packet, from 1 to this.
    pub packet_messages: u16,
    /// Largest UDP payload, bytes.
    pub payload_bytes: usize,
    /// A packet is closed this long after its first message at the latest.
    pub packet_ns: u64,
    /// A line that has sent nothing for so long sends a heartbeat.
    pub heartbeat_ns: u64,
    /// Silence before the first message.
    pub lead_ns: u64,
    /// After so many messages nothing happens for [`Self::quiet_ns`]; 0 = never.
    pub quiet_every: u64,
    /// How long it is quiet then.
    pub quiet_ns: u64,
    /// End-of-session packets per line.
    pub end_count: u32,
    /// Time between them.
    pub end_interval_ns: u64,
    /// Share of messages (0–1) at which both lines lose the packet that has it.
    pub common_loss: f64,
    /// Lines A and B.
    pub lines: [LineSettings; 2],
}

impl Default for ExchangeSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            session: *b"DEMO000001",
            rate: 100_000.0,
            burst_share: 0.3,
            packet_messages: 24,
            payload_bytes: mold::MAX_PAYLOAD_BYTES,
            packet_ns: 200_000,
            heartbeat_ns: 100_000_000,
            lead_ns: 150_000_000,
            quiet_every: 0,
            quiet_ns: 250_000_000,
            end_count: 10,
            end_interval_ns: 50_000_000,
            common_loss: 0.0,
            lines: [LineSettings::default(); 2],
        }
    }
}

/// One UDP payload on one line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transmission {
    /// When it is on the wire, nanoseconds since the exchange's start.
    pub at_ns: u64,
    /// Keeps transmissions of the same time in the order in which they were made.
    order: u64,
    /// 0 = A, 1 = B.
    pub line: usize,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// One line's packing.
#[derive(Debug)]
struct Packing {
    line: Line,
    packet: Packet,
    /// When the packet got its first message.
    opened_ns: u64,
    /// Messages at which the packet is closed.
    target: u16,
    /// When the line last sent anything.
    last_sent_ns: u64,
    /// The open packet will be lost on both lines.
    is_doomed: bool,
}

/// The exchange, publishing the messages of `I`.
#[derive(Debug)]
pub struct Exchange<I> {
    settings: ExchangeSettings,
    source: I,
    rng: ChaCha8Rng,
    packings: [Packing; 2],
    in_flight: BinaryHeap<Reverse<Transmission>>,
    order: u64,
    clock_ns: u64,
    next_sequence: u64,
    burst_left: u32,
    is_over: bool,
    message: Vec<u8>,
}

impl<I: Iterator<Item = Message>> Exchange<I> {
    /// An exchange at its start: sequence 1, time 0.
    pub fn new(settings: ExchangeSettings, source: I) -> Self {
        let packing = |index: usize| Packing {
            // Odd constants, so that the two lines and the exchange never share a sequence of random numbers.
            line: Line::new(
                settings.lines[index],
                settings.seed.wrapping_mul(0x9E37_79B9).wrapping_add(index as u64 + 1),
            ),
            packet: Packet::new(&settings.session, 1),
            opened_ns: 0,
            target: 1,
            last_sent_ns: 0,
            is_doomed: false,
        };
        Self {
            packings: [packing(0), packing(1)],
            rng: ChaCha8Rng::seed_from_u64(settings.seed ^ 0xE7C4_A11E),
            clock_ns: settings.lead_ns,
            settings,
            source,
            in_flight: BinaryHeap::new(),
            order: 0,
            next_sequence: 1,
            burst_left: 0,
            is_over: false,
            message: Vec::new(),
        }
    }

    /// Number of the next message; after the end, one more than the last.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Messages that the line did not carry, so far.
    pub fn lost(&self, line: usize) -> &RangeSet {
        self.packings[line].line.lost()
    }

    /// Messages that neither line carried: what a receiver of both must declare lost, and nothing else.
    pub fn common_losses(&self) -> RangeSet {
        self.lost(0).intersection(self.lost(1))
    }

    /// The line's account so far.
    pub fn sent(&self, line: usize) -> LineSent {
        self.packings[line].line.sent()
    }

    /// The line's switch that stops losses; see [`Line::lossless`].
    pub fn lossless(&self, line: usize) -> Arc<AtomicBool> {
        self.packings[line].line.lossless()
    }

    /// The source of messages, for its truth.
    pub fn source(&self) -> &I {
        &self.source
    }

    /// Sends the next message, or what ends the session.
    fn step(&mut self) {
        let Some(message) = self.source.next() else {
            return self.end();
        };
        self.advance();
        self.message.clear();
        message.encode(&mut self.message);
        let common_loss = self.settings.common_loss;
        let is_doomed = common_loss > 0.0 && self.rng.random_bool(common_loss.min(1.0));
        for line in 0..2 {
            if !self.packings[line].packet.has_room(&self.message) {
                self.close(line, self.clock_ns);
            }
            let packing = &mut self.packings[line];
            if packing.packet.count() == 0 {
                let ExchangeSettings { session, payload_bytes, .. } = &self.settings;
                packing.packet = Packet::with_room(session, self.next_sequence, *payload_bytes);
                packing.opened_ns = self.clock_ns;
                packing.target = self.rng.random_range(1..=self.settings.packet_messages.max(1));
            }
            packing.packet.push(&self.message);
            packing.is_doomed |= is_doomed;
            if packing.packet.count() >= packing.target {
                self.close(line, self.clock_ns);
            }
        }
        self.next_sequence += 1;
    }

    /// Moves the clock to the next message's time, with everything that is due before it.
    fn advance(&mut self) {
        let ExchangeSettings { rate, burst_share, quiet_every, quiet_ns, .. } = self.settings;
        let mean_ns = 1e9 / rate.max(1e-3);
        let burst_share = burst_share.clamp(0.0, 0.9);
        let speed = if self.burst_left > 0 { 0.1 } else { (1.0 - burst_share * 0.1) / (1.0 - burst_share) };
        if self.burst_left > 0 {
            self.burst_left -= 1;
        } else if self.rng.random_bool((burst_share / (1.0 - burst_share) / 250.0).min(1.0)) {
            self.burst_left = self.rng.random_range(1..500);
        }
        let draw: f64 = self.rng.random_range(f64::MIN_POSITIVE..1.0);
        let mut next_ns = self.clock_ns + (-draw.ln() * mean_ns * speed) as u64;
        if quiet_every > 0 && self.next_sequence.is_multiple_of(quiet_every) {
            next_ns += quiet_ns;
        }
        for line in 0..2 {
            self.run_timers(line, next_ns);
        }
        self.clock_ns = next_ns;
    }

    /// Closes the line's packet when its time is up and sends heartbeats, up to `until_ns`.
    fn run_timers(&mut self, line: usize, until_ns: u64) {
        let packing = &self.packings[line];
        let deadline_ns = packing.opened_ns + self.settings.packet_ns;
        if packing.packet.count() > 0 && deadline_ns <= until_ns {
            self.close(line, deadline_ns);
        }
        let interval_ns = self.settings.heartbeat_ns.max(1);
        while self.packings[line].packet.count() == 0 && self.packings[line].last_sent_ns + interval_ns <= until_ns {
            let at_ns = self.packings[line].last_sent_ns + interval_ns;
            let payload = mold::heartbeat(&self.settings.session, self.next_sequence);
            let arrivals = self.packings[line].line.send_heartbeat(at_ns, payload, false);
            self.put(line, at_ns, arrivals);
        }
    }

    fn close(&mut self, line: usize, at_ns: u64) {
        let empty = Packet::new(&self.settings.session, self.next_sequence);
        let packing = &mut self.packings[line];
        let packet = std::mem::replace(&mut packing.packet, empty);
        if std::mem::take(&mut packing.is_doomed) && packing.line.lose(packet.range()) {
            return self.put(line, at_ns, Vec::new());
        }
        let arrivals = packing.line.send(at_ns, packet.range(), packet.into_payload());
        self.put(line, at_ns, arrivals);
    }

    fn put(&mut self, line: usize, sent_ns: u64, arrivals: Vec<(u64, Vec<u8>)>) {
        self.packings[line].last_sent_ns = sent_ns;
        for (at_ns, payload) in arrivals {
            self.order += 1;
            self.in_flight.push(Reverse(Transmission { at_ns, order: self.order, line, payload }));
        }
    }

    /// Sends what is open, then end-of-session packets in place of heartbeats.
    fn end(&mut self) {
        self.is_over = true;
        for line in 0..2 {
            if self.packings[line].packet.count() > 0 {
                self.close(line, self.clock_ns);
            }
            for n in 1..=self.settings.end_count {
                let at_ns = self.clock_ns + u64::from(n) * self.settings.end_interval_ns;
                let payload = mold::end_of_session(&self.settings.session, self.next_sequence);
                let is_last = n == self.settings.end_count;
                let arrivals = self.packings[line].line.send_heartbeat(at_ns, payload, is_last);
                self.put(line, at_ns, arrivals);
            }
        }
    }
}

impl<I: Iterator<Item = Message>> Iterator for Exchange<I> {
    type Item = Transmission;

    fn next(&mut self) -> Option<Transmission> {
        // Nothing that is still to be made can be earlier than the clock: lines only delay.
        while !self.is_over && self.in_flight.peek().is_none_or(|next| next.0.at_ns > self.clock_ns) {
            self.step();
        }
        self.in_flight.pop().map(|next| next.0)
    }
}

#[cfg(test)]
mod tests;
