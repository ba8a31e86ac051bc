//! The gRPC service.
#![forbid(unsafe_code)]

use clap::Parser;
use feedhandler_proto::v1::{
    self, GetStatusRequest, ListGroupsRequest, Selector as WireSelector, SubscribeRequest, UnsubscribeRequest,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt as _;

use super::*;
use crate::control::cli;
use crate::latency::Stage;
use crate::metrics::{ChannelCounts, DropCounts, DropReason, LineCounts, SkewCounts};

fn line(name: &str) -> Option<WireSelector> {
    Some(WireSelector { line: name.to_owned(), ..WireSelector::default() })
}

fn names(groups: &[v1::Group]) -> Vec<&str> {
    groups.iter().map(|group| group.line.as_str()).collect()
}

#[tokio::test]
async fn a_group_that_the_worker_s_socket_is_refused_is_not_in_force_and_says_why() {
    let mut bench = Bench::new();
    bench.worker.is_refused.store(true, Relaxed);
    let error = bench.desk.start_lines().unwrap_err().to_string();
    let says = "line A of `itch/equities`: the socket of worker `w0` was refused the group: No such device";
    assert!(error.starts_with(says), "{error}");
    assert_eq!(bench.joined(), [false, false], "undone");
    let state = bench.desk.line_states()[0].clone();
    assert!(!state.in_force && state.error.unwrap().contains("was refused the group"));
    bench
        .served(async |served| {
            let request = SubscribeRequest { selector: line("B"), dry_run: false };
            let status = served.client().await.subscribe(request).await.unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition);
        })
        .await;
    assert_eq!(bench.shared.commands_refused.load(Relaxed), 2);
    bench.worker.is_refused.store(false, Relaxed);
    bench.desk.start_lines().unwrap();
    assert!(bench.desk.line_states().iter().take(2).all(|state| state.in_force && state.error.is_none()));
    assert_eq!(bench.switched(), [(0, true), (1, true), (0, true), (1, true)]);
}

#[tokio::test]
async fn subscribing_joins_tells_the_worker_and_is_idempotent() {
    let mut bench = Bench::new();
    assert_eq!(bench.joined(), [false, false], "the groups of this test are in use elsewhere");
    bench.desk.start_lines().unwrap();
    assert_eq!(bench.joined(), [true, true]);
    assert_eq!(bench.switched(), [(0, true), (1, true)]);

    bench
        .served(async |served| {
            let mut client = served.client().await;
            let request = UnsubscribeRequest { selector: line("A"), dry_run: false };
            let answer = client.unsubscribe(request.clone()).await.unwrap().into_inner();
            assert_eq!((names(&answer.changed), names(&answer.unchanged)), (vec!["A"], vec![]));
            assert!(!answer.changed[0].in_force && !answer.changed[0].desired);
            let answer = client.unsubscribe(request).await.unwrap().into_inner();
            assert_eq!((names(&answer.changed), names(&answer.unchanged)), (vec![], vec!["A"]));
            let list = client.list_groups(ListGroupsRequest::default()).await.unwrap().into_inner();
            assert_eq!(list.groups.iter().map(|group| group.in_force).collect::<Vec<_>>(), [false, true]);
            let selector = Some(WireSelector { feed: "itch".into(), line: "B".into(), ..Default::default() });
            let list = client.list_groups(ListGroupsRequest { selector }).await.unwrap().into_inner();
            assert_eq!(list.groups.iter().map(|group| &group.line[..]).collect::<Vec<_>>(), ["B"]);
        })
        .await;
    assert_eq!(bench.joined(), [false, true]);
    assert_eq!(bench.switched(), [(0, false)], "the repeated call must not have told the worker again");

    let group = format!("{}:26400", bench.groups[0]);
    bench
        .served(async |served| {
            let selector = Some(WireSelector { channel: "itch/equities".into(), group, ..WireSelector::default() });
            let answer = served
                .client()
                .await
                .subscribe(SubscribeRequest { selector, dry_run: false })
                .await
                .unwrap()
                .into_inner();
            assert_eq!((names(&answer.changed), answer.unchanged.len()), (vec!["A"], 0));
        })
        .await;
    assert_eq!((bench.joined(), bench.switched()), ([true, true], vec![(0, true)]));

    bench.desk.detach();
    assert_eq!(bench.joined(), [false, false]);
}

