//! What a destination gets, told from the whole stream by a reading of its own: decode everything, then filter.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, HashSet};

use feedhandler::config::plan::{RecordKind, RoutePlan};
use feedhandler_testkit::day::Day;
use feedhandler_testkit::itch::Body;
use feedhandler_testkit::mold;
use feedhandler_testkit::records::{DEFINITION, IMBALANCE, MAPPING, MBO, STATUS, SYSTEM};

const FLAGS: usize = 36;
const ACTION: usize = 38;
const LAST: u8 = 0x80;
const MAYBE_BAD_BOOK: u8 = 0x04;

/// All symbols of a day, in order.
pub fn symbols(day: &Day) -> Vec<[u8; 8]> {
    let stock = |body| if let Body::StockDirectory { stock, .. } = body { Some(stock) } else { None };
    let mut symbols: Vec<_> = day.clone().filter_map(|message| stock(message.body)).collect();
    symbols.sort_unstable();
    symbols.dedup();
    symbols
}

/// The records of a block, one by one.
pub fn cut(mut block: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let Some(words) = block.first() {
        let (record, rest) = block.split_at(usize::from(*words) * 4);
        records.push(record);
        block = rest;
    }
    records
}

/// Everything of a block but the notice in front.
pub fn without_notice(block: &[u8]) -> &[u8] {
    if block.get(1) == Some(&SYSTEM.0) { &block[SYSTEM.1..] } else { block }
}

fn id(record: &[u8]) -> u32 {
    u32::from_le_bytes(record[4..8].try_into().expect("four bytes"))
}

fn symbol(mapping: &[u8]) -> [u8; 8] {
    let mut symbol = [b' '; 8];
    mapping[17..25].iter().zip(&mut symbol).filter(|(byte, _)| **byte != 0).for_each(|(byte, to)| *to = *byte);
    symbol
}

fn is_mapping(record: &&&[u8]) -> bool {
    record[1] == MAPPING.0
}

/// One destination's route, and what of the session it has had.
#[derive(Debug, Default)]
pub struct Oracle {
    route: RoutePlan,
    /// The mapping records of the session.
    mappings: HashMap<u32, Vec<u8>>,
    /// Instruments with records that went by while the route did not take their book.
    past: HashSet<u32>,
    /// Instruments that this route has met.
    met: HashSet<u32>,
}

impl Oracle {
    pub fn new(route: RoutePlan) -> Self {
        Self { route, ..Self::default() }
    }

    pub fn set_route(&mut self, route: RoutePlan) {
        (self.route, self.met) = (route, HashSet::new());
    }

    pub fn begin_session(&mut self) {
        (self.mappings, self.past, self.met) = Default::default();
    }

    /// Hears of mappings.
    pub fn learn(&mut self, records: &[u8]) {
        for mapping in cut(records).iter().filter(is_mapping) {
            self.mappings.insert(id(mapping), mapping.to_vec());
        }
    }

    /// A message's records go by that are not sent at all.
    pub fn miss(&mut self, records: &[u8]) {
        self.learn(records);
        self.past.extend(cut(records).first().map(|record| id(record)));
    }

    fn takes_instrument(&self, id: u32) -> bool {
        let Some(mapping) = self.mappings.get(&id) else { return true };
        self.route.instruments.is_empty() || self.route.instruments.contains(&symbol(mapping))
    }

    fn takes_kind(&self, kind: RecordKind) -> bool {
        self.route.records.is_empty() || self.route.records.contains(&kind)
    }

    fn takes_record(&self, record: &[u8]) -> bool {
        let kind = match (record[1], record.len()) {
            MBO if record[ACTION] == b'T' && self.takes_kind(RecordKind::Trade) => return true,
            MBO => RecordKind::Mbo,
            DEFINITION => RecordKind::Definition,
            STATUS => RecordKind::Status,
            IMBALANCE => RecordKind::Imbalance,
            MAPPING => return true,
            other => panic!("a record of type {other:x?}"),
        };
        self.takes_kind(kind)
    }

