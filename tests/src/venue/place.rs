//! Where the exchange sends: three hosts of its own, or interfaces that are there.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Options, ServerKind};
use crate::demo::serve;
use crate::testbed::{HandlerConfig, LineAddress, Network, OutputAddress, handler_binary, multicast_socket};

/// Two lines, and where the servers are.
pub(super) struct Place {
    network: Option<Network>,
    lines: Vec<LineAddress>,
    /// The exchange's address by line.
    sources: Vec<Ipv4Addr>,
    outputs: Vec<OutputAddress>,
    servers: Vec<SocketAddrV4>,
    config: PathBuf,
    /// Holds the configuration and the handler's control socket.
    directory: tempfile::TempDir,
}

impl Place {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let mut config = HandlerConfig::load(options.config.as_deref())?;
        let (lines, outputs) = (config.lines()?, config.outputs()?);
        ensure!(lines.len() == 2, "the configuration has {} lines instead of one channel's A and B", lines.len());
        let directory = tempfile::Builder::new().prefix("feedhandler-lab-").tempdir().context("temporary directory")?;
        let path = directory.path().join("feedhandler.toml");
        let (network, sources) = if options.interface.is_empty() {
            let network = Network::new(&lines, &outputs)?;
            let sources = lines.iter().map(|line| network.line_sources[&line.interface]).collect();
            (Some(network), sources)
        } else {
            let names = options.interface.iter().cycle().take(lines.len());
            (None, names.map(|name| address_of(name)).collect::<Result<Vec<_>>>()?)
        };
        let wanted = options.servers.iter().filter(|kind| **kind != ServerKind::None).count();
        let mut servers: Vec<SocketAddrV4> =
            sources.iter().map(|source| SocketAddrV4::new(*source, serve::PORT)).collect();
        servers.dedup();
        ensure!(wanted <= servers.len(), "{wanted} servers, but {} addresses of the exchange", servers.len());
        servers.truncate(wanted);
        config.adapt(&directory.path().join("control.sock"), None)?;
        if !servers.is_empty() {
            config.ask_servers(&servers)?;
        }
        config.write(&path)?;
        Ok(Self { network, lines, sources, outputs, servers, config: path, directory })
    }

    pub(super) fn line_sockets(&self) -> Result<Vec<UdpSocket>> {
        match &self.network {
            Some(network) => network.line_sockets(&self.lines),
            None => {
                let pairs = self.lines.iter().zip(&self.sources);
                pairs.map(|(line, source)| multicast_socket(*source, line.group)).collect()
            }
        }
    }

    pub(super) fn server_sockets(&self, count: usize) -> Result<Vec<UdpSocket>> {
        let socket = |address: &SocketAddrV4| match &self.network {
            Some(network) => network.server_socket(*address),
            None => UdpSocket::bind(address).with_context(|| format!("bind to {address}")),
        };
        self.servers.iter().take(count).map(socket).collect()
    }

    /// What to do now, for a person.
    pub(super) fn manual(&self, options: &Options) -> String {
        let mut text = String::new();
        for (line, source) in self.lines.iter().zip(&self.sources) {
            let _ = writeln!(text, "line {} of {}: {} from {source}", line.name, line.channel, line.group);
        }
        for (server, kind) in self.servers.iter().zip(options.servers.iter().filter(|kind| **kind != ServerKind::None))
        {
            let _ = writeln!(text, "re-request server: {server} ({kind:?})");
        }
        let config = self.config.display();
        let Some(network) = &self.network else {
            let _ = writeln!(text, "in the handler's configuration, for each line: its group and source as above, and");
            let servers: Vec<String> = self.servers.iter().map(|server| format!("\"{server}\"")).collect();
            let _ = writeln!(text, "  [feed.channel.recovery]\n  servers = [{}]", servers.join(", "));
            let _ = writeln!(text, "as in {config}, but for the names of the interfaces");
            return text;
        };
        let program = handler_binary(None).unwrap_or_else(|_| "feedhandler".into());
        let (program, control) = (program.display(), self.directory.path().join("control.sock"));
        let (handler, consumer) = (network.handler.name(), network.consumer.name());
        let _ = writeln!(text, "configuration: {config}\n");
        let _ = writeln!(text, "the handler:   ip netns exec {handler} {program} run --config {config}");
        let _ = writeln!(text, "what it does:  feedctl --endpoint unix:{} status", control.display());
        for output in &self.outputs {
            let group = output.group;
            let address = network.consumer_addresses[&output.interface];
            let _ = writeln!(
                text,
                "its output:    {group} at {address}: ip netns exec {consumer} tshark -f \"udp\" -i any"
            );
        }
        let _ = write!(text, "\nCtrl-C ends it and removes the namespaces");
        text
    }
}

/// The first IPv4 address of an interface of this host.
fn address_of(interface: &str) -> Result<Ipv4Addr> {
    let output = std::process::Command::new("ip").args(["-j", "-4", "addr", "show", "dev", interface]).output();
    let output = output.context("cannot run ip")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let json: Value = serde_json::from_slice(&output.stdout).context("ip -j addr")?;
    let local = json[0]["addr_info"][0]["local"].as_str();
    local.and_then(|local| local.parse().ok()).with_context(|| format!("{interface} has no IPv4 address"))
}
