//! Breaks the handler on purpose, to show that the check can fail.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData, MapInfo};
use serde_json::Value;

use crate::lab::Namespace;
use crate::testbed::LineAddress;

/// The filter's map of rules: `GroupKey` to `GroupRule`, eight bytes each.
const MAP: &str = "RULES";

/// Deletes every rule from the maps of the programs that are attached to the lines' interfaces, as a stray `bpftool map
/// delete` would. Maps of other handlers are not touched.
pub(super) fn remove_rules(handler: &Namespace, lines: &[LineAddress]) -> Result<()> {
    for line in lines {
        let program = program_on(handler, &line.interface)?;
        let programs = aya::programs::loaded_programs().filter_map(Result::ok);
        let program = programs.into_iter().find(|p| u64::from(p.id()) == program).context("the program is gone")?;
        let mut removed = 0;
        for id in program.map_ids()?.unwrap_or_default() {
            if MapInfo::from_id(id)?.name_as_str() != Some(MAP) {
                continue;
            }
            let mut rules: HashMap<MapData, [u8; 8], [u8; 8]> = Map::HashMap(MapData::from_id(id)?).try_into()?;
            for key in rules.keys().collect::<Result<Vec<_>, _>>()? {
                rules.remove(&key)?;
                removed += 1;
            }
        }
        ensure!(removed > 0, "{} had no rule to remove", line.interface);
    }
    Ok(())
}

/// Id of the XDP program that is attached to an interface.
pub(super) fn program_on(handler: &Namespace, interface: &str) -> Result<u64> {
    let json = handler.ip(&["-d", "-j", "link", "show", "dev", interface])?;
    let json: Value = serde_json::from_str(&json).context("ip -j link")?;
    json[0]["xdp"]["prog"]["id"].as_u64().with_context(|| format!("no XDP program is attached to {interface}"))
}
