//! Status and latencies as streams.
#![forbid(unsafe_code)]

use std::time::Duration;

use feedhandler_proto::v1::{
    GetLatencyRequest, GetLatencyResponse, WatchEventsRequest, WatchLatencyRequest, WatchStatusRequest,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Streaming};

use super::*;
use crate::control::access::places::Door;
use crate::control::stream;
use crate::control::watch::MOST_WATCHERS;
use crate::latency::Stage;

const PATIENCE: Duration = Duration::from_secs(10);

fn recorded(ns: u64, count: u64) -> Event {
    let mut latency = Box::<StageHistograms>::default();
    latency.record_n(Stage::EntryToSent, ns, count);
    Event::Latency(latency)
}

async fn next<T>(answers: &mut Streaming<T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, answers.message()).await.expect("an answer comes").unwrap()
}

/// Count and longest of the whole way.
fn sums(answer: &GetLatencyResponse) -> (u64, u64) {
    let summary = answer.stages[3].summary.clone().unwrap();
    assert_eq!(summary.stage, "entry_to_sent");
    (summary.count, summary.max_ns)
}

#[tokio::test]
async fn each_interval_has_what_was_recorded_in_it_and_begins_where_the_one_before_ended() {
    let mut bench = Bench::new();
    let mut reported = std::mem::replace(&mut bench.events, rtrb::RingBuffer::new(1).0);
    let mut open = bench
        .served(async |served| {
            let mut client = served.client().await;
            let mut answers = client.watch_latency(WatchLatencyRequest { interval_ms: 0 }).await.unwrap().into_inner();
            let (mut seen, mut until_ns) = (Vec::new(), 0);
            for (ns, count) in [(70_000_000, 10), (5_000, 20), (3_000, 1)] {
                reported.push(recorded(ns, count)).unwrap();
                loop {
                    let answer = next(&mut answers).await.expect("the stream goes on");
                    assert!(answer.from_ns < answer.to_ns && [0, answer.from_ns].contains(&until_ns), "{answer:?}");
                    let length_ms = (answer.to_ns - answer.from_ns) / 1_000_000;
                    assert!((700..2_000).contains(&length_ms), "{length_ms} ms");
                    until_ns = answer.to_ns;
                    if sums(&answer).0 > 0 {
                        seen.push(sums(&answer));
                        break;
                    }
                    assert!(answer.stages[3].percentiles.is_empty());
                }
            }
            let near = |(count, longest): (u64, u64)| (count, (longest + 50) / 1_000);
            assert!(seen[0].0 == 10 && seen[0].1.abs_diff(70_000_000) < 70_000, "{seen:?}");
            assert_eq!((near(seen[1]), near(seen[2])), ((20, 5), (1, 3)), "not the longest since the start");
            let all = client.get_latency(GetLatencyRequest {}).await.unwrap().into_inner();
            assert_eq!((sums(&all).0, all.to_ns >= until_ns, all.from_ns < until_ns), (31, true, true));
            assert!(all.stages.iter().all(|stage| !stage.hdr.is_empty()));
            answers
        })
        .await;
    while next(&mut open).await.is_some() {}
}

#[tokio::test]
async fn the_status_comes_at_once_then_in_intervals_and_ends_with_the_handler() {
    let mut bench = Bench::new();
    let mut open = bench
        .served(async |served| {
            let request = WatchStatusRequest { interval_ms: 100 };
            let mut answers = served.client().await.watch_status(request).await.unwrap().into_inner();
            let begun = std::time::Instant::now();
            let mut uptimes = Vec::new();
            for _ in 0..4 {
                uptimes.push(next(&mut answers).await.unwrap().uptime_ms);
            }
            assert!(uptimes.windows(2).all(|pair| pair[1] >= pair[0] + 50), "{uptimes:?}");
            assert!(begun.elapsed() >= Duration::from_millis(250));
            answers
        })
        .await;
    while next(&mut open).await.is_some() {}
}

