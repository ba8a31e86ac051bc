//! What of a channel a destination takes: by instrument, and by kind of record.
//!
//! What is left out leaves an empty block, so the consumer still sees every sequence number. The rule:
//!
//! - The channel's own passes always: notices (a session begins, messages were lost, the lines are back), and what belongs to
//!   no instrument (id 0).
//! - A record of an instrument passes if the route takes the instrument and the kind. Symbol mappings have no kind: those
//!   of instruments that are taken pass always, since without them nothing else can be understood.
//! - An instrument whose symbol the session has not said yet counts as taken: nobody can say that it is not.
//! - Raw blocks hold the exchange's messages, which pass or not by their stock locate.
//!
//! A route can change while a session runs. What begins to be taken then has a past that was withheld: its first record gets
//! the symbol mapping in front, and its market-by-order records have MAYBE_BAD_BOOK, until a clear or the next session.
//!
//! Symbols are looked up when an instrument is met for the first time; from then on it is two bits of a table.
#![forbid(unsafe_code)]

use std::fmt;

use dbn::flags::{LAST, MAYBE_BAD_BOOK};
use dbn::rtype;

use crate::config::plan::{Format, RecordKind, RoutePlan};
use crate::feed::directory::{Directory, IDS, symbol_mapping};
use crate::feed::{Block, Symbol};
use crate::metrics::DestinationCounts;

/// Bytes of the records of one message, at most, and a symbol mapping in front.
const SCRATCH_BYTES: usize = 1024 + 176;
/// Instruments of one byte of the table.
const PER_BYTE: usize = 4;
/// Offsets of an `MboMsg`.
const FLAGS_AT: usize = 36;
const ACTION_AT: usize = 38;

/// What is known of an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Not met yet, or without a symbol.
    Unknown,
    /// Left out.
    Withheld,
    /// Taken, and nothing of its book was withheld in this session.
    Whole,
    /// Taken, but its past was withheld.
    Late,
}

/// A route at work. Made by control, moved into the worker, and back when another takes its place.
///
/// Aligned, so that what the worker writes lies in cache lines of its own.
#[repr(align(128))]
pub struct Route {
    /// Sorted; none = every instrument.
    instruments: Box<[Symbol]>,
    /// A bit per [`RecordKind`].
    kinds: u8,
    /// The session that `courses` and `withheld` are of; `None` before the first block.
    session: Option<u32>,
    /// A [`Course`] per instrument, two bits each.
    courses: [u8; IDS / PER_BYTE],
    /// A bit per instrument: records of its book were withheld in this session.
    withheld: [u64; IDS / 64],
    scratch: [u8; SCRATCH_BYTES],
}

const fn bit(kind: RecordKind) -> u8 {
    1 << kind as u8
}

const ALL_KINDS: u8 = (1 << RecordKind::ALL.len()) - 1;

impl Route {
    /// A route that has met no instrument yet.
    #[must_use]
    pub fn new(plan: &RoutePlan) -> Box<Self> {
        let kinds = plan.records.iter().fold(0, |bits, kind| bits | bit(*kind));
        Box::new(Self {
            instruments: plan.instruments.clone().into_boxed_slice(),
            kinds: if kinds == 0 { ALL_KINDS } else { kinds },
            session: None,
            courses: [0; IDS / PER_BYTE],
            withheld: [0; IDS / 64],
            scratch: [0; SCRATCH_BYTES],
        })
    }

    /// Begins while a session may run: of the instruments that it has said so far, nothing was sent. Those that it says later
    /// have no past.
    pub(super) fn join(&mut self, directory: &Directory) {
        self.session = Some(directory.session());
        self.withheld.copy_from_slice(directory.known());
    }

    /// Goes on where another route was: what that one withheld is remembered.
    pub(super) fn follow(&mut self, old: &mut Self) {
        std::mem::swap(&mut self.withheld, &mut old.withheld);
        self.session = old.session;
    }

