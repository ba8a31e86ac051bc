#![forbid(unsafe_code)]

use super::*;

/// Writes an expected record as a handler would: for the tests of what checks handlers.
pub(crate) fn encode(expected: &Expected, shared: &Shared, ts_recv: u64) -> Vec<u8> {
    let mut bytes = match expected {
        Expected::Mbo { .. } => vec![0; MBO.1],
        Expected::Status { .. } => vec![0; STATUS.1],
        Expected::Imbalance { .. } => vec![0xFF; IMBALANCE.1],
        Expected::Mapping { .. } => vec![0; MAPPING.1],
        Expected::Definition { .. } => vec![0; DEFINITION.1],
    };
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(2, &shared.publisher_id.to_le_bytes());
    put(4, &shared.instrument.to_le_bytes());
    put(8, &shared.ts_event.to_le_bytes());
    if !matches!(expected, Expected::Mapping { .. }) {
        put(16, &ts_recv.to_le_bytes());
    }
    let rtype = match *expected {
        Expected::Mbo { order_id, price, size, action, side, is_last } => {
            let flags = if is_last { FLAG_LAST } else { 0 } | if shared.is_bad_book { FLAG_MAYBE_BAD_BOOK } else { 0 };
            let delta = (i128::from(ts_recv) - i128::from(shared.ts_event))
                .clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32;
            put(16, &order_id.to_le_bytes());
            put(24, &price.to_le_bytes());
            put(32, &size.to_le_bytes());
            put(36, &[flags, 0, action, side]);
            put(40, &ts_recv.to_le_bytes());
            put(48, &delta.to_le_bytes());
            put(52, &shared.sequence.to_le_bytes());
            MBO.0
        }
        Expected::Status { action, reason, is_trading, is_quoting, is_short_sell_restricted } => {
            put(24, &action.to_le_bytes());
            put(26, &reason.to_le_bytes());
            put(30, &[is_trading, is_quoting, is_short_sell_restricted]);
            STATUS.0
        }
        Expected::Imbalance { reference, near, far, paired, shares, side, auction_type, variation } => {
            for at in [56, 64, 72, 80] {
                put(at, &i64::MAX.to_le_bytes());
            }
            put(24, &reference.to_le_bytes());
            put(40, &near.to_le_bytes());
            put(48, &far.to_le_bytes());
            put(88, &paired.to_le_bytes());
            put(92, &shares.to_le_bytes());
            put(104, &[auction_type, side]);
            put(110, &[variation]);
            IMBALANCE.0
        }
        Expected::Mapping { stock } => {
            put(16, &[1]);
            put(17, stock.trim_ascii_end());
            put(89, shared.instrument.to_string().as_bytes());
            MAPPING.0
        }
        Expected::Definition { stock, round_lot } => {
            put(104, &i64::MAX.to_le_bytes());
            put(112, &u64::from(shared.instrument).to_le_bytes());
            put(168, &round_lot.to_le_bytes());
            put(224, b"USD");
            put(238, stock.trim_ascii_end());
            put(487, b"K");
            put(493, b"A");
            DEFINITION.0
        }
    };
    bytes[0] = u8::try_from(bytes.len() / 4).expect("no record is longer than 1020 bytes");
    bytes[1] = rtype;
    bytes
}

/// Writes a system record as a handler would.
pub(crate) fn encode_system(text: &str, publisher_id: u16, ts_event: u64) -> Vec<u8> {
    let mut bytes = vec![0; SYSTEM.1];
    bytes[..2].copy_from_slice(&[(SYSTEM.1 / 4) as u8, SYSTEM.0]);
    bytes[2..4].copy_from_slice(&publisher_id.to_le_bytes());
    bytes[8..16].copy_from_slice(&ts_event.to_le_bytes());
    bytes[16..16 + text.len()].copy_from_slice(text.as_bytes());
    bytes[319] = 255;
    bytes
}

use dbn::record as of_crate;

const SHARED: Shared = Shared {
    publisher_id: 2,
    instrument: 5528,
    ts_event: 1_692_710_999_999_894_278,
    sequence: 14_757_721,
    is_bad_book: false,
    is_snapshot: false,
};

fn check(bytes: &[u8], expected: &Expected) {
    let mut rest = bytes;
    let record = Record::cut(&mut rest).unwrap();
    assert_eq!(rest, b"");
    assert_eq!(record.check(expected, &SHARED), Ok(()));
}

