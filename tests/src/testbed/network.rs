//! Three hosts and the links between them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::{Context, Result};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use super::config::{LineAddress, OutputAddress};
use crate::lab::{End, Namespace, connect};

/// Three namespaces, connected as the configuration wants it. All go when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) exchange: Namespace,
    pub(crate) handler: Namespace,
    pub(crate) consumer: Namespace,
    /// The exchange's address by the handler's interface.
    pub(crate) line_sources: BTreeMap<String, Ipv4Addr>,
    /// The consumer's address by the handler's interface.
    pub(crate) consumer_addresses: BTreeMap<String, Ipv4Addr>,
    /// Every link, sender first.
    links: Vec<[LinkEnd; 2]>,
    /// MTU of the lines' links.
    line_mtu: u16,
}

/// One end of a link.
#[derive(Clone, Debug)]
struct LinkEnd {
    namespace: String,
    interface: String,
    address: Ipv4Addr,
}

impl Network {
    pub(crate) fn new(lines: &[LineAddress], outputs: &[OutputAddress]) -> Result<Self> {
        let mut network = Self {
            exchange: Namespace::new("exchange")?,
            handler: Namespace::new("handler")?,
            consumer: Namespace::new("consumer")?,
            line_sources: BTreeMap::new(),
            consumer_addresses: BTreeMap::new(),
            links: Vec::new(),
            line_mtu: 1500,
        };
        for line in lines.iter().filter(|line| line.source.is_some()).chain(lines) {
            if network.line_sources.contains_key(&line.interface) {
                continue;
            }
            let number = u8::try_from(network.line_sources.len() + 1).context("too many interfaces")?;
            let source = line.source.unwrap_or(Ipv4Addr::new(10, 0, number, 1));
            network.line_sources.insert(line.interface.clone(), source);
            let near = format!("ex{number}");
            network.link(&near, source, &line.interface, neighbour(source), true)?;
        }
        for output in outputs {
            if network.consumer_addresses.contains_key(&output.interface) {
                continue;
            }
            let number = u8::try_from(network.consumer_addresses.len() + 1).context("too many interfaces")?;
            let address = Ipv4Addr::new(10, 1, number, 2);
            network.consumer_addresses.insert(output.interface.clone(), address);
            network.link(&format!("co{number}"), address, &output.interface, Ipv4Addr::new(10, 1, number, 1), false)?;
        }
        Ok(network)
    }

    /// Links the exchange (or the consumer) with the handler.
    fn link(
        &mut self,
        far: &str,
        far_address: Ipv4Addr,
        near: &str,
        near_address: Ipv4Addr,
        is_line: bool,
    ) -> Result<()> {
        let host = if is_line { &self.exchange } else { &self.consumer };
        let end = |namespace: &Namespace, interface: &str, address| LinkEnd {
            namespace: namespace.name().to_owned(),
            interface: interface.to_owned(),
            address,
        };
        let ends = [end(host, far, far_address), end(&self.handler, near, near_address)];
        self.make(&ends)?;
        let [far_end, near_end] = ends;
        self.links.push(if is_line { [far_end, near_end] } else { [near_end, far_end] });
        Ok(())
    }

    fn make(&self, ends: &[LinkEnd; 2]) -> Result<()> {
        let [a, b] = ends.each_ref().map(|end| End {
            namespace: self.host(&end.namespace),
            name: &end.interface,
            address: end.address,
        });
        connect([a, b])
    }

    /// Makes a link of the handler's again that was deleted, as it was.
    pub(crate) fn relink(&self, interface: &str) -> Result<()> {
        let ours = |end: &LinkEnd| end.interface == interface && end.namespace == self.handler.name();
        let link = self.links.iter().find(|link| link.iter().any(ours));
        let link = link.with_context(|| format!("no link {interface}"))?;
        self.make(link)?;
        self.enlarge(link)
    }

    /// Sets the MTU of both ends of every line's link.
    pub(crate) fn set_line_mtu(&mut self, mtu: u16) -> Result<()> {
        self.line_mtu = mtu;
        self.links.iter().try_for_each(|link| self.enlarge(link))
    }

    fn enlarge(&self, link: &[LinkEnd; 2]) -> Result<()> {
        if self.line_mtu == 1500 || link[0].namespace != self.exchange.name() {
            return Ok(());
        }
        link.iter().try_for_each(|LinkEnd { namespace, interface, .. }| {
            self.host(namespace).ip(&["link", "set", interface, "mtu", &self.line_mtu.to_string()]).map(drop)
        })
    }

    fn host(&self, namespace: &str) -> &Namespace {
        let hosts = [&self.exchange, &self.handler, &self.consumer];
        hosts.into_iter().find(|host| host.name() == namespace).expect("one of the three")
    }

    /// A socket on the exchange that sends to the line's group.
    pub(crate) fn line_socket(&self, line: &LineAddress) -> Result<UdpSocket> {
        let (source, group) = (self.line_sources[&line.interface], line.group);
        self.exchange.enter(|| multicast_socket(source, group))?
    }

    /// A socket for each line.
    pub(crate) fn line_sockets(&self, lines: &[LineAddress]) -> Result<Vec<UdpSocket>> {
        lines.iter().map(|line| self.line_socket(line)).collect()
    }

    /// A socket of a server on the exchange, by the link to one of the handler's interfaces.
    pub(crate) fn server_socket(&self, address: SocketAddrV4) -> Result<UdpSocket> {
        self.exchange.enter(|| UdpSocket::bind(address).with_context(|| format!("bind to {address}")))?
    }

    /// Frames that the links themselves dropped, by the handler's or the sender's interface: a veth's queue was full. Only
    /// those that are not zero.
    pub(crate) fn link_drops(&self) -> Result<BTreeMap<String, u64>> {
        let mut drops = BTreeMap::new();
        for (side, direction) in [(0, "tx"), (1, "rx")] {
            for link in &self.links {
                let LinkEnd { namespace, interface, .. } = &link[side];
                let json = self.host(namespace).ip(&["-s", "-j", "link", "show", "dev", interface])?;
                let json: Value = serde_json::from_str(&json).context("ip -j link")?;
                let dropped = json[0]["stats64"][direction]["dropped"].as_u64().unwrap_or(0);
                if dropped > 0 {
                    drops.insert(format!("{interface} {direction}"), dropped);
                }
            }
        }
        Ok(drops)
    }
}

/// A socket that sends from `source` to `group`, in the calling thread's network namespace.
pub(crate) fn multicast_socket(source: Ipv4Addr, group: SocketAddrV4) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddrV4::new(source, 0).into()).with_context(|| format!("bind to {source}"))?;
    socket.set_multicast_if_v4(&source)?;
    socket.set_multicast_ttl_v4(8)?;
    socket.set_multicast_loop_v4(false)?;
    socket.connect(&group.into()).with_context(|| format!("send from {source} to {group}"))?;
    Ok(socket.into())
}

/// Another address of the same /24.
fn neighbour(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, if d == 2 { 1 } else { 2 })
}
