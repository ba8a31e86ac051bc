//! Events for those who watch.
#![forbid(unsafe_code)]

use std::time::Duration;

use feedhandler_proto::v1::event::What;
use feedhandler_proto::v1::{self, Selector as WireSelector, UnsubscribeRequest, WatchEventsRequest};
use tonic::{Code, Streaming};

use super::*;
use crate::control::watch::MOST_WATCHERS;
use crate::edge::Fault;
use crate::feed::Beginning;

impl Served {
    async fn watch(&self, channel: &str) -> Result<Streaming<v1::Event>, tonic::Status> {
        let request = WatchEventsRequest { channel: channel.to_owned() };
        Ok(self.client().await.watch_events(request).await?.into_inner())
    }
}

async fn next(events: &mut Streaming<v1::Event>) -> What {
    let event = tokio::time::timeout(Duration::from_secs(10), events.message()).await.expect("an event comes");
    event.unwrap().expect("the stream goes on").what.unwrap()
}

#[tokio::test]
async fn a_watcher_is_told_of_losses_states_faults_and_who_switched_what() {
    let mut bench = Bench::new();
    bench.desk.start_lines().unwrap();
    let desk = Arc::clone(&bench.desk);
    let (_, none) = rtrb::RingBuffer::<Event>::new(1);
    drop(none);
    let mut reported = std::mem::replace(&mut bench.events, rtrb::RingBuffer::new(1).0);
    bench
        .served(async |served| {
            let mut all = served.watch("").await.unwrap();
            let mut of_channel = served.watch("itch/equities").await.unwrap();
            let selector = Some(WireSelector { line: "B".to_owned(), ..WireSelector::default() });
            let request = UnsubscribeRequest { selector, dry_run: true };
            let answer = served.client().await.unsubscribe(request.clone()).await.unwrap().into_inner();
            assert_eq!((answer.changed.len(), answer.changed[0].in_force), (1, true), "only said");
            served.client().await.unsubscribe(UnsubscribeRequest { dry_run: false, ..request }).await.unwrap();
            desk.set_fault(0, Some((Fault::Down, "for a test".to_owned())));
            desk.set_fault(0, None);
            reported.push(Event::Lost { channel: 0, session: *b"S1        ", from: 5, to: 9 }).unwrap();
            reported.push(Event::State { channel: 0, state: 3 }).unwrap();
            let how = Beginning::Late;
            reported.push(Event::Began { channel: 0, session: *b"        S2", first: 7, how }).unwrap();
            for (events, faults) in [(&mut all, 2), (&mut of_channel, 0)] {
                let What::LineSwitched(switched) = next(events).await else { panic!("not switched") };
                let by = format!("uid {}, pid {}", rustix::process::getuid().as_raw(), std::process::id());
                assert_eq!((switched.line.as_str(), switched.subscribed, switched.by), ("B", false, by));
                for over in [false, true].into_iter().take(faults) {
                    let What::InterfaceFault(fault) = next(events).await else { panic!("not a fault") };
                    assert_eq!((fault.interface.as_str(), fault.fault.as_str(), fault.over), ("lo", "down", over));
                }
                let What::MessagesLost(lost) = next(events).await else { panic!("not lost") };
                assert_eq!((lost.session.as_str(), lost.from, lost.to), ("S1", 5, 9));
                let What::ChannelChanged(changed) = next(events).await else { panic!("no state") };
                assert_eq!(changed.state(), v1::ChannelState::Gap);
                let What::SessionBegan(began) = next(events).await else { panic!("no session") };
                assert_eq!((began.session.as_str(), began.first, began.how.as_str()), ("S2", 7, "late"));
            }
            let error = served.watch("itch/nothing").await.unwrap_err();
            assert_eq!(error.code(), Code::NotFound);
        })
        .await;
}

#[tokio::test]
async fn so_many_may_watch_and_a_slow_one_is_told_what_it_missed() {
    let mut bench = Bench::new();
    let desk = Arc::clone(&bench.desk);
    let ended = bench
        .served(async |served| {
            let mut watchers = Vec::new();
            for _ in 0..MOST_WATCHERS {
                watchers.push(served.watch("").await.unwrap());
            }
            let error = served.watch("").await.unwrap_err();
            assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
            watchers.truncate(1);
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            let mut slow = loop {
                match served.watch("").await {
                    Ok(events) => break events,
                    Err(error) => assert!(std::time::Instant::now() < deadline, "places are not free again: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            // More than a queue and a connection hold.
            for _ in 0..20_000 {
                desk.count_passing_fault(0, Fault::NoCarrier);
            }
            let mut told = 0;
            let missed = loop {
                match next(&mut slow).await {
                    What::EventsMissed(missed) => break missed.count,
                    _ => told += 1,
                }
            };
            assert!(told + missed <= 40_000 && missed > 0, "{told} told, {missed} missed");
            slow
        })
        .await;
    // The handler has stopped: it waited for nobody, and the stream has an end.
    let mut ended = ended;
    let end = async { while let Ok(Some(_)) = ended.message().await {} };
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("the stream ends");
}
