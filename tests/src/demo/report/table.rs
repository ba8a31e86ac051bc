//! The summary as a table that a person reads.
#![forbid(unsafe_code)]

use std::fmt;

use clap::ValueEnum as _;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, Color, Table};

use super::{Latency, Summary};

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        let color = if self.ok { Color::Green } else { Color::Red };
        let verdict = if self.ok { "everything once, in order and right" } else { "NOT right" };
        table.set_header([Cell::new(""), Cell::new(""), Cell::new(verdict).add_attribute(Attribute::Bold).fg(color)]);
        for row in self.rows() {
            table.add_row(row);
        }
        // Above the table: it would make the first column as wide as itself.
        write!(f, "{}\n{table}", self.workload)
    }
}

impl Summary {
    fn rows(&self) -> Vec<[String; 3]> {
        let mut rows = Vec::new();
        let mut add = |part: &str, figure: &str, value: String| rows.push([part.to_owned(), figure.to_owned(), value]);
        let modes: Vec<String> = self.modes.iter().map(|(name, mode)| format!("{name} {mode}")).collect();
        add("AF_XDP", "mode in force", modes.join(" · "));
        for line in &self.lines {
            let sent = &line.sent;
            let part = format!("line {}", line.name);
            let text = [
                format!("{} packets", number(sent.packets)),
                format!("{} lost on the way", number(sent.lost)),
                format!("{} doubled", number(sent.duplicated)),
                format!("{} held up", number(sent.reordered)),
            ];
            add(&part, "sent", text.join(" · "));
            let text = [
                format!("{} packets", number(line.received_packets)),
                format!("{} first", number(line.first)),
                format!("{} duplicate", number(line.duplicate)),
                format!("{} ahead of a gap", number(line.ahead)),
            ];
            add(&part, "received", text.join(" · "));
        }
        let channels = &self.channels;
        add("handler", "messages", number(channels.messages));
        add("", "duplicates dropped", number(channels.duplicate_messages));
        let gaps = [channels.gaps_opened, channels.gaps_closed, channels.gaps_lost].map(number);
        add("", "gaps seen / closed / lost", gaps.join(" / "));
        let (lost, none) = (number(channels.messages_lost), number(channels.messages_on_no_line));
        add("", "messages lost", format!("{lost} ({none} were on no line)"));
        if let Some(toggle) = &self.toggle {
            let messages = number(toggle.messages_while_off);
            add("toggle", "line A off", format!("{} ms, {messages} messages came from B alone", toggle.off_ms));
        }
        if let Some(trouble) = &self.trouble {
            let name = trouble.kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            let messages = number(trouble.messages_meanwhile);
            add("trouble", &name, format!("{} ms until healed, {messages} messages came meanwhile", trouble.outage_ms));
        }
        let output = &self.output;
        add(
            "consumer",
            "records",
            format!("{} compared, in {} packets", number(output.records), number(output.packets)),
        );
        add("", "system records", format!("{} compared: sessions and losses, by name", number(output.notices)));
        let (orders, levels) = (number(output.book_orders), number(output.book_levels));
        add("", "final books", format!("{orders} orders on {levels} levels, compared"));
        add("latency", "p50 / p99 / p99.9 / max", "µs".to_owned());
        for latency in &self.latencies {
            add("", &latency.stage, latency.text());
        }
        let mut part = "drops";
        for (place, count) in &self.drops {
            add(part, place, number(*count));
            part = "";
        }
        for note in &self.notes {
            add("note", "", note.clone());
        }
        rows
    }
}

impl Latency {
    fn text(&self) -> String {
        if self.count == 0 {
            return "none recorded".to_owned();
        }
        let micros = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        [self.p50_ns, self.p99_ns, self.p999_ns, self.max_ns].map(micros).join(" / ")
    }
}

/// With thousands apart.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_summary_says_whether_it_is_right() {
        let mut summary = Summary::default();
        summary.judge();
        assert!(!summary.ok, "nothing came out");
        assert!(summary.to_string().contains("NOT right"));
        summary = Summary::default();
        summary.output.blocks = 5;
        summary.channels.messages = 5;
        summary.judge();
        assert!(summary.ok && summary.complaints().is_empty());
        summary.channels.messages_lost = 1;
        summary.judge();
        assert_eq!(summary.complaints().len(), 1);
    }
}
