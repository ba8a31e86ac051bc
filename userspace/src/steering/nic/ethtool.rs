//! The program `ethtool`: how it is run and what it answers.
//!
//! Debian 12's ethtool 6.1 has JSON for features only; the tables of the others have had the same form for many versions and
//! are read strictly: what is not found where it should be is an error, not a default.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::error::NicError;
use super::setting::{Direction, Feature, Queues, Setting};

const MAXIMUMS: &str = "Pre-set maximums:";
const CURRENT: &str = "Current hardware settings:";

/// The program, for one setting of one interface; the setting is for errors.
pub(super) struct Ethtool<'a> {
    /// Program and first arguments.
    pub(super) program: &'a [OsString],
    /// Kernel name.
    pub(super) interface: &'a str,
    /// What it is asked for.
    pub(super) setting: &'a Setting,
}

/// Why there is no answer.
enum Failure {
    NotStarted(io::Error),
    Said(String),
}

#[derive(Deserialize)]
struct FeatureState {
    active: Option<bool>,
    fixed: Option<bool>,
    requested: Option<bool>,
}

impl Ethtool<'_> {
    /// Queues of one kind; the most that there can be if `most`. `None` if the driver does not count them so.
    pub(super) fn channels(&self, kind: Queues, most: bool) -> Result<Option<u32>, NicError> {
        let label = match kind {
            Queues::Combined => "Combined",
            Queues::Rx => "RX",
            Queues::Tx => "TX",
        };
        self.in_table("-l", most, label)
    }

    /// Descriptors of a ring, in the same way.
    pub(super) fn ring(&self, direction: Direction, most: bool) -> Result<Option<u32>, NicError> {
        let label = match direction {
            Direction::Rx => "RX",
            Direction::Tx => "TX",
        };
        self.in_table("-g", most, label)
    }

    fn in_table(&self, verb: &str, most: bool, label: &str) -> Result<Option<u32>, NicError> {
        let text = self.ask(&[verb])?;
        let heading = if most { MAXIMUMS } else { CURRENT };
        table_number(&text, heading, label).map_err(|reason| self.unreadable(verb, reason))
    }

    /// Coalescing time, microseconds.
    pub(super) fn rx_usecs(&self) -> Result<Option<u32>, NicError> {
        let text = self.ask(&["-c"])?;
        number_of(text.lines(), "rx-usecs").map_err(|reason| self.unreadable("-c", reason))
    }

    /// Whether the driver chooses it: `on` or `off`.
    pub(super) fn adaptive_rx(&self) -> Result<Option<String>, NicError> {
        let text = self.ask(&["-c"])?;
        let line = text.lines().find_map(|line| line.strip_prefix("Adaptive RX:"));
        match line.and_then(|line| line.split_ascii_whitespace().next()) {
            Some("n/a") => Ok(None),
            Some(word @ ("on" | "off")) => Ok(Some(word.to_owned())),
            _ => Err(self.unreadable("-c", "there is no line `Adaptive RX: on|off|n/a`".to_owned())),
        }
    }

    /// Whether a feature is asked for: `on` or `off`. That is what can be put back; whether it is in force can depend on
    /// others (XDP switches LRO off).
    pub(super) fn feature(&self, feature: Feature) -> Result<String, NicError> {
        let state = self.feature_state(feature)?;
        let on = state.requested.filter(|_| state.fixed != Some(true)).or(state.active);
        on.map(|on| if on { "on" } else { "off" }.to_owned())
            .ok_or_else(|| self.unreadable("--json -k", format!("`{}` is neither on nor off", feature.long())))
    }

    /// Refuses a feature that the driver has fixed.
    pub(super) fn check_changeable(&self, feature: Feature) -> Result<(), NicError> {
        match self.feature_state(feature)?.fixed {
            Some(true) => Err(self.unsupported(format!("`{}` is fixed by the driver", feature.long()))),
            _ => Ok(()),
        }
    }

    fn feature_state(&self, feature: Feature) -> Result<FeatureState, NicError> {
        let text = self.ask(&["--json", "-k"])?;
        let unreadable = |reason: String| self.unreadable("--json -k", reason);
        let mut answer: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        let state = answer.first_mut().and_then(|features| features.remove(feature.long()));
        let state = state.ok_or_else(|| unreadable(format!("there is no `{}`", feature.long())))?;
        serde_json::from_value(state).map_err(|error| unreadable(error.to_string()))
    }

    /// Asks; a refusal means that the driver does not have it.
    pub(super) fn ask(&self, verb: &[&str]) -> Result<String, NicError> {
        self.run(verb, &[]).map_err(|failure| match failure {
            Failure::NotStarted(source) => self.not_started(source),
            Failure::Said(reason) => self.unsupported(reason),
        })
    }

    /// Tells; `value` is for the error.
    pub(super) fn tell(&self, verb: &str, arguments: &[&str], value: &str) -> Result<String, NicError> {
        self.run(&[verb], arguments).map_err(|failure| match failure {
            Failure::NotStarted(source) => self.not_started(source),
            Failure::Said(reason) => self.refused(value, reason),
        })
    }

    fn run(&self, verb: &[&str], arguments: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).args(verb).arg(self.interface).args(arguments);
        let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(Failure::NotStarted)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = if complaint.trim().is_empty() { text.as_str() } else { &complaint };
        let reason: Vec<&str> = complaint
            .lines()
            .map(|line| line.trim().trim_start_matches("netlink error: "))
            .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
            .collect();
        let reason = if reason.is_empty() { output.status.to_string() } else { reason.join("; ") };
        Err(Failure::Said(reason))
    }

    fn named(&self) -> (String, String) {
        (self.interface.to_owned(), self.setting.to_string())
    }

    fn not_started(&self, source: io::Error) -> NicError {
        let (interface, setting) = self.named();
        NicError::NoEthtool { interface, setting, program: self.program[0].to_string_lossy().into_owned(), source }
    }

    /// The driver does not have the setting.
    pub(super) fn unsupported(&self, reason: String) -> NicError {
        let (interface, setting) = self.named();
        NicError::Unsupported { interface, setting, reason }
    }

    /// The driver refused the value.
    pub(super) fn refused(&self, value: &str, reason: String) -> NicError {
        let (interface, setting) = self.named();
        NicError::Refused { interface, setting, value: value.to_owned(), reason }
    }

    /// The answer has another form.
    pub(super) fn unreadable(&self, arguments: &str, reason: String) -> NicError {
        let (interface, setting) = self.named();
        NicError::Unreadable { interface, setting, arguments: format!("{arguments} {}", self.interface), reason }
    }
}

