//! The handler's configuration as the testbed needs it: who is where, and the copy that the handler is started with.
//!
//! Read as plain TOML, because the handler itself is the one to judge it.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

use super::{Mode, allowed_cores};

/// The configuration that is built in.
pub(crate) const DEFAULT: &str = include_str!("../../../config/demo.toml");

/// One line: where the exchange sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineAddress {
    /// `feed/channel`.
    pub(crate) channel: String,
    /// `A` or `B`.
    pub(crate) name: String,
    /// The handler's interface.
    pub(crate) interface: String,
    pub(crate) group: SocketAddrV4,
    /// Address that the exchange sends from, if the handler asks for one.
    pub(crate) source: Option<Ipv4Addr>,
}

/// One destination: where the consumer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputAddress {
    pub(crate) channel: String,
    pub(crate) interface: String,
    pub(crate) group: SocketAddrV4,
}

/// The configuration file.
#[derive(Clone, Debug)]
pub(crate) struct HandlerConfig {
    table: Table,
}

impl HandlerConfig {
    pub(crate) fn load(path: Option<&Path>) -> Result<Self> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => DEFAULT.to_owned(),
        };
        let table: Table = text.parse().context("the configuration is not TOML")?;
        let config = Self { table };
        ensure!(
            !config.lines()?.is_empty() && !config.outputs()?.is_empty(),
            "the testbed needs lines and a destination"
        );
        Ok(config)
    }

    /// Prepares the copy for this run.
    pub(crate) fn adapt(&mut self, socket: &Path, mode: Option<Mode>) -> Result<()> {
        let handler = self.table.get_mut("handler").and_then(Value::as_table_mut).context("[handler] is missing")?;
        handler.insert("grpc".to_owned(), format!("unix:{}", socket.display()).into());
        if let Some(mode) = mode {
            for interface in array_mut(&mut self.table, "interface")? {
                interface.insert("mode".to_owned(), mode.word().into());
            }
        }
        self.unpin(&allowed_cores()?)
    }

    /// Drops what workers are pinned to where it is not among these cores, or the only one, which everybody needs.
    fn unpin(&mut self, allowed: &[usize]) -> Result<()> {
        for worker in array_mut(&mut self.table, "worker")? {
            let core = worker.get("core").and_then(Value::as_integer).and_then(|core| usize::try_from(core).ok());
            if allowed.len() < 2 || core.is_some_and(|core| !allowed.contains(&core)) {
                worker.remove("core");
            }
        }
        Ok(())
    }

    /// Makes every `give_up_ms` ten times as long.
    pub(crate) fn be_patient(&mut self) -> Result<()> {
        // What the handler takes where nothing is written.
        const DEFAULT_GIVE_UP_MS: i64 = 50;
        for feed in array_mut(&mut self.table, "feed")? {
            for channel in array_mut(feed, "channel")? {
                let written = channel.get("give_up_ms").and_then(Value::as_integer).unwrap_or(DEFAULT_GIVE_UP_MS);
                channel.insert("give_up_ms".to_owned(), (written * 10).into());
            }
        }
        Ok(())
    }

    /// Lets the handler ask these servers for what it misses, in every channel.
    pub(crate) fn ask_servers(&mut self, servers: &[SocketAddrV4]) -> Result<()> {
        for feed in array_mut(&mut self.table, "feed")? {
            for channel in array_mut(feed, "channel")? {
                let mut recovery = Table::new();
                let servers: Vec<Value> = servers.iter().map(|server| server.to_string().into()).collect();
                recovery.insert("servers".to_owned(), servers.into());
                channel.insert("recovery".to_owned(), recovery.into());
            }
        }
        Ok(())
    }

    /// Replaces the channels by copies of the first, one for each of `line_counts`, with so many lines (one or two) on
    /// groups of their own. They start with whatever comes first.
    pub(crate) fn replace_channels(&mut self, line_counts: &[usize]) -> Result<()> {
        let first_line = self.lines()?.swap_remove(0);
        let first_output = self.outputs()?.swap_remove(0);
        let feed = array_mut(&mut self.table, "feed")?.next().context("[[feed]] is missing")?;
        let feed_name = text(feed, "name")?.to_owned();
        let template = array_mut(feed, "channel")?.next().context("[[feed.channel]] is missing")?.clone();
        let mut channels = Vec::new();
        let mut destinations = Vec::new();
        for (index, line_count) in line_counts.iter().enumerate() {
            let number = u8::try_from(index + 1).context("more than 255 channels in the capture")?;
            let name = format!("group{number}");
            let lines = (1..).zip(["A", "B"]).take(*line_count).map(|(host, line_name)| {
                let mut line = Table::new();
                line.insert("name".to_owned(), line_name.into());
                line.insert("interface".to_owned(), first_line.interface.as_str().into());
                line.insert("group".to_owned(), format!("239.10.{number}.{host}:{}", first_line.group.port()).into());
                Value::from(line)
            });
            let mut channel = template.clone();
            channel.insert("name".to_owned(), name.as_str().into());
            channel.insert("start".to_owned(), "now".into());
            channel.insert("line".to_owned(), Value::Array(lines.collect()));
            channels.push(channel.into());
            let mut destination = Table::new();
            destination.insert("name".to_owned(), name.as_str().into());
            destination.insert("channel".to_owned(), format!("{feed_name}/{name}").into());
            destination.insert("interface".to_owned(), first_output.interface.as_str().into());
            destination.insert("group".to_owned(), format!("239.20.{number}.1:{}", first_output.group.port()).into());
            destinations.push(destination.into());
        }
        feed.insert("channel".to_owned(), Value::Array(channels));
        self.table.insert("destination".to_owned(), Value::Array(destinations));
        self.retain_interfaces(&[first_line.interface, first_output.interface])
    }

    /// Leaves the first line as the only one, and no interface that nothing uses.
    pub(crate) fn keep_first_line(&mut self) -> Result<()> {
        let first = self.lines()?.swap_remove(0);
        let mut used: Vec<String> = self.outputs()?.into_iter().map(|output| output.interface).collect();
        used.push(first.interface);
        for feed in array_mut(&mut self.table, "feed")? {
            for channel in array_mut(feed, "channel")? {
                let lines = channel.get_mut("line").and_then(Value::as_array_mut).context("[[feed.channel.line]]")?;
                lines.truncate(1);
            }
        }
        self.retain_interfaces(&used)
    }

    /// Where the workers run, and whether they poll without a pause.
    pub(crate) fn place_workers(&mut self, core: Option<usize>, is_spinning: bool) -> Result<()> {
        for worker in array_mut(&mut self.table, "worker")? {
            worker.insert("idle".to_owned(), if is_spinning { "spin" } else { "yield" }.into());
            worker.remove("core");
            if let Some(core) = core {
                worker.insert("core".to_owned(), i64::try_from(core).context("core")?.into());
            }
        }
        Ok(())
    }

    /// Sets `busy_poll_us` of every interface, and that it is preferred to interrupts.
    pub(crate) fn busy_poll(&mut self, busy_poll_us: u32) -> Result<()> {
        for interface in array_mut(&mut self.table, "interface")? {
            interface.insert("busy_poll_us".to_owned(), i64::from(busy_poll_us).into());
            interface.insert("prefer_busy_poll".to_owned(), (busy_poll_us > 0).into());
        }
        Ok(())
    }

    fn retain_interfaces(&mut self, used: &[String]) -> Result<()> {
        let interfaces = self.table.get_mut("interface").and_then(Value::as_array_mut).context("[[interface]]")?;
        let is_used = |name: &str| used.iter().any(|used| used == name);
        interfaces.retain(|interface| interface.get("name").and_then(Value::as_str).is_some_and(is_used));
        Ok(())
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(&self.table).context("cannot write the configuration as TOML")?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Every line, in file order.
    pub(crate) fn lines(&self) -> Result<Vec<LineAddress>> {
        let mut lines = Vec::new();
        for feed in array(&self.table, "feed")? {
            for channel in array(feed, "channel")? {
                let channel_name = format!("{}/{}", text(feed, "name")?, text(channel, "name")?);
                for line in array(channel, "line")? {
                    let source = line.get("source").and_then(Value::as_str);
                    lines.push(LineAddress {
                        channel: channel_name.clone(),
                        name: text(line, "name")?.to_owned(),
                        interface: text(line, "interface")?.to_owned(),
                        group: text(line, "group")?.parse().context("a line's group")?,
                        source: source.map(str::parse).transpose().context("a line's source")?,
                    });
                }
            }
        }
        Ok(lines)
    }

    /// Every destination, in file order.
    pub(crate) fn outputs(&self) -> Result<Vec<OutputAddress>> {
        let output = |destination: &Table| -> Result<OutputAddress> {
            Ok(OutputAddress {
                channel: text(destination, "channel")?.to_owned(),
                interface: text(destination, "interface")?.to_owned(),
                group: text(destination, "group")?.parse().context("a destination's group")?,
            })
        };
        array(&self.table, "destination")?.map(output).collect()
    }

    pub(crate) fn publisher_id(&self) -> Result<u16> {
        let feed = array(&self.table, "feed")?.next().context("[[feed]] is missing")?;
        let id = feed.get("publisher_id").and_then(Value::as_integer).context("publisher_id")?;
        u16::try_from(id).context("publisher_id")
    }

    /// The exchange's newest local midnight, UTC nanoseconds.
    pub(crate) fn midnight_ns(&self) -> Result<u64> {
        let feed = array(&self.table, "feed")?.next().context("[[feed]] is missing")?;
        let now = jiff::Timestamp::now().in_tz(text(feed, "time_zone")?)?;
        u64::try_from(now.start_of_day()?.timestamp().as_nanosecond()).context("before 1970")
    }
}