#[tokio::test]
async fn bad_selectors_say_what_there_is() {
    let mut bench = Bench::new();
    let cases = [
        (None, Code::InvalidArgument, "say which lines"),
        (Some(WireSelector::default()), Code::InvalidArgument, "say which lines"),
        (
            Some(WireSelector { all: true, line: "A".into(), ..Default::default() }),
            Code::InvalidArgument,
            "nothing else",
        ),
        (
            Some(WireSelector { group: "239.1.1.1".into(), ..Default::default() }),
            Code::InvalidArgument,
            "239.10.0.1:26400",
        ),
        (line("C"), Code::NotFound, "no line `C`; there are: A, B"),
        (Some(WireSelector { channel: "x".into(), ..Default::default() }), Code::NotFound, "there are: itch/equities"),
        (Some(WireSelector { feed: "x".into(), ..Default::default() }), Code::NotFound, "no feed `x`; there are: itch"),
        (Some(WireSelector { group: "239.1.1.1:1".into(), ..Default::default() }), Code::NotFound, ":26400"),
        (
            Some(WireSelector { line: "A".into(), group: format!("{}:26400", bench.groups[1]), ..Default::default() }),
            Code::NotFound,
            "no line matches all of: line A, group ",
        ),
    ];
    bench
        .served(async |served| {
            let mut client = served.client().await;
            for (selector, code, says) in cases {
                let error = client
                    .subscribe(SubscribeRequest { selector: selector.clone(), dry_run: false })
                    .await
                    .unwrap_err();
                assert_eq!(error.code(), code, "{selector:?}: {error}");
                assert!(error.message().contains(says), "{selector:?}: {}", error.message());
                let details = error.get_error_details();
                match code {
                    Code::NotFound => assert_eq!(details.error_info().unwrap().reason, "NOT_FOUND"),
                    _ => assert!(details.bad_request().unwrap().field_violations[0].field.starts_with("selector")),
                }
                let error = client.unsubscribe(UnsubscribeRequest { selector, dry_run: false }).await.unwrap_err();
                assert_eq!(error.code(), code);
            }
            let huge = WireSelector { channel: "x".repeat(1 << 20), ..Default::default() };
            let error = client.subscribe(SubscribeRequest { selector: Some(huge), dry_run: false }).await.unwrap_err();
            assert_eq!(error.code(), Code::OutOfRange, "{error}");
        })
        .await;
    assert_eq!(bench.switched(), []);
}

/// What the service says to a subscription of everything.
async fn refusal(bench: &mut Bench) -> tonic::Status {
    let request = SubscribeRequest { selector: Some(WireSelector { all: true, ..Default::default() }), dry_run: false };
    bench.served(async |served| served.client().await.subscribe(request).await.unwrap_err()).await
}

#[tokio::test]
async fn a_full_command_queue_is_seen_before_the_first_step() {
    let mut bench = Bench::new();
    bench.worker.is_stuck.store(true, Relaxed);
    // The request for latencies is in the queue then, and no second one comes before it is answered.
    bench.desk.poll();
    // One place is left: for a command, but not for taking it back.
    for _ in 2..COMMAND_QUEUE {
        bench.desk.links()[0].send(Command::SetLine { line: 0, enabled: false }).unwrap();
    }
    let error = refusal(&mut bench).await;
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("line A of `itch/equities`: worker `w0` takes no commands"), "{error}");
    assert!(error.message().ends_with("nothing was changed"), "{error}");
    assert_eq!(bench.joined(), [false, false]);
    assert!(bench.desk.line_states()[0].error.is_some());
    // Once the worker goes on, the same request succeeds.
    bench.worker.is_stuck.store(false, Relaxed);
    bench.desk.subscribe(&[0, 1], "a test").unwrap();
    assert_eq!(bench.joined(), [true, true]);
    assert!(bench.desk.line_states().iter().take(2).all(|state| state.in_force && state.error.is_none()));
}

