//! All message types of Nasdaq TotalView-ITCH 5.0: offsets, lengths and fields as in the specification's tables.
//!
//! Integers are big-endian on the wire and host order here. Prices are as on the wire: `u32` with 4 decimals, in the
//! market-wide circuit breaker's levels `u64` with 8. A message may be longer than its table (a later revision's tail
//! is ignored), never shorter.
#![forbid(unsafe_code)]

use super::layout::{Field, messages};
pub use super::layout::{Header, Message, ParseError, Stock};

messages! {
    /// System Event.
    SystemEvent b'S' 12 {
        /// `O` start of messages, `S` system hours, `Q` market hours, `M` their end, `E` end of system hours, `C` end.
        event_code: u8 = 11,
    }
    /// Stock Directory.
    StockDirectory b'R' 39 {
        /// Symbol.
        stock: Stock = 11,
        /// Listing market and tier.
        market_category: u8 = 19,
        /// `N` normal; others are deficiencies.
        financial_status: u8 = 20,
        /// Shares of a round lot.
        round_lot_size: u32 = 21,
        /// `Y` if only round lots are accepted.
        round_lots_only: u8 = 25,
        /// Class of security, one letter.
        issue_classification: u8 = 26,
        /// Sub-type, two letters.
        issue_sub_type: [u8; 2] = 27,
        /// `P` production, `T` test.
        authenticity: u8 = 29,
        /// Short sale threshold security.
        short_sale_threshold: u8 = 30,
        /// IPO flag.
        ipo_flag: u8 = 31,
        /// Limit-up limit-down tier.
        luld_tier: u8 = 32,
        /// Exchange traded product.
        etp_flag: u8 = 33,
        /// Leverage of an exchange traded product.
        etp_leverage: u32 = 34,
        /// `Y` for an inverse product.
        inverse: u8 = 38,
    }
    /// Stock Trading Action.
    TradingAction b'H' 25 {
        /// Symbol.
        stock: Stock = 11,
        /// `H` halted, `P` paused, `Q` quotation only, `T` trading.
        state: u8 = 19,
        /// Reserved.
        reserved: u8 = 20,
        /// Reason code, space-padded.
        reason: [u8; 4] = 21,
    }
    /// Reg SHO Short Sale Price Test Restricted Indicator.
    RegSho b'Y' 20 {
        /// Symbol.
        stock: Stock = 11,
        /// `0` none, `1` in effect, `2` remains in effect.
        action: u8 = 19,
    }
    /// Market Participant Position.
    ParticipantPosition b'L' 26 {
        /// Market participant.
        mpid: [u8; 4] = 11,
        /// Symbol.
        stock: Stock = 15,
        /// `Y` for a primary market maker.
        primary: u8 = 23,
        /// Market maker mode.
        mode: u8 = 24,
        /// Participant's state.
        state: u8 = 25,
    }
    /// Market-Wide Circuit Breaker decline levels, 8 decimals.
    MwcbLevels b'V' 35 {
        /// Level 1.
        level_1: u64 = 11,
        /// Level 2.
        level_2: u64 = 19,
        /// Level 3.
        level_3: u64 = 27,
    }
    /// Market-Wide Circuit Breaker status.
    MwcbStatus b'W' 12 {
        /// The level that was breached, `1` to `3`.
        level: u8 = 11,
    }
    /// IPO Quoting Period Update.
    IpoQuoting b'K' 28 {
        /// Symbol.
        stock: Stock = 11,
        /// Seconds since midnight.
        release_time_s: u32 = 19,
        /// `A` anticipated, `C` cancelled.
        qualifier: u8 = 23,
        /// IPO price.
        price: u32 = 24,
    }
    /// Limit-up limit-down auction collar.
    AuctionCollar b'J' 35 {
        /// Symbol.
        stock: Stock = 11,
        /// Reference price.
        reference_price: u32 = 19,
        /// Upper collar.
        upper: u32 = 23,
        /// Lower collar.
        lower: u32 = 27,
        /// Extensions so far.
        extensions: u32 = 31,
    }
    /// Operational Halt.
    OperationalHalt b'h' 21 {
        /// Symbol.
        stock: Stock = 11,
        /// `Q` Nasdaq, `B` Nasdaq Texas (BX), `X` PSX.
        market: u8 = 19,
        /// `H` halted, `T` resumed.
        action: u8 = 20,
    }
    /// Add Order.
    AddOrder b'A' 36 {
        /// Order reference.
        reference: u64 = 11,
        /// `B` or `S`.
        side: u8 = 19,
        /// Displayed shares.
        shares: u32 = 20,
        /// Symbol.
        stock: Stock = 24,
        /// Price.
        price: u32 = 32,
    }
    /// Add Order with MPID attribution.
    AddOrderAttributed b'F' 40 {
        /// Order reference.
        reference: u64 = 11,
        /// `B` or `S`.
        side: u8 = 19,
        /// Displayed shares.
        shares: u32 = 20,
        /// Symbol.
        stock: Stock = 24,
        /// Price.
        price: u32 = 32,
        /// Market participant.
        mpid: [u8; 4] = 36,
    }
    /// Order Executed.
    OrderExecuted b'E' 31 {
        /// Order reference.
        reference: u64 = 11,
        /// Shares executed.
        shares: u32 = 19,
        /// Match number.
        match_number: u64 = 23,
    }
    /// Order Executed With Price.
    OrderExecutedWithPrice b'C' 36 {
        /// Order reference.
        reference: u64 = 11,
        /// Shares executed.
        shares: u32 = 19,
        /// Match number.
        match_number: u64 = 23,
        /// `Y` if it is to be printed.
        printable: u8 = 31,
        /// Price of the execution.
        price: u32 = 32,
    }
    /// Order Cancel: in part.
    OrderCancel b'X' 23 {
        /// Order reference.
        reference: u64 = 11,
        /// Shares cancelled.
        shares: u32 = 19,
    }
    /// Order Delete: all that is left.
    OrderDelete b'D' 19 {
        /// Order reference.
        reference: u64 = 11,
    }
    /// Order Replace.
    OrderReplace b'U' 35 {
        /// The order that goes.
        original_reference: u64 = 11,
        /// The order that comes.
        reference: u64 = 19,
        /// Its displayed shares.
        shares: u32 = 27,
        /// Its price.
        price: u32 = 31,
    }
    /// Trade (non-cross): against an order that is not displayed.
    Trade b'P' 44 {
        /// Always 0.
        reference: u64 = 11,
        /// Always `B`.
        side: u8 = 19,
        /// Shares.
        shares: u32 = 20,
        /// Symbol.
        stock: Stock = 24,
        /// Price.
        price: u32 = 32,
        /// Match number.
        match_number: u64 = 36,
    }
    /// Cross Trade.
    CrossTrade b'Q' 40 {
        /// Shares; 0 if there was no cross.
        shares: u64 = 11,
        /// Symbol.
        stock: Stock = 19,
        /// Price.
        price: u32 = 27,
        /// Match number.
        match_number: u64 = 31,
        /// `O` opening, `C` closing, `H` IPO, halted or paused.
        cross_type: u8 = 39,
    }
    /// Broken Trade.
    BrokenTrade b'B' 19 {
        /// Match number of the print that is void.
        match_number: u64 = 11,
    }
    /// Net Order Imbalance Indicator.
    Imbalance b'I' 50 {
        /// Paired shares.
        paired: u64 = 11,
        /// Imbalance shares.
        imbalance: u64 = 19,
        /// `B`, `S`, `N` none, `O` insufficient orders, `P` paused.
        direction: u8 = 27,
        /// Symbol.
        stock: Stock = 28,
        /// Far price: cross orders only.
        far_price: u32 = 36,
        /// Near price: cross and continuous orders.
        near_price: u32 = 40,
        /// Reference price.
        reference_price: u32 = 44,
        /// `O`, `C`, `H`, `A`.
        cross_type: u8 = 48,
        /// Variation of the near price from the reference, a class.
        price_variation: u8 = 49,
    }
    /// Retail Price Improvement Indicator.
    RetailInterest b'N' 20 {
        /// Symbol.
        stock: Stock = 11,
        /// `B`, `S`, `A` both, `N` none.
        interest: u8 = 19,
    }
    /// Direct Listing with Capital Raise, price discovery.
    DirectListing b'O' 48 {
        /// Symbol.
        stock: Stock = 11,
        /// `Y` if eligible to open.
        open_eligibility: u8 = 19,
        /// Minimum price.
        minimum_price: u32 = 20,
        /// Maximum price.
        maximum_price: u32 = 24,
        /// Near execution price.
        near_price: u32 = 28,
        /// Near execution time, nanoseconds since midnight.
        near_time_ns: u64 = 32,
        /// Lower collar.
        lower: u32 = 40,
        /// Upper collar.
        upper: u32 = 44,
    }
}
