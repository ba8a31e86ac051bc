//! The fixed parts of the day: spins, system events, crosses.
#![forbid(unsafe_code)]

use rand::Rng;

use super::{Day, Instrument};
use crate::itch::{Body, Symbol};

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Start of messages; directory, trading states, short-sale states, participants; circuit-breaker levels.
    Directory,
    /// Start of system hours.
    SystemStart,
    /// Start of market hours and the opening cross of every instrument.
    Open,
    /// End of market hours and the closing cross of every instrument.
    Close,
    /// End of system hours, broken trades and late deletes, end of messages.
    End,
}

/// Broken trades, and as many deletes, after the end of system hours.
const LATE: usize = 8;

impl Instrument {
    pub(super) fn new(index: u16, rng: &mut impl Rng) -> Self {
        let whole: f64 = rng.random_range(5.0f64.ln()..600.0f64.ln());
        let middle = whole.exp() as u32 * 10_000 + rng.random_range(0..100) * 100;
        Self { stock: symbol(index), middle, round_lot: if middle > 2_500_000 { 40 } else { 100 } }
    }
}

/// A distinct symbol of two to four letters, padded with spaces.
fn symbol(index: u16) -> Symbol {
    let mut stock = *b"        ";
    let mut rest = u32::from(index) + 26;
    let mut letters = Vec::new();
    while rest > 0 {
        letters.push(b'A' + (rest % 26) as u8);
        rest /= 26;
    }
    for (at, letter) in letters.iter().rev().enumerate() {
        stock[at] = *letter;
    }
    stock
}

impl Day {
    /// How many messages the part has; known before it is written, so that the whole day has the wanted length.
    pub(super) fn script_length(&self, script: Script) -> u64 {
        let n = u64::from(self.settings.instruments);
        match script {
            Script::Directory => 2 + 4 * n,
            Script::SystemStart => 1,
            Script::Open | Script::Close => 1 + n,
            Script::End => 2 + 2 * LATE as u64,
        }
    }

    pub(super) fn write_script(&mut self, script: Script) {
        match script {
            Script::Directory => self.write_directory(),
            Script::SystemStart => self.system_event(b'S'),
            Script::Open => self.write_cross(b'Q', b'O'),
            Script::Close => self.write_cross(b'M', b'C'),
            Script::End => self.write_end(),
        }
        debug_assert_eq!(self.queue.len() as u64, self.script_length(script), "{script:?}");
    }

    fn system_event(&mut self, event: u8) {
        self.queue.push_back((0, Body::SystemEvent { event }));
    }

    fn write_directory(&mut self) {
        self.system_event(b'O');
        for locate in 1..=self.settings.instruments {
            let directory = self.directory(locate);
            self.queue.push_back((locate, directory));
        }
        for locate in 1..=self.settings.instruments {
            let stock = self.instruments[usize::from(locate) - 1].stock;
            let state = Body::TradingAction { stock, state: b'T', reserved: b' ', reason: *b"    " };
            self.queue.push_back((locate, state));
            let action = [b'0', b'0', b'0', b'2'][self.rng.random_range(0..4)];
            self.queue.push_back((locate, Body::RegSho { stock, action }));
            let position = self.participant(locate);
            self.queue.push_back((locate, position));
        }
        let level = |percent: u64| 5_000 * 100_000_000 * (100 - percent) / 100;
        let levels = Body::MwcbLevels { level1: level(7), level2: level(13), level3: level(20) };
        self.queue.push_back((0, levels));
    }

    fn directory(&mut self, locate: u16) -> Body {
        let instrument = &self.instruments[usize::from(locate) - 1];
        let (stock, round_lot) = (instrument.stock, instrument.round_lot);
        let is_etp = self.rng.random_ratio(1, 6);
        Body::StockDirectory {
            stock,
            market_category: [b'Q', b'G', b'S', b'N', b'P'][self.rng.random_range(0..5)],
            financial_status: if self.rng.random_ratio(1, 40) { b'D' } else { b'N' },
            round_lot,
            round_lots_only: b'N',
            classification: if is_etp { b'Q' } else { b'C' },
            sub_type: if is_etp { *b"I " } else { *b"Z " },
            authenticity: b'P',
            short_sale_threshold: b'N',
            ipo_flag: b' ',
            luld_tier: if self.rng.random() { b'1' } else { b'2' },
            etp_flag: if is_etp { b'Y' } else { b'N' },
            etp_leverage: u32::from(is_etp),
            inverse: b'N',
        }
    }

    fn write_cross(&mut self, event: u8, cross_type: u8) {
        self.system_event(event);
        for locate in 1..=self.settings.instruments {
            let Instrument { stock, middle, .. } = self.instruments[usize::from(locate) - 1];
            // Instruments without interest report a cross of nothing. A large one can exceed 32 bits.
            let (shares, price) = match self.rng.random_range(0..20) {
                0..6 => (0, 0),
                6 => (u64::from(u32::MAX) + self.rng.random_range(0..1_000_000), middle),
                _ => (self.rng.random_range(1..100_000), middle),
            };
            let match_number = self.new_match();
            self.queue.push_back((locate, Body::Cross { shares, stock, price, match_number, cross_type }));
        }
    }

    fn write_end(&mut self) {
        self.system_event(b'E');
        for _ in 0..LATE {
            let locate = self.any_locate();
            let match_number = self.prints.pop_front().expect("a day has more prints than late breaks");
            self.queue.push_back((locate, Body::Broken { match_number }));
            let at = self.rng.random_range(0..self.orders.len());
            let locate = self.orders[at].locate;
            let delete = self.delete(at);
            self.queue.push_back((locate, delete));
        }
        self.system_event(b'C');
    }
}
