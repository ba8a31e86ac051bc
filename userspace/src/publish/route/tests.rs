//! Routes against records that are made here, and by the real decoder against an oracle.
#![forbid(unsafe_code)]

use super::*;
use crate::config::plan::DecoderKind;
use crate::feed::decode::{Decoder, Records};
use crate::feed::{Directory, Midnights};

const AAPL: Symbol = *b"AAPL    ";
const MSFT: Symbol = *b"MSFT    ";

fn plan(instruments: &[Symbol], records: &[RecordKind]) -> RoutePlan {
    let mut instruments = instruments.to_vec();
    instruments.sort_unstable();
    RoutePlan { instruments, records: records.to_vec() }
}

/// The decoder and a route behind it.
struct Bench {
    decoder: Decoder,
    records: Records,
    route: Box<Route>,
    counts: DestinationCounts,
    format: Format,
}

impl Bench {
    fn new(route: &RoutePlan) -> Self {
        Self {
            decoder: Decoder::new(DecoderKind::Itch50, 2, 1_000, Midnights::new(vec![0, u64::MAX])),
            records: Records::new(),
            route: Route::new(route),
            counts: DestinationCounts::default(),
            format: Format::Dbn,
        }
    }

    /// The body that the destination gets, and its records.
    fn body(&mut self, message: &[u8]) -> (Vec<u8>, u8) {
        self.records.clear();
        self.decoder.decode(message, 1, 1_000, &mut self.records);
        let block = Block {
            channel: 0,
            session: b"SESSION001",
            sequence: 1,
            notice: &[],
            message,
            records: self.records.bytes(),
            record_count: self.records.count(),
            directory: self.decoder.directory(),
        };
        let (body, count) = self.route.select(&block, self.format, &mut self.counts);
        (body.to_vec(), count)
    }

    /// What the records of the body are: type, action and flags of market-by-order ones.
    fn kinds(&mut self, message: &[u8]) -> Vec<String> {
        let (body, count) = self.body(message);
        let kinds: Vec<_> = records(&body)
            .map(|record| match record[1] {
                rtype::MBO => format!("{} {:02x}", record[ACTION_AT] as char, record[FLAGS_AT]),
                rtype::SYMBOL_MAPPING => "mapping".to_owned(),
                rtype::INSTRUMENT_DEF => "definition".to_owned(),
                rtype::STATUS => "status".to_owned(),
                other => format!("{other:02x}"),
            })
            .collect();
        assert_eq!(kinds.len(), usize::from(count));
        kinds
    }

    fn join(&mut self, wanted: &RoutePlan) {
        self.route = Route::new(wanted);
        self.route.join(self.decoder.directory());
    }

    fn set_route(&mut self, wanted: &RoutePlan) {
        let mut route = Route::new(wanted);
        route.follow(&mut self.route);
        self.route = route;
    }
}

fn message(kind: u8, locate: u16, body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&locate.to_be_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend(body.concat());
    bytes
}

fn directory(locate: u16, stock: &Symbol) -> Vec<u8> {
    message(b'R', locate, &[stock, &[b'N'; 20]])
}

fn add(locate: u16, reference: u64, stock: &Symbol) -> Vec<u8> {
    message(b'A', locate, &[&reference.to_be_bytes(), b"B", &100_u32.to_be_bytes(), stock, &5_u32.to_be_bytes()])
}

fn execute(locate: u16, reference: u64) -> Vec<u8> {
    message(b'E', locate, &[&reference.to_be_bytes(), &10_u32.to_be_bytes(), &[0; 8]])
}

fn halt(locate: u16, stock: &Symbol) -> Vec<u8> {
    message(b'H', locate, &[stock, b"H ", b"T1  "])
}

#[test]
fn only_the_instruments_that_are_taken_pass_and_what_belongs_to_none() {
    let mut bench = Bench::new(&plan(&[MSFT], &[]));
    assert_eq!(bench.kinds(&directory(1, &AAPL)), [""; 0]);
    assert_eq!(bench.kinds(&directory(2, &MSFT)), ["mapping", "definition"]);
    assert_eq!(bench.kinds(&add(1, 10, &AAPL)), [""; 0]);
    assert_eq!(bench.kinds(&add(2, 20, &MSFT)), ["A 80"]);
    assert_eq!(bench.kinds(&execute(1, 10)), [""; 0]);
    assert_eq!(bench.kinds(&execute(2, 20)), ["T 00", "F 00", "C 80"]);
    // A system event has no record at all: nothing was filtered.
    assert_eq!(bench.kinds(&message(b'S', 0, &[b"Q"])), [""; 0]);
    let counts = DestinationCounts { blocks_filtered: 3, records_filtered: 2 + 1 + 3, ..Default::default() };
    assert_eq!(bench.counts, counts);
}

