//! The subscriptions file: what was switched and changed while the handler ran, so that the next start takes it up.
//!
//! Only what differs from the configuration is in it, with the configuration's word of then: where that has changed since,
//! the configuration is newer and counts. Written anew after every change: a temporary file, fsync, rename.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::config::file::{Destination, Feed};
use crate::config::plan::Plan;
use crate::config::{Config, Host, Loaded, Problem};

/// Of the file's form. The first had no changes; others are not read.
const VERSION: u32 = 2;
const WITHOUT_CHANGES: u32 = 1;
/// It holds passwords.
const MODE: u32 = 0o600;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// CRC-32 of the rest, as compact JSON: a half-written or edited file is not believed.
    checksum: u32,
    lines: Vec<Line>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<Changed>,
}

/// Feeds and destinations that differ from the configuration file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changed {
    /// CRC-32 of the sections of the file that these replace: another file is newer, and counts.
    instead_of: u32,
    /// The sections, as in a configuration file.
    sections: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sections {
    #[serde(default)]
    feed: Vec<Feed>,
    #[serde(default)]
    destination: Vec<Destination>,
}

impl Sections {
    fn of(config: &Config) -> Self {
        Self { feed: config.feed.clone(), destination: config.destination.clone() }
    }

    fn text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

impl Changed {
    /// What of `config` differs from the file; `None` if nothing does.
    pub(super) fn between(file: &Config, config: &Config) -> Option<Self> {
        let (written, sections) = (Sections::of(file).text(), Sections::of(config).text());
        (written != sections).then(|| Self { instead_of: crc32fast::hash(written.as_bytes()), sections })
    }

    /// The file's configuration with what was changed; an error says why the changes are dropped.
    fn over(&self, file: &Config) -> Result<Config, String> {
        if crc32fast::hash(Sections::of(file).text().as_bytes()) != self.instead_of {
            return Err("the feeds or destinations of the configuration file have changed since, and count".to_owned());
        }
        let Sections { feed, destination } = toml::from_str(&self.sections).map_err(|error| error.to_string())?;
        Ok(Config { feed, destination, ..file.clone() })
    }
}

/// What is to run at the start: the file, or what was changed while the handler ran last.
#[must_use]
pub fn resume(loaded: Loaded) -> Loaded {
    let Some(path) = &loaded.plan.subscriptions_file else { return loaded };
    // What is wrong with it is said when it is read for the subscriptions.
    let Some(changed) = read(path).ok().and_then(|content| content.changed) else { return loaded };
    let file = path.display();
    let changes = |config: &Config| names(&loaded.config, config);
    let resumed = changed.over(&loaded.config).and_then(|config| {
        let sentences =
            |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let mut plan = config.check_running(&Host::this()).map_err(sentences)?;
        keep_ways(&mut plan, &loaded.plan);
        Ok((config, plan))
    });
    match resumed {
        Ok((config, plan)) => {
            info!(%file, changes = changes(&config), "as it was changed before the restart");
            Loaded { config, plan, file: loaded.file }
        }
        Err(why) => {
            let dropped = toml::from_str::<Sections>(&changed.sections)
                .map(|Sections { feed, destination }| changes(&Config { feed, destination, ..loaded.config.clone() }));
            let kept = set_down(path);
            let kept = kept.map_or_else(|error| format!("nowhere: {error}"), |path| path.display().to_string());
            let dropped = dropped.unwrap_or_default();
            warn!(%file, why, dropped, kept, "changes made while the handler ran last are dropped");
            loaded
        }
    }
}

/// What was removed may come again, and ports are opened and flow rules set at the start only: those of the file's lines and
/// destinations, too.
fn keep_ways(plan: &mut Plan, file: &Plan) {
    plan.workers.iter_mut().zip(&file.workers).for_each(|(worker, of_file)| worker.keep_ports(of_file));
    for (interface, of_file) in plan.interfaces.iter_mut().zip(&file.interfaces) {
        let rules = &mut interface.nic.flow_rules;
        for rule in &of_file.nic.flow_rules {
            // Not beside one that steers the same packets elsewhere.
            if !rules.iter().any(|one| one.group == rule.group && (one.vlan == rule.vlan || one.vlan == 0)) {
                rules.push(*rule);
            }
        }
    }
}

/// Channels and destinations by which two configurations differ, for a person.
fn names(file: &Config, config: &Config) -> String {
    let of = |config: &Config| -> BTreeMap<String, toml::Value> {
        let mut all = BTreeMap::new();
        for feed in &config.feed {
            for channel in &feed.channel {
                let value = toml::Value::try_from(channel).unwrap_or(toml::Value::Boolean(false));
                all.insert(format!("channel {}/{}", feed.name, channel.name), value);
            }
        }
        for destination in &config.destination {
            let value = toml::Value::try_from(destination).unwrap_or(toml::Value::Boolean(false));
            all.insert(format!("destination {}", destination.name), value);
        }
        all
    };
    let (old, new) = (of(file), of(config));
    let removed = old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("{name} removed"));
    let others = new.iter().filter_map(|(name, value)| match old.get(name) {
        None => Some(format!("{name} added")),
        Some(before) if before != value => Some(format!("{name} changed")),
        Some(_) => None,
    });
    removed.chain(others).collect::<Vec<_>>().join("; ")
}

/// Copies the file to where nothing overwrites it but the next that is dropped; where.
fn set_down(path: &Path) -> io::Result<PathBuf> {
    let to = path.with_extension("dropped");
    let text = fs::read(path)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&to)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(&text)?;
    Ok(to)
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
            Ok(content) => content.lines,
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
    pub(super) fn save(
        &self,
        plan: &Plan,
        desired: impl Iterator<Item = bool>,
        changed: Option<&Changed>,
    ) -> io::Result<()> {
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
        let changed = changed.cloned();
        let content = Content { version: VERSION, checksum: checksum(&lines, changed.as_ref())?, lines, changed };
        let text = serde_json::to_string_pretty(&content).map_err(io::Error::other)?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let temporary = self.path.with_extension("tmp");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&temporary)?;
        // It may be left from another version.
        if file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
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

fn checksum(lines: &[Line], changed: Option<&Changed>) -> io::Result<u32> {
    let mut text = serde_json::to_vec(lines).map_err(io::Error::other)?;
    if let Some(changed) = changed {
        text.extend(serde_json::to_vec(changed).map_err(io::Error::other)?);
    }
    Ok(crc32fast::hash(&text))
}

fn read(path: &Path) -> io::Result<Content> {
    let content: Content = serde_json::from_str(&fs::read_to_string(path)?).map_err(io::Error::other)?;
    let version = content.version;
    if ![VERSION, WITHOUT_CHANGES].contains(&version) {
        return Err(io::Error::other(format!("it has version {version}, this program writes {VERSION}")));
    }
    if checksum(&content.lines, content.changed.as_ref())? != content.checksum {
        return Err(io::Error::other("its checksum is wrong: it is damaged, or was edited"));
    }
    Ok(content)
}
