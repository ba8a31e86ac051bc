//! Our own output as the test kit's consumer reads it: whoever checks must not fall over what he checks.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use super::input::{Input, session};
use crate::consumer::{CheckSettings, Checker, Sent, SessionAccount, SessionTruth};
use crate::day::{Day, DaySettings};
use crate::itch::Message;
use crate::mold;
use crate::ranges::RangeSet;
use crate::records::{Record, Shared};
use crate::truth::Expected;

/// The first messages of a day.
pub(super) fn messages() -> &'static [Message] {
    static MESSAGES: OnceLock<Vec<Message>> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let day = DaySettings { seed: 5, messages: 4_000, instruments: 8, live_orders: 40, recency: 0.5 };
        Day::new(&day).take(600).collect()
    })
}

/// The message under a number.
pub(super) fn message(sequence: u64) -> &'static Message {
    let messages = messages();
    &messages[(sequence % messages.len() as u64) as usize]
}

fn truth(choice: u8) -> SessionTruth {
    SessionTruth {
        session: session(choice),
        first: 1,
        joined: None,
        sent: Box::new(|sequence| Sent::Message(*message(sequence))),
    }
}

/// Any packets: read, compared with what was sent, and accounted for.
pub(super) fn output(data: &[u8]) {
    if let Ok(view) = mold::parse(data) {
        view.blocks.into_iter().for_each(records);
    }
    records(data);
    let settings = CheckSettings { publisher_id: 2, midnight_ns: 1 << 60, started_ns: 1 << 60 };
    let mut checker = Checker::new(settings, vec![truth(0), truth(1)]);
    let mut input = Input(data);
    let mut packets = 0;
    while let Some(choice) = input.u8() {
        let mut payload = session(choice).to_vec();
        let Some(len) = input.u8() else { break };
        payload.extend_from_slice(input.up_to(usize::from(len) * 4));
        checker.packet(&payload, (1 << 60) + u64::from(choice));
        packets += 1;
    }
    let account = SessionAccount { common_losses: RangeSet::default(), next_sequence: 10, must_end: false };
    let report = checker.finish(&[account]);
    assert_eq!(report.packets, packets);
}

/// Cuts records off until the bytes are no record, and compares each with one of its kind.
fn records(mut bytes: &[u8]) {
    let mbo = Expected::Mbo { order_id: 1, price: 2, size: 3, action: b'A', side: b'B', is_last: true };
    let status =
        Expected::Status { action: 7, reason: 1, is_trading: b'Y', is_quoting: b'Y', is_short_sell_restricted: b'~' };
    let imbalance = Expected::Imbalance {
        reference: 1,
        near: 2,
        far: 3,
        paired: 4,
        shares: 5,
        side: b'B',
        auction_type: b'O',
        variation: b'L',
    };
    let mapping = Expected::Mapping { stock: *b"AAPL    " };
    let definition = Expected::Definition { stock: *b"AAPL    ", round_lot: 100 };
    let shared =
        Shared { publisher_id: 2, instrument: 1, ts_event: 3, sequence: 4, is_bad_book: false, is_snapshot: false };
    while !bytes.is_empty() {
        let Ok(record) = Record::cut(&mut bytes) else { break };
        let _ = (record.ts_recv(), record.mbo());
        for expected in [mbo, status, imbalance, mapping, definition] {
            let _ = record.check(&expected, &shared);
        }
    }
}
