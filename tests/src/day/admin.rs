//! Rare events of regular hours, as short sequences that belong together.
#![forbid(unsafe_code)]

use rand::Rng;

use super::Day;
use crate::itch::Body;

/// Market participants that post attributed orders.
pub(super) const MPIDS: [[u8; 4]; 6] = [*b"NSDQ", *b"GSCO", *b"MSCO", *b"NITE", *b"ETMM", *b"SGAS"];

/// Halt reasons for a regulatory halt.
const HALTS: [&[u8; 4]; 6] = [b"T1  ", b"T2  ", b"T12 ", b"H10 ", b"IPO1", b"H4  "];
/// Reasons that go with quotation only or with trading again.
const RESUMPTIONS: [&[u8; 4]; 5] = [b"T3  ", b"R1  ", b"C3  ", b"IPOQ", b"R4  "];

/// What can happen.
#[derive(Clone, Copy)]
enum Episode {
    Halt,
    Pause,
    ShortSale,
    Participant,
    IpoQuoting,
    OperationalHalt,
    RetailInterest,
    PriceDiscovery,
    Broken,
    CircuitBreaker,
}

/// Every episode, in the order in which regular hours are sure to have them; the last closes the market for a moment.
const EPISODES: [Episode; 10] = [
    Episode::ShortSale,
    Episode::Participant,
    Episode::Pause,
    Episode::IpoQuoting,
    Episode::OperationalHalt,
    Episode::RetailInterest,
    Episode::PriceDiscovery,
    Episode::Broken,
    Episode::Halt,
    Episode::CircuitBreaker,
];

impl Day {
    /// Queues an episode if it is time for one: each once at an even spacing, and now and then by chance.
    pub(super) fn begin_episode(&mut self, left: u64) -> bool {
        let total = self.segment_end - self.segment_start;
        let spacing = (total / (EPISODES.len() as u64 + 1)).max(1);
        let done = total.saturating_sub(left);
        let episode = if done > 0 && done.is_multiple_of(spacing) && done / spacing <= EPISODES.len() as u64 {
            EPISODES[(done / spacing) as usize - 1]
        } else if self.rng.random_ratio(1, 4000) && left > 100 {
            // The circuit breaker trips once a day at most.
            EPISODES[self.rng.random_range(0..EPISODES.len() - 1)]
        } else {
            return false;
        };
        self.write_episode(episode);
        true
    }

    fn write_episode(&mut self, episode: Episode) {
        let locate = self.any_locate();
        let stock = self.instruments[usize::from(locate) - 1].stock;
        let body = match episode {
            Episode::Halt => {
                let reason = *HALTS[self.rng.random_range(0..HALTS.len())];
                return self.write_halt(locate, b'H', reason);
            }
            Episode::Pause => return self.write_halt(locate, b'P', *b"LUDP"),
            Episode::CircuitBreaker => return self.write_circuit_breaker(),
            Episode::ShortSale => Body::RegSho { stock, action: b'1' },
            Episode::Participant => self.participant(locate),
            Episode::IpoQuoting => {
                let price = self.instruments[usize::from(locate) - 1].middle;
                Body::IpoQuoting { stock, release_s: 10 * 3600 + 15 * 60, qualifier: b'A', price }
            }
            Episode::OperationalHalt => {
                self.queue.push_back((locate, Body::OperationalHalt { stock, market: b'Q', action: b'H' }));
                Body::OperationalHalt { stock, market: b'Q', action: b'T' }
            }
            Episode::RetailInterest => {
                Body::RetailInterest { stock, flag: [b'B', b'S', b'A', b'N'][self.rng.random_range(0..4)] }
            }
            Episode::PriceDiscovery => self.price_discovery(locate),
            Episode::Broken => match self.prints.pop_back() {
                Some(match_number) => Body::Broken { match_number },
                None => Body::RetailInterest { stock, flag: b'N' },
            },
        };
        self.queue.push_back((locate, body));
    }

    /// Halt or pause → quotation only with imbalances and collars → cross → trading.
    fn write_halt(&mut self, locate: u16, state: u8, reason: [u8; 4]) {
        let stock = self.instruments[usize::from(locate) - 1].stock;
        let middle = self.instruments[usize::from(locate) - 1].middle;
        let resumption = *RESUMPTIONS[self.rng.random_range(0..RESUMPTIONS.len())];
        let action = |state, reason| Body::TradingAction { stock, state, reserved: b' ', reason };
        self.queue.push_back((locate, action(state, reason)));
        self.queue.push_back((locate, action(b'Q', resumption)));
        for extensions in 0..self.rng.random_range(1..4) {
            let imbalance = self.imbalance(locate, b'H');
            self.queue.push_back((locate, imbalance));
            let (upper, lower) = (middle + middle / 20, middle - middle / 20);
            self.queue
                .push_back((locate, Body::AuctionCollar { stock, reference_price: middle, upper, lower, extensions }));
        }
        let (shares, match_number) = (self.rng.random_range(1..50_000), self.new_match());
        self.queue.push_back((locate, Body::Cross { shares, stock, price: middle, match_number, cross_type: b'H' }));
        self.queue.push_back((locate, action(b'T', resumption)));
    }

    fn write_circuit_breaker(&mut self) {
        self.queue.push_back((0, Body::MwcbStatus { level: b'1' }));
        for (state, reason) in [(b'H', *b"MWC1"), (b'Q', *b"MWCQ"), (b'T', *b"MWCQ")] {
            for locate in 1..=self.settings.instruments.min(5) {
                let stock = self.instruments[usize::from(locate) - 1].stock;
                self.queue.push_back((locate, Body::TradingAction { stock, state, reserved: b' ', reason }));
            }
        }
    }

    pub(super) fn participant(&mut self, locate: u16) -> Body {
        Body::ParticipantPosition {
            mpid: MPIDS[self.rng.random_range(0..MPIDS.len())],
            stock: self.instruments[usize::from(locate) - 1].stock,
            primary: if self.rng.random() { b'Y' } else { b'N' },
            mode: b'N',
            state: [b'A', b'E', b'W'][self.rng.random_range(0..3)],
        }
    }

    pub(super) fn imbalance(&mut self, locate: u16, cross_type: u8) -> Body {
        let instrument = &self.instruments[usize::from(locate) - 1];
        let (stock, middle) = (instrument.stock, instrument.middle);
        let direction = [b'B', b'S', b'N', b'O', b'P'][self.rng.random_range(0..5)];
        let has_interest = matches!(direction, b'B' | b'S' | b'N');
        let near = if has_interest { middle + 100 * self.rng.random_range(0..10) } else { 0 };
        let large = self.rng.random_ratio(1, 100);
        Body::Imbalance {
            paired: if large { 5_000_000_000 } else { self.rng.random_range(0..200_000) },
            shares: if matches!(direction, b'B' | b'S') { self.rng.random_range(1..90_000) } else { 0 },
            direction,
            stock,
            far: near,
            near,
            reference_price: middle,
            cross_type,
            variation: [b'L', b'1', b'5', b'A', b'C', b' '][self.rng.random_range(0..6)],
        }
    }

    fn price_discovery(&mut self, locate: u16) -> Body {
        let instrument = &self.instruments[usize::from(locate) - 1];
        let (stock, middle) = (instrument.stock, instrument.middle);
        Body::PriceDiscovery {
            stock,
            eligibility: b'Y',
            minimum: middle - middle / 5,
            maximum: middle + middle / 5,
            near_price: middle,
            near_time_ns: self.clock_ns,
            lower: middle - middle / 10,
            upper: middle + middle / 10,
        }
    }
}
