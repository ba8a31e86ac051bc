//! `/metrics`, `/healthz` and `/readyz` over HTTP.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::latency::Stage;
use crate::metrics::{
    ChannelCounts, DestinationCounts, DropReason, LineCounts, PortCounts, RecoveryCounts, SkewCounts,
};

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Series (name and labels as written) to value, and the type of each family; panics at anything that is not OpenMetrics.
fn parse(text: &str) -> (HashMap<String, f64>, HashMap<String, String>) {
    let (mut series, mut types) = (HashMap::new(), HashMap::new());
    assert!(text.ends_with("# EOF\n"));
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} stands twice");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
        let family = name.split('{').next().unwrap();
        assert!(family.starts_with("feedhandler_") && family.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        assert!(series.insert(name.to_owned(), value).is_none(), "{name} stands twice");
    }
    (series, types)
}

#[tokio::test]
async fn every_counter_is_exported_with_its_value() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    // Every counter of line B gets a value of its own: 1001, 1002, ...
    let mut number = 1000;
    let values: [u64; LineCounts::COUNT] = std::array::from_fn(|_| {
        number += 1;
        number
    });
    bench.shared.lines[1].store(&values);
    bench.shared.channels[0].store(&ChannelCounts { state: 3, orders_live: 5, ..Default::default() }.values());
    let recovery = RecoveryCounts { requests: 77, recovered_messages: 78, rejected_session: 79, ..Default::default() };
    bench.shared.recovery[0].store(&recovery.values());
    let recovered = usize::from(bench.desk.plan().recovery_line(0));
    bench.shared.lines[recovered].store(&LineCounts { first: 81, ..Default::default() }.values());
    let mut skew = SkewCounts::default();
    for ns in [700, 30_000, 40_000, 5_000_000_000] {
        skew.record(ns);
    }
    bench.shared.line_skews[1].store(&skew.values());
    let mut latency = Box::<StageHistograms>::default();
    latency.record_n(Stage::EntryToSent, 400, 3);
    latency.record_n(Stage::EntryToSent, 15_000, 2);
    bench.events.push(Event::Latency(latency)).unwrap();
    bench.desk.poll();
    let (status, text) = bench.served(async |served| get(served.metrics, "/metrics").await).await;
    assert_eq!(status, 200, "{text}");
    let (series, types) = parse(&text);

    for (field, (name, _)) in LineCounts::FIELDS.iter().enumerate().filter(|(_, (name, _))| *name != "last_seen_ns") {
        let name = format!("feedhandler_line_{name}_total{{channel=\"itch/equities\",line=\"B\"}}");
        assert_eq!(series.get(&name), Some(&(values[field] as f64)), "{name}\n{text}");
    }
    let families = |prefix: &str, fields: &[(&str, &str)]| {
        for (name, help) in fields {
            let family = format!("feedhandler_{prefix}_{name}");
            assert!(types.contains_key(&family) || *name == "last_seen_ns", "{family} is missing");
            assert!(text.contains(&format!("# HELP {family} {help}")) || *name == "state" || *name == "last_seen_ns");
        }
    };
    families("line", LineCounts::FIELDS);
    families("channel", ChannelCounts::FIELDS);
    families("destination", DestinationCounts::FIELDS);
    families("port", PortCounts::FIELDS);
    let recovered = |name: &str| series[&format!("feedhandler_{name}{{channel=\"itch/equities\"}}")];
    assert_eq!(["recovery_requests_total", "recovery_recovered_messages_total"].map(recovered), [77.0, 78.0]);
    let rejected = "feedhandler_recovery_rejected_total{channel=\"itch/equities\",reason=\"session\"}";
    assert_eq!(series[rejected], 79.0);
    assert_eq!(series["feedhandler_line_first_total{channel=\"itch/equities\",line=\"recovery\"}"], 81.0);
    assert_eq!(types["feedhandler_channel_orders_live"], "gauge");
    assert_eq!(types["feedhandler_channel_messages"], "counter");
    assert_eq!(series["feedhandler_channel_state{channel=\"itch/equities\",state=\"gap\"}"], 1.0);
    assert_eq!(series["feedhandler_channel_state{channel=\"itch/equities\",state=\"live\"}"], 0.0);
    for reason in DropReason::ALL {
        for place in ["scope=\"destination\",name=\"out\"", "scope=\"port\",name=\"lo/0\""] {
            let label = format!("{place},reason=\"{}\"", reason.label());
            assert!(series.keys().any(|name| name.starts_with("feedhandler_drops_total") && name.contains(&label)));
        }
    }
    let mode = "feedhandler_interface_mode{interface=\"lo\",wanted=\"socket\",in_force=\"socket\"}";
    assert_eq!(series[mode], 1.0);

    assert_eq!(
        ["memberships", "memberships_missing"].map(|name| series[&format!("feedhandler_{name}{{}}")]),
        [2.0, 0.0]
    );
    assert_eq!(types["feedhandler_membership_rejoins"], "counter");
    assert!(series["feedhandler_interface_igmp_version{interface=\"lo\"}"] >= 1.0);
    assert_eq!(types["feedhandler_canary_packets"], "counter");
    assert!(!text.contains("feedhandler_canary_packets_total{"), "none with kernel sockets");

    let skew = |what: &str, labels: &str| series[&format!("feedhandler_line_{what}{{{labels}}}")];
    let bucket = |le: &str| skew("skew_seconds_bucket", &format!("le=\"{le}\",channel=\"itch/equities\",line=\"B\""));
    assert_eq!([bucket("0.000001"), bucket("0.00002"), bucket("0.00005"), bucket("1.0")], [1.0, 1.0, 3.0, 3.0]);
    let line = |line: &str| format!("channel=\"itch/equities\",line=\"{line}\"");
    let counts = ["skew_seconds_count", "led_total"].map(|what| [skew(what, &line("A")), skew(what, &line("B"))]);
    assert_eq!(counts, [[0.0, 4.0], [4.0, 0.0]], "line A was the first of the two");
    assert!((skew("skew_seconds_sum", &line("B")) - 5.000_070_7).abs() < 1e-9);

    let bucket =
        |le: &str| series[&format!("feedhandler_latency_seconds_bucket{{le=\"{le}\",stage=\"entry_to_sent\"}}")];
    assert_eq!([bucket("5e-7"), bucket("0.00001"), bucket("0.00002"), bucket("+Inf")], [3.0, 3.0, 5.0, 5.0]);
    assert_eq!(series["feedhandler_latency_seconds_count{stage=\"entry_to_sent\"}"], 5.0);
    let sum = series["feedhandler_latency_seconds_sum{stage=\"entry_to_sent\"}"];
    assert!((sum - 31.2e-6).abs() < 0.1e-6, "{sum}");
}

