//! Feeds, their channels and lines.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::SocketAddrV4;

use xdp_ebpf::{MAX_LINES, MAX_QUEUES};

use super::values::{Checker, quoted};
use super::{For, NAME_BYTES, recovery, snapshot, soup};
use crate::config::file::{Channel, Feed, Line};
use crate::config::midnights::time_zone;
use crate::config::plan::{ChannelPlan, DecoderKind, LinePlan, Mode, OnGap, Plan, QueuePlan, StartAt, TransportKind};

const DEFAULT_GAP_TIMEOUT_US: i64 = 500;
const DEFAULT_GIVE_UP_MS: i64 = 50;
const DEFAULT_STALE_MS: i64 = 5000;
const DEFAULT_HOLD_PACKETS: i64 = 1024;
const DEFAULT_MAX_ORDERS: i64 = 1_000_000;

const TRANSPORTS: [(&str, TransportKind); 1] = [("moldudp64", TransportKind::MoldUdp64)];
const DECODERS: [(&str, DecoderKind); 1] = [("itch50", DecoderKind::Itch50)];
const STARTS: [(&str, StartAt); 3] =
    [("now", StartAt::Now), ("first", StartAt::First), ("snapshot", StartAt::Snapshot { give_up_ns: 0 })];
const ON_GAPS: [(&str, OnGap); 2] = [("hold", OnGap::Hold), ("pass", OnGap::Pass)];

/// What all channels of a feed have in common.
#[derive(Clone, Copy)]
struct Kind {
    transport: TransportKind,
    decoder: DecoderKind,
    publisher_id: u16,
}

/// Adds channels and lines to the plan; returns each line's receive queue.
pub(super) fn check(check: &mut Checker, feeds: &[Feed], plan: &mut Plan, purpose: For) -> Vec<QueuePlan> {
    let mut queues = Vec::new();
    for (i, feed) in feeds.iter().enumerate() {
        let at = format!("feed[{i}]");
        check.name(format!("{at}.name"), &feed.name, NAME_BYTES);
        check.unique(format!("{at}.name"), &feed.name, feeds[..i].iter().map(|feed| feed.name.as_str()), "feed");
        if let Err(error) = time_zone(&feed.time_zone) {
            check.problem(format!("{at}.time_zone"), quoted(&feed.time_zone), error.to_string());
        }
        let kind = Kind {
            transport: check.choice(
                format!("{at}.transport"),
                Some(&feed.transport),
                &TRANSPORTS,
                TransportKind::MoldUdp64,
            ),
            decoder: check.choice(format!("{at}.decoder"), Some(&feed.decoder), &DECODERS, DecoderKind::Itch50),
            publisher_id: check.range(
                format!("{at}.publisher_id"),
                feed.publisher_id,
                1..=65_535,
                "(a DBN publisher: 2 is Nasdaq TotalView-ITCH; from 60000 on they are private)",
            ),
        };
        if feed.channel.is_empty() {
            check.problem(format!("{at}.channel"), "", "the feed has no channel: add a [[feed.channel]] below it");
        }
        for (j, channel) in feed.channel.iter().enumerate() {
            channel_of(check, &format!("{at}.channel[{j}]"), (feed, kind), channel, plan, &mut queues);
        }
    }
    if feeds.is_empty() && purpose == For::Start {
        check.problem(
            "feed",
            "",
            "there is none: add a [[feed]] with a [[feed.channel]] and its [[feed.channel.line]]",
        );
    }
    let count = plan.lines.len() + plan.channels.values().filter(|channel| channel.soup.is_some()).count();
    if count > MAX_LINES as usize {
        check.problem("feed", "", format!("{count} lines in all; at most {MAX_LINES} can be told apart"));
    }
    duplicates(check, plan, feeds);
    queues
}