#[tokio::test]
async fn nothing_is_in_force_that_the_worker_has_not_confirmed() {
    let mut bench = Bench::new();
    bench.worker.is_stuck.store(true, Relaxed);
    let error = refusal(&mut bench).await;
    assert_eq!(error.code(), Code::Unavailable);
    for part in ["line A of `itch/equities`: worker `w0` has not switched it", "not joined, no rule", "not confirmed"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    assert!(!error.message().contains("nothing was changed"), "{error}");
    assert_eq!(bench.joined(), [false, false], "the join must have been undone");
    let states = bench.desk.line_states();
    assert!(states.iter().all(|state| !state.in_force) && states[0].error.is_some(), "{states:?}");
    // The worker goes on: it sees the change and its undoing, and then whatever is asked next.
    bench.worker.is_stuck.store(false, Relaxed);
    bench.desk.unsubscribe(&[0], "a test").unwrap();
    bench.desk.subscribe(&[0, 1], "a test").unwrap();
    assert_eq!(bench.switched(), [(0, true), (0, false), (0, false), (0, true), (1, true)]);
    assert!(bench.desk.line_states().iter().take(2).all(|state| state.in_force && state.error.is_none()));
}

#[test]
fn a_failed_change_is_undone_and_seen_meanwhile_without_waiting() {
    let bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.worker.is_stuck.store(true, Relaxed);
    let desk = Arc::clone(&bench.desk);
    let change = std::thread::spawn(move || desk.unsubscribe(&[0, 1], "a test"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    // The change waits for the worker; whoever looks does not, and sees that line A is not certain any more.
    while bench.desk.links()[0].room() == COMMAND_QUEUE {
        assert!(std::time::Instant::now() < deadline);
    }
    assert!(bench.desk.lines.try_lock().is_err(), "the change must be under way");
    let _ = bench.desk.status();
    assert!(bench.desk.not_ready_reasons().iter().any(|reason| reason.contains("w0")));
    assert!(!change.is_finished(), "looking must not wait for the change");
    // Alive again within the undoing's patience: all is as it was.
    std::thread::sleep(std::time::Duration::from_millis(1_300));
    bench.worker.is_stuck.store(false, Relaxed);
    let error = change.join().unwrap().unwrap_err();
    assert!(matches!(error, ControlError::NotApplied { .. }), "{error}");
    assert_eq!(bench.joined(), [true, true]);
    assert!(bench.desk.line_states().iter().take(2).all(|state| state.in_force && state.desired));
}

#[tokio::test]
async fn status_tells_what_the_worker_published() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.beat();
    let line = LineCounts {
        packets: 12,
        bytes: 3456,
        first: 7,
        duplicate: 5,
        late: 6,
        last_seen_ns: monotonic_ns(),
        ..Default::default()
    };
    bench.shared.lines[0].store(&line.values());
    let channel = ChannelCounts {
        messages: 90,
        held_packets: 4321,
        gaps_opened: 2,
        next_sequence: 91,
        state: 2,
        ..Default::default()
    };
    bench.shared.channels[0].store(&channel.values());
    bench.shared.sessions[0].store(b"0000000042");
    for (line, skews) in [&[700][..], &[30_000, 40_000, 5_000_000_000]].into_iter().enumerate() {
        let mut skew = SkewCounts::default();
        skews.iter().for_each(|ns| skew.record(*ns));
        bench.shared.line_skews[line].store(&skew.values());
    }
    let mut drops = DropCounts::default();
    drops.add(DropReason::BadBounds);
    bench.shared.line_drops.last().unwrap().store(&drops.values());
    let mut unsent = DropCounts::default();
    unsent.add(DropReason::TxError);
    bench.shared.tx_drops[0].store(&unsent.values());
    let mut latency = Box::<StageHistograms>::default();
    latency.record_n(Stage::EntryToSent, 12_000, 100);
    bench.events.push(Event::Latency(latency)).unwrap();
    bench.events.push(Event::Lost { channel: 0, session: *b"0000000042", from: 5, to: 9 }).unwrap();

    let socket = format!("unix:{}", bench.socket().display());
    let (status, table, json, list) = bench
        .served(async |served| {
            while bench_events_are_pending(&served).await {}
            let status = served.client().await.get_status(GetStatusRequest {}).await.unwrap().into_inner();
            let run = async |output: &str, verb: &str| {
                let arguments = ["feedctl", "--endpoint", &socket, "--output", output, verb];
                cli::run(&cli::Arguments::try_parse_from(arguments).unwrap()).await.unwrap()
            };
            (status, run("table", "status").await, run("json", "status").await, run("table", "list").await)
        })
        .await;
    assert!(status.ready, "{:?}", status.not_ready_reasons);
    let channel = &status.channels[0];
    assert_eq!((channel.state(), channel.session.as_str()), (v1::ChannelState::Live, "0000000042"));
    assert_eq!((channel.next_sequence, channel.messages, channel.gaps_opened), (91, 90, 2));
    assert_eq!((channel.lines[0].packets, channel.lines[0].first, channel.lines[0].duplicate), (12, 7, 5));
    assert!(channel.lines[0].last_seen_age_ns.is_some_and(|age_ns| age_ns < 60_000_000_000));
    assert_eq!(channel.lines[1].last_seen_age_ns, None);
    let skews = channel.lines.iter().map(|line| (line.late, line.behind, line.skew_p50_ns, line.skew_p99_ns));
    assert!(skews.eq([(6, 1, Some(1_000), Some(1_000)), (0, 3, Some(50_000), Some(u64::MAX))]));
    let cells =
        |line: &str| table.lines().find(|row| row.contains(&format!("itch/equities  {line} "))).unwrap().to_owned();
    assert!(cells("A").contains("75.0 %") && cells("A").contains("<= 1.0 us"), "{table}");
    assert!(cells("B").contains("25.0 %") && cells("B").contains("> 1 s"), "{table}");
    assert_eq!(status.interfaces[0].mode_in_force, "socket");
    assert_eq!(status.interfaces[0].unsubscribed, "", "no program, no policy");
    let group = channel.lines[0].group.as_ref().unwrap();
    assert_eq!((group.packets, group.bytes, group.last_seen_age_ns.is_some(), group.frames), (12, 3456, true, None));
    assert_eq!(status.unmatched_drops[0].reason, "bad_bounds");
    let tx = status.workers[0].ports.iter().find(|port| port.direction == "tx").unwrap();
    assert_eq!(tx.drops[0].reason, "tx_error");
    let latency = status.latencies.iter().find(|latency| latency.stage == "entry_to_sent").unwrap();
    assert_eq!(latency.count, 100);
    assert!((11_900..12_100).contains(&latency.p50_ns), "{latency:?}");

    for word in
        ["READY", "itch/equities", "live", "0000000042", "bad_bounds", "tx_error", "entry_to_sent", "12.0 us", "4321"]
    {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    let row = |line: &str| -> Vec<String> {
        let row = list.lines().find(|row| row.split_whitespace().nth(1) == Some(line)).unwrap();
        row.split_whitespace().map(str::to_owned).collect()
    };
    assert!(row("A")[8..11] == ["12", "3456", "-"] && row("A").contains(&"ago".to_owned()), "{list}");
    assert_eq!(row("B")[8..12], ["0", "0", "-", "never"], "{list}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["channels"][0]["state"], "live");
    assert_eq!(json["channels"][0]["lines"][0]["packets"], 12);
}

/// The desk polls every 100 ms; until then the latency is not in.
async fn bench_events_are_pending(served: &Served) -> bool {
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let status = served.client().await.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    status.latencies.iter().all(|latency| latency.count == 0)
}

#[tokio::test]
async fn health_follows_readiness_and_reflection_names_the_services() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    let shared = Arc::clone(&bench.shared);
    bench
        .served(async |served| {
            let mut health = HealthClient::new(served.channel().await);
            let mut check = async |service: &str| {
                let request = HealthCheckRequest { service: service.to_owned() };
                health.check(request).await.map(|answer| answer.into_inner().status())
            };
            assert_eq!(check("").await.unwrap(), ServingStatus::Serving);
            assert_eq!(check("feedhandler.control.v1.Control").await.unwrap(), ServingStatus::NotServing);
            assert_eq!(check("no.such.Service").await.unwrap_err().code(), Code::NotFound);
            shared.running.store(true, Relaxed);
            // A heartbeat in the future keeps this worker alive for as long as the test may take.
            shared.heartbeat_ns.store(u64::MAX, Relaxed);
            let mut status = ServingStatus::NotServing;
            for _ in 0..200 {
                status = check("feedhandler.control.v1.Control").await.unwrap();
                if status == ServingStatus::Serving {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            assert_eq!(status, ServingStatus::Serving);

            let request = tonic_reflection::pb::v1::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = ServerReflectionClient::new(served.channel().await);
            let stream = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
            let answer = stream.into_inner().message().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
            let services: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
            assert!(services.contains(&"feedhandler.control.v1.Control"), "{services:?}");
            assert!(services.contains(&"grpc.health.v1.Health"), "{services:?}");
        })
        .await;
}

#[tokio::test]
async fn feedctl_says_what_is_wrong_and_ends_with_the_right_status() {
    let run = async |arguments: &[&str]| {
        let arguments = cli::Arguments::try_parse_from([&["feedctl"], arguments].concat()).unwrap();
        cli::run(&arguments).await
    };
    let nobody = run(&["--endpoint", "unix:/nonexistent/control.sock", "list"]).await.unwrap_err();
    assert_eq!(nobody.0, cli::EXIT_UNREACHABLE);
    assert!(nobody.1.contains("no handler answers at unix:/nonexistent/control.sock: No such file"), "{}", nobody.1);
    let malformed = run(&["--endpoint", "localhost:1", "list"]).await.unwrap_err();
    assert!(malformed.0 == cli::EXIT_USAGE && malformed.1.contains("http://host:port"), "{malformed:?}");
    let nothing = run(&["subscribe"]).await.unwrap_err();
    assert!(nothing.0 == cli::EXIT_USAGE && nothing.1.contains("--all"), "{nothing:?}");

    let mut bench = Bench::new();
    let endpoint = format!("unix:{}", bench.socket().display());
    let (refused, done, list) = bench
        .served(async |_| {
            let refused = run(&["--endpoint", &endpoint, "unsubscribe", "--line", "C"]).await;
            let done = run(&["--endpoint", &endpoint, "subscribe", "--all"]).await;
            (refused, done, run(&["--endpoint", &endpoint, "list", "--line", "B"]).await)
        })
        .await;
    let refused = refused.unwrap_err();
    assert!(refused.0 == cli::EXIT_REFUSED && refused.1.contains("there are: A, B"), "{refused:?}");
    assert!(done.unwrap().starts_with("subscribe: 2 changed, 0 as they were\n"));
    let list = list.unwrap();
    assert!(list.contains(&bench.groups[1].to_string()) && !list.contains(&bench.groups[0].to_string()), "{list}");
}
