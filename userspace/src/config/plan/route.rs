//! What a destination takes of its channel.
#![forbid(unsafe_code)]

/// A route. The default takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePlan {
    /// Symbols, space-padded as in the Stock Directory, in order; none = every instrument.
    pub instruments: Vec<[u8; 8]>,
    /// Kinds of records, in order; none = every kind.
    pub records: Vec<RecordKind>,
}

impl RoutePlan {
    /// Whether nothing is left out.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.instruments.is_empty() && self.records.is_empty()
    }
}

/// A kind of record that decoders make, but for those that every destination gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// Market by order: every change of the book, and trades.
    Mbo,
    /// Trades alone: of the market-by-order records those with action `T`.
    Trade,
    /// Instrument definitions.
    Definition,
    /// Trading states, and short-sale restrictions.
    Status,
    /// Auction imbalances.
    Imbalance,
}

impl RecordKind {
    /// Every kind, in index order.
    pub const ALL: [Self; 5] = [Self::Mbo, Self::Trade, Self::Definition, Self::Status, Self::Imbalance];

    /// The word used in the configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Mbo => "mbo",
            Self::Trade => "trade",
            Self::Definition => "definition",
            Self::Status => "status",
            Self::Imbalance => "imbalance",
        }
    }
}
