//! One line's way from the exchange: seeded loss, duplication, reordering, skew and damage, with an exact account.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::ranges::RangeSet;

/// What a line does to its packets. Shares are per packet, 0–1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineSettings {
    /// Share of packets lost, in the long run.
    pub loss: f64,
    /// Mean number of packets that are lost in a row; at least 1.
    pub loss_burst: f64,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets that are held up, so that later ones overtake them.
    pub reorder: f64,
    /// Longest such hold-up, nanoseconds.
    pub reorder_ns: u64,
    /// How far the line is behind the exchange, nanoseconds.
    pub skew_ns: u64,
    /// Random addition to the skew, up to this, nanoseconds; it reorders packets that are closer together.
    pub jitter_ns: u64,
    /// Share of packets damaged so that a receiver must refuse them whole. Damage is counted as loss as well.
    pub corrupt: f64,
}

impl Default for LineSettings {
    /// A perfect line.
    fn default() -> Self {
        let none = 0.0;
        Self {
            loss: none,
            loss_burst: 1.0,
            duplicate: none,
            reorder: none,
            reorder_ns: 0,
            skew_ns: 0,
            jitter_ns: 0,
            corrupt: none,
        }
    }
}

/// What became of a line's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LineSent {
    /// Packets put on the wire, heartbeats, duplicates and damaged ones included.
    pub packets: u64,
    /// Messages in them, those of duplicates included, those of damaged ones not.
    pub messages: u64,
    /// Packets with messages that never reached the wire.
    pub lost: u64,
    /// Packets sent a second time.
    pub duplicated: u64,
    /// Packets held up.
    pub reordered: u64,
    /// Packets damaged.
    pub corrupted: u64,
    /// Heartbeats and end-of-session packets sent.
    pub heartbeats: u64,
}

/// The state of one line.
#[derive(Debug)]
pub struct Line {
    settings: LineSettings,
    rng: ChaCha8Rng,
    is_losing: bool,
    lossless: Arc<AtomicBool>,
    lost: RangeSet,
    sent: LineSent,
}

/// Copies of one packet on the wire: when, and what.
pub type Arrivals = Vec<(u64, Vec<u8>)>;