fn header<T: of_crate::HasRType>(rtype: u8) -> of_crate::RecordHeader {
    of_crate::RecordHeader::new::<T>(rtype, SHARED.publisher_id, SHARED.instrument, SHARED.ts_event)
}

fn text<const N: usize>(text: &str) -> [std::ffi::c_char; N] {
    let mut field = [0; N];
    field.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from as std::ffi::c_char);
    field
}

/// The documented test vector: a real Add of 2023-08-22.
#[test]
fn a_real_order_reads_back() {
    let hex = "0ea002009815000006d363a6afb77d173eb56601000000008093d95814000000640000008000\
               4142d65666a6afb77d17d0830200592fe100";
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    let (order_id, price) = (23_508_286, 87_390_000_000);
    let expected = Expected::Mbo { order_id, price, size: 100, action: b'A', side: b'B', is_last: true };
    check(&bytes, &expected);
    assert_eq!(encode(&expected, &SHARED, 1_692_711_000_000_059_094), bytes);
}

#[test]
fn a_system_record_of_the_dbn_crate_reads_back() {
    let record = of_crate::SystemMsg {
        hd: of_crate::RecordHeader::new::<of_crate::SystemMsg>(dbn::rtype::SYSTEM, 2, 0, 77),
        msg: text("session S: messages 3 to 4 lost"),
        code: dbn::SystemCode::Unset as u8,
    };
    let written = encode_system("session S: messages 3 to 4 lost", 2, 77);
    assert_eq!(record.as_ref() as &[u8], written);
    let system = Record::cut(&mut &written[..]).unwrap().system().unwrap();
    assert_eq!((system.publisher_id, system.ts_event, system.code), (2, 77, 255));
    assert_eq!(system.text, "session S: messages 3 to 4 lost");
}

/// The offsets here are those of the `dbn` crate, which knows nothing of this one.
#[test]
fn offsets_are_those_of_the_dbn_crate() {
    let stock = *b"AAPL    ";
    let definition = of_crate::InstrumentDefMsg {
        hd: header::<of_crate::InstrumentDefMsg>(DEFINITION.0),
        raw_instrument_id: 5528,
        min_lot_size_round_lot: 100,
        instrument_class: b'K' as _,
        currency: text("USD"),
        raw_symbol: text("AAPL"),
        ..Default::default()
    };
    check(definition.as_ref(), &Expected::Definition { stock, round_lot: 100 });
    let mapping = of_crate::SymbolMappingMsg {
        hd: header::<of_crate::SymbolMappingMsg>(MAPPING.0),
        stype_in: 1,
        stype_in_symbol: text("AAPL"),
        stype_out: 0,
        stype_out_symbol: text("5528"),
        ..Default::default()
    };
    check(mapping.as_ref(), &Expected::Mapping { stock });
    let status = of_crate::StatusMsg {
        hd: header::<of_crate::StatusMsg>(STATUS.0),
        action: 8,
        reason: 30,
        is_trading: b'N' as _,
        is_quoting: b'Y' as _,
        ..Default::default()
    };
    let (is_trading, is_quoting, is_short_sell_restricted) = (b'N', b'Y', b'~');
    check(
        status.as_ref(),
        &Expected::Status { action: 8, reason: 30, is_trading, is_quoting, is_short_sell_restricted },
    );
    let imbalance = of_crate::ImbalanceMsg {
        hd: header::<of_crate::ImbalanceMsg>(IMBALANCE.0),
        ref_price: 1,
        cont_book_clr_price: 2,
        auct_interest_clr_price: 3,
        paired_qty: 4,
        total_imbalance_qty: 5,
        auction_type: b'O' as _,
        side: b'A' as _,
        significant_imbalance: b'L' as _,
        ..Default::default()
    };
    let (reference, near, far, paired, shares) = (1, 2, 3, 4, 5);
    let (side, auction_type, variation) = (b'A', b'O', b'L');
    let expected = Expected::Imbalance { reference, near, far, paired, shares, side, auction_type, variation };
    check(imbalance.as_ref(), &expected);
}

/// Each field of an order is looked at: one flipped bit anywhere but in the receive time is found.
#[test]
fn every_bit_of_an_order_counts() {
    let expected = Expected::Mbo { order_id: 77, price: 5, size: 6, action: b'C', side: b'A', is_last: true };
    let bytes = encode(&expected, &SHARED, SHARED.ts_event + 1);
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let mut rest = &wrong[..];
        let is_found = Record::cut(&mut rest).map_or(true, |record| record.check(&expected, &SHARED).is_err());
        assert!(is_found, "bit {} of byte {}", bit % 8, bit / 8);
    }
}
