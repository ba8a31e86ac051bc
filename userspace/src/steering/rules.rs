//! The program's rules: which entries its two maps need for what is wanted, and in which order to write them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use xdp_ebpf::{GroupKey, GroupRule, SourceKey};

use super::SteeringError;
use super::filter::{error_number, is_absent, map_error, take};

/// The maps, and what they hold: by group the rules of its sources, the one for any source first.
pub(super) struct RuleMaps {
    groups: HashMap<MapData, [u8; 8], [u8; 8]>,
    sources: HashMap<MapData, [u8; 12], [u8; 8]>,
    held: BTreeMap<GroupKey, Vec<GroupRule>>,
}

impl RuleMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, SteeringError> {
        Ok(Self { groups: take(ebpf, "RULES")?, sources: take(ebpf, "SOURCE_RULES")?, held: BTreeMap::new() })
    }

    /// Adds a rule, or replaces the one of the same group and source.
    pub(super) fn insert(&mut self, key: GroupKey, rule: GroupRule) -> Result<(), SteeringError> {
        let mut wanted = self.held.get(&key).cloned().unwrap_or_default();
        match wanted.binary_search_by_key(&rule.source_ip, |held| held.source_ip) {
            Ok(at) => wanted[at] = rule,
            Err(at) => wanted.insert(at, rule),
        }
        self.write(key, wanted).map(|_| ())
    }

    /// Removes the rule of a group and source; true if there was one.
    pub(super) fn remove(&mut self, key: GroupKey, source_ip: [u8; 4]) -> Result<bool, SteeringError> {
        let mut wanted = self.held.get(&key).cloned().unwrap_or_default();
        let had = wanted.len();
        wanted.retain(|rule| rule.source_ip != source_ip);
        Ok(wanted.len() < had && self.write(key, wanted)?)
    }

    /// Brings the maps to `wanted`, the rules of a group in the order of their sources. False if somebody else had removed
    /// the group already.
    ///
    /// Further sources come first and go last, and the group's entry is replaced in one step between: a frame that
    /// comes meanwhile finds the rule that it found before. What fails has changed nothing that frames see.
    fn write(&mut self, key: GroupKey, wanted: Vec<GroupRule>) -> Result<bool, SteeringError> {
        let had = self.held.get(&key).map_or(&[][..], Vec::as_slice);
        let further = wanted.get(1..).unwrap_or_default();
        for rule in further {
            let source_key = SourceKey { group: key, source_ip: rule.source_ip };
            self.sources.insert(source_key.to_bytes(), rule.to_bytes(), 0).map_err(full)?;
        }
        let mut was_there = true;
        if let Some(first) = wanted.first() {
            let flags = if further.is_empty() { 0 } else { GroupRule::MORE_SOURCES };
            self.groups.insert(key.to_bytes(), GroupRule { flags, ..*first }.to_bytes(), 0).map_err(full)?;
        } else {
            was_there = absent_is_fine(self.groups.remove(&key.to_bytes()))?;
        }
        for rule in had.iter().skip(1).filter(|rule| !further.iter().any(|kept| kept.is_for(rule.source_ip))) {
            let source_key = SourceKey { group: key, source_ip: rule.source_ip };
            absent_is_fine(self.sources.remove(&source_key.to_bytes()))?;
        }
        if wanted.is_empty() {
            self.held.remove(&key)
        } else {
            self.held.insert(key, wanted)
        };
        Ok(was_there)
    }
}

fn full(error: aya::maps::MapError) -> SteeringError {
    match error_number(&error) {
        Some(rustix::io::Errno::TOOBIG | rustix::io::Errno::NOMEM) => SteeringError::RulesFull,
        _ => map_error("cannot write the group rule")(error),
    }
}

/// True if it was removed, false if it was gone.
fn absent_is_fine(removed: Result<(), aya::maps::MapError>) -> Result<bool, SteeringError> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(map_error("cannot remove the group rule")(error)),
    }
}