#[tokio::test]
async fn who_reads_slowly_gets_fewer_and_never_older() {
    let bench = Bench::new();
    let mut answers = stream::statuses(&bench.desk, Door::Local, WatchStatusRequest { interval_ms: 100 }).unwrap();
    let mut uptimes = Vec::new();
    for _ in 0..3 {
        uptimes.push(answers.next().await.unwrap().unwrap().uptime_ms);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now_ms = bench.desk.uptime_ns() / 1_000_000;
        let answer = answers.next().await.unwrap().unwrap();
        assert!(answer.uptime_ms >= now_ms, "made {} ms before it was asked for", now_ms - answer.uptime_ms);
    }
    bench.desk.watch.end();
    assert!(answers.next().await.is_none() && answers.next().await.is_none());
    assert_eq!(
        stream::statuses(&bench.desk, Door::Local, WatchStatusRequest::default()).err().unwrap().code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn all_who_watch_share_the_places_and_wrong_intervals_take_none() {
    let mut bench = Bench::new();
    bench
        .served(async |served| {
            let mut client = served.client().await;
            for wrong in [99, 60_001, u32::MAX] {
                let error = client.watch_status(WatchStatusRequest { interval_ms: wrong }).await.unwrap_err();
                let says = format!("interval_ms = {wrong}: must be 100 to 60000 milliseconds, or 0 for 1000");
                assert_eq!((error.code(), error.message()), (Code::InvalidArgument, says.as_str()));
            }
            for wrong in [1, 999, 3_600_001] {
                let error = client.watch_latency(WatchLatencyRequest { interval_ms: wrong }).await.unwrap_err();
                assert!(error.message().contains("must be 1000 to 3600000"), "{error}");
            }
            let events = client.watch_events(WatchEventsRequest::default()).await.unwrap();
            let latencies = client.watch_latency(WatchLatencyRequest { interval_ms: 3_600_000 }).await.unwrap();
            let mut statuses = Vec::new();
            for number in 2..MOST_WATCHERS {
                // A connection has fewer calls at a time.
                if number % 8 == 0 {
                    client = served.client().await;
                }
                statuses.push(client.watch_status(WatchStatusRequest { interval_ms: 60_000 }).await.unwrap());
            }
            let one_more = client.watch_latency(WatchLatencyRequest::default()).await.unwrap_err();
            assert_eq!(one_more.code(), Code::ResourceExhausted, "{one_more}");
            let one_more = client.watch_events(WatchEventsRequest::default()).await.unwrap_err();
            assert_eq!(one_more.code(), Code::ResourceExhausted, "{one_more}");
            drop(latencies);
            let deadline = std::time::Instant::now() + PATIENCE;
            while let Err(error) = client.watch_status(WatchStatusRequest::default()).await {
                assert!(std::time::Instant::now() < deadline, "the place is not free again: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drop((events, statuses));
        })
        .await;
}

#[tokio::test]
async fn feedctl_shows_latencies_and_goes_on_with_watch() {
    use crate::control::cli;
    use clap::Parser as _;
    let mut bench = Bench::new();
    bench.events.push(recorded(12_000, 100)).unwrap();
    let socket = format!("unix:{}", bench.socket().display());
    let run = async |arguments: &[&str]| {
        let all = [&["feedctl", "--endpoint", socket.as_str()], arguments].concat();
        cli::run(&cli::Arguments::try_parse_from(all).unwrap()).await.unwrap()
    };
    bench
        .served(async |_| {
            let deadline = std::time::Instant::now() + PATIENCE;
            let table = loop {
                let table = run(&["latency"]).await;
                if table.contains("12.0 us") {
                    break table;
                }
                assert!(std::time::Instant::now() < deadline, "{table}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            let row = |stage: &str| table.lines().find(|row| row.contains(stage)).unwrap().to_owned();
            assert!(table.contains("P99.99") && row("entry_to_sent").matches("12.0 us").count() == 7, "{table}");
            assert_eq!(row("entry_to_worker").split_whitespace().filter(|cell| *cell == "-").count(), 7, "{table}");
            let json: serde_json::Value = serde_json::from_str(&run(&["--output", "json", "latency"]).await).unwrap();
            assert_eq!(json["stages"][3]["summary"]["count"], 100);
            // It prints itself, and ends after two.
            run(&["latency", "--watch", "--interval", "1", "--count", "2"]).await;
        })
        .await;
    assert!(cli::Arguments::try_parse_from(["feedctl", "latency", "--interval", "2"]).is_err(), "only with --watch");
}
