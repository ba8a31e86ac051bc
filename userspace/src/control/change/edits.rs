//! The edits of a request, carried out on the configuration that runs.
#![forbid(unsafe_code)]

use std::fmt;

use feedhandler_proto::v1::edit::Edit as What;
use feedhandler_proto::v1::{Edit, LineName, LineSpec, RouteSpec};

use super::specs::{Reader, Wrong, some};
use super::{ChangeError, invalid};
use crate::config::file::{Channel, Destination, Feed, Line};
use crate::config::plan::rebase;
use crate::config::{Config, Host};

/// Edits of one request at most.
const MOST_EDITS: usize = 64;

/// Which field of the request each part of the configuration comes from.
#[derive(Debug, Default)]
pub(in crate::control) struct Origins(Vec<(Part, String)>);

/// A part of a configuration, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Feed(String),
    Channel(String),
    Line(String, String),
    Destination(String),
}

impl Part {
    /// Makes the part in one configuration as it is in another; false if one has none.
    fn copy(&self, from: &Config, to: &mut Config) -> bool {
        fn set<T: Clone>(from: Option<&T>, to: Option<&mut T>) -> bool {
            from.zip(to).map(|(from, to)| to.clone_from(from)).is_some()
        }
        let channel = |config: &Config, name: &str| position(config, name);
        match self {
            Self::Feed(name) => set(
                from.feed.iter().find(|feed| feed.name == *name),
                to.feed.iter_mut().find(|feed| feed.name == *name),
            ),
            Self::Channel(name) => {
                let (Some((i, j)), Some((k, l))) = (channel(from, name), channel(to, name)) else { return false };
                set(Some(&from.feed[i].channel[j]), Some(&mut to.feed[k].channel[l]))
            }
            Self::Line(name, line) => {
                let (Some((i, j)), Some((k, l))) = (channel(from, name), channel(to, name)) else { return false };
                let of_it = |one: &&Line| one.name == *line;
                set(
                    from.feed[i].channel[j].line.iter().find(of_it),
                    to.feed[k].channel[l].line.iter_mut().find(|one| one.name == *line),
                )
            }
            Self::Destination(name) => set(
                from.destination.iter().find(|one| one.name == *name),
                to.destination.iter_mut().find(|one| one.name == *name),
            ),
        }
    }

    /// Path of its key in a configuration.
    fn key(&self, config: &Config) -> Option<String> {
        let channel = |name: &str| {
            let (i, j) = position(config, name)?;
            Some((format!("feed[{i}].channel[{j}]"), &config.feed[i].channel[j]))
        };
        match self {
            Self::Feed(name) => Some(format!("feed[{}]", config.feed.iter().position(|feed| feed.name == *name)?)),
            Self::Channel(name) => Some(channel(name)?.0),
            Self::Line(name, line) => {
                let (at, channel) = channel(name)?;
                Some(format!("{at}.line[{}]", channel.line.iter().position(|one| one.name == *line)?))
            }
            Self::Destination(name) => {
                Some(format!("destination[{}]", config.destination.iter().position(|one| one.name == *name)?))
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feed(name) => write!(f, "feed `{name}`"),
            Self::Channel(name) => write!(f, "channel `{name}`"),
            Self::Line(channel, name) => write!(f, "line {name} of `{channel}`"),
            Self::Destination(name) => write!(f, "destination `{name}`"),
        }
    }
}

impl Origins {
    fn add(&mut self, part: Part, field: &str) {
        self.0.push((part, field.to_owned()));
    }

