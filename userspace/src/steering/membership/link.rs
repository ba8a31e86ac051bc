//! When an interface's groups have to be reported again although the kernel still holds them.
//!
//! The kernel reports its groups when the interface is set up, and when a querier asks. A port that lost its carrier and
//! got it back is another matter: the switch forgot the groups with the link, the kernel does not notice, and until the
//! next query (two minutes, commonly) nothing arrives. The same where the kernel's reports go out before the link is
//! trained.
#![forbid(unsafe_code)]

use std::fs;

/// What is remembered of an interface between two checks.
#[derive(Debug)]
pub(super) struct Link {
    index: u32,
    /// The kernel's counter of carrier changes; `None` if sysfs shows another namespace.
    changes: Option<u64>,
    /// What was reported so far may not have got through.
    is_unheard: bool,
}

impl Link {
    /// An interface as it is now.
    pub(super) fn new(interface: &str, index: u32) -> Self {
        let changes = shows(interface, index).then(|| carrier_changes(interface)).flatten();
        Self { index, changes, is_unheard: changes.is_some() && !has_carrier(interface) }
    }

    /// Its index in the kernel.
    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    /// Whether the groups are to be reported again now: the carrier has come (back) since the last time.
    pub(super) fn is_to_report(&mut self, interface: &str) -> bool {
        let Some(before) = self.changes else { return false };
        if let Some(now) = carrier_changes(interface).filter(|now| *now != before) {
            self.changes = Some(now);
            self.is_unheard = true;
        }
        self.is_unheard && has_carrier(interface) && {
            self.is_unheard = false;
            true
        }
    }
}

fn read(interface: &str, name: &str) -> Option<String> {
    fs::read_to_string(format!("/sys/class/net/{interface}/{name}")).ok()
}

/// Whether sysfs shows this very interface: its mount may show another namespace.
fn shows(interface: &str, index: u32) -> bool {
    read(interface, "ifindex").and_then(|text| text.trim().parse().ok()) == Some(index)
}

fn carrier_changes(interface: &str) -> Option<u64> {
    read(interface, "carrier_changes")?.trim().parse().ok()
}

/// False for an interface that is down: reading fails then.
fn has_carrier(interface: &str) -> bool {
    read(interface, "carrier").is_some_and(|text| text.trim() == "1")
}
