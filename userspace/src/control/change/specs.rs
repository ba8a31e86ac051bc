//! From the messages of a request to tables of the configuration file.
#![forbid(unsafe_code)]

use feedhandler_proto::v1;

use crate::config::file::{Channel, Destination, Feed, Line, Recovery, Retransmission, Snapshot, SoupBinTcp};

/// What is wrong with a request, by field.
pub(super) type Wrong = Vec<(String, String)>;

/// Reads the fields of one message, whose path in the request is `at`.
pub(super) struct Reader<'a> {
    pub(super) at: String,
    pub(super) wrong: &'a mut Wrong,
}

impl Reader<'_> {
    fn below(&mut self, field: &str) -> Reader<'_> {
        Reader { at: format!("{}.{field}", self.at), wrong: self.wrong }
    }

    fn required(&mut self, field: &str, value: &str) -> String {
        if value.is_empty() {
            let at = format!("{}.{field}", self.at);
            self.wrong.push((at.clone(), format!("{at}: must be given")));
        }
        value.to_owned()
    }

    fn number(&mut self, field: &str, value: Option<u64>) -> Option<i64> {
        let value = value?;
        let number = i64::try_from(value).ok();
        if number.is_none() {
            let at = format!("{}.{field}", self.at);
            self.wrong.push((at.clone(), format!("{at} = {value}: is far beyond every legal value")));
        }
        number
    }

    pub(super) fn feed(mut self, spec: &v1::FeedSpec) -> Feed {
        let mut channels = Vec::new();
        for (i, channel) in spec.channels.iter().enumerate() {
            let reader = self.below(&format!("channels[{i}]"));
            if !channel.feed.is_empty() && channel.feed != spec.name {
                let at = format!("{}.feed", reader.at);
                reader
                    .wrong
                    .push((at.clone(), format!("{at} = \"{}\": must be left out, or `{}`", channel.feed, spec.name)));
            }
            channels.push(reader.channel(channel));
        }
        Feed {
            name: self.required("name", &spec.name),
            transport: self.required("transport", &spec.transport),
            decoder: self.required("decoder", &spec.decoder),
            publisher_id: spec.publisher_id.into(),
            time_zone: self.required("time_zone", &spec.time_zone),
            channel: channels,
        }
    }

    pub(super) fn channel(mut self, spec: &v1::ChannelSpec) -> Channel {
        let mut lines = Vec::new();
        for (i, line) in spec.lines.iter().enumerate() {
            lines.push(self.below(&format!("lines[{i}]")).line(line));
        }
        Channel {
            name: self.required("name", &spec.name),
            worker: given(&spec.worker),
            gap_timeout_us: self.number("gap_timeout_us", spec.gap_timeout_us),
            give_up_ms: self.number("give_up_ms", spec.give_up_ms),
            stale_ms: self.number("stale_ms", spec.stale_ms),
            hold_packets: self.number("hold_packets", spec.hold_packets),
            max_orders: self.number("max_orders", spec.max_orders),
            start: given(&spec.start),
            on_gap: given(&spec.on_gap),
            recovery: spec.recovery.as_ref().map(|spec| self.below("recovery").recovery(spec)),
            snapshot: spec.snapshot.as_ref().map(|spec| self.below("snapshot").snapshot(spec)),
            soupbintcp: spec.soupbintcp.as_ref().map(|spec| self.below("soupbintcp").soupbintcp(spec)),
            line: lines,
        }
    }

    pub(super) fn line(mut self, spec: &v1::LineSpec) -> Line {
        Line {
            name: self.required("name", &spec.name),
            interface: self.required("interface", &spec.interface),
            queue: (spec.queue > 0).then_some(spec.queue.into()),
            group: self.required("group", &spec.group),
            vlan: (spec.vlan > 0).then_some(spec.vlan.into()),
            source: given(&spec.source),
            subscribed: spec.subscribed,
        }
    }

    fn recovery(mut self, spec: &v1::RecoverySpec) -> Recovery {
        Recovery {
            servers: spec.servers.clone(),
            source: given(&spec.source),
            request_timeout_ms: self.number("request_timeout_ms", spec.request_timeout_ms),
            requests_per_second: self.number("requests_per_second", spec.requests_per_second),
            outstanding_requests: self.number("outstanding_requests", spec.outstanding_requests),
            backfill_ms: self.number("backfill_ms", spec.backfill_ms),
        }
    }

    fn snapshot(mut self, spec: &v1::SnapshotSpec) -> Snapshot {
        Snapshot {
            servers: spec.servers.clone(),
            username: given(&spec.username),
            password: given(&spec.password),
            same_session: spec.same_session,
            timeout_ms: self.number("timeout_ms", spec.timeout_ms),
            give_up_ms: self.number("give_up_ms", spec.give_up_ms),
            max_messages: self.number("max_messages", spec.max_messages),
            messages_per_second: self.number("messages_per_second", spec.messages_per_second),
        }
    }

    fn soupbintcp(mut self, spec: &v1::SoupBinTcpSpec) -> SoupBinTcp {
        SoupBinTcp {
            servers: spec.servers.clone(),
            username: spec.username.clone(),
            password: spec.password.clone(),
            session: given(&spec.session),
            version: given(&spec.version),
            source: given(&spec.source),
            heartbeat_ms: self.number("heartbeat_ms", spec.heartbeat_ms),
            idle_ms: self.number("idle_ms", spec.idle_ms),
            reconnect_ms: self.number("reconnect_ms", spec.reconnect_ms),
            reconnect_max_ms: self.number("reconnect_max_ms", spec.reconnect_max_ms),
        }
    }

    pub(super) fn destination(mut self, spec: &v1::DestinationSpec) -> Destination {
        Destination {
            name: self.required("name", &spec.name),
            channel: self.required("channel", &spec.channel),
            interface: self.required("interface", &spec.interface),
            queue: (spec.queue > 0).then_some(spec.queue.into()),
            group: self.required("group", &spec.group),
            source: given(&spec.source),
            source_port: spec.source_port.map(i64::from),
            vlan: (spec.vlan > 0).then_some(spec.vlan.into()),
            ttl: spec.ttl.map(i64::from),
            format: given(&spec.format),
            payload_bytes: self.number("payload_bytes", spec.payload_bytes),
            instruments: some(&spec.instruments),
            records: some(&spec.records),
            retransmission: spec.retransmission.as_ref().map(|spec| self.below("retransmission").retransmission(spec)),
        }
    }

    fn retransmission(mut self, spec: &v1::RetransmissionSpec) -> Retransmission {
        Retransmission {
            address: self.required("address", &spec.address),
            retain_bytes: self.number("retain_bytes", spec.retain_bytes),
            requests_per_second: self.number("requests_per_second", spec.requests_per_second),
            bytes_per_second: self.number("bytes_per_second", spec.bytes_per_second),
            client_requests_per_second: self.number("client_requests_per_second", spec.client_requests_per_second),
            client_bytes_per_second: self.number("client_bytes_per_second", spec.client_bytes_per_second),
            allow: some(&spec.allow),
        }
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}
