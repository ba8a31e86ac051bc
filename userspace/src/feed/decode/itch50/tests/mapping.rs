//! One test per row of the mapping table.
#![forbid(unsafe_code)]

use dbn::decode::{DecodeRecordRef, dbn::RecordDecoder};
use dbn::record::{ImbalanceMsg, InstrumentDefMsg, StatusMsg};

use super::*;

fn executed(reference: u64, shares: u32) -> Vec<u8> {
    message(b'E', &[&reference.to_be_bytes(), &shares.to_be_bytes(), &[0; 8]])
}

fn cancelled(reference: u64, shares: u32) -> Vec<u8> {
    message(b'X', &[&reference.to_be_bytes(), &shares.to_be_bytes()])
}

fn deleted(reference: u64) -> Vec<u8> {
    message(b'D', &[&reference.to_be_bytes()])
}

#[test]
fn the_first_record_of_an_instrument_follows_its_mapping() {
    let mut rig = Rig::new();
    assert_eq!(rig.decode(&add(1, b'B', 100, 500)), "TEST=7, AB#1 100@500 80");
    assert_eq!(rig.decode(&add(2, b'S', 50, 600)), "AA#2 50@600 80");
    let attributed = [&add(3, b'S', 10, 700)[..], b"MPID"].concat();
    let attributed = [&b"F"[..], &attributed[1..]].concat();
    assert_eq!(rig.decode(&attributed), "AA#3 10@700 80");
    assert_eq!(rig.counts().orders_live, 3);
}

#[test]
fn an_execution_is_a_trade_a_fill_and_a_cancel() {
    let mut rig = Rig::new();
    rig.decode(&add(1, b'S', 100, 500));
    assert_eq!(rig.decode(&executed(1, 30)), "TB#0 30@500 00, FA#1 30@500 00, CA#1 30@500 80");
    // More than is left: the book cannot lose more than it has.
    assert_eq!(rig.decode(&executed(1, 71)), "TB#0 71@500 00, FA#1 71@500 00, CA#1 70@500 80");
    assert_eq!((rig.counts().orders_live, rig.counts().excess_shares), (0, 1));
}

#[test]
fn an_execution_with_price_trades_at_its_price_and_cancels_at_the_orders() {
    let mut rig = Rig::new();
    rig.decode(&add(1, b'B', 100, 500));
    let mut with_price = |printable, price: u32| {
        let fields: [&[u8]; 5] =
            [&1u64.to_be_bytes(), &10u32.to_be_bytes(), &[0; 8], &[printable], &price.to_be_bytes()];
        rig.decode(&message(b'C', &fields))
    };
    assert_eq!(with_price(b'Y', 499), "TA#0 10@499 00, FB#1 10@499 00, CB#1 10@500 80");
    assert_eq!(with_price(b'N', 498), "FB#1 10@498 00, CB#1 10@500 80");
}

#[test]
fn cancel_takes_a_part_and_delete_the_rest() {
    let mut rig = Rig::new();
    rig.decode(&add(1, b'B', 100, 500));
    assert_eq!(rig.decode(&cancelled(1, 60)), "CB#1 60@500 80");
    assert_eq!(rig.decode(&deleted(1)), "CB#1 40@500 80");
    assert_eq!(rig.counts().orders_live, 0);
}

#[test]
fn a_replace_cancels_the_old_and_adds_the_new_on_the_same_side() {
    let mut rig = Rig::new();
    rig.decode(&add(1, b'S', 100, 500));
    rig.decode(&cancelled(1, 60));
    let fields: [&[u8]; 4] = [&1u64.to_be_bytes(), &2u64.to_be_bytes(), &70u32.to_be_bytes(), &501u32.to_be_bytes()];
    assert_eq!(rig.decode(&message(b'U', &fields)), "CA#1 40@500 00, AA#2 70@501 80");
    assert_eq!(rig.decode(&deleted(2)), "CA#2 70@501 80");
    assert_eq!(rig.decode(&deleted(1)), "");
}

#[test]
fn events_of_unknown_orders_are_counted_and_make_the_instrument_suspect() {
    let mut rig = Rig::new();
    rig.decode(&add(1, b'B', 100, 500));
    let fields: [&[u8]; 4] = [&8u64.to_be_bytes(), &9u64.to_be_bytes(), &70u32.to_be_bytes(), &501u32.to_be_bytes()];
    for unknown in [executed(9, 1), cancelled(9, 1), deleted(9), message(b'U', &fields)] {
        assert_eq!(rig.decode(&unknown), "");
    }
    assert_eq!(rig.counts().unknown_orders, 4);
    assert_eq!(rig.decode(&add(2, b'B', 100, 500)), "AB#2 100@500 84");
}

