//! Destinations.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;

use xdp_ebpf::MAX_QUEUES;

use super::feeds::{socket_limits, vlan};
use super::values::{Checker, quoted};
use super::{NAME_BYTES, retransmission, route};
use crate::config::file::Destination;
use crate::config::plan::{DestinationPlan, Format, Plan, QueuePlan};

/// A packet must hold the largest block: MoldUDP64 header 20, block length 2, SymbolMappingMsg 176, MboMsg 56 (the clear
/// of an instrument known from an earlier session) and InstrumentDefMsg 520: one ITCH stock directory message gives all.
const LEAST_PAYLOAD_BYTES: i64 = 20 + 2 + 176 + 56 + 520;
/// What fits into an Ethernet frame of 1500 bytes after the IPv4 (20) and UDP (8) headers.
const MOST_PAYLOAD_BYTES: i64 = 1500 - 20 - 8;
const DEFAULT_SOURCE_PORT: i64 = 30_000;
const DEFAULT_TTL: i64 = 8;

const FORMATS: [(&str, Format); 2] = [("dbn", Format::Dbn), ("raw", Format::Raw)];

/// Adds the destinations to the plan.
pub(super) fn check(check: &mut Checker, written: &[Destination], plan: &mut Plan) {
    for (i, destination) in written.iter().enumerate() {
        let at = format!("destination[{i}]");
        check.name(format!("{at}.name"), &destination.name, NAME_BYTES);
        let earlier = written[..i].iter().map(|destination| destination.name.as_str());
        check.unique(format!("{at}.name"), &destination.name, earlier, "destination");
        let channels = plan.channels.values().map(|channel| channel.name.as_str());
        let channel = check.lookup(format!("{at}.channel"), &destination.channel, channels, "channel");
        let interfaces = plan.interfaces.iter().map(|interface| interface.name.as_str());
        let interface = check.lookup(format!("{at}.interface"), &destination.interface, interfaces, "interface");
        let queue = check.range(
            format!("{at}.queue"),
            destination.queue.unwrap_or(0),
            0..=i64::from(MAX_QUEUES) - 1,
            "(`ethtool -l` shows how many the interface has)",
        );
        let vlan = vlan(check, &at, destination.vlan);
        socket_limits(check, &at, plan, QueuePlan { interface, queue }, vlan);
        let mut number = |key: &str, value: Option<i64>, default, range, unit| -> u16 {
            check.range(format!("{at}.{key}"), value.unwrap_or(default), range, unit)
        };
        let source_port = number("source_port", destination.source_port, DEFAULT_SOURCE_PORT, 1..=65_535, "");
        let ttl = number("ttl", destination.ttl, DEFAULT_TTL, 1..=255, "router hops");
        let payload_bytes = number(
            "payload_bytes",
            destination.payload_bytes,
            MOST_PAYLOAD_BYTES,
            LEAST_PAYLOAD_BYTES..=MOST_PAYLOAD_BYTES,
            "bytes (from the largest message block to a full Ethernet frame)",
        );
        let group = group(check, &format!("{at}.group"), &destination.group, plan);
        let retransmission = retransmission::check(check, &at, destination.retransmission.as_ref(), &plan.destinations);
        let format = check.choice(format!("{at}.format"), destination.format.as_deref(), &FORMATS, Format::Dbn);
        let (instruments, records) = (destination.instruments.as_deref(), destination.records.as_deref());
        let route = route::check(check, &at, instruments, records, format);
        plan.destinations.push(DestinationPlan {
            name: destination.name.clone(),
            channel,
            queue: QueuePlan { interface, queue },
            group: group.unwrap_or(SocketAddrV4::new([0; 4].into(), 0)),
            source: check.host_address(&format!("{at}.source"), destination.source.as_deref()),
            source_port,
            vlan,
            ttl: u8::try_from(ttl).unwrap_or_default(),
            format,
            payload_bytes: usize::from(payload_bytes),
            route,
            retransmission,
        });
    }
}

/// An output group must be nobody else's: two streams in one group cannot be told apart, and an input group would come
/// back in.
fn group(check: &mut Checker, key: &str, value: &str, plan: &Plan) -> Option<SocketAddrV4> {
    let group = check.group(key, value)?;
    if let Some(other) = plan.destinations.values().find(|other| other.group == group && group.port() != 0) {
        let reason = format!("destination `{}` sends to this group and port already; give each its own", other.name);
        check.problem(key, quoted(value), reason);
    }
    if let Some(line) = plan.lines.values().find(|line| line.group == group && group.port() != 0) {
        let channel = plan.channels.get(line.channel).map_or("", |channel| channel.name.as_str());
        let reason =
            format!("line {} of `{channel}` receives this group and port: the output would come back in", line.name);
        check.problem(key, quoted(value), reason);
    }
    Some(group)
}