    /// The field that a key of `config` comes from; the list of edits, if it comes from none alone.
    pub(in crate::control) fn field(&self, config: &Config, key: &str) -> String {
        let tail = |prefix: &str| {
            let tail = key.strip_prefix(prefix)?;
            (tail.is_empty() || tail.starts_with('.')).then(|| tail.to_owned())
        };
        let found = self.0.iter().filter_map(|(part, field)| {
            let prefix = part.key(config)?;
            Some((prefix.len(), field, tail(&prefix)?))
        });
        let Some((_, field, tail)) = found.max_by_key(|(length, ..)| *length) else { return "edits".to_owned() };
        let mut path = field.clone();
        for part in tail.split('.').filter(|part| !part.is_empty()) {
            let (name, index) = part.find('[').map_or((part, ""), |at| part.split_at(at));
            let name = match name {
                "channel" => "channels",
                "line" => "lines",
                name => name,
            };
            path = format!("{path}.{name}{index}");
        }
        path
    }
}

/// What is to run after the edits.
pub(super) fn target(running: &Config, edits: &[Edit]) -> Result<(Config, Origins), ChangeError> {
    let wrong = |reason: &str| Err(ChangeError::Invalid(vec![("edits".to_owned(), reason.to_owned())]));
    match edits.len() {
        0 => return wrong("edits: there is none; at least one"),
        1..=MOST_EDITS => {}
        count => return wrong(&format!("edits: {count} of them; at most {MOST_EDITS} in one request")),
    }
    let mut editor = Editor {
        config: running.clone(),
        origins: Origins::default(),
        wrong: Vec::new(),
        replaced: Vec::new(),
        host: Host::this(),
    };
    for (i, edit) in edits.iter().enumerate() {
        editor.edit(&format!("edits[{i}]"), edit);
    }
    if !editor.wrong.is_empty() {
        return Err(ChangeError::Invalid(editor.wrong));
    }
    editor.judge()?;
    Ok((editor.config, editor.origins))
}

struct Editor {
    config: Config,
    origins: Origins,
    wrong: Wrong,
    /// By which field what was replaced that was there, and the configuration before.
    replaced: Vec<(String, Part, Config)>,
    host: Host,
}

impl Editor {
    fn edit(&mut self, at: &str, edit: &Edit) {
        let Some(what) = &edit.edit else {
            self.wrong(
                at,
                "says nothing: name one of add_feed, remove_feed, add_channel, remove_channel, add_line, \
                            remove_line, add_destination, remove_destination, set_route",
            );
            return;
        };
        match what {
            What::AddFeed(spec) => {
                let at = format!("{at}.add_feed");
                let feed = self.reader(&at).feed(spec);
                self.add_feed(&at, feed)
            }
            What::AddChannel(spec) => {
                let at = format!("{at}.add_channel");
                let channel = self.reader(&at).channel(spec);
                self.add_channel(&at, &spec.feed, channel)
            }
            What::AddLine(spec) => self.add_line(&format!("{at}.add_line"), spec),
            What::AddDestination(spec) => {
                let at = format!("{at}.add_destination");
                let destination = self.reader(&at).destination(spec);
                self.add_destination(&at, destination)
            }
            What::RemoveFeed(name) => self.remove_feed(&format!("{at}.remove_feed"), name),
            What::RemoveChannel(name) => self.remove_channel(&format!("{at}.remove_channel"), name),
            What::RemoveLine(name) => self.remove_line(&format!("{at}.remove_line"), name),
            What::RemoveDestination(name) => {
                if name.is_empty() {
                    self.wrong(&format!("{at}.remove_destination"), "is empty: name a destination");
                }
                self.config.destination.retain(|one| one.name != *name);
            }
            What::SetRoute(route) => self.set_route(&format!("{at}.set_route"), route),
        }
    }

    fn wrong(&mut self, field: &str, reason: &str) {
        self.wrong.push((field.to_owned(), format!("{field}: {reason}")));
    }

    fn reader(&mut self, at: &str) -> Reader<'_> {
        Reader { at: at.to_owned(), wrong: &mut self.wrong }
    }

    fn add_feed(&mut self, at: &str, feed: Feed) {
        let name = feed.name.clone();
        self.origins.add(Part::Feed(name.clone()), at);
        match self.config.feed.iter().position(|one| one.name == name) {
            Some(place) => self.there_already(at, Part::Feed(name), |config| config.feed[place] = feed),
            None => self.config.feed.push(feed),
        }
    }

    fn add_channel(&mut self, at: &str, feed: &str, channel: Channel) {
        let name = format!("{feed}/{}", channel.name);
        self.origins.add(Part::Channel(name.clone()), at);
        if let Some((i, j)) = position(&self.config, &name) {
            return self.there_already(at, Part::Channel(name), |config| config.feed[i].channel[j] = channel);
        }
        match self.config.feed.iter_mut().find(|one| one.name == feed) {
            Some(feed) => feed.channel.push(channel),
            None => {
                let have = self.config.feed.iter().map(|feed| feed.name.as_str()).collect::<Vec<_>>().join(", ");
                self.wrong(&format!("{at}.feed"), &format!("no feed `{feed}`; there are: {have}"));
            }
        }
    }

    fn add_line(&mut self, at: &str, spec: &LineSpec) {
        let line: Line = self.reader(at).line(spec);
        let Some((i, j)) = self.channel_at(&format!("{at}.channel"), &spec.channel) else { return };
        self.origins.add(Part::Line(spec.channel.clone(), line.name.clone()), at);
        let lines = &mut self.config.feed[i].channel[j].line;
        match lines.iter().position(|one| one.name == line.name) {
            Some(k) => {
                let part = Part::Line(spec.channel.clone(), line.name.clone());
                self.there_already(at, part, |config| config.feed[i].channel[j].line[k] = line);
            }
            None => lines.push(line),
        }
    }

    fn add_destination(&mut self, at: &str, destination: Destination) {
        let name = destination.name.clone();
        self.origins.add(Part::Destination(name.clone()), at);
        match self.config.destination.iter().position(|one| one.name == name) {
            Some(place) => {
                let replace = |config: &mut Config| config.destination[place] = destination;
                self.there_already(at, Part::Destination(name), replace);
            }
            None => self.config.destination.push(destination),
        }
    }