#[test]
fn an_add_of_a_live_reference_replaces_it_and_is_counted() {
    let mut rig = Rig::new();
    rig.decode(&add(1, b'B', 100, 500));
    rig.decode(&add(1, b'S', 30, 600));
    assert_eq!((rig.counts().duplicate_orders, rig.counts().orders_live), (1, 1));
    assert_eq!(rig.decode(&deleted(1)), "CA#1 30@600 84");
}

#[test]
fn a_full_store_is_counted_and_later_events_are_unknown() {
    let mut rig = Rig::new();
    for reference in 0..101 {
        assert!(rig.decode(&add(reference, b'B', 100, 500)).ends_with(&format!("AB#{reference} 100@500 80")));
    }
    assert_eq!((rig.counts().orders_full, rig.counts().orders_live), (1, 100));
    assert_eq!(rig.decode(&deleted(100)), "");
    assert_eq!(rig.counts().unknown_orders, 1);
    assert_eq!(rig.decode(&deleted(0)), "CB#0 100@500 84");
}

#[test]
fn prints_have_no_side_and_crosses_without_shares_are_none() {
    let mut rig = Rig::new();
    let trade: [&[u8]; 6] = [&[0; 8], b"B", &25u32.to_be_bytes(), b"TEST    ", &400u32.to_be_bytes(), &[0; 8]];
    assert_eq!(rig.decode(&message(b'P', &trade)), "TEST=7, TN#0 25@400 80");
    let mut cross = |shares: u64| {
        let fields: [&[u8]; 5] = [&shares.to_be_bytes(), b"TEST    ", &400u32.to_be_bytes(), &[0; 8], b"O"];
        rig.decode(&message(b'Q', &fields))
    };
    assert_eq!(cross(0), "");
    assert_eq!(cross(u64::from(u32::MAX) - 1), "TN#0 4294967294@400 80");
    assert_eq!(cross(u64::from(u32::MAX)), "TN#0 4294967294@400 80");
    assert_eq!(cross(u64::MAX), "TN#0 4294967294@400 80");
    assert_eq!(rig.counts().saturated_sizes, 2);
}

/// The last record of the message, as its type.
fn last<T: dbn::record::HasRType + Record<Header = RecordHeader> + Clone>(records: &Records) -> T {
    let mut decoder = RecordDecoder::new(records.bytes());
    let mut last = None;
    while let Some(record) = decoder.decode_record_ref().unwrap() {
        last = record.get::<T>().cloned();
    }
    last.expect("a record of this type")
}

#[test]
fn trading_actions_are_status_records() {
    let cases = [
        (b'T', b"    ", 7, 0, b'Y', b'Y'),
        (b'H', b"T1  ", 8, 30, b'N', b'N'),
        (b'P', b"LUDP", 9, 50, b'N', b'N'),
        (b'Q', b"IPOQ", 3, 0, b'N', b'Y'),
        (b'H', b"T12 ", 8, 70, b'N', b'N'),
        (b'H', b"MWC2", 8, 121, b'N', b'N'),
    ];
    for (state, code, action, reason, is_trading, is_quoting) in cases {
        let mut rig = Rig::new();
        let text = rig.decode(&message(b'H', &[b"TEST    ", &[state], b" ", code]));
        assert_eq!(text, "TEST=7, Status");
        let status: StatusMsg = last(&rig.records);
        assert_eq!((status.action, status.reason, status.trading_event), (action, reason, 0));
        assert_eq!((status.is_trading as u8, status.is_quoting as u8), (is_trading, is_quoting));
        assert_eq!((status.is_short_sell_restricted as u8, status.ts_recv), (b'~', MIDNIGHT + 3_000));
    }
}

#[test]
fn short_sale_restrictions_are_status_records() {
    for (code, restricted) in [(b'0', b'N'), (b'1', b'Y'), (b'2', b'Y')] {
        let mut rig = Rig::new();
        assert_eq!(rig.decode(&message(b'Y', &[b"TEST    ", &[code]])), "TEST=7, Status");
        let status: StatusMsg = last(&rig.records);
        assert_eq!((status.action, status.is_short_sell_restricted as u8), (14, restricted));
        assert_eq!((status.is_trading as u8, status.is_quoting as u8), (b'~', b'~'));
    }
}

