//! Finds the line on which a key of a TOML document stands, for error messages only.
#![forbid(unsafe_code)]

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A parsed document that still knows where its keys were.
pub(super) struct Lines<'a> {
    text: &'a str,
    root: Option<Spanned<DeTable<'a>>>,
}

impl<'a> Lines<'a> {
    /// Parses the document again, with positions.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, root: DeTable::parse(text).ok() }
    }

    /// The line, from 1, of the deepest part of `key` (`table[0].name`) that the document has.
    pub(super) fn of(&self, key: &str) -> Option<usize> {
        let mut table: &DeTable<'_> = self.root.as_ref()?.get_ref();
        let mut start = None;
        for part in key.split('.') {
            let (name, index) = match part.split_once('[') {
                Some((name, rest)) => (name, rest.strip_suffix(']')?.parse::<usize>().ok()),
                None => (part, None),
            };
            let Some((found, value)) = table.get_key_value(name) else { break };
            start = Some(found.span().start);
            let value = match (value.get_ref(), index) {
                (DeValue::Array(items), Some(index)) => {
                    let Some(item) = items.get(index) else { break };
                    start = Some(item.span().start);
                    item.get_ref()
                }
                (value, _) => value,
            };
            let DeValue::Table(inner) = value else { break };
            table = inner;
        }
        let start = start?.min(self.text.len());
        Some(self.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_keys_and_falls_back_to_their_table() {
        let text = "[handler]\nname = \"x\"\n\n[[feed]]\nname = \"a\"\n[[feed.channel]]\nname = \"c\"\n\n[[feed]]\nname = \"b\"\n";
        let lines = Lines::new(text);
        assert_eq!(lines.of("handler.name"), Some(2));
        assert_eq!(lines.of("feed[0].channel[0].name"), Some(7));
        assert_eq!(lines.of("feed[1].name"), Some(10));
        assert_eq!(lines.of("feed[0].channel[0].gap_timeout_us"), Some(6), "default: the table's own line");
        assert_eq!(lines.of("worker"), None);
    }
}
