//! Messages about an instrument: definition, trading state, short-sale restriction, auction imbalance.
#![forbid(unsafe_code)]

use std::ffi::c_char;

use dbn::record::{ImbalanceMsg, InstrumentDefMsg, StatusMsg};
use dbn::{InstrumentClass, SecurityUpdateAction, rtype};

use super::messages::{Imbalance, RegSho, StockDirectory, TradingAction};
use super::{Event, Itch50, price};
use crate::feed::decode::Records;
use crate::feed::directory::copy_symbol;

// `dbn::StatusAction`.
const ACTION_QUOTING: u16 = 3;
const ACTION_TRADING: u16 = 7;
const ACTION_HALT: u16 = 8;
const ACTION_PAUSE: u16 = 9;
const ACTION_SHORT_SALE: u16 = 14;

const YES: c_char = b'Y' as c_char;
const NO: c_char = b'N' as c_char;

/// `dbn::StatusReason` of an ITCH reason code; 0 = none.
const fn reason(code: [u8; 4]) -> u16 {
    match &code {
        b"T1  " => 30,
        b"T2  " => 31,
        b"T3  " => 32,
        b"C3  " => 33,
        b"T5  " | b"T7  " | b"LUDP" | b"LUDS" => 50,
        b"T6  " | b"H11 " | b"C11 " => 10,
        b"T8  " => 90,
        b"T12 " => 70,
        b"H4  " | b"C4  " => 12,
        b"H9  " => 13,
        b"H10 " => 14,
        b"R1  " => 15,
        b"R2  " => 16,
        b"R4  " => 17,
        b"R9  " | b"C9  " => 18,
        b"O1  " => 60,
        b"M1  " => 100,
        b"IPO1" => 110,
        b"MWC1" => 120,
        b"MWC2" => 121,
        b"MWC3" => 122,
        b"MWC0" => 123,
        b"MWCQ" => 124,
        b"M2  " => 130,
        _ => 0,
    }
}

impl Itch50 {
    /// R: always maps and defines, also when it comes again.
    pub(super) fn directory(&mut self, event: &Event, m: &StockDirectory, records: &mut Records) {
        self.push_mapping(event, &m.stock, records);
        let mut definition = InstrumentDefMsg {
            hd: event.header::<InstrumentDefMsg>(rtype::INSTRUMENT_DEF, self.publisher_id),
            ts_recv: event.ts_recv,
            raw_instrument_id: u64::from(event.locate),
            min_lot_size_round_lot: i32::try_from(m.round_lot_size).unwrap_or(i32::MAX),
            instrument_class: InstrumentClass::Stock as c_char,
            security_update_action: SecurityUpdateAction::Add as c_char,
            ..InstrumentDefMsg::default()
        };
        copy_symbol(&mut definition.currency, b"USD");
        copy_symbol(&mut definition.raw_symbol, &m.stock);
        records.push(&definition);
    }

    /// H.
    pub(super) fn trading_action(&mut self, event: &Event, m: &TradingAction, records: &mut Records) {
        let action = match m.state {
            b'T' => ACTION_TRADING,
            b'H' => ACTION_HALT,
            b'P' => ACTION_PAUSE,
            b'Q' => ACTION_QUOTING,
            _ => {
                self.counts.decode_errors += 1;
                return;
            }
        };
        self.map(event, &m.stock, records);
        records.push(&StatusMsg {
            action,
            reason: reason(m.reason),
            is_trading: if m.state == b'T' { YES } else { NO },
            is_quoting: if matches!(m.state, b'T' | b'Q') { YES } else { NO },
            ..self.status(event)
        });
    }

    /// Y.
    pub(super) fn reg_sho(&mut self, event: &Event, m: &RegSho, records: &mut Records) {
        let restricted = match m.action {
            b'0' => NO,
            b'1' | b'2' => YES,
            _ => {
                self.counts.decode_errors += 1;
                return;
            }
        };
        self.map(event, &m.stock, records);
        records.push(&StatusMsg {
            action: ACTION_SHORT_SALE,
            is_short_sell_restricted: restricted,
            ..self.status(event)
        });
    }

    fn status(&self, event: &Event) -> StatusMsg {
        StatusMsg {
            hd: event.header::<StatusMsg>(rtype::STATUS, self.publisher_id),
            ts_recv: event.ts_recv,
            ..StatusMsg::default()
        }
    }

    /// I.
    pub(super) fn imbalance(&mut self, event: &Event, m: &Imbalance, records: &mut Records) {
        self.map(event, &m.stock, records);
        let side = match m.direction {
            b'B' => b'B',
            b'S' => b'A',
            _ => b'N',
        };
        let message = ImbalanceMsg {
            hd: event.header::<ImbalanceMsg>(rtype::IMBALANCE, self.publisher_id),
            ts_recv: event.ts_recv,
            ref_price: price(m.reference_price),
            cont_book_clr_price: price(m.near_price),
            auct_interest_clr_price: price(m.far_price),
            paired_qty: self.saturate(m.paired),
            total_imbalance_qty: self.saturate(m.imbalance),
            auction_type: m.cross_type as c_char,
            side: side as c_char,
            significant_imbalance: m.price_variation as c_char,
            ..ImbalanceMsg::default()
        };
        records.push(&message);
    }
}