#[test]
fn kinds_are_taken_by_the_record_and_mappings_always() {
    let mut trades = Bench::new(&plan(&[], &[RecordKind::Trade]));
    assert_eq!(trades.kinds(&directory(1, &AAPL)), ["mapping"]);
    assert_eq!(trades.kinds(&add(1, 10, &AAPL)), [""; 0]);
    assert_eq!(trades.kinds(&execute(1, 10)), ["T 80"], "the last record that is sent of the message");
    assert_eq!(trades.kinds(&halt(1, &AAPL)), [""; 0]);
    assert_eq!((trades.counts.blocks_filtered, trades.counts.records_filtered), (2, 1 + 1 + 2 + 1));
    let mut states = Bench::new(&plan(&[AAPL], &[RecordKind::Definition, RecordKind::Status]));
    assert_eq!(states.kinds(&directory(1, &AAPL)), ["mapping", "definition"]);
    assert_eq!(states.kinds(&add(1, 10, &AAPL)), [""; 0]);
    assert_eq!(states.kinds(&halt(1, &AAPL)), ["status"]);
    assert_eq!(states.kinds(&halt(2, &MSFT)), [""; 0]);
}

#[test]
fn raw_messages_pass_by_their_locate() {
    let mut bench = Bench::new(&plan(&[MSFT], &[]));
    bench.format = Format::Raw;
    let mut passes = |message: &[u8]| bench.body(message).0 == message;
    // Nobody can say yet that 1 is not taken.
    assert!(passes(&execute(1, 10)));
    assert!(!passes(&directory(1, &AAPL)) && passes(&directory(2, &MSFT)));
    assert!(!passes(&execute(1, 10)) && passes(&execute(2, 20)));
    for (message, why) in [(message(b'S', 0, &[b"Q"]), "of no instrument"), (vec![b'E'], "cut off"), (vec![], "empty")]
    {
        assert!(passes(&message), "{why}");
    }
    assert_eq!((bench.counts.blocks_filtered, bench.counts.records_filtered), (2, 0));
}

#[test]
fn what_is_taken_only_now_is_said_to_have_a_past() {
    let mut bench = Bench::new(&plan(&[MSFT], &[]));
    for (locate, stock) in [(1, AAPL), (2, MSFT)] {
        bench.body(&directory(locate, &stock));
    }
    bench.set_route(&plan(&[AAPL, MSFT], &[]));
    assert_eq!(bench.kinds(&add(2, 20, &MSFT)), ["A 80"], "was taken all the time");
    assert_eq!(bench.kinds(&add(1, 10, &AAPL)), ["mapping", "A 84"]);
    assert_eq!(bench.kinds(&execute(1, 10)), ["T 04", "F 04", "C 84"], "the mapping once");
    // Also over a route in between, and where everything is taken again.
    bench.set_route(&plan(&[AAPL], &[]));
    bench.set_route(&plan(&[], &[]));
    assert_eq!(bench.kinds(&add(1, 11, &AAPL)), ["mapping", "A 84"]);
    assert_eq!(bench.kinds(&add(2, 21, &MSFT)), ["A 80"], "of MSFT nothing was withheld, because nothing came");
    assert_eq!(bench.counts.mappings_added, 2);
    // The next session knows nothing of it, and gives other numbers.
    bench.decoder.begin_session();
    assert_eq!(bench.kinds(&directory(1, &MSFT)), ["mapping", "R 00", "definition"]);
    assert_eq!(bench.kinds(&add(1, 10, &MSFT)), ["A 80"]);
}

#[test]
fn the_mapping_waits_for_a_record_that_passes() {
    let mut bench = Bench::new(&plan(&[MSFT], &[]));
    bench.body(&directory(1, &AAPL));
    bench.set_route(&plan(&[AAPL], &[RecordKind::Trade]));
    assert_eq!(bench.kinds(&add(1, 10, &AAPL)), [""; 0]);
    assert_eq!(bench.kinds(&execute(1, 10)), ["mapping", "T 80"]);
    assert_eq!(bench.kinds(&execute(1, 10)), ["T 80"]);
}

