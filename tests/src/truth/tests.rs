#![forbid(unsafe_code)]

use super::*;
use crate::day::{Day, DaySettings};

#[test]
fn the_book_of_the_truth_is_the_book_of_the_day() {
    for seed in 0..3 {
        let mut day = Day::new(&DaySettings { seed, messages: 60_000, ..Default::default() });
        let mut truth = Truth::default();
        for message in day.by_ref() {
            let expected = truth.apply(&message);
            let lasts = expected.iter().filter(|e| matches!(e, Expected::Mbo { is_last: true, .. })).count();
            let mbos = expected.iter().filter(|e| matches!(e, Expected::Mbo { .. })).count();
            assert_eq!(lasts, mbos.min(1), "{message:?}");
        }
        let book = truth.book();
        let side = |side| if side == b'B' { b'B' } else { b'A' };
        let own: Book = day
            .live_orders()
            .iter()
            .map(|o| {
                let order = BookOrder { side: side(o.side), price: scale(o.price), size: o.shares };
                ((u32::from(o.locate), o.reference), order)
            })
            .collect();
        assert_eq!(book, own, "seed {seed}");
        assert!(!book.is_empty() && truth.suspect.is_empty());
        let shares: u64 = levels(&book).values().map(|l| l.0).sum();
        assert_eq!(shares, book.values().map(|o| u64::from(o.size)).sum::<u64>());
    }
}

#[test]
fn an_execution_is_trade_fill_and_cancel() {
    let mut truth = Truth::default();
    let message = |body| Message { locate: 7, tracking: 0, timestamp_ns: 1, body };
    let stock = *b"ABC     ";
    let add = truth.apply(&message(Body::Add { reference: 9, side: b'S', shares: 300, stock, price: 12_500 })).to_vec();
    let mbo =
        |order_id, price, size, action, side, is_last| Expected::Mbo { order_id, price, size, action, side, is_last };
    assert_eq!(add, [Expected::Mapping { stock }, mbo(9, 1_250_000_000, 300, b'A', b'A', true)]);
    let body = Body::ExecutedWithPrice { reference: 9, shares: 100, match_number: 1, printable: b'Y', price: 12_400 };
    let want = [
        mbo(0, 1_240_000_000, 100, b'T', b'B', false),
        mbo(9, 1_240_000_000, 100, b'F', b'A', false),
        mbo(9, 1_250_000_000, 100, b'C', b'A', true),
    ];
    assert_eq!(truth.apply(&message(body)), want);
    let body = Body::ExecutedWithPrice { reference: 9, shares: 50, match_number: 1, printable: b'N', price: 12_400 };
    assert_eq!(truth.apply(&message(body)).len(), 2);
    let body = Body::Replace { original: 9, reference: 10, shares: 40, price: 12_600 };
    let want = [mbo(9, 1_250_000_000, 150, b'C', b'A', false), mbo(10, 1_260_000_000, 40, b'A', b'A', true)];
    assert_eq!(truth.apply(&message(body)), want);
    assert!(truth.apply(&message(Body::Delete { reference: 9 })).is_empty());
    assert!(truth.is_suspect(7));
}
