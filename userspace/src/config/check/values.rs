//! Checks of single values; each says what is legal.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;

use crate::config::Problem;

/// Collects what is wrong. Every check returns a value in any case, so that the next one can be made.
#[derive(Debug, Default)]
pub(super) struct Checker {
    /// What is wrong so far.
    pub(super) problems: Vec<Problem>,
}

impl Checker {
    /// Notes one problem.
    pub(super) fn problem(&mut self, key: impl Into<String>, value: impl Display, reason: impl Into<String>) {
        self.problems.push(Problem { line: None, key: key.into(), value: value.to_string(), reason: reason.into() });
    }

    /// A number within `range`.
    pub(super) fn range<T>(&mut self, key: impl Into<String>, value: i64, range: RangeInclusive<i64>, unit: &str) -> T
    where
        T: TryFrom<i64> + Default,
    {
        if !range.contains(&value) {
            self.problem(key, value, format!("must be {} to {} {unit}", range.start(), range.end()));
            return T::default();
        }
        T::try_from(value).unwrap_or_default()
    }

    /// A power of two within `range`.
    pub(super) fn power_of_two(
        &mut self,
        key: impl Into<String>,
        value: i64,
        range: RangeInclusive<i64>,
        unit: &str,
    ) -> u32 {
        if !range.contains(&value) || !value.cast_unsigned().is_power_of_two() {
            let reason = format!("must be a power of two, {} to {} {unit}", range.start(), range.end());
            self.problem(key, value, reason);
            return 0;
        }
        u32::try_from(value).unwrap_or_default()
    }

    /// One of some words; `default` where nothing is written.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: impl Into<String>,
        value: Option<&str>,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(value) = value else { return default };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == value) {
            return *choice;
        }
        self.problem(key, quoted(value), format!("must be {}", one_of(choices.iter().map(|(word, _)| *word))));
        default
    }

    /// A name of ours: it becomes a metric label, part of `feed/channel` and an argument on the command line.
    pub(super) fn name(&mut self, key: impl Into<String>, value: &str, most_bytes: usize) {
        let starts_well = value.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let legal = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !starts_well || !legal || value.len() > most_bytes {
            let reason =
                format!("must be 1 to {most_bytes} letters, digits, `-`, `_` or `.`, beginning with a letter or digit");
            self.problem(key, quoted(value), reason);
        }
    }

    /// A name that no earlier one of its kind has.
    pub(super) fn unique<'a>(
        &mut self,
        key: impl Into<String>,
        value: &str,
        mut earlier: impl Iterator<Item = &'a str>,
        kind: &str,
    ) {
        if earlier.any(|name| name == value) {
            self.problem(key, quoted(value), format!("another {kind} has this name already; names must differ"));
        }
    }

    /// Index of a name; `usize::MAX` (which indexes nothing) when there is no such name.
    pub(super) fn lookup<'a>(
        &mut self,
        key: impl Into<String>,
        value: &str,
        names: impl Iterator<Item = &'a str> + Clone,
        kind: &str,
    ) -> usize {
        if let Some(index) = names.clone().position(|name| name == value) {
            return index;
        }
        let have = one_of(names);
        let reason = if have.is_empty() {
            format!("no such {kind}; none is configured")
        } else {
            format!("no such {kind}; must be {have}")
        };
        self.problem(key, quoted(value), reason);
        usize::MAX
    }

    /// A multicast group and port, `ip:port`.
    pub(super) fn group(&mut self, key: &str, value: &str) -> Option<SocketAddrV4> {
        const FORM: &str = "must be an IPv4 multicast group and UDP port, such as \"239.10.0.1:26400\"";
        let Ok(group) = value.parse::<SocketAddrV4>() else {
            self.problem(key, quoted(value), FORM);
            return None;
        };
        if group.port() == 0 {
            self.problem(key, quoted(value), format!("{FORM}; port 0 receives nothing"));
        } else if !group.ip().is_multicast() {
            self.problem(
                key,
                quoted(value),
                format!(
                    "{} is not multicast: must be 224.0.1.0 to 239.255.255.255 (unicast is not supported yet)",
                    group.ip()
                ),
            );
        } else if group.ip().octets()[..3] == [224, 0, 0] {
            self.problem(
                key,
                quoted(value),
                "224.0.0.0/24 is for routing protocols and never leaves a link: must be 224.0.1.0 to 239.255.255.255",
            );
        }
        Some(group)
    }

    /// A host's own IPv4 address.
    pub(super) fn host_address(&mut self, key: &str, value: Option<&str>) -> Option<Ipv4Addr> {
        let value = value?;
        let address = value.parse::<Ipv4Addr>().ok();
        if address.is_none_or(|ip| ip.is_multicast() || ip.is_unspecified() || ip.is_broadcast()) {
            self.problem(
                key,
                quoted(value),
                "must be a unicast IPv4 address, such as \"10.0.1.1\"; leave the key out for the default",
            );
        }
        address
    }
}

/// A text value as it stands in the file.
pub(super) fn quoted(value: &str) -> String {
    format!("{value:?}")
}

/// "`a`" or "one of `a`, `b`".
pub(super) fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.len() > 1 { format!("one of {}", names.join(", ")) } else { names.concat() }
}