    /// Whether it leaves nothing out.
    pub(super) fn takes_all(&self) -> bool {
        self.instruments.is_empty() && self.kinds == ALL_KINDS
    }

    /// What the destination gets of a block, the notice aside, and how many records that is.
    #[inline]
    pub(super) fn select<'a>(
        &'a mut self,
        block: &Block<'a>,
        format: Format,
        counts: &mut DestinationCounts,
    ) -> (&'a [u8], u8) {
        let (body, id) = match format {
            Format::Dbn => (block.records, instrument(block.records)),
            Format::Raw => (block.message, locate(block.message)),
        };
        if id == 0 {
            return (body, block.record_count);
        }
        self.begin(block.directory.session());
        let (course, adds_mapping) = self.course(id, block);
        if course == Course::Withheld {
            counts.blocks_filtered += 1;
            if format == Format::Dbn {
                counts.records_filtered += u64::from(block.record_count);
            }
            return (&[], 0);
        }
        // All of a message's records are market-by-order, if the first one is.
        let passes = self.kinds == ALL_KINDS || (self.takes_mbo() && block.records.get(1) == Some(&rtype::MBO));
        if format == Format::Raw || (passes && course != Course::Late && !adds_mapping) {
            return (body, block.record_count);
        }
        self.copy(id, course, adds_mapping, block, counts)
    }

    #[inline]
    fn takes_mbo(&self) -> bool {
        self.kinds & bit(RecordKind::Mbo) != 0
    }

    /// With another session all that is known of instruments is void.
    #[inline]
    fn begin(&mut self, session: u32) {
        if self.session != Some(session) {
            self.forget(session);
        }
    }

    #[cold]
    fn forget(&mut self, session: u32) {
        self.courses.fill(0);
        self.withheld.fill(0);
        self.session = Some(session);
    }

    /// What is known of an instrument, and whether its mapping must be said again.
    #[inline]
    fn course(&mut self, id: u16, block: &Block<'_>) -> (Course, bool) {
        let course = match self.courses[usize::from(id) / PER_BYTE] >> (usize::from(id) % PER_BYTE * 2) & 0b11 {
            0 => Course::Unknown,
            1 => Course::Withheld,
            2 => Course::Whole,
            _ => Course::Late,
        };
        // A mapping may give the id another meaning.
        if course == Course::Unknown || is_mapping(block.records) { self.meet(id, block) } else { (course, false) }
    }

    #[cold]
    fn meet(&mut self, id: u16, block: &Block<'_>) -> (Course, bool) {
        let Some(symbol) = block.directory.symbol(id) else { return (Course::Unknown, false) };
        let is_taken = self.instruments.is_empty() || self.instruments.binary_search(symbol).is_ok();
        let takes_mbo = self.takes_mbo();
        let (word, bit_of_word) = (&mut self.withheld[usize::from(id) / 64], 1 << (id % 64));
        let had_past = *word & bit_of_word != 0;
        let course = if !is_taken {
            *word |= bit_of_word;
            Course::Withheld
        } else if !takes_mbo {
            // Whoever takes its book from now on, if a route does, has missed the beginning.
            *word |= bit_of_word;
            Course::Whole
        } else if had_past && !records(block.records).any(is_clear) {
            Course::Late
        } else {
            *word &= !bit_of_word;
            Course::Whole
        };
        self.note(id, course);
        (course, had_past && is_taken && !is_mapping(block.records))
    }

    fn note(&mut self, id: u16, course: Course) {
        let (byte, shift) = (&mut self.courses[usize::from(id) / PER_BYTE], usize::from(id) % PER_BYTE * 2);
        *byte = *byte & !(0b11 << shift) | (course as u8) << shift;
    }

    /// The records of a block that pass, one by one.
    fn copy<'a>(
        &'a mut self,
        id: u16,
        course: Course,
        adds_mapping: bool,
        block: &Block<'a>,
        counts: &mut DestinationCounts,
    ) -> (&'a [u8], u8) {
        let (mut len, mut kept) = (0, 0);
        for record in records(block.records) {
            let Some(marks) = self.takes(record) else { continue };
            if kept == 0 && adds_mapping {
                len += self.write_mapping(id, block, record);
                counts.mappings_added += 1;
            }
            let copy = &mut self.scratch[len..len + record.len()];
            copy.copy_from_slice(record);
            if record[1] == rtype::MBO {
                copy[FLAGS_AT] |= marks | if course == Course::Late { MAYBE_BAD_BOOK } else { 0 };
            }
            len += record.len();
            kept += 1;
        }
        counts.records_filtered += u64::from(block.record_count - kept);
        counts.blocks_filtered += u64::from(kept == 0);
        if adds_mapping && kept == 0 {
            // The mapping is still to be said: the instrument is met anew.
            self.note(id, Course::Unknown);
        }
        let added = u8::from(adds_mapping && kept > 0);
        (&self.scratch[..len], kept + added)
    }

    /// Whether a record of a taken instrument passes by its kind; and then, what its flags get: of a message's market-by-order
    /// records the last that is sent has LAST.
    #[inline]
    fn takes(&self, record: &[u8]) -> Option<u8> {
        let has = |kind| self.kinds & bit(kind) != 0;
        match record[1] {
            rtype::MBO if has(RecordKind::Mbo) => Some(0),
            rtype::MBO => (has(RecordKind::Trade) && record[ACTION_AT] == b'T').then_some(LAST),
            rtype::INSTRUMENT_DEF => has(RecordKind::Definition).then_some(0),
            rtype::STATUS => has(RecordKind::Status).then_some(0),
            rtype::IMBALANCE => has(RecordKind::Imbalance).then_some(0),
            _ => Some(0),
        }
    }

    /// Puts the instrument's symbol mapping at the beginning of what is sent; its length.
    #[cold]
    fn write_mapping(&mut self, id: u16, block: &Block<'_>, first: &[u8]) -> usize {
        let Some(symbol) = block.directory.symbol(id) else { return 0 };
        let publisher_id = u16::from_le_bytes([first[2], first[3]]);
        let ts_event = first[8..16].try_into().map_or(0, u64::from_le_bytes);
        let mapping = symbol_mapping(publisher_id, id, ts_event, symbol);
        let bytes: &[u8] = mapping.as_ref();
        self.scratch[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instruments, kinds, session, .. } = self;
        let (instruments, kinds) = (instruments.len(), format_args!("{kinds:#07b}"));
        f.debug_struct("Route")
            .field("instruments", &instruments)
            .field("kinds", &kinds)
            .field("session", session)
            .finish_non_exhaustive()
    }
}

