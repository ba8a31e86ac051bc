//! A piece of a configuration file as edits.
#![forbid(unsafe_code)]

use feedhandler_proto::v1::edit::Edit as What;
use feedhandler_proto::v1::{
    ChannelSpec, DestinationSpec, FeedSpec, LineSpec, RecoverySpec, RetransmissionSpec, SnapshotSpec, SoupBinTcpSpec,
};
use serde::Deserialize;

use crate::config::file::{Channel, Destination, Line};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fragment {
    #[serde(default)]
    feed: Vec<Feed>,
    #[serde(default)]
    destination: Vec<Destination>,
}

/// With its name and channels alone: channels for a feed that is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Feed {
    name: String,
    transport: Option<String>,
    decoder: Option<String>,
    publisher_id: Option<i64>,
    time_zone: Option<String>,
    #[serde(default)]
    channel: Vec<Channel>,
}

/// The edits that add what the text has.
pub(super) fn edits(text: &str) -> Result<Vec<What>, String> {
    let Fragment { feed, destination } = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut edits = Vec::new();
    for Feed { name, transport, decoder, publisher_id, time_zone, channel } in feed {
        let is_there = transport.is_none() && decoder.is_none() && publisher_id.is_none() && time_zone.is_none();
        let channels = channel.iter().map(|channel| channel_spec(&name, channel)).collect::<Result<Vec<_>, _>>()?;
        if is_there {
            edits.extend(channels.into_iter().map(What::AddChannel));
            continue;
        }
        edits.push(What::AddFeed(FeedSpec {
            name,
            transport: transport.unwrap_or_default(),
            decoder: decoder.unwrap_or_default(),
            publisher_id: narrow("publisher_id", publisher_id)?.unwrap_or_default(),
            time_zone: time_zone.unwrap_or_default(),
            channels,
        }));
    }
    for destination in &destination {
        edits.push(What::AddDestination(destination_spec(destination)?));
    }
    Ok(edits)
}

fn narrow<T: TryFrom<i64>>(key: &str, value: Option<i64>) -> Result<Option<T>, String> {
    let narrowed = value.map(|value| T::try_from(value).map_err(|_| format!("{key} = {value}: is out of range")));
    narrowed.transpose()
}

fn channel_spec(feed: &str, from: &Channel) -> Result<ChannelSpec, String> {
    let recovery = from.recovery.as_ref().map(|from| {
        Ok::<_, String>(RecoverySpec {
            servers: from.servers.clone(),
            source: from.source.clone().unwrap_or_default(),
            request_timeout_ms: narrow("request_timeout_ms", from.request_timeout_ms)?,
            requests_per_second: narrow("requests_per_second", from.requests_per_second)?,
            outstanding_requests: narrow("outstanding_requests", from.outstanding_requests)?,
            backfill_ms: narrow("backfill_ms", from.backfill_ms)?,
        })
    });
    let snapshot = from.snapshot.as_ref().map(|from| {
        Ok::<_, String>(SnapshotSpec {
            servers: from.servers.clone(),
            username: from.username.clone().unwrap_or_default(),
            password: from.password.clone().unwrap_or_default(),
            same_session: from.same_session,
            timeout_ms: narrow("timeout_ms", from.timeout_ms)?,
            give_up_ms: narrow("give_up_ms", from.give_up_ms)?,
            max_messages: narrow("max_messages", from.max_messages)?,
            messages_per_second: narrow("messages_per_second", from.messages_per_second)?,
        })
    });
    let soupbintcp = from.soupbintcp.as_ref().map(|from| {
        Ok::<_, String>(SoupBinTcpSpec {
            servers: from.servers.clone(),
            username: from.username.clone(),
            password: from.password.clone(),
            session: from.session.clone().unwrap_or_default(),
            version: from.version.clone().unwrap_or_default(),
            source: from.source.clone().unwrap_or_default(),
            heartbeat_ms: narrow("heartbeat_ms", from.heartbeat_ms)?,
            idle_ms: narrow("idle_ms", from.idle_ms)?,
            reconnect_ms: narrow("reconnect_ms", from.reconnect_ms)?,
            reconnect_max_ms: narrow("reconnect_max_ms", from.reconnect_max_ms)?,
        })
    });
    Ok(ChannelSpec {
        feed: feed.to_owned(),
        name: from.name.clone(),
        worker: from.worker.clone().unwrap_or_default(),
        gap_timeout_us: narrow("gap_timeout_us", from.gap_timeout_us)?,
        give_up_ms: narrow("give_up_ms", from.give_up_ms)?,
        stale_ms: narrow("stale_ms", from.stale_ms)?,
        hold_packets: narrow("hold_packets", from.hold_packets)?,
        max_orders: narrow("max_orders", from.max_orders)?,
        start: from.start.clone().unwrap_or_default(),
        on_gap: from.on_gap.clone().unwrap_or_default(),
        lines: from.line.iter().map(line_spec).collect::<Result<_, _>>()?,
        recovery: recovery.transpose()?,
        snapshot: snapshot.transpose()?,
        soupbintcp: soupbintcp.transpose()?,
    })
}

fn line_spec(from: &Line) -> Result<LineSpec, String> {
    Ok(LineSpec {
        channel: String::new(),
        name: from.name.clone(),
        interface: from.interface.clone(),
        queue: narrow("queue", from.queue)?.unwrap_or_default(),
        group: from.group.clone(),
        vlan: narrow("vlan", from.vlan)?.unwrap_or_default(),
        source: from.source.clone().unwrap_or_default(),
        subscribed: from.subscribed,
    })
}

fn destination_spec(from: &Destination) -> Result<DestinationSpec, String> {
    let retransmission = from.retransmission.as_ref().map(|from| {
        Ok::<_, String>(RetransmissionSpec {
            address: from.address.clone(),
            retain_bytes: narrow("retain_bytes", from.retain_bytes)?,
            requests_per_second: narrow("requests_per_second", from.requests_per_second)?,
            bytes_per_second: narrow("bytes_per_second", from.bytes_per_second)?,
            client_requests_per_second: narrow("client_requests_per_second", from.client_requests_per_second)?,
            client_bytes_per_second: narrow("client_bytes_per_second", from.client_bytes_per_second)?,
            allow: from.allow.clone().unwrap_or_default(),
        })
    });
    Ok(DestinationSpec {
        name: from.name.clone(),
        channel: from.channel.clone(),
        interface: from.interface.clone(),
        queue: narrow("queue", from.queue)?.unwrap_or_default(),
        group: from.group.clone(),
        source: from.source.clone().unwrap_or_default(),
        source_port: narrow("source_port", from.source_port)?,
        vlan: narrow("vlan", from.vlan)?.unwrap_or_default(),
        ttl: narrow("ttl", from.ttl)?,
        format: from.format.clone().unwrap_or_default(),
        payload_bytes: narrow("payload_bytes", from.payload_bytes)?,
        retransmission: retransmission.transpose()?,
        instruments: from.instruments.clone().unwrap_or_default(),
        records: from.records.clone().unwrap_or_default(),
    })
}