impl Line {
    /// A line with its own random numbers.
    #[must_use]
    pub fn new(settings: LineSettings, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            settings,
            rng,
            is_losing: false,
            lossless: Arc::default(),
            lost: RangeSet::default(),
            sent: LineSent::default(),
        }
    }

    /// While set, nothing is lost or damaged from the next packet on.
    #[must_use]
    pub fn lossless(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lossless)
    }

    /// Messages that this line never carried in a packet that a receiver may accept.
    #[must_use]
    pub fn lost(&self) -> &RangeSet {
        &self.lost
    }

    /// The account so far.
    #[must_use]
    pub fn sent(&self) -> LineSent {
        self.sent
    }

    /// Sends a packet with the messages `range` at `at_ns`; returns what arrives.
    pub fn send(&mut self, at_ns: u64, range: Range<u64>, mut payload: Vec<u8>) -> Arrivals {
        // Every packet draws the same numbers, whatever happens to it, so that a switch does not change the rest.
        let (is_lost, is_damaged) = (self.draw_loss(), self.draw(self.settings.corrupt));
        let (is_twice, is_late) = (self.draw(self.settings.duplicate), self.draw(self.settings.reorder));
        let arrival_ns = at_ns + self.delay(is_late);
        let second_ns = arrival_ns + self.rng.random_range(0..=self.settings.skew_ns.max(1_000));
        let is_lossless = self.lossless.load(Relaxed);
        if is_lost && !is_lossless {
            self.lost.insert(range);
            self.sent.lost += 1;
            return Vec::new();
        }
        if is_damaged && !is_lossless {
            self.lost.insert(range);
            self.sent.corrupted += 1;
            self.sent.packets += 1;
            self.damage(&mut payload);
            return vec![(arrival_ns, payload)];
        }
        let copies = 1 + u64::from(is_twice);
        self.sent.packets += copies;
        self.sent.messages += copies * (range.end - range.start);
        self.sent.duplicated += u64::from(is_twice);
        self.sent.reordered += u64::from(is_late);
        let mut arrivals = vec![(arrival_ns, payload)];
        if is_twice {
            arrivals.push((second_ns, arrivals[0].1.clone()));
        }
        arrivals
    }

    /// Loses a packet for a reason that all lines have in common. Unless nothing is lost now: then it is not, and false is
    /// returned.
    pub fn lose(&mut self, range: Range<u64>) -> bool {
        if self.lossless.load(Relaxed) {
            return false;
        }
        self.lost.insert(range);
        self.sent.lost += 1;
        true
    }

    /// Sends a heartbeat or an end-of-session packet. They may be lost, unless `is_sure`.
    pub fn send_heartbeat(&mut self, at_ns: u64, payload: Vec<u8>, is_sure: bool) -> Arrivals {
        let is_lost = self.draw(self.settings.loss);
        let arrival_ns = at_ns + self.delay(false);
        if is_lost && !is_sure {
            return Vec::new();
        }
        self.sent.packets += 1;
        self.sent.heartbeats += 1;
        vec![(arrival_ns, payload)]
    }

    fn draw(&mut self, share: f64) -> bool {
        self.rng.random_bool(share.clamp(0.0, 1.0))
    }

    /// Two states, as Gilbert described: losing ends with probability 1/burst, and begins as often as gives the wanted
    /// share.
    fn draw_loss(&mut self) -> bool {
        let LineSettings { loss, loss_burst, .. } = self.settings;
        let end = 1.0 / loss_burst.max(1.0);
        let begin = if loss >= 1.0 { 1.0 } else { end * loss / (1.0 - loss) };
        let draw = self.draw(if self.is_losing { end } else { begin });
        self.is_losing = (self.is_losing != draw) || loss >= 1.0;
        self.is_losing
    }

    fn delay(&mut self, is_late: bool) -> u64 {
        let LineSettings { skew_ns, jitter_ns, reorder_ns, .. } = self.settings;
        let (jitter, late) = (self.rng.random_range(0..=jitter_ns), self.rng.random_range(0..=reorder_ns));
        skew_ns + jitter + if is_late { late } else { 0 }
    }

    /// Damages a packet in a way that the specification lets a receiver detect. Never turns it into another legal one.
    fn damage(&mut self, payload: &mut Vec<u8>) {
        match self.rng.random_range(0..4) {
            0 => payload.truncate(self.rng.random_range(0..payload.len())),
            1 => {
                let count = u16::from_be_bytes([payload[18], payload[19]]);
                let wrong = count + self.rng.random_range(1..1000);
                payload[18..20].copy_from_slice(&wrong.to_be_bytes());
            }
            2 => payload[18..20].copy_from_slice(&0xFFFE_u16.to_be_bytes()),
            _ => payload[10..18].fill(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mold;

    fn packet(first: u64) -> (Range<u64>, Vec<u8>) {
        let mut packet = mold::Packet::new(b"LINE TEST ", first);
        packet.push(b"one");
        packet.push(b"two");
        (packet.range(), packet.into_payload())
    }

    fn run(settings: LineSettings, packets: u64) -> (Line, Vec<(u64, Vec<u8>)>) {
        let mut line = Line::new(settings, 5);
        let mut arrivals = Vec::new();
        for n in 0..packets {
            let (range, payload) = packet(1 + 2 * n);
            arrivals.extend(line.send(n * 1000, range, payload));
        }
        (line, arrivals)
    }

    #[test]
    fn the_account_of_losses_is_what_never_arrives() {
        let settings = LineSettings { loss: 0.1, loss_burst: 3.0, duplicate: 0.1, corrupt: 0.05, ..Default::default() };
        let (line, arrivals) = run(settings, 20_000);
        let mut arrived = RangeSet::default();
        let mut refused = 0;
        for (_, payload) in &arrivals {
            match mold::parse(payload) {
                Ok(view) => arrived.insert(view.sequence..view.sequence + view.blocks.len() as u64),
                Err(_) => refused += 1,
            }
        }
        let mut all = RangeSet::default();
        all.insert(1..40_001);
        assert_eq!(all.difference(&arrived), *line.lost());
        let sent = line.sent();
        assert_eq!(refused, sent.corrupted);
        assert_eq!(sent.packets, arrivals.len() as u64);
        assert!((1_500..2_500).contains(&sent.lost), "{sent:?}");
        assert!((sent.lost as usize) > 2 * line.lost().runs().saturating_sub(sent.corrupted as usize), "bursts");
        assert!(sent.duplicated > 1_500 && sent.corrupted > 700, "{sent:?}");
    }

    #[test]
    fn a_perfect_line_changes_nothing_and_a_dead_one_carries_nothing() {
        let (line, arrivals) = run(LineSettings::default(), 100);
        assert!(line.lost().is_empty());
        assert!(arrivals.iter().enumerate().all(|(n, a)| *a == (n as u64 * 1000, packet(1 + 2 * n as u64).1)));
        let (line, arrivals) = run(LineSettings { loss: 1.0, ..Default::default() }, 100);
        assert_eq!((line.lost().count(), arrivals.len()), (200, 0));
    }

    #[test]
    fn late_packets_are_overtaken() {
        let settings = LineSettings { reorder: 0.2, reorder_ns: 5_000, skew_ns: 300, ..Default::default() };
        let (line, arrivals) = run(settings, 1000);
        assert!(arrivals.windows(2).any(|w| w[0].0 > w[1].0));
        assert!(arrivals.iter().all(|a| a.0 >= 300) && line.sent().reordered > 100);
    }

    #[test]
    fn lossless_stops_loss_and_leaves_the_rest_of_the_sequence_alone() {
        let settings = LineSettings { loss: 0.3, ..Default::default() };
        let (free, _) = run(settings, 300);
        let mut line = Line::new(settings, 5);
        for n in 0..300 {
            line.lossless().store((100..200).contains(&n), Relaxed);
            let (range, payload) = packet(1 + 2 * n);
            let _ = line.send(n * 1000, range, payload);
        }
        let mut window = RangeSet::default();
        window.insert(201..401);
        assert_eq!(*line.lost(), free.lost().difference(&window));
    }
}
