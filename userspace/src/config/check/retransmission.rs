//! The retransmission server of a destination.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};

use super::values::{Checker, quoted};
use crate::config::file::Retransmission;
use crate::config::plan::{DestinationPlan, Network, Rates, RetransmissionPlan, Slots};

const LEAST_RETAIN_BYTES: i64 = 1 << 20;
/// Places are 32 bits wide.
const MOST_RETAIN_BYTES: i64 = 4_000_000_000;
const DEFAULT_RETAIN_BYTES: i64 = 64 << 20;
const MOST_REQUESTS_PER_SECOND: i64 = 1_000_000;
const DEFAULT_REQUESTS_PER_SECOND: i64 = 20_000;
/// Below it a full packet would use up more than a second's worth.
const LEAST_BYTES_PER_SECOND: i64 = 10_000;
const MOST_BYTES_PER_SECOND: i64 = 10_000_000_000;
const DEFAULT_BYTES_PER_SECOND: i64 = 25_000_000;
/// A client gets this part of what all get, where nothing is written.
const CLIENT_SHARE: i64 = 4;
/// Private networks (RFC 1918) and this host itself: a forged source beyond them would make us answer a stranger.
const DEFAULT_ALLOW: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8"];
const MOST_NETWORKS: usize = 64;

pub(super) fn check(
    check: &mut Checker,
    destination: &str,
    written: Option<&Retransmission>,
    earlier: &Slots<DestinationPlan>,
) -> Option<RetransmissionPlan> {
    let written = written?;
    let at = format!("{destination}.retransmission");
    let mut number = |key: &str, value: Option<i64>, default, range, unit| -> i64 {
        check.range(format!("{at}.{key}"), value.unwrap_or(default), range, unit)
    };
    let retained = LEAST_RETAIN_BYTES..=MOST_RETAIN_BYTES;
    let retain_bytes = number("retain_bytes", written.retain_bytes, DEFAULT_RETAIN_BYTES, retained, "bytes");
    let rate = written.requests_per_second;
    let all_requests = 1..=MOST_REQUESTS_PER_SECOND;
    let requests = number("requests_per_second", rate, DEFAULT_REQUESTS_PER_SECOND, all_requests, "requests");
    let rate = written.bytes_per_second;
    let all_bytes = LEAST_BYTES_PER_SECOND..=MOST_BYTES_PER_SECOND;
    let bytes = number("bytes_per_second", rate, DEFAULT_BYTES_PER_SECOND, all_bytes, "bytes");
    let default = (requests / CLIENT_SHARE).max(1);
    let rate = written.client_requests_per_second;
    let client_requests = number(
        "client_requests_per_second",
        rate,
        default,
        1..=requests.max(1),
        "(requests_per_second, for all clients)",
    );
    let default = (bytes / CLIENT_SHARE).max(LEAST_BYTES_PER_SECOND);
    let rate = written.client_bytes_per_second;
    let client_bytes = LEAST_BYTES_PER_SECOND..=bytes.max(LEAST_BYTES_PER_SECOND);
    let client_bytes =
        number("client_bytes_per_second", rate, default, client_bytes, "(bytes_per_second, for all clients)");
    let rates = |requests: i64, bytes: i64| Rates {
        requests_per_second: u32::try_from(requests).unwrap_or_default(),
        bytes_per_second: u64::try_from(bytes).unwrap_or_default(),
    };
    Some(RetransmissionPlan {
        address: address(check, &format!("{at}.address"), &written.address, earlier),
        retain_bytes: usize::try_from(retain_bytes).unwrap_or_default(),
        rates: rates(requests, bytes),
        client_rates: rates(client_requests, client_bytes),
        allow: allow(check, &at, written.allow.as_deref()),
    })
}

/// Where this host listens. A wildcard is refused: an answer must leave from the address that was asked, or a client with a
/// connected socket never sees it.
fn address(check: &mut Checker, key: &str, text: &str, earlier: &Slots<DestinationPlan>) -> SocketAddrV4 {
    let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let is_legal = |address: &SocketAddrV4| {
        let ip = address.ip();
        address.port() > 0 && !ip.is_multicast() && !ip.is_unspecified() && !ip.is_broadcast()
    };
    let Some(address) = text.parse().ok().filter(is_legal) else {
        let reason = "must be an IPv4 address of this host and a UDP port, \"ip:port\", such as \"10.1.0.5:18000\"";
        check.problem(key, quoted(text), reason);
        return nowhere;
    };
    let of = |other: &&DestinationPlan| other.retransmission.as_ref().is_some_and(|other| other.address == address);
    if let Some(other) = earlier.values().find(of) {
        let reason = format!(
            "destination `{}` listens here already, and a request names a session only, not a stream: give each \
             destination its own port",
            other.name
        );
        check.problem(key, quoted(text), reason);
    }
    address
}

fn allow(check: &mut Checker, at: &str, written: Option<&[String]>) -> Vec<Network> {
    let parse = |text: &str| {
        let (address, bits) = text.split_once('/')?;
        Network::new(address.parse().ok()?, bits.parse().ok()?)
    };
    let Some(written) = written else { return DEFAULT_ALLOW.into_iter().filter_map(parse).collect() };
    if !(1..=MOST_NETWORKS).contains(&written.len()) {
        let reason = format!("must name 1 to {MOST_NETWORKS} networks; left out, it is private networks");
        check.problem(format!("{at}.allow"), format!("{} of them", written.len()), reason);
    }
    let mut networks = Vec::new();
    for (i, text) in written.iter().enumerate() {
        match parse(text) {
            Some(network) => networks.push(network),
            None => check.problem(
                format!("{at}.allow[{i}]"),
                quoted(text),
                "must be an IPv4 network, \"address/bits\", without bits behind the prefix, such as \"10.1.0.0/16\"",
            ),
        }
    }
    networks
}