fn channel_of(
    check: &mut Checker,
    at: &str,
    (feed, kind): (&Feed, Kind),
    channel: &Channel,
    plan: &mut Plan,
    queues: &mut Vec<QueuePlan>,
) {
    check.name(format!("{at}.name"), &channel.name, NAME_BYTES);
    let name = format!("{}/{}", feed.name, channel.name);
    check.unique(format!("{at}.name"), &name, plan.channels.values().map(|plan| plan.name.as_str()), "channel");
    let mut number = |key: &str, value: Option<i64>, default, range, unit| -> u64 {
        check.range(format!("{at}.{key}"), value.unwrap_or(default), range, unit)
    };
    let gap_timeout_us =
        number("gap_timeout_us", channel.gap_timeout_us, DEFAULT_GAP_TIMEOUT_US, 1..=10_000_000, "microseconds");
    let give_up_ms = number("give_up_ms", channel.give_up_ms, DEFAULT_GIVE_UP_MS, 1..=600_000, "milliseconds");
    let stale_ms = number("stale_ms", channel.stale_ms, DEFAULT_STALE_MS, 10..=86_400_000, "milliseconds");
    let hold_packets = number("hold_packets", channel.hold_packets, DEFAULT_HOLD_PACKETS, 1..=65_536, "packets");
    let max_orders = number("max_orders", channel.max_orders, DEFAULT_MAX_ORDERS, 1000..=200_000_000, "orders");
    if give_up_ms > 0 && give_up_ms.saturating_mul(1000) < gap_timeout_us {
        check.problem(
            format!("{at}.give_up_ms"),
            give_up_ms,
            format!("must not be shorter than gap_timeout_us = {gap_timeout_us}, which comes first"),
        );
    }
    let on_gap = check.choice(format!("{at}.on_gap"), channel.on_gap.as_deref(), &ON_GAPS, OnGap::Hold);
    if on_gap == OnGap::Pass && channel.recovery.is_some() {
        check.problem(
            format!("{at}.on_gap"),
            quoted("pass"),
            "must be `hold` with [feed.channel.recovery]: a gap is declared lost before its servers would be asked",
        );
    }
    let index = plan.channels.len();
    let lines = lines_of(check, at, channel, index, plan, queues);
    let mut start = check.choice(format!("{at}.start"), channel.start.as_deref(), &STARTS, StartAt::Now);
    let snapshot = snapshot::check(check, at, channel.snapshot.as_ref(), &mut start);
    if snapshot.is_some() && channel.soupbintcp.is_some() {
        let reason = "must not stand beside soupbintcp, which replays the session: take start = \"first\"";
        check.problem(format!("{at}.snapshot"), "given".to_owned(), reason);
    }
    if channel.recovery.is_some() && channel.soupbintcp.is_some() {
        let reason = "must not stand beside soupbintcp: what its servers do not have nobody has";
        check.problem(format!("{at}.recovery"), "given", reason);
    }
    plan.channels.push(ChannelPlan {
        worker: worker_of(check, at, channel, plan),
        feed: feed.name.clone(),
        transport: kind.transport,
        decoder: kind.decoder,
        publisher_id: kind.publisher_id,
        time_zone: feed.time_zone.clone(),
        gap_timeout_us,
        give_up_ms,
        stale_ms,
        hold_packets: usize::try_from(hold_packets).unwrap_or_default(),
        max_orders: usize::try_from(max_orders).unwrap_or_default(),
        start,
        snapshot,
        recovery: recovery::check(
            check,
            &format!("{at}.recovery"),
            channel.recovery.as_ref(),
            give_up_ms,
            gap_timeout_us,
        ),
        soup: soup::check(check, &format!("{at}.soupbintcp"), channel.soupbintcp.as_ref(), !lines.is_empty()),
        on_gap,
        lines,
        name,
    });
}

/// The only worker needs no mention.
fn worker_of(check: &mut Checker, at: &str, channel: &Channel, plan: &Plan) -> usize {
    let names = plan.workers.iter().map(|worker| worker.name.as_str());
    match (&channel.worker, plan.workers.len()) {
        (None, 0 | 1) => 0,
        (Some(name), _) => check.lookup(format!("{at}.worker"), name, names, "worker"),
        (None, _) => {
            let have = names.collect::<Vec<_>>().join(", ");
            check.problem(format!("{at}.worker"), "", format!("there are several workers: say which ({have})"));
            usize::MAX
        }
    }
}

fn lines_of(
    check: &mut Checker,
    at: &str,
    channel: &Channel,
    index: usize,
    plan: &mut Plan,
    queues: &mut Vec<QueuePlan>,
) -> Vec<usize> {
    let mut lines = Vec::new();
    for (k, line) in channel.line.iter().enumerate() {
        let at = format!("{at}.line[{k}]");
        if line.name != "A" && line.name != "B" {
            check.problem(format!("{at}.name"), quoted(&line.name), "must be `A` or `B`");
        }
        let earlier = channel.line[..k].iter().map(|line| line.name.as_str());
        check.unique(format!("{at}.name"), &line.name, earlier, "line of this channel");
        lines.push(plan.lines.len());
        let (line, queue) = line_of(check, &at, line, index, plan);
        plan.lines.push(line);
        queues.push(queue);
    }
    if lines.is_empty() && channel.soupbintcp.is_none() {
        check.problem(
            format!("{at}.line"),
            "",
            "the channel has no line: add a [[feed.channel.line]] for A, and one for B if there is one, or a \
             [feed.channel.soupbintcp] if it comes over TCP",
        );
    }
    lines
}