#[test]
fn imbalances_keep_their_prices_quantities_and_side() {
    let mut rig = Rig::new();
    let fields: [&[u8]; 9] = [
        &1000u64.to_be_bytes(),
        &u64::MAX.to_be_bytes(),
        b"S",
        b"TEST    ",
        &1u32.to_be_bytes(),
        &2u32.to_be_bytes(),
        &3u32.to_be_bytes(),
        b"C",
        b"A",
    ];
    assert_eq!(rig.decode(&message(b'I', &fields)), "TEST=7, Imbalance");
    let imbalance: ImbalanceMsg = last(&rig.records);
    assert_eq!((imbalance.paired_qty, imbalance.total_imbalance_qty, imbalance.side as u8), (1000, u32::MAX - 1, b'A'));
    assert_eq!(imbalance.auct_interest_clr_price, PRICE_SCALE);
    assert_eq!(imbalance.cont_book_clr_price, 2 * PRICE_SCALE);
    assert_eq!(imbalance.ref_price, 3 * PRICE_SCALE);
    assert_eq!((imbalance.auction_type as u8, imbalance.significant_imbalance as u8), (b'C', b'A'));
    assert_eq!(rig.counts().saturated_sizes, 1);
}

#[test]
fn the_directory_maps_and_defines_each_time() {
    let mut rig = Rig::new();
    let fields: [&[u8]; 4] = [b"TEST    ", b"QN", &100u32.to_be_bytes(), b"NCZ PNN1N\0\0\0\0N"];
    let directory = message(b'R', &fields);
    assert_eq!(directory.len(), 39);
    assert_eq!(rig.decode(&directory), "TEST=7, InstrumentDef");
    let definition: InstrumentDefMsg = last(&rig.records);
    assert_eq!(definition.raw_symbol().unwrap(), "TEST");
    assert_eq!(definition.currency().unwrap(), "USD");
    assert_eq!((definition.min_lot_size_round_lot, definition.instrument_class as u8), (100, b'K'));
    assert_eq!(rig.decode(&add(1, b'B', 100, 500)), "AB#1 100@500 80");
    assert_eq!(rig.decode(&directory), "TEST=7, InstrumentDef");
}

#[test]
fn after_a_loss_books_may_be_bad_until_the_session_changes() {
    let mut rig = Rig::new();
    rig.decode(&add(1, b'B', 100, 500));
    rig.itch.lost();
    assert_eq!(rig.decode(&executed(1, 30)), "TA#0 30@500 04, FB#1 30@500 04, CB#1 30@500 84");
    rig.itch.begin_session();
    // A new day: the id is mapped anew, the old book cleared first, and the order is gone.
    assert_eq!(rig.decode(&add(2, b'B', 100, 500)), "TEST=7, RN#0 0@-1 00, AB#2 100@500 80");
    assert_eq!(rig.decode(&add(3, b'B', 100, 500)), "AB#3 100@500 80");
    assert_eq!(rig.decode(&deleted(1)), "");
}

#[test]
fn every_type_takes_its_length_and_longer_and_refuses_shorter() {
    assert_eq!(messages::TYPES.len(), 23);
    for (kind, length) in messages::TYPES {
        let full = vec![*kind; *length];
        assert!(messages::parse(&full).is_ok());
        assert!(messages::parse(&[&full[..], b"tail"].concat()).is_ok());
        for short in 1..*length {
            assert_eq!(messages::parse(&full[..short]), Err(ParseError::Short(*kind)), "{short}");
            let rig = Rig::new();
            rig.itch.prefetch(&full[..short]);
        }
    }
    let mut rig = Rig::new();
    assert_eq!(rig.decode(b""), "");
    assert_eq!(rig.decode(b"D"), "");
    assert_eq!(rig.decode(b"zebra"), "");
    assert_eq!((rig.counts().decode_errors, rig.counts().unknown_types), (1, 1));
}

#[test]
fn types_without_records_have_none() {
    let mut rig = Rig::new();
    for (kind, length) in messages::TYPES {
        if b"SVWKLJhNOB".contains(kind) {
            assert_eq!(rig.decode(&message(*kind, &[&vec![b' '; length - 11]])), "");
        }
    }
    assert_eq!(rig.counts(), ChannelCounts::default());
}

#[test]
fn times_beyond_i32_saturate_and_the_day_follows_the_clock() {
    let mut rig = Rig::new();
    let mut at = |ts_recv| {
        rig.records.clear();
        rig.itch.decode(&add(1, b'B', 1, 1), 1 << 33, ts_recv, &mut rig.records);
        let mbo: MboMsg = last(&rig.records);
        (mbo.hd.ts_event - MIDNIGHT, mbo.ts_in_delta, mbo.sequence)
    };
    assert_eq!(at(MIDNIGHT + 10_000_000_000), (1_000, i32::MAX, 0));
    assert_eq!(at(MIDNIGHT + 86_400_000_000_000), (86_400_000_001_000, -1_000, 0));
}
