//! The report for a person: a table per subject, all of the same widths, and a last line that sums up.
#![forbid(unsafe_code)]

use std::fmt::Write;

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Row, Table, Width, presets};

use super::{Finding, Level, Report};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether words may have colours: on a terminal only.
    pub colours: bool,
    /// Columns of the terminal.
    pub width: u16,
}

impl Default for Style {
    /// For a file or a pipe.
    fn default() -> Self {
        Self { colours: false, width: 120 }
    }
}

/// Below this a table is narrower than its words.
const LEAST_WIDTH: u16 = 60;

impl Report {
    /// The text.
    #[must_use]
    pub fn text(&self, style: Style) -> String {
        let checks = self.findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
        let widths = widths(u16::try_from(checks).unwrap_or(u16::MAX), style.width);
        let mut text = String::new();
        for subject in self.findings.chunk_by(|a, b| a.subject == b.subject) {
            let _ = writeln!(text, "{}", subject[0].subject);
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(style.width.max(LEAST_WIDTH));
            if style.colours {
                table.enforce_styling();
            } else {
                table.force_no_tty();
            }
            for finding in subject {
                add(&mut table, finding);
            }
            table.set_constraints(widths);
            // The cells are padded to their width, which nobody sees but everybody copies.
            for line in table.to_string().lines() {
                let _ = writeln!(text, "{}", line.trim_end());
            }
            text.push('\n');
        }
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let verdict = match self.verdict {
            Level::Ok => "ready",
            Level::Warning => "it will run; the warnings say what would be better",
            Level::Problem => "it will not run well, or not at all, until the problems are gone",
        };
        format!(
            "{} ok, {}, {}: {verdict}",
            self.ok,
            count(self.warnings, "warning", "warnings"),
            count(self.problems, "problem", "problems")
        )
    }
}

/// Widths of level, check and text. A cell has a space on either side.
fn widths(check: u16, all: u16) -> [ColumnConstraint; 3] {
    let level = 2 + Level::Warning.label().len() as u16;
    let check = check.saturating_add(2);
    let text = all.max(LEAST_WIDTH).saturating_sub(level + check).max(20);
    [level, check, text].map(|width| ColumnConstraint::Absolute(Width::Fixed(width)))
}

/// One line for what was found, and one for the remedy.
fn add(table: &mut Table, finding: &Finding) {
    let colour = match finding.level {
        Level::Ok => Color::Green,
        Level::Warning => Color::Yellow,
        Level::Problem => Color::Red,
    };
    let level = Cell::new(finding.level.label()).fg(colour);
    table.add_row(Row::from(vec![level, Cell::new(finding.check), Cell::new(&finding.found)]));
    if let Some(remedy) = &finding.remedy {
        table.add_row(Row::from(vec![Cell::new(""), Cell::new(""), Cell::new(format!("→ {remedy}"))]));
    }
}
