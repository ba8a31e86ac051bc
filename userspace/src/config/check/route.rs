//! What a destination takes of its channel.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::values::{Checker, one_of, quoted};
use crate::config::plan::{Format, RecordKind, RoutePlan};

const MOST_INSTRUMENTS: usize = 10_000;
/// A Stock Directory message has so many.
const SYMBOL_BYTES: usize = 8;

pub(super) fn check(
    check: &mut Checker,
    destination: &str,
    instruments: Option<&[String]>,
    records: Option<&[String]>,
    format: Format,
) -> RoutePlan {
    RoutePlan {
        instruments: symbols(check, &format!("{destination}.instruments"), instruments.unwrap_or_default()),
        records: kinds(check, &format!("{destination}.records"), records.unwrap_or_default(), format),
    }
}

/// Sorted. Of a list with several mistakes the first is enough: there may be thousands.
fn symbols(check: &mut Checker, at: &str, written: &[String]) -> Vec<[u8; SYMBOL_BYTES]> {
    if written.len() > MOST_INSTRUMENTS {
        let reason =
            format!("must name at most {MOST_INSTRUMENTS} symbols; leave the key out to take every instrument");
        check.problem(at, format!("{} of them", written.len()), reason);
        return Vec::new();
    }
    let mut earlier = HashSet::new();
    for (i, text) in written.iter().enumerate() {
        let is_legal = (1..=SYMBOL_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let reason = if !is_legal {
            "must be a symbol as in the exchange's stock directory, without padding: 1 to 8 printable ASCII characters"
        } else if !earlier.insert(text) {
            "is in the list already; name each symbol once"
        } else {
            continue;
        };
        check.problem(format!("{at}[{i}]"), quoted(text), reason);
        return Vec::new();
    }
    let padded = |text: &String| {
        let mut symbol = [b' '; SYMBOL_BYTES];
        symbol[..text.len()].copy_from_slice(text.as_bytes());
        symbol
    };
    let mut symbols: Vec<_> = written.iter().map(padded).collect();
    symbols.sort_unstable();
    symbols
}

fn kinds(check: &mut Checker, at: &str, written: &[String], format: Format) -> Vec<RecordKind> {
    if !written.is_empty() && format == Format::Raw {
        let reason = "must be left out with format = \"raw\": its blocks hold the exchange's messages, and no records";
        check.problem(at, format!("{} of them", written.len()), reason);
    }
    let mut kinds = Vec::new();
    for (i, word) in written.iter().enumerate() {
        match RecordKind::ALL.into_iter().find(|kind| kind.label() == word) {
            Some(kind) if kinds.contains(&kind) => {
                check.problem(format!("{at}[{i}]"), quoted(word), "is in the list already; name each kind once");
            }
            Some(kind) => kinds.push(kind),
            None => {
                let reason = format!("must be {}", one_of(RecordKind::ALL.into_iter().map(RecordKind::label)));
                check.problem(format!("{at}[{i}]"), quoted(word), reason);
            }
        }
    }
    kinds.sort_unstable();
    kinds
}
