//! Changing what runs: edits, the file read again, and what is kept of it.
#![forbid(unsafe_code)]

use feedhandler_proto::v1::edit::Edit as What;
use feedhandler_proto::v1::{
    Change, ChangeKind, ChangeRequest, ChannelSpec, DestinationSpec, DrainRequest, Edit, FeedSpec, GetConfigRequest,
    LineName, LineSpec, ReloadRequest, RouteSpec,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::metrics::ChannelCounts;

pub(super) fn spec(bench: &Bench, name: &str) -> ChannelSpec {
    // Beside the bench's own two, and nobody else's.
    let [a, b] = [0, 1].map(|line| format!("{}:26500", bench.groups[line]));
    let line = |name: &str, group: String| LineSpec {
        name: name.to_owned(),
        interface: "lo".to_owned(),
        group,
        ..LineSpec::default()
    };
    ChannelSpec {
        feed: "itch".to_owned(),
        name: name.to_owned(),
        lines: vec![line("A", a), line("B", b)],
        ..ChannelSpec::default()
    }
}

pub(super) fn destination(name: &str, channel: &str) -> DestinationSpec {
    DestinationSpec {
        name: name.to_owned(),
        channel: channel.to_owned(),
        interface: "lo".to_owned(),
        group: "239.255.1.1:30009".to_owned(),
        ..DestinationSpec::default()
    }
}

pub(super) fn request(edits: Vec<What>) -> ChangeRequest {
    ChangeRequest { edits: edits.into_iter().map(|edit| Edit { edit: Some(edit) }).collect(), dry_run: false }
}

pub(super) fn said(changes: &[Change]) -> Vec<String> {
    let word = |kind| match kind {
        ChangeKind::Added => "+",
        ChangeKind::Removed => "-",
        ChangeKind::Replaced => "~",
        _ => "=",
    };
    changes.iter().map(|change| format!("{}{} {}", word(change.kind()), change.what, change.name)).collect()
}

impl Bench {
    pub(super) fn edited(&self) -> Vec<[Vec<usize>; 6]> {
        std::mem::take(&mut *locked(&self.worker.edited))
    }

    pub(super) fn rewrite(&self, from: &str, to: &str) {
        let file = self.directory.path().join("handler.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(file, text.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn a_channel_comes_with_its_lines_and_destination_and_goes_with_them_and_nothing_else_moves() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.switched();
    let before = bench.desk.config_hash();
    let add = request(vec![
        What::AddChannel(spec(&bench, "options")),
        What::AddDestination(destination("second", "itch/options")),
    ]);
    let dry = ChangeRequest { dry_run: true, ..add.clone() };
    let wanted = ["+destination second", "+line itch/options/A", "+line itch/options/B", "+channel itch/options"];
    let answer = bench.desk.change(&dry, "a test").unwrap();
    assert_eq!((said(&answer.changes), answer.config_hash), (wanted.map(str::to_owned).to_vec(), before.clone()));
    assert!(bench.edited().is_empty() && bench.desk.plan().channels.len() == 1, "nothing was done");
    let answer = bench.desk.change(&add, "a test").unwrap();
    assert_eq!(said(&answer.changes), wanted);
    assert_ne!(answer.config_hash, before);
    assert_eq!(bench.edited(), [[vec![], vec![], vec![], vec![1], vec![2, 3], vec![1]]]);
    assert_eq!(bench.switched(), [(2, true), (3, true)], "and no other line was touched");
    let states = bench.desk.line_states();
    assert!(states.iter().take(4).all(|state| state.in_force) && !states[4].desired);
    assert!(bench.desk.change(&add, "a test").unwrap().changes.is_empty(), "once is enough");
    assert!(bench.edited().is_empty());
    let status = bench.desk.status();
    assert_eq!(
        status.channels.iter().map(|channel| channel.name.as_str()).collect::<Vec<_>>(),
        ["itch/equities", "itch/options"]
    );
    // A line can go and come without its channel.
    let line = LineName { channel: "itch/options".to_owned(), line: "A".to_owned() };
    bench.desk.change(&request(vec![What::RemoveLine(line)]), "a test").unwrap();
    assert_eq!(bench.edited(), [[vec![], vec![2], vec![], vec![], vec![], vec![]]]);
    assert_eq!(bench.switched(), [(2, false)]);
    let remove = request(vec![What::RemoveChannel("itch/options".to_owned())]);
    let answer = bench.desk.change(&remove, "a test").unwrap();
    assert_eq!(said(&answer.changes), ["-destination second", "-line itch/options/B", "-channel itch/options"]);
    assert_eq!(bench.edited(), [[vec![1], vec![3], vec![1], vec![], vec![], vec![]]]);
    assert_eq!(bench.switched(), [(3, false)]);
    assert_eq!((answer.config_hash, bench.joined()), (before, [true, true]));
    assert!(bench.desk.change(&remove, "a test").unwrap().changes.is_empty());
}

#[tokio::test]
async fn a_wrong_request_names_every_field_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    let good = spec(&bench, "options");
    let mut slow = good.clone();
    slow.give_up_ms = Some(0);
    slow.lines[1].group = "10.0.0.1:1".to_owned();
    let huge = ChannelSpec { max_orders: Some(u64::MAX), name: String::new(), ..good.clone() };
    let mut other_queue = good.clone();
    other_queue.lines[0].interface = "eth9".to_owned();
    let far = ChannelSpec { lines: vec![], ..good.clone() };
    let stray = LineSpec { channel: "itch/nothing".to_owned(), ..good.lines[0].clone() };
    let last = LineName { channel: "itch/equities".to_owned(), line: String::new() };
    let empty_feed = FeedSpec { name: "x".to_owned(), ..FeedSpec::default() };
    let mut taken = destination("out", "itch/equities");
    taken.group = "239.255.7.7:1".to_owned();
    let cases: Vec<(ChangeRequest, Code, &[&str])> = vec![
        (request(vec![]), Code::InvalidArgument, &["edits"]),
        (ChangeRequest { edits: vec![Edit { edit: None }], dry_run: false }, Code::InvalidArgument, &["edits[0]"]),
        (request(vec![What::RemoveFeed("x".to_owned()); 65]), Code::InvalidArgument, &["edits"]),
        (
            request(vec![What::RemoveFeed("x".to_owned()), What::AddChannel(slow)]),
            Code::InvalidArgument,
            &["edits[1].add_channel.give_up_ms", "edits[1].add_channel.lines[1].group"],
        ),
        (
            request(vec![What::AddChannel(huge)]),
            Code::InvalidArgument,
            &["edits[0].add_channel.name", "edits[0].add_channel.max_orders"],
        ),
        (request(vec![What::AddChannel(far)]), Code::InvalidArgument, &["edits[0].add_channel.lines"]),
        (
            request(vec![What::AddChannel(other_queue)]),
            Code::InvalidArgument,
            &["edits[0].add_channel.lines[0].interface"],
        ),
        (
            request(vec![What::AddChannel(ChannelSpec { feed: "nasdaq".to_owned(), ..good.clone() })]),
            Code::InvalidArgument,
            &["edits[0].add_channel.feed"],
        ),
        (request(vec![What::AddLine(stray)]), Code::InvalidArgument, &["edits[0].add_line.channel"]),
        (request(vec![What::RemoveLine(last)]), Code::InvalidArgument, &["edits[0].remove_line.line"]),
        (
            request(vec![What::RemoveChannel("equities".to_owned())]),
            Code::InvalidArgument,
            &["edits[0].remove_channel"],
        ),
        (
            request(vec![What::RemoveDestination(String::new())]),
            Code::InvalidArgument,
            &["edits[0].remove_destination"],
        ),
        (
            request(vec![What::AddFeed(empty_feed)]),
            Code::InvalidArgument,
            &["edits[0].add_feed.transport", "edits[0].add_feed.decoder", "edits[0].add_feed.time_zone"],
        ),
        (
            request(vec![What::SetRoute(RouteSpec { destination: "nowhere".to_owned(), ..RouteSpec::default() })]),
            Code::InvalidArgument,
            &["edits[0].set_route.destination"],
        ),
        (request(vec![What::AddDestination(taken)]), Code::AlreadyExists, &[]),
        (
            request(vec![What::AddDestination(DestinationSpec { queue: 3, ..destination("q", "itch/equities") })]),
            Code::InvalidArgument,
            &["edits[0].add_destination.queue"],
        ),
    ];
    bench.edited();
    let (hash, plan) = (bench.desk.config_hash(), bench.desk.plan());
    bench
        .served(async |served| {
            let mut client = served.client().await;
            for (request, code, fields) in cases {
                let status = client.change(request.clone()).await.expect_err(&format!("{request:?}"));
                assert_eq!(status.code(), code, "{request:?}: {status}");
                let details = status.get_error_details();
                let found = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
                let found: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
                assert_eq!(found, fields, "{request:?}: {status}");
                assert!(!status.message().is_empty() || code == Code::AlreadyExists);
            }
            for timeout_ms in [60_001, u32::MAX] {
                let request = DrainRequest { channel: "itch/equities".to_owned(), timeout_ms };
                assert_eq!(client.drain(request).await.unwrap_err().code(), Code::InvalidArgument);
            }
            let unknown = DrainRequest { channel: "itch/x".to_owned(), timeout_ms: 0 };
            assert_eq!(client.drain(unknown).await.unwrap_err().code(), Code::NotFound);
            assert_eq!(client.drain(DrainRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
        })
        .await;
    assert!(bench.edited().is_empty());
    assert_eq!((bench.desk.config_hash(), bench.desk.plan()), (hash, plan));
}

#[tokio::test]
async fn a_reload_is_made_as_a_whole_or_refused_as_a_whole() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.switched();
    let plan = bench.desk.plan();
    // Half of it is right.
    bench.rewrite("group = \"239.255.1.1:30001\"", "group = \"239.255.1.1:30002\"\nttl = 900");
    let socket = bench.socket();
    bench
        .served(async |served| {
            let mut client = served.client().await;
            let status = client.reload(ReloadRequest { dry_run: false }).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            let details = status.get_error_details();
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, "destination[0].ttl");
            let answer = client.get_config(GetConfigRequest {}).await.unwrap().into_inner();
            assert!(!answer.is_changed && answer.toml.contains(":30001") && answer.file.ends_with("handler.toml"));
            assert!(socket.exists());
        })
        .await;
    assert!(bench.edited().is_empty() && Arc::ptr_eq(&plan, &bench.desk.plan()));
    bench.rewrite("ttl = 900", "ttl = 9\n[destination.retransmission]\naddress = \"127.0.0.1:0\"");
    let error = bench.desk.reload(false, "a test").unwrap_err().to_string();
    assert!(error.contains("destination[0].retransmission.address"), "{error}");
    bench.rewrite("[destination.retransmission]\naddress = \"127.0.0.1:0\"", "");
    // What takes a restart is named, with both values.
    bench.rewrite("name = \"w0\"", "name = \"w0\"\nring_entries = 1024");
    let error = bench.desk.reload(false, "a test").unwrap_err();
    assert!(matches!(error, ChangeError::NeedsRestart(_)), "{error}");
    assert!(error.to_string().contains("worker `w0`: ring_entries default -> 1024"), "{error}");
    assert!(bench.edited().is_empty());
    bench.rewrite("ring_entries = 1024", "");
    bench.rewrite("name = \"equities\"", "name = \"equities\"\ngive_up_ms = 60");
    let dry = bench.desk.reload(true, "a test").unwrap();
    assert_eq!(
        said(&dry.changes),
        ["~destination out", "~line itch/equities/A", "~line itch/equities/B", "~channel itch/equities"]
    );
    assert_eq!(dry.changes[3].particulars, "give_up_ms default -> 60; its books begin anew");
    assert_eq!(dry.changes[0].particulars, "group \"239.255.1.1:30001\" -> \"239.255.1.1:30002\", ttl default -> 9");
    assert!(bench.edited().is_empty());
    bench.desk.unsubscribe(&[1], "a test").unwrap();
    bench.switched();
    let done = bench.desk.reload(false, "a test").unwrap();
    assert_eq!(done.changes, dry.changes);
    assert_eq!(bench.edited(), [[vec![0], vec![0, 1], vec![0], vec![1], vec![2, 3], vec![0]]]);
    assert_eq!(bench.switched(), [(0, false), (2, true)], "line B was off, and stays so");
    assert!(bench.desk.reload(false, "a test").unwrap().changes.is_empty());
    assert_eq!(bench.desk.plan().channels.indices().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_worker_that_takes_no_edit_leaves_everything_as_it_was() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.switched();
    let plan = bench.desk.plan();
    bench.worker.is_stuck.store(true, Relaxed);
    let add = request(vec![What::AddChannel(spec(&bench, "options"))]);
    let error = bench.desk.change(&add, "a test").unwrap_err().to_string();
    assert!(error.contains("worker `w0` has not made the change within a second"), "{error}");
    assert!(Arc::ptr_eq(&plan, &bench.desk.plan()));
    bench.worker.is_stuck.store(false, Relaxed);
    // Its queue has the edit and the one that takes it back, and then whatever is asked next.
    bench.desk.change(&add, "a test").unwrap();
    let out = [vec![], vec![2, 3], vec![1], vec![], vec![], vec![]];
    let into = [vec![], vec![], vec![], vec![1], vec![2, 3], vec![]];
    assert_eq!(bench.edited(), [into.clone(), out, into]);
    bench.worker.is_refused.store(true, Relaxed);
    let third = ChannelSpec {
        lines: vec![LineSpec { group: format!("{}:26600", bench.groups[0]), ..spec(&bench, "x").lines[0].clone() }],
        ..spec(&bench, "x")
    };
    let error = bench.desk.change(&request(vec![What::AddChannel(third)]), "a test").unwrap_err().to_string();
    assert!(error.contains("was refused the group"), "{error}");
    let [put, taken] = &bench.edited()[..] else { panic!("an edit, and the one that takes it back") };
    assert_eq!((&put[3], &taken[2], &put[4], &taken[1]), (&vec![2], &vec![2], &vec![4], &vec![4]));
    assert_eq!(bench.desk.plan().channels.len(), 2);
}

#[test]
fn what_was_changed_is_so_after_a_restart_unless_the_file_has_changed() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    bench.desk.start_lines().unwrap();
    let next = || resume(Config::load_whole(bench.directory.path().join("handler.toml")).unwrap());
    assert_eq!(next().plan.channels.len(), 1);
    bench.desk.change(&request(vec![What::AddChannel(spec(&bench, "options"))]), "a test").unwrap();
    let kept = bench.directory.path().join("kept/subscriptions.json");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let resumed = next();
    assert_eq!(resumed.config.hash(), bench.desk.config_hash());
    assert_eq!(
        resumed.plan.channels.values().map(|one| one.name.as_str()).collect::<Vec<_>>(),
        ["itch/equities", "itch/options"]
    );
    assert!(bench.desk.config().unwrap().is_changed);
    // A subscription does not lose it.
    bench.desk.unsubscribe(&[0], "a test").unwrap();
    assert_eq!(next().plan.channels.len(), 2);
    bench.rewrite("publisher_id = 2", "publisher_id = 3");
    assert_eq!(next().plan.channels.len(), 1, "the file counts");
    bench.rewrite("publisher_id = 3", "publisher_id = 2");
    bench.desk.reload(false, "a test").unwrap();
    assert!(!bench.desk.config().unwrap().is_changed);
    assert!(!std::fs::read_to_string(kept).unwrap().contains("sections"));
}

#[test]
fn a_drain_ends_when_nothing_is_held_and_says_what_is() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.switched();
    let publish = |next_sequence, known_sequence, state| {
        let counts = ChannelCounts { next_sequence, known_sequence, state, ..ChannelCounts::default() };
        bench.shared.channels[0].store(&counts.values());
    };
    publish(10, 12, 3);
    let patience = Some(std::time::Duration::from_millis(60));
    let error = bench.desk.drain("itch/equities", patience, "a test").unwrap_err();
    assert!(error.to_string().contains("still waits for 2 messages after"), "{error}");
    assert_eq!(bench.joined(), [false, false], "its lines are off");
    publish(12, 12, 2);
    let answer = bench.desk.drain("itch/equities", patience, "a test").unwrap();
    assert_eq!((answer.next_sequence, answer.messages_lost, answer.changed.len()), (12, 0, 0));
    assert_eq!(bench.switched(), [(0, false), (1, false)]);
}