    /// What is there already in the same form is no change. In another form, later edits may make it the same again, as
    /// they do when a request is repeated: that is judged at the end.
    fn there_already(&mut self, at: &str, part: Part, replace: impl FnOnce(&mut Config)) {
        let mut replaced = self.config.clone();
        replace(&mut replaced);
        if !is_same(&self.config, &replaced, &self.host) {
            let before = std::mem::replace(&mut self.config, replaced);
            self.replaced.push((at.to_owned(), part, before));
        }
    }

    /// What was replaced must be as it was.
    fn judge(&mut self) -> Result<(), ChangeError> {
        // The oldest form last: it is what runs.
        for (at, part, before) in std::mem::take(&mut self.replaced).into_iter().rev() {
            let mut restored = self.config.clone();
            if !part.copy(&before, &mut restored) {
                continue;
            }
            self.config
                .check_running(&self.host)
                .map_err(|problems| invalid(problems, &self.config, Some(&self.origins)))?;
            if !is_same(&restored, &self.config, &self.host) {
                let text = format!("{at}: {part} is there already, with other settings; remove it first");
                return Err(ChangeError::AlreadyExists(text));
            }
            self.config = restored;
        }
        Ok(())
    }

    fn remove_feed(&mut self, at: &str, name: &str) {
        if name.is_empty() {
            self.wrong(at, "is empty: name a feed");
        }
        self.config.feed.retain(|feed| feed.name != *name);
        let of_it = format!("{name}/");
        self.config.destination.retain(|one| !one.channel.starts_with(&of_it));
    }

    fn remove_channel(&mut self, at: &str, name: &str) {
        if name.split_once('/').is_none_or(|(feed, channel)| feed.is_empty() || channel.is_empty()) {
            self.wrong(at, &format!("`{name}` is no channel: write feed/channel"));
            return;
        }
        if let Some((i, j)) = position(&self.config, name) {
            self.config.feed[i].channel.remove(j);
            self.config.destination.retain(|one| one.channel != name);
        }
        // A feed is its channels.
        self.config.feed.retain(|feed| !feed.channel.is_empty());
    }

    fn remove_line(&mut self, at: &str, name: &LineName) {
        let LineName { channel, line } = name;
        if !channel.contains('/') {
            self.wrong(&format!("{at}.channel"), &format!("`{channel}` is no channel: write feed/channel"));
        }
        if line.is_empty() {
            self.wrong(&format!("{at}.line"), "is empty: name a line, A or B");
        }
        // With its channel it is gone, too.
        let Some((i, j)) = position(&self.config, channel) else { return };
        let lines = &mut self.config.feed[i].channel[j].line;
        if lines.len() == 1 && lines[0].name == *line {
            self.wrong(at, &format!("line {line} is the last of `{channel}`: remove the channel"));
            return;
        }
        lines.retain(|one| one.name != *line);
    }

    fn set_route(&mut self, at: &str, route: &RouteSpec) {
        self.origins.add(Part::Destination(route.destination.clone()), at);
        match self.config.destination.iter_mut().find(|one| one.name == route.destination) {
            Some(destination) => {
                destination.instruments = some(&route.instruments);
                destination.records = some(&route.records);
            }
            None => {
                let have = self.config.destination.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
                let reason = format!("no destination `{}`; there are: {have}", route.destination);
                self.wrong(&format!("{at}.destination"), &reason);
            }
        }
    }

    /// Where a channel is that has to be there.
    fn channel_at(&mut self, field: &str, name: &str) -> Option<(usize, usize)> {
        let found = position(&self.config, name);
        if found.is_none() {
            let channels = self.config.feed.iter().flat_map(|feed| feed.channel.iter().map(move |one| (feed, one)));
            let have = channels.map(|(feed, one)| format!("{}/{}", feed.name, one.name)).collect::<Vec<_>>().join(", ");
            self.wrong(field, &format!("no channel `{name}`; there are: {have}"));
        }
        found
    }
}

/// Whether two configurations are right and run the same, in whatever order it is written.
fn is_same(one: &Config, other: &Config, host: &Host) -> bool {
    let plans = one.check_running(host).ok().zip(other.check_running(host).ok());
    plans.is_some_and(|(one, other)| rebase(&one, &other).is_ok_and(|rebased| rebased.is_nothing()))
}

/// Of a channel, "feed/channel": its feed, and its place there.
fn position(config: &Config, name: &str) -> Option<(usize, usize)> {
    let (feed, channel) = name.split_once('/')?;
    let i = config.feed.iter().position(|one| one.name == feed)?;
    Some((i, config.feed[i].channel.iter().position(|one| one.name == channel)?))
}