/// The number of a line of one part of a table; `None` for `n/a`.
fn table_number(text: &str, heading: &str, label: &str) -> Result<Option<u32>, String> {
    let mut lines = text.lines().map(str::trim_end).skip_while(|line| *line != heading);
    lines.next().ok_or_else(|| format!("there is no line `{heading}`"))?;
    number_of(lines.take_while(|line| *line != CURRENT), label)
}

fn number_of<'a>(mut lines: impl Iterator<Item = &'a str>, label: &str) -> Result<Option<u32>, String> {
    let value = lines.find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
    match value.map(str::trim) {
        Some("n/a") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(|_| format!("`{label}: {number}` is no number")),
        None => Err(format!("there is no line `{label}:`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ethtool 6.1 on a virtio NIC.
    const RINGS: &str = "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t256\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t128\n\
                         Current hardware settings:\nRX:\t\t64\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t32\nRX Buf Len:\t\tn/a\n";

    #[test]
    fn tables_are_read_by_part_and_label() {
        assert_eq!(table_number(RINGS, MAXIMUMS, "RX"), Ok(Some(256)));
        assert_eq!(table_number(RINGS, MAXIMUMS, "TX"), Ok(Some(128)));
        assert_eq!(table_number(RINGS, CURRENT, "RX"), Ok(Some(64)));
        assert_eq!(table_number(RINGS, CURRENT, "TX"), Ok(Some(32)));
        assert_eq!(table_number(RINGS, CURRENT, "RX Mini"), Ok(None));
    }

    #[test]
    fn what_is_not_there_is_no_default() {
        assert!(table_number(RINGS, "Maximums:", "RX").unwrap_err().contains("Maximums:"));
        assert!(table_number(RINGS, MAXIMUMS, "RX Buf Len").is_err(), "it is in the other part");
        assert!(table_number(&RINGS.replace("64", "many"), CURRENT, "RX").unwrap_err().contains("many"));
    }
}
