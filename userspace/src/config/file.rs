//! The configuration file as written. `config/feedhandler.toml` documents every key; a key that is not here is refused.
//!
//! Numbers are read as `i64` and words as text, so that a wrong one gets our message (key, value, legal range) and not
//! the parser's.
#![forbid(unsafe_code)]

use std::fmt;

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[handler]`
    pub handler: Handler,
    /// `[[interface]]`
    #[serde(default)]
    pub interface: Vec<Interface>,
    /// `[[worker]]`
    #[serde(default)]
    pub worker: Vec<Worker>,
    /// `[[feed]]`
    #[serde(default)]
    pub feed: Vec<Feed>,
    /// `[[destination]]`
    #[serde(default)]
    pub destination: Vec<Destination>,
}

/// `[handler]`: this instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "config/feedhandler.toml documents every key, and a test holds the two together")]
pub struct Handler {
    pub name: String,
    pub grpc: Option<String>,
    pub grpc_tls: Option<String>,
    pub tokens_file: Option<String>,
    pub metrics: Option<String>,
    pub privileges: Option<String>,
    pub state_dir: Option<String>,
    pub subscriptions_file: Option<String>,
    pub latency_log: Option<String>,
    pub latency_log_interval_s: Option<i64>,
    pub latency_log_bytes: Option<i64>,
    pub tls: Option<Tls>,
}

/// `[handler.tls]`: what the control service shows its clients over TCP, and which of them it lets in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Tls {
    pub certificate: String,
    pub key: String,
    pub client_ca: Option<String>,
    pub operators: Option<Vec<String>>,
    pub viewers: Option<Vec<String>>,
}

/// `[[interface]]`: a network interface and how frames are exchanged with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Interface {
    pub name: String,
    pub mode: Option<String>,
    pub busy_poll_us: Option<i64>,
    pub busy_poll_budget: Option<i64>,
    pub prefer_busy_poll: Option<bool>,
    pub reuse_port: Option<bool>,
    pub receive_buffer_bytes: Option<i64>,
    pub unsubscribed: Option<String>,
    pub vlan_stripped: Option<bool>,
    pub nic: Option<Nic>,
}

/// `[interface.nic]`: settings of the interface's driver and NIC while the handler runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Nic {
    pub rx_ring: Option<i64>,
    pub tx_ring: Option<i64>,
    pub channels: Option<i64>,
    pub rx_usecs: Option<i64>,
    pub adaptive_rx: Option<bool>,
    pub napi_defer_hard_irqs: Option<i64>,
    pub gro_flush_timeout_ns: Option<i64>,
    pub napi_threaded: Option<bool>,
    pub rx_vlan_strip: Option<bool>,
    pub gro: Option<bool>,
    pub lro: Option<bool>,
    pub irq_cores: Option<Vec<i64>>,
    pub steer: Option<String>,
}

/// `[[worker]]`: a thread, its core and its frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Worker {
    pub name: String,
    pub core: Option<i64>,
    pub frame_count: Option<i64>,
    pub frame_bytes: Option<i64>,
    pub ring_entries: Option<i64>,
    pub idle: Option<String>,
    pub huge_pages: Option<bool>,
}

/// `[[feed]]`: one exchange product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Feed {
    pub name: String,
    pub transport: String,
    pub decoder: String,
    pub publisher_id: i64,
    pub time_zone: String,
    #[serde(default)]
    pub channel: Vec<Channel>,
}

/// `[[feed.channel]]`: one sequenced stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Channel {
    pub name: String,
    pub worker: Option<String>,
    pub gap_timeout_us: Option<i64>,
    pub give_up_ms: Option<i64>,
    pub stale_ms: Option<i64>,
    pub hold_packets: Option<i64>,
    pub max_orders: Option<i64>,
    pub start: Option<String>,
    pub on_gap: Option<String>,
    pub recovery: Option<Recovery>,
    pub snapshot: Option<Snapshot>,
    pub soupbintcp: Option<SoupBinTcp>,
    #[serde(default)]
    pub line: Vec<Line>,
}

/// `[feed.channel.soupbintcp]`: the servers of a channel that comes over TCP.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct SoupBinTcp {
    pub servers: Vec<String>,
    pub username: String,
    pub password: String,
    pub session: Option<String>,
    pub version: Option<String>,
    pub source: Option<String>,
    pub heartbeat_ms: Option<i64>,
    pub idle_ms: Option<i64>,
    pub reconnect_ms: Option<i64>,
    pub reconnect_max_ms: Option<i64>,
}

impl fmt::Debug for SoupBinTcp {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoupBinTcp")
            .field("servers", &self.servers)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// `[feed.channel.recovery]`: who is asked for what all lines have lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Recovery {
    pub servers: Vec<String>,
    pub source: Option<String>,
    pub request_timeout_ms: Option<i64>,
    pub requests_per_second: Option<i64>,
    pub outstanding_requests: Option<i64>,
    pub backfill_ms: Option<i64>,
}

/// `[feed.channel.snapshot]`: who has a snapshot for a late start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Snapshot {
    pub servers: Vec<String>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub same_session: Option<bool>,
    pub timeout_ms: Option<i64>,
    pub give_up_ms: Option<i64>,
    pub max_messages: Option<i64>,
    pub messages_per_second: Option<i64>,
}

/// `[[feed.channel.line]]`: the A or B copy of a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Line {
    pub name: String,
    pub interface: String,
    pub queue: Option<i64>,
    pub group: String,
    pub vlan: Option<i64>,
    pub source: Option<String>,
    pub subscribed: Option<bool>,
}

/// `[[destination]]`: one output stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Destination {
    pub name: String,
    pub channel: String,
    pub interface: String,
    pub queue: Option<i64>,
    pub group: String,
    pub source: Option<String>,
    pub source_port: Option<i64>,
    pub vlan: Option<i64>,
    pub ttl: Option<i64>,
    pub format: Option<String>,
    pub payload_bytes: Option<i64>,
    pub instruments: Option<Vec<String>>,
    pub records: Option<Vec<String>>,
    pub retransmission: Option<Retransmission>,
}

/// `[destination.retransmission]`: what consumers can have again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Retransmission {
    pub address: String,
    pub retain_bytes: Option<i64>,
    pub requests_per_second: Option<i64>,
    pub bytes_per_second: Option<i64>,
    pub client_requests_per_second: Option<i64>,
    pub client_bytes_per_second: Option<i64>,
    pub allow: Option<Vec<String>>,
}