fn text<'a>(table: &'a Table, key: &str) -> Result<&'a str> {
    table.get(key).and_then(Value::as_str).with_context(|| format!("{key} is missing or no text"))
}

fn array<'a>(table: &'a Table, key: &str) -> Result<impl Iterator<Item = &'a Table>> {
    let array = table.get(key).and_then(Value::as_array).with_context(|| format!("[[{key}]] is missing"))?;
    Ok(array.iter().filter_map(Value::as_table))
}

fn array_mut<'a>(table: &'a mut Table, key: &str) -> Result<impl Iterator<Item = &'a mut Table>> {
    let array = table.get_mut(key).and_then(Value::as_array_mut).with_context(|| format!("[[{key}]] is missing"))?;
    Ok(array.iter_mut().filter_map(Value::as_table_mut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_has_two_lines_and_a_destination() {
        let config = HandlerConfig::load(None).unwrap();
        let lines = config.lines().unwrap();
        assert_eq!(lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        assert!(lines.iter().all(|line| line.channel == "itch/equities" && line.source.is_some()));
        assert_eq!(config.outputs().unwrap()[0].channel, "itch/equities");
        assert_eq!(config.publisher_id().unwrap(), 2);
        let midnight_ns = config.midnight_ns().unwrap();
        let age_ns = crate::consumer::utc_ns() - midnight_ns;
        assert!(age_ns < 25 * 3_600_000_000_000, "{midnight_ns}");
    }

    #[test]
    fn a_capture_gets_its_channels_with_one_or_two_lines() {
        let mut config = HandlerConfig::load(None).unwrap();
        config.adapt(Path::new("/tmp/x.sock"), Some(Mode::Skb)).unwrap();
        config.replace_channels(&[1, 2, 1]).unwrap();
        let text = toml::to_string(&config.table).unwrap();
        let again = HandlerConfig { table: text.parse().unwrap() };
        let (lines, outputs) = (again.lines().unwrap(), again.outputs().unwrap());
        assert_eq!((lines.len(), outputs.len()), (4, 3));
        assert_eq!(
            [&lines[1].channel, &lines[2].channel, &lines[3].channel],
            [&outputs[1].channel, &outputs[1].channel, &outputs[2].channel]
        );
        assert_eq!((lines[1].name.as_str(), lines[2].name.as_str()), ("A", "B"));
        assert_ne!(lines[1].group, lines[2].group);
        assert_eq!(array(&again.table, "interface").unwrap().count(), 2);
        assert!(text.contains("mode = \"skb\"") && text.contains("unix:/tmp/x.sock"));
    }

    #[test]
    fn a_core_that_may_not_be_used_is_dropped_and_patience_is_tenfold() {
        for (allowed, left) in [(&[0, 1][..], Some(1)), (&[2, 3], None), (&[1], None)] {
            let mut config = HandlerConfig::load(None).unwrap();
            config.unpin(allowed).unwrap();
            let worker = array(&config.table, "worker").unwrap().next().unwrap();
            assert_eq!(worker.get("core").and_then(Value::as_integer), left, "{allowed:?}");
        }
        let mut config = HandlerConfig::load(None).unwrap();
        config.be_patient().unwrap();
        assert!(toml::to_string(&config.table).unwrap().contains("give_up_ms = 500\n"));
    }

    #[test]
    fn one_line_on_a_spinning_worker() {
        let mut config = HandlerConfig::load(None).unwrap();
        config.keep_first_line().unwrap();
        config.place_workers(Some(7), true).unwrap();
        config.busy_poll(50).unwrap();
        let lines = config.lines().unwrap();
        assert_eq!(lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(), ["A"]);
        let interfaces: Vec<&Table> = array(&config.table, "interface").unwrap().collect();
        assert_eq!(interfaces.len(), 2);
        assert!(interfaces.iter().all(|interface| interface["busy_poll_us"].as_integer() == Some(50)));
        let worker = array(&config.table, "worker").unwrap().next().unwrap();
        assert_eq!((worker["core"].as_integer(), worker["idle"].as_str()), (Some(7), Some("spin")));
    }
}