#[tokio::test]
async fn ready_means_workers_alive_and_desired_lines_in_force() {
    let mut bench = Bench::new();
    let shared = Arc::clone(&bench.shared);
    let desk = Arc::clone(&bench.desk);
    bench
        .served(async |served| {
            assert_eq!(get(served.metrics, "/healthz").await, (200, "ok\n".to_owned()));
            let (status, text) = get(served.metrics, "/readyz").await;
            assert_eq!(status, 503);
            assert!(text.contains("worker `w0` is not running"), "{text}");
            assert!(text.contains("line A of `itch/equities` is desired but not in force"), "{text}");
            desk.start_lines().unwrap();
            shared.running.store(true, Relaxed);
            shared.heartbeat_ns.store(1, Relaxed);
            let (status, text) = get(served.metrics, "/readyz").await;
            assert!(status == 503 && text.contains("worker `w0` has been silent for"), "{text}");
            shared.heartbeat_ns.store(u64::MAX, Relaxed);
            assert_eq!(get(served.metrics, "/readyz").await, (200, "ready\n".to_owned()));
            assert_eq!(get(served.metrics, "/other").await.0, 404);
        })
        .await;
}

#[tokio::test]
async fn a_stale_channel_is_not_ready_and_is_when_it_is_back() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.shared.running.store(true, Relaxed);
    bench.shared.heartbeat_ns.store(u64::MAX, Relaxed);
    let (shared, desk) = (Arc::clone(&bench.shared), Arc::clone(&bench.desk));
    let enter = |state| shared.channels[0].store(&ChannelCounts { state, ..Default::default() }.values());
    let seen = LineCounts { last_seen_ns: monotonic_ns() - 7_000_000_000, ..Default::default() };
    shared.lines[1].store(&seen.values());
    bench
        .served(async |served| {
            let ready = async || get(served.metrics, "/readyz").await;
            // Nothing heard yet, then live, then over: all as it should be.
            for state in [0, 2, 3, 5] {
                enter(state);
                assert_eq!(ready().await, (200, "ready\n".to_owned()), "state {state}");
            }
            enter(4);
            let (status, text) = ready().await;
            assert_eq!(status, 503);
            assert!(text.starts_with("channel `itch/equities` is stale: nothing came on any line for 7"), "{text}");
            let (_, metrics) = get(served.metrics, "/metrics").await;
            assert!(metrics.contains("feedhandler_channel_state{channel=\"itch/equities\",state=\"stale\"} 1"));
            assert!(metrics.contains("feedhandler_ready{} 0"));
            enter(2);
            assert_eq!(ready().await.0, 200);
            enter(4);
            // Of a channel that nobody wants a line of nothing is expected.
            desk.unsubscribe(&[0, 1], "a test").unwrap();
            assert_eq!(ready().await.0, 200);
        })
        .await;
}