/// Instrument of a block's records; 0 where there is none.
#[inline]
fn instrument(records: &[u8]) -> u16 {
    // Ids of ours are stock locates: the upper half is zero.
    records.first_chunk().map_or(0, |[_, _, _, _, a, b]| u16::from_le_bytes([*a, *b]))
}

/// Stock locate of an ITCH message; 0 where it has none.
#[inline]
fn locate(message: &[u8]) -> u16 {
    message.first_chunk().map_or(0, |[_, a, b]| u16::from_be_bytes([*a, *b]))
}

/// Whether a message's records begin with a symbol mapping: where there is one, it is the first.
#[inline]
fn is_mapping(records: &[u8]) -> bool {
    records.get(1) == Some(&rtype::SYMBOL_MAPPING)
}

/// Whether a book begins anew with this record.
fn is_clear(record: &[u8]) -> bool {
    record[1] == rtype::MBO && record[ACTION_AT] == b'R'
}

/// The records of a block, one by one.
fn records(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        // The first byte is the length in words of 4 bytes; the shortest record is a header of 16.
        let length = usize::from(*rest.first()?) * 4;
        let (record, behind) = rest.split_at_checked(length.max(16))?;
        rest = behind;
        Some(record)
    })
}

#[cfg(test)]
mod tests;