#[test]
fn a_book_that_begins_anew_has_no_past() {
    let mut bench = Bench::new(&plan(&[MSFT], &[]));
    bench.body(&directory(1, &AAPL));
    bench.set_route(&plan(&[], &[]));
    // A snapshot clears each book in front of its orders.
    bench.decoder.snapshot(true);
    bench.decoder.snapshot(false);
    assert_eq!(bench.kinds(&add(1, 10, &AAPL)), ["mapping", "A 84"]);
    bench.decoder.snapshot(true);
    assert_eq!(bench.kinds(&directory(1, &AAPL)), ["mapping", "R 28", "definition"]);
    bench.decoder.snapshot(false);
    assert_eq!(bench.kinds(&add(1, 11, &AAPL)), ["A 80"]);
}

#[test]
fn a_destination_that_joins_a_session_has_missed_all_of_it() {
    let mut bench = Bench::new(&plan(&[], &[]));
    bench.body(&directory(1, &AAPL));
    bench.join(&plan(&[], &[]));
    assert_eq!(bench.kinds(&add(1, 10, &AAPL)), ["mapping", "A 84"]);
    // What the session says only now has no past.
    assert_eq!(bench.kinds(&directory(2, &MSFT)), ["mapping", "definition"]);
    assert_eq!(bench.kinds(&add(2, 20, &MSFT)), ["A 80"]);
    assert_eq!(bench.kinds(&execute(1, 10)), ["T 04", "F 04", "C 84"]);
    bench.decoder.begin_session();
    assert_eq!(bench.kinds(&add(1, 10, &AAPL)), ["mapping", "R 00", "A 80"]);
}

#[test]
fn a_destination_that_joins_between_sessions_has_missed_nothing_of_the_next() {
    let mut bench = Bench::new(&plan(&[], &[]));
    bench.body(&directory(1, &AAPL));
    bench.join(&plan(&[], &[]));
    bench.decoder.begin_session();
    assert_eq!(bench.kinds(&directory(1, &MSFT)), ["mapping", "R 00", "definition"]);
    assert_eq!(bench.kinds(&add(1, 10, &MSFT)), ["A 80"]);
    // The same of one that comes when the session has said nothing yet.
    bench.decoder.begin_session();
    bench.join(&plan(&[], &[]));
    assert_eq!(bench.kinds(&directory(1, &AAPL)), ["mapping", "R 00", "definition"]);
    assert_eq!(bench.kinds(&add(1, 10, &AAPL)), ["A 80"]);
}

#[test]
fn a_mapping_that_changes_is_followed() {
    let mut bench = Bench::new(&plan(&[MSFT], &[]));
    assert_eq!(bench.kinds(&directory(1, &AAPL)), [""; 0]);
    assert_eq!(bench.kinds(&directory(1, &MSFT)), ["mapping", "definition"]);
    assert_eq!(bench.kinds(&add(1, 10, &MSFT)), ["A 84"]);
    assert_eq!(bench.kinds(&directory(1, &AAPL)), [""; 0]);
    assert_eq!(bench.kinds(&add(1, 11, &AAPL)), [""; 0]);
}

#[test]
fn every_id_has_its_own_bits() {
    let mut route = Route::new(&plan(&[MSFT], &[]));
    let mut symbols = Directory::new();
    let is_taken = |id: u16| id % 7 == 3 || id == u16::MAX;
    (1..=u16::MAX).for_each(|id| symbols.set(id, if is_taken(id) { &MSFT } else { &AAPL }));
    let mut counts = DestinationCounts::default();
    for _ in 0..2 {
        for id in 1..=u16::MAX {
            let message = message(b'D', id, &[&[0; 8]]);
            let block = Block {
                channel: 0,
                session: b"SESSION001",
                sequence: 1,
                notice: &[],
                message: &message,
                records: &[],
                record_count: 0,
                directory: &symbols,
            };
            let (body, _) = route.select(&block, Format::Raw, &mut counts);
            assert_eq!(!body.is_empty(), is_taken(id), "{id}");
        }
    }
}
