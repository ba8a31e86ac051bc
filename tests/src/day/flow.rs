//! Random order flow: the messages between the scripted events.
#![forbid(unsafe_code)]

use rand::Rng;

use super::{Day, LiveOrder, SEGMENTS, Segment};
use crate::itch::Body;

/// Which flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Before 09:25: the books fill.
    PreMarket,
    /// 09:25 to the opening cross: net order imbalance messages beside the orders.
    OpeningImbalance,
    /// Regular hours; all rare events happen here.
    Continuous,
    /// 15:50 to the closing cross.
    ClosingImbalance,
    /// After the close.
    PostMarket,
}

impl Flow {
    /// Share of the day's flow, in percent.
    pub(super) const fn weight(self) -> u64 {
        match self {
            Self::PreMarket => 15,
            Self::OpeningImbalance => 4,
            Self::Continuous => 71,
            Self::ClosingImbalance => 6,
            Self::PostMarket => 4,
        }
    }

    /// Imbalance messages per thousand, and their cross type.
    const fn imbalance(self) -> (u32, u8) {
        match self {
            Self::PreMarket | Self::Continuous => (0, b'O'),
            Self::OpeningImbalance => (150, b'O'),
            Self::ClosingImbalance => (150, b'C'),
            Self::PostMarket => (20, b'A'),
        }
    }
}

/// Weights of what happens to a live order, per thousand: delete, replace, execute, cancel, execute at another price.
const FATES: [(u32, Fate); 5] =
    [(650, Fate::Delete), (160, Fate::Replace), (120, Fate::Execute), (55, Fate::Cancel), (15, Fate::ExecuteWithPrice)];

#[derive(Clone, Copy)]
enum Fate {
    Delete,
    Replace,
    Execute,
    Cancel,
    ExecuteWithPrice,
}

/// The newest orders that [`DaySettings::recency`](super::DaySettings::recency) means.
const NEWEST: usize = 256;

impl Day {
    pub(super) fn flow_messages_left(&self) -> u64 {
        match SEGMENTS.get(self.segment) {
            Some((Segment::Flow(_), _)) => self.segment_end.saturating_sub(self.produced),
            _ => 0,
        }
    }

    pub(super) fn flow_message(&mut self, flow: Flow, left: u64) -> (u16, Body) {
        if flow == Flow::Continuous && self.begin_episode(left) {
            return self.queue.pop_front().expect("an episode has at least one message");
        }
        let (imbalance_permille, cross_type) = flow.imbalance();
        if self.rng.random_range(0..1000) < imbalance_permille {
            let locate = self.any_locate();
            return (locate, self.imbalance(locate, cross_type));
        }
        if flow != Flow::PreMarket && self.rng.random_range(0..1000) < 15 {
            return self.trade();
        }
        if self.orders.is_empty() || self.rng.random_bool(self.add_share()) { self.add() } else { self.fate() }
    }

    /// Share of adds that drives the number of live orders to the wanted one: a replace and a partial execution leave
    /// it, about 78 % of the other messages take one away.
    fn add_share(&self) -> f64 {
        let wanted = self.settings.live_orders.max(1) as f64;
        let missing = 1.0 - self.orders.len() as f64 / wanted;
        (0.43 + 1.5 * missing).clamp(0.2, 0.8)
    }

    pub(super) fn any_locate(&mut self) -> u16 {
        // The product of two uniform numbers makes some instruments much busier than others, as they are.
        let n = f64::from(self.settings.instruments);
        let share: f64 = self.rng.random::<f64>() * self.rng.random::<f64>();
        1 + (share * n) as u16
    }

    fn any_shares(&mut self, round_lot: u32) -> u32 {
        match self.rng.random_range(0..10) {
            0 => self.rng.random_range(1..round_lot.max(2)),
            1 => round_lot * self.rng.random_range(10..100),
            _ => round_lot * self.rng.random_range(1..6),
        }
    }

    /// A price on the order's own side of the middle, mostly near it.
    fn any_price(&mut self, locate: u16, side: u8) -> u32 {
        let middle = self.instruments[usize::from(locate) - 1].middle;
        let tick = 100;
        let reach = [4, 20, 100][self.rng.random_range(0..3)];
        let away = tick * self.rng.random_range(1..=reach);
        if side == b'B' { middle.saturating_sub(away).max(tick) } else { middle + away }
    }

