//! The subscriptions file: what was switched while the handler ran, so that the next start takes it up.
//!
//! Only what differs from the configuration is in it, with the configuration's word of then: where that has changed since,
//! the configuration is newer and counts. Written anew after every change: a temporary file, fsync, rename.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::config::plan::Plan;

/// Of the file's form; another one is not read.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// CRC-32 of `lines`, as compact JSON: a half-written or edited file is not believed.
    checksum: u32,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    channel: String,
    line: String,
    group: String,
    /// What the configuration said.
    configured: bool,
    desired: bool,
}

/// The file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What is desired of every line of the plan. A file that is damaged is set aside; then, as without one, it is what the
    /// configuration says.
    pub(super) fn load(&self, plan: &Plan) -> Vec<bool> {
        let mut desired = configured(plan);
        let file = self.path.display();
        let lines = match read(&self.path) {
            Ok(lines) => lines,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return desired,
            Err(error) => {
                let moved_to = self.path.with_extension("bad");
                let is_aside = fs::rename(&self.path, &moved_to).is_ok();
                let moved_to = if is_aside { moved_to.display().to_string() } else { "nowhere".to_owned() };
                warn!(%file, %error, moved_to, "subscriptions file cannot be used: the configuration counts");
                return desired;
            }
        };
        for saved in lines {
            let Some(at) = plan.lines.indices().find(|at| is_of(plan, *at, &saved)) else {
                warn!(%file, channel = saved.channel, line = saved.line, "saved subscription of a line that is no more");
                continue;
            };
            let (channel, line) = (saved.channel, saved.line);
            if plan.lines[at].subscribed == saved.configured {
                info!(channel, line, subscribed = saved.desired, "as it was switched before the restart");
                desired[at] = saved.desired;
            } else {
                info!(channel, line, "the configuration has changed since it was switched, and counts");
            }
        }
        desired
    }

    /// Writes what is desired now.
    ///
    /// # Errors
    /// The system's. The old file is whole then.
    pub(super) fn save(&self, plan: &Plan, desired: impl Iterator<Item = bool>) -> io::Result<()> {
        let differs =
            plan.lines.slots().zip(desired).filter_map(|((_, line), desired)| Some((line.as_ref()?, desired)));
        let differs = differs.filter(|(line, desired)| line.subscribed != *desired);
        let lines: Vec<Line> = differs
            .map(|(line, desired)| Line {
                channel: plan.channels[line.channel].name.clone(),
                line: line.name.clone(),
                group: line.group.to_string(),
                configured: line.subscribed,
                desired,
            })
            .collect();
        let content = Content { version: VERSION, checksum: checksum(&lines)?, lines };
        let text = serde_json::to_string_pretty(&content).map_err(io::Error::other)?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        // The rename, too, must outlive a crash.
        File::open(folder)?.sync_all()
    }
}

/// By line of the plan, what the configuration wants; nothing of a vacant slot.
pub(super) fn configured(plan: &Plan) -> Vec<bool> {
    plan.lines.slots().map(|(_, line)| line.as_ref().is_some_and(|line| line.subscribed)).collect()
}

fn is_of(plan: &Plan, at: usize, saved: &Line) -> bool {
    let line = &plan.lines[at];
    plan.channels[line.channel].name == saved.channel
        && line.name == saved.line
        && line.group.to_string() == saved.group
}

fn checksum(lines: &[Line]) -> io::Result<u32> {
    Ok(crc32fast::hash(&serde_json::to_vec(lines).map_err(io::Error::other)?))
}

fn read(path: &Path) -> io::Result<Vec<Line>> {
    let Content { version, checksum: told, lines } =
        serde_json::from_str(&fs::read_to_string(path)?).map_err(io::Error::other)?;
    if version != VERSION {
        return Err(io::Error::other(format!("it has version {version}, this program writes {VERSION}")));
    }
    if checksum(&lines)? != told {
        return Err(io::Error::other("its checksum is wrong: it is damaged, or was edited"));
    }
    Ok(lines)
}