fn line_of(check: &mut Checker, at: &str, line: &Line, channel: usize, plan: &Plan) -> (LinePlan, QueuePlan) {
    let names = plan.interfaces.iter().map(|interface| interface.name.as_str());
    let interface = check.lookup(format!("{at}.interface"), &line.interface, names, "interface");
    let queue = check.range(
        format!("{at}.queue"),
        line.queue.unwrap_or(0),
        0..=i64::from(MAX_QUEUES) - 1,
        "(`ethtool -l` shows how many the interface has)",
    );
    let group = check.group(&format!("{at}.group"), &line.group);
    let vlan = vlan(check, at, line.vlan);
    socket_limits(check, at, plan, QueuePlan { interface, queue }, vlan);
    let source = check.host_address(&format!("{at}.source"), line.source.as_deref());
    let subscribed = line.subscribed.unwrap_or(true);
    let group = group.unwrap_or(SocketAddrV4::new([0; 4].into(), 0));
    let is_stripped = plan.interfaces.get(interface).is_some_and(|interface| interface.vlan_stripped);
    let vlan_seen = if is_stripped { 0 } else { vlan };
    (
        LinePlan { name: line.name.clone(), channel, interface, queue, group, vlan, vlan_seen, source, subscribed },
        QueuePlan { interface, queue },
    )
}

/// A VLAN id.
pub(super) fn vlan(check: &mut Checker, at: &str, vlan: Option<i64>) -> u16 {
    check.range(format!("{at}.vlan"), vlan.unwrap_or(0), 0..=4094, "(0 = untagged)")
}

/// Kernel sockets see neither the queue that a packet came in on nor its VLAN tag, and choose neither for what they send.
pub(super) fn socket_limits(check: &mut Checker, at: &str, plan: &Plan, queue: QueuePlan, vlan: u16) {
    let Some(interface) = plan.interfaces.get(queue.interface).filter(|plan| plan.mode == Mode::Socket) else { return };
    if queue.queue != 0 {
        check.problem(
            format!("{at}.queue"),
            queue.queue,
            format!("must be 0: interface `{}` has mode `socket`, which knows no queues", interface.name),
        );
    }
    if vlan != 0 {
        check.problem(
            format!("{at}.vlan"),
            vlan,
            format!(
                "must be 0: interface `{0}` has mode `socket`, where the kernel has the tags; make a VLAN interface \
                 (`ip link add link {0} name {0}.{vlan} type vlan id {vlan}`), name it as the interface, and set vlan = 0",
                interface.name
            ),
        );
    }
}

/// Of one group on one interface each line must have a source of its own, or be the only one: the filter, and a person,
/// must be able to say which line a packet is of.
fn duplicates(check: &mut Checker, plan: &Plan, feeds: &[Feed]) {
    let mut keys = feeds.iter().enumerate().flat_map(|(i, feed)| {
        let lines = feed.channel.iter().enumerate().map(|(j, channel)| (j, channel.line.len()));
        lines.flat_map(move |(j, count)| (0..count).map(move |k| format!("feed[{i}].channel[{j}].line[{k}].group")))
    });
    let mut seen: HashMap<_, Vec<&LinePlan>> = HashMap::new();
    for line in plan.lines.values() {
        let key = keys.next().unwrap_or_default();
        if line.group.port() == 0 || line.interface == usize::MAX {
            continue;
        }
        let earlier = seen.entry((line.interface, line.key())).or_default();
        if let Some(reason) = earlier.iter().find_map(|other| conflict(plan, line, other)) {
            check.problem(key, quoted(&line.group.to_string()), reason);
        }
        earlier.push(line);
    }
}

/// Why two lines of one group, as the filter sees it, cannot be told apart.
fn conflict(plan: &Plan, line: &LinePlan, other: &LinePlan) -> Option<String> {
    let interface = &plan.interfaces[line.interface].name;
    let name = format!("line {} of `{}`", other.name, feed_channel(plan, other));
    let is_same_source = line.source == other.source;
    if !is_same_source && line.source.is_some() && other.source.is_some() {
        return None;
    }
    Some(if line.vlan != other.vlan {
        format!(
            "{name} takes it in vlan {}, and interface `{interface}` has vlan_stripped = true, so that no tag tells vlan {} \
             from it; keep the tags (`ethtool -K {interface} rxvlan off`) and set vlan_stripped = false, or give each line \
             a `source` of its own",
            other.vlan, line.vlan
        )
    } else if is_same_source {
        format!("duplicate group: {name} takes it already on interface `{interface}`, vlan {}", line.vlan)
    } else {
        let taken = other.source.map_or_else(|| "from any source".to_owned(), |source| format!("from {source}"));
        let wanted = line.source.map_or_else(|| "from any".to_owned(), |source| format!("from {source}"));
        format!(
            "{name} takes it {taken} on interface `{interface}`, vlan {}, and this one {wanted}: give each line a `source` \
             of its own",
            line.vlan
        )
    })
}

fn feed_channel(plan: &Plan, line: &LinePlan) -> String {
    plan.channels.get(line.channel).map_or_else(String::new, |channel| channel.name.clone())
}
