//! Changes that fail, and what is left of them.
#![forbid(unsafe_code)]

use std::time::Duration;

use feedhandler_proto::v1::edit::Edit as What;
use feedhandler_proto::v1::event::What as Told;
use feedhandler_proto::v1::{ChannelSpec, LineName, LineSpec};
use tokio_stream::StreamExt as _;

use super::change::{destination, request, said, spec};
use super::*;
use crate::control::access::places::Door;
use crate::control::lines::Turn;

#[test]
fn a_line_that_does_not_come_back_takes_no_other_with_it() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.switched();
    let plan = bench.desk.plan();
    bench.rewrite("name = \"equities\"", "name = \"equities\"\ngive_up_ms = 60");
    // Line A of the channel that is made anew, and then A of the one that comes back.
    locked(&bench.worker.refused).extend([0, 2]);
    let error = bench.desk.reload(false, "a test").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("undone; made anew: channel itch/equities, destination out"), "{text}");
    assert!(text.contains("these lines did not go on again: line A of `itch/equities`"), "{text}");
    assert_eq!(*bench.desk.plan(), *plan);
    let states = bench.desk.line_states();
    assert_eq!((states[0].in_force, states[1].in_force), (false, true), "{states:?}");
    assert!(states[0].desired && states[1].desired && states[0].error.is_some());
    assert!(bench.switched().ends_with(&[(0, true), (1, true)]));
    // Once it is taken again, all is as it was.
    locked(&bench.worker.refused).clear();
    bench.desk.subscribe(&[0, 1], "a test").unwrap();
    assert_eq!(bench.joined(), [true, true]);
}

#[test]
fn a_change_that_was_taken_back_does_not_say_that_nothing_was_changed() {
    let bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.worker.is_refused.store(true, Relaxed);
    let error = bench.desk.change(&request(vec![What::AddChannel(spec(&bench, "options"))]), "a test").unwrap_err();
    let status = tonic::Status::from(error);
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    assert!(status.message().ends_with("; undone"), "{status}");
}

#[test]
fn without_the_threads_beside_nothing_is_begun() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.switched();
    let plan = bench.desk.plan();
    bench.desk.threads.end_feeding();
    let remove = request(vec![What::RemoveChannel("itch/equities".to_owned())]);
    let error = bench.desk.change(&remove, "a test").unwrap_err().to_string();
    assert!(error.contains("thread has ended") && error.ends_with("nothing was changed"), "{error}");
    assert!(bench.edited().is_empty() && bench.switched().is_empty() && Arc::ptr_eq(&plan, &bench.desk.plan()));
}

#[tokio::test]
async fn what_a_channel_said_last_is_said_under_its_name() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    let mut told = bench.desk.watch.watch(Door::Local, String::new()).unwrap();
    bench.events.push(Event::Lost { channel: 0, session: *b"S1        ", from: 5, to: 9 }).unwrap();
    bench.desk.change(&request(vec![What::RemoveChannel("itch/equities".to_owned())]), "a test").unwrap();
    let lost = async {
        loop {
            if let Told::MessagesLost(lost) = told.next().await.unwrap().unwrap().what.unwrap() {
                return lost;
            }
        }
    };
    let lost = tokio::time::timeout(Duration::from_secs(10), lost).await.expect("it is told");
    assert_eq!((lost.channel.as_str(), lost.from, lost.to), ("itch/equities", 5, 9));
}

#[test]
fn numbers_of_another_plan_switch_nothing() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    let before = bench.desk.plan();
    bench.desk.change(&request(vec![What::AddChannel(spec(&bench, "options"))]), "a test").unwrap();
    bench.switched();
    assert!(bench.desk.turn_of(&before, &[0], Turn::Off, "a test").is_none());
    assert!(bench.switched().is_empty());
    let selector = Selector { channel: Some("itch/options".to_owned()), ..Selector::default() };
    let changes = bench.desk.switch(&selector, false, "a test").unwrap();
    assert_eq!((changes.changed, bench.switched()), (vec![2, 3], vec![(2, false), (3, false)]));
}

#[test]
fn a_request_that_was_carried_out_changes_nothing_when_it_is_repeated() {
    let bench = Bench::new();
    bench.desk.start_lines().unwrap();
    let whole = spec(&bench, "options");
    let line = LineSpec { channel: "itch/options".to_owned(), ..whole.lines[1].clone() };
    let half = ChannelSpec { lines: whole.lines[..1].to_vec(), ..whole.clone() };
    let add = request(vec![What::AddChannel(half.clone()), What::AddLine(line)]);
    assert_eq!(bench.desk.change(&add, "a test").unwrap().changes.len(), 3);
    assert!(bench.desk.change(&add, "a test").unwrap().changes.is_empty());
    // Beside something new it still is no change, and in another form it still is a mistake.
    let mut more = add.clone();
    more.edits.extend(request(vec![What::AddDestination(destination("second", "itch/options"))]).edits);
    assert_eq!(said(&bench.desk.change(&more, "a test").unwrap().changes), ["+destination second"]);
    for wrong in [half, ChannelSpec { give_up_ms: Some(60), ..whole }] {
        let error = bench.desk.change(&request(vec![What::AddChannel(wrong)]), "a test").unwrap_err();
        assert!(matches!(error, ChangeError::AlreadyExists(_)), "{error}");
        assert!(error.to_string().contains("edits[0].add_channel: channel `itch/options` is there already"), "{error}");
    }
    let gone = LineName { channel: "itch/nothing".to_owned(), line: "A".to_owned() };
    assert!(bench.desk.change(&request(vec![What::RemoveLine(gone)]), "a test").unwrap().changes.is_empty());
}

#[test]
fn what_is_removed_can_come_back_after_a_restart_and_what_is_dropped_is_set_down() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    bench.desk.start_lines().unwrap();
    let file = bench.etc.path().join("handler.toml");
    let next = || resume(Config::load_whole(&file).unwrap());
    bench.desk.change(&request(vec![What::RemoveChannel("itch/equities".to_owned())]), "a test").unwrap();
    let (resumed, from_file) = (next().plan, Config::load_whole(&file).unwrap().plan);
    assert!(resumed.channels.is_empty() && !from_file.workers[0].rx.is_empty());
    assert_eq!(resumed.workers, from_file.workers);
    assert!(crate::config::plan::rebase(&resumed, &from_file).is_ok());
    let kept = std::fs::read(bench.directory.path().join("kept/subscriptions.json")).unwrap();
    bench.rewrite("publisher_id = 2", "publisher_id = 3");
    assert_eq!(next().plan.channels.len(), 1);
    let dropped = bench.directory.path().join("kept/subscriptions.dropped");
    assert_eq!(std::fs::read(&dropped).unwrap(), kept);
    assert_eq!(std::fs::metadata(dropped).unwrap().permissions().mode() & 0o777, 0o600);
    bench.desk.start_lines().unwrap();
    assert_eq!(std::fs::read(bench.directory.path().join("kept/subscriptions.json")).unwrap(), kept, "not yet");
}