    /// What is sent of a message's records.
    pub fn dbn(&mut self, records: &[u8]) -> Vec<u8> {
        self.learn(records);
        let all = cut(records);
        let Some(first) = all.first() else { return Vec::new() };
        let id = id(first);
        assert!(self.mappings.contains_key(&id), "the decoder maps first");
        if !self.takes_instrument(id) {
            self.past.insert(id);
            self.met.insert(id);
            return Vec::new();
        }
        let has_mapping = all.iter().any(|record| is_mapping(&record));
        let has_clear = all.iter().any(|record| record[1] == MBO.0 && record[ACTION] == b'R');
        let says_mapping = self.past.contains(&id) && !self.met.contains(&id) && !has_mapping;
        let takes_book = self.takes_kind(RecordKind::Mbo);
        if !takes_book {
            self.past.insert(id);
        } else if has_clear {
            self.past.remove(&id);
        }
        let mut sent = Vec::new();
        for record in all.iter().filter(|record| self.takes_record(record)) {
            if says_mapping && sent.is_empty() {
                let at = sent.len();
                sent.extend_from_slice(&self.mappings[&id]);
                sent[at + 8..at + 16].copy_from_slice(&record[8..16]);
            }
            let at = sent.len();
            sent.extend_from_slice(record);
            if record[1] == MBO.0 {
                let is_late = takes_book && self.past.contains(&id);
                sent[at + FLAGS] |= if is_late { MAYBE_BAD_BOOK } else { 0 } | if takes_book { 0 } else { LAST };
            }
        }
        if !says_mapping || !sent.is_empty() {
            self.met.insert(id);
        }
        sent
    }

    /// Whether a message passes as it is.
    pub fn raw(&self, message: &[u8]) -> bool {
        let locate = message.get(1..3).map_or(0, |bytes| u32::from(bytes[0]) << 8 | u32::from(bytes[1]));
        locate == 0 || self.takes_instrument(locate)
    }
}

/// What a consumer can rely on, whatever the route: no record before its mapping, and a book is whole unless it says that it
/// may not be.
#[derive(Debug, Default)]
pub struct Reliance {
    mapped: HashSet<u32>,
    /// Records of the book by instrument since it began: all, and those that came.
    books: HashMap<u32, (u64, u64)>,
    pub checked: u64,
}

impl Reliance {
    pub fn begin_session(&mut self) {
        (self.mapped, self.books) = Default::default();
    }

    pub fn block(&mut self, whole: &[u8], sent: &[u8], takes_book: bool) {
        let is_mbo = |record: &&&[u8]| record[1] == MBO.0;
        for record in cut(whole).iter().filter(is_mbo) {
            let book = self.books.entry(id(record)).or_default();
            *book = if record[ACTION] == b'R' { (1, 0) } else { (book.0 + 1, book.1) };
        }
        for record in cut(sent) {
            if is_mapping(&&record) {
                self.mapped.insert(id(record));
            }
            assert!(self.mapped.contains(&id(record)), "a record of instrument {} without its mapping", id(record));
            if record[1] == MBO.0 {
                self.books.entry(id(record)).or_default().1 += 1;
            }
        }
        for record in cut(sent).iter().filter(is_mbo).filter(|record| takes_book && record[FLAGS] & MAYBE_BAD_BOOK == 0)
        {
            let (all, came) = self.books[&id(record)];
            assert_eq!(all, came, "the book of instrument {} is not whole, and nothing says so", id(record));
            self.checked += 1;
        }
    }
}

/// The blocks of a destination by session and number.
pub type Blocks = BTreeMap<([u8; 10], u64), Vec<u8>>;

/// Adds a packet's blocks; none may come twice.
pub fn add_packet(blocks: &mut Blocks, payload: &[u8]) {
    let view = mold::parse(payload).expect("a packet");
    for (sequence, block) in (view.sequence..).zip(view.blocks) {
        assert!(blocks.insert((view.session, sequence), block.to_vec()).is_none(), "message {sequence} came twice");
    }
}
