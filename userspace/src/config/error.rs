//! What is wrong with a configuration, in lines that a person can act on.
#![forbid(unsafe_code)]

use std::fmt;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{file}: cannot read the configuration: {source}")]
    Read {
        /// File name as given.
        file: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a missing key or a value of the wrong type.
    #[error("{file}:{line}: {text}{message}")]
    Syntax {
        /// File name as given.
        file: String,
        /// Line number, from 1.
        line: usize,
        /// What stands on that line, quoted and followed by a colon; empty for an empty line.
        text: String,
        /// What is wrong with it and what is legal.
        message: String,
    },
    /// Values that are illegal, or that do not go together. One line each.
    #[error("{}", join(file, problems))]
    Invalid {
        /// File name as given.
        file: String,
        /// All of them, in the order of the check; never empty.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the key in the file, from 1, where it is known.
    pub line: Option<usize>,
    /// Path of the key, such as `feed[0].channel[1].gap_timeout_us`; indices count from 0.
    pub key: String,
    /// The value as written (or the default that was used).
    pub value: String,
    /// What is legal, or what to do.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            return write!(f, "{}: {}", self.key, self.reason);
        }
        write!(f, "{} = {}: {}", self.key, self.value, self.reason)
    }
}

impl ConfigError {
    /// Makes one line of the parser's error, which is several.
    pub(super) fn syntax(file: &str, source: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start.min(source.len()));
        let line = source.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
        let text = source.lines().nth(line).unwrap_or_default().trim();
        let mut message = error.message().lines().collect::<Vec<_>>().join("; ");
        let (text, is_secret) = without_secrets(source, line, text);
        if is_secret && let Some((_, expected)) = message.split_once(", expected") {
            message = format!("expected{expected}");
        }
        let text = if text.is_empty() { String::new() } else { format!("`{text}`: ") };
        Self::Syntax { file: file.to_owned(), line: line + 1, text, message }
    }
}

/// A line without its value, if that may be a password: errors go to logs.
fn without_secrets<'a>(source: &str, line: usize, text: &'a str) -> (&'a str, bool) {
    let is_table = |text: &&str| text.trim_start().starts_with('[');
    let table = source.lines().take(line + 1).filter(is_table).last().unwrap_or_default();
    let is_secret = ["soupbintcp", "snapshot", "pass"].iter().any(|word| table.contains(word) || text.contains(word));
    let shown = match text.split_once('=') {
        Some((key, _)) if is_secret => key.trim(),
        // The rest of a value that began on a line before.
        None if is_secret && !is_table(&text) => "",
        _ => text,
    };
    (shown, is_secret)
}

fn join(file: &str, problems: &[Problem]) -> String {
    let mut lines = String::new();
    for problem in problems {
        if !lines.is_empty() {
            lines.push('\n');
        }
        match problem.line {
            Some(line) => lines.push_str(&format!("{file}:{line}: {problem}")),
            None => lines.push_str(&format!("{file}: {problem}")),
        }
    }
    lines
}