    fn new_reference(&mut self) -> u64 {
        self.next_reference += self.rng.random_range(1..20);
        self.next_reference
    }

    pub(super) fn new_match(&mut self) -> u64 {
        self.next_match += self.rng.random_range(1..4);
        if self.prints.len() == 64 {
            self.prints.pop_front();
        }
        self.prints.push_back(self.next_match);
        self.next_match
    }

    fn add(&mut self) -> (u16, Body) {
        let locate = self.any_locate();
        let side = if self.rng.random() { b'B' } else { b'S' };
        let (stock, round_lot) = {
            let instrument = &self.instruments[usize::from(locate) - 1];
            (instrument.stock, instrument.round_lot)
        };
        let (reference, shares, price) =
            (self.new_reference(), self.any_shares(round_lot), self.any_price(locate, side));
        self.orders.push(LiveOrder { reference, locate, side, shares, price });
        let body = if self.rng.random_ratio(1, 20) {
            let mpid = super::admin::MPIDS[self.rng.random_range(0..super::admin::MPIDS.len())];
            Body::AddAttributed { reference, side, shares, stock, price, mpid }
        } else {
            Body::Add { reference, side, shares, stock, price }
        };
        (locate, body)
    }

    fn pick_order(&mut self) -> usize {
        let count = self.orders.len();
        let newest =
            if self.rng.random_bool(self.settings.recency.clamp(0.0, 1.0)) { NEWEST.min(count) } else { count };
        self.rng.random_range(count - newest..count)
    }

    fn fate(&mut self) -> (u16, Body) {
        let at = self.pick_order();
        let mut draw = self.rng.random_range(0..1000);
        let mut chosen = Fate::Delete;
        for (weight, fate) in FATES {
            chosen = fate;
            if draw < weight {
                break;
            }
            draw -= weight;
        }
        (self.orders[at].locate, self.apply_fate(at, chosen))
    }

    fn apply_fate(&mut self, at: usize, fate: Fate) -> Body {
        let LiveOrder { reference, locate, side, shares, .. } = self.orders[at];
        match fate {
            Fate::Cancel if shares > 1 => {
                let cancelled = self.rng.random_range(1..shares);
                self.orders[at].shares -= cancelled;
                Body::Cancel { reference, shares: cancelled }
            }
            Fate::Delete | Fate::Cancel => self.delete(at),
            Fate::Replace => {
                let round_lot = self.instruments[usize::from(locate) - 1].round_lot;
                let (new, shares) = (self.new_reference(), self.any_shares(round_lot));
                let price = self.any_price(locate, side);
                self.orders.swap_remove(at);
                self.orders.push(LiveOrder { reference: new, locate, side, shares, price });
                Body::Replace { original: reference, reference: new, shares, price }
            }
            Fate::Execute | Fate::ExecuteWithPrice => {
                let executed = if self.rng.random_ratio(3, 5) { shares } else { self.rng.random_range(1..=shares) };
                self.orders[at].shares -= executed;
                if executed == shares {
                    self.orders.swap_remove(at);
                }
                let match_number = self.new_match();
                if matches!(fate, Fate::Execute) {
                    return Body::Executed { reference, shares: executed, match_number };
                }
                let price = self.instruments[usize::from(locate) - 1].middle;
                let printable = if self.rng.random_ratio(3, 4) { b'Y' } else { b'N' };
                Body::ExecutedWithPrice { reference, shares: executed, match_number, printable, price }
            }
        }
    }

    pub(super) fn delete(&mut self, at: usize) -> Body {
        Body::Delete { reference: self.orders.swap_remove(at).reference }
    }

    fn trade(&mut self) -> (u16, Body) {
        let locate = self.any_locate();
        let instrument = &self.instruments[usize::from(locate) - 1];
        let (stock, price, round_lot) = (instrument.stock, instrument.middle, instrument.round_lot);
        let shares = self.any_shares(round_lot);
        let match_number = self.new_match();
        // Reference 0 and side B are all that Nasdaq has sent here since 2014.
        (locate, Body::Trade { reference: 0, side: b'B', shares, stock, price, match_number })
    }
}
