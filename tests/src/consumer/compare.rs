//! One block against the records that it should hold.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::report::Fault;
use crate::records::{Record, Shared};
use crate::truth::{BookOrder, Expected};

/// Outcome of one block's comparison.
#[derive(Default)]
pub(super) struct Compared {
    /// Records in the block.
    pub(super) records: u64,
    /// Newest receive time in them; 0 if none has one.
    pub(super) newest_ns: u64,
    /// The first thing that is wrong.
    pub(super) fault: Option<(Fault, String)>,
}

/// Compares a block with the expected records, and applies what is in it to the consumer's book.
///
/// Receive times must lie in `received`, UTC nanoseconds.
pub(super) fn compare(
    mut block: &[u8],
    expected: &[Expected],
    shared: &Shared,
    received: &std::ops::Range<u64>,
    book: &mut HashMap<(u32, u64), BookOrder>,
) -> Compared {
    let mut compared = Compared::default();
    let mut wrong = |fault, text| {
        compared.fault.get_or_insert((fault, text));
    };
    let mut expected = expected.iter();
    let mut number = 0;
    while !block.is_empty() {
        number += 1;
        let record = match Record::cut(&mut block) {
            Ok(record) => record,
            Err(text) => {
                wrong(Fault::Malformed, text);
                break;
            }
        };
        match expected.next().map(|want| record.check(want, shared)) {
            Some(Ok(())) => {}
            Some(Err(text)) => wrong(Fault::Wrong, format!("record {number}: {text}")),
            None => wrong(Fault::Wrong, format!("record {number} of type {:#04x} is one too many", record.rtype())),
        }
        if let Some(ts_recv) = record.ts_recv() {
            if !received.contains(&ts_recv) {
                wrong(Fault::Wrong, format!("record {number}: ts_recv {ts_recv} is outside of {received:?}"));
            }
            compared.newest_ns = compared.newest_ns.max(ts_recv);
        }
        apply(book, &record);
    }
    if let Some(missing) = expected.next() {
        wrong(Fault::Wrong, format!("record {} is missing: {missing:?}", number + 1));
    }
    compared.records = number;
    compared
}

/// Applies a record to the consumer's book: A, M, C and R change it, T, F and N do not.
fn apply(book: &mut HashMap<(u32, u64), BookOrder>, record: &Record<'_>) {
    let Some((order_id, action, side, price, size)) = record.mbo() else { return };
    let key = (record.instrument(), order_id);
    match action {
        b'A' | b'M' => {
            book.insert(key, BookOrder { side, price, size });
        }
        b'C' => {
            if let Some(order) = book.get_mut(&key) {
                order.size = order.size.saturating_sub(size);
                if order.size == 0 {
                    book.remove(&key);
                }
            }
        }
        b'R' => book.retain(|(instrument, _), _| *instrument != key.0),
        _ => {}
    }
}
