//! Clients that mean harm, or are broken.
#![forbid(unsafe_code)]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::control::access::places::{
    Door, MOST_CALLS_OF_CONNECTION, MOST_CONNECTIONS, MOST_OF_ONE, MOST_STREAMS_OF_ONE,
};
use crate::control::watch::MOST_WATCHERS;
use crate::metrics::ChannelCounts;

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_senseless_handshakes_take_no_place_of_others_and_do_not_delay_the_end() {
    let files = Files::new();
    let mut bench = files.with_tokens();
    let desk = Arc::clone(&bench.desk);
    let (held, ended) = bench
        .served(async |served| {
            let address = served.tls.unwrap();
            for garbage in [
                &b"GET / HTTP/1.1\r\n\r\n"[..],
                &[0; 4096],
                &[0x16, 3, 1, 0xFF, 0xFF],
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(garbage).await.unwrap();
                if garbage.len() > 5 {
                    let mut said = Vec::new();
                    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut said));
                    let _ = end.await.expect("the connection is closed");
                }
            }
            until("they are counted", || desk.access_counts().handshakes_failed >= 3).await;
            let mut held = Vec::new();
            for _ in 0..2 * MOST_OF_ONE {
                held.push(TcpStream::connect(address).await.unwrap());
            }
            until("they have their places", || desk.access_counts().connections[1] == MOST_OF_ONE).await;
            const { assert!(MOST_OF_ONE < MOST_CONNECTIONS) };
            // Local callers do not notice.
            status(served.channel().await).await.unwrap();
            (held, Instant::now())
        })
        .await;
    assert!(ended.elapsed() < Duration::from_secs(4), "the end took {:?}", ended.elapsed());
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_disconnected() {
    let mut bench = Bench::new();
    let desk = Arc::clone(&bench.desk);
    bench
        .served(async |served| {
            let mut silent = UnixStream::connect(&served.socket).await.unwrap();
            let mut half = UnixStream::connect(&served.socket).await.unwrap();
            half.write_all(b"PRI * HTTP/2.0").await.unwrap();
            let mut scraper = TcpStream::connect(served.metrics).await.unwrap();
            scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
            let began = Instant::now();
            let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
            let all = async {
                tokio::join!(silent.read_to_end(&mut a), half.read_to_end(&mut b), scraper.read_to_end(&mut c))
            };
            let _ = tokio::time::timeout(Duration::from_secs(15), all).await.expect("all are disconnected");
            assert!(began.elapsed() >= Duration::from_secs(4), "not before their time: {:?}", began.elapsed());
            until("their places are free", || desk.access_counts().connections == [0, 0]).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_and_one_address_have_so_many_calls_and_streams() {
    let files = Files::new();
    let mut bench = files.with_tokens();
    let desk = Arc::clone(&bench.desk);
    bench
        .served(async |served| {
            let channel = served.tls(files.client(None)).await.unwrap();
            let token = files.viewer_token.clone();
            let watch = move |channel: Channel| {
                let mut request = Request::new(WatchEventsRequest::default());
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
                async move { ControlClient::new(channel).watch_events(request).await.map(tonic::Response::into_inner) }
            };
            // More than the connection may have: they wait at the client's, and harm nobody.
            let flood: Vec<_> = (0..1_000).map(|_| tokio::spawn(watch(channel.clone()))).collect();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let other = served.tls(files.client(None)).await.unwrap();
            let error = watch(other).await.unwrap_err();
            assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
            assert_eq!(error.get_error_details().error_info().unwrap().reason, "TOO_MANY_CALLS");
            // Those sent before the client had heard how many it may have are refused.
            let (over, flood): (Vec<_>, Vec<_>) = flood.into_iter().partition(tokio::task::JoinHandle::is_finished);
            let mut taken = Vec::new();
            for task in over {
                taken.extend(task.await.unwrap().ok());
            }
            assert_eq!(taken.len(), MOST_STREAMS_OF_ONE);
            let answer = tokio::time::timeout(Duration::from_secs(2), status(served.channel().await)).await;
            answer.expect("the local socket answers").unwrap();
            flood.iter().for_each(tokio::task::JoinHandle::abort);
            drop((flood, taken, channel));
            until("their places are free", || desk.access_counts().connections[1] == 0).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_the_connection_lives() {
    let mut bench = Bench::new();
    bench
        .served(async |served| {
            let mut client = served.client().await;
            let huge = WireSelector { channel: "x".repeat(1 << 20), ..Default::default() };
            let error = client.subscribe(SubscribeRequest { selector: Some(huge), dry_run: true }).await.unwrap_err();
            assert_eq!(error.code(), Code::OutOfRange, "{error}");
            let mut request = Request::new(GetStatusRequest {});
            request.metadata_mut().insert("x-long", "y".repeat(20_000).parse().unwrap());
            let error = client.get_status(request).await.unwrap_err();
            assert_ne!(error.code(), Code::Ok, "{error}");
            status(served.channel().await).await.unwrap();
            client.get_status(GetStatusRequest {}).await.expect("the same connection goes on");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_has_its_place_when_nobody_waits_for_it_any_more() {
    let mut bench = Bench::new();
    let worker = Arc::clone(&bench.worker);
    bench
        .served(async |served| {
            let client = served.client().await;
            worker.is_stuck.store(true, Relaxed);
            let leave_at_once = || {
                let mut client = client.clone();
                let selector = Some(WireSelector { line: "A".to_owned(), ..WireSelector::default() });
                let mut request = Request::new(SubscribeRequest { selector, dry_run: false });
                request.set_timeout(Duration::from_millis(50));
                tokio::spawn(async move { client.subscribe(request).await.unwrap_err() })
            };
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut is_refused = false;
            while !is_refused {
                assert!(Instant::now() < deadline, "there is no limit");
                let calls: Vec<_> = (0..MOST_CALLS_OF_CONNECTION).map(|_| leave_at_once()).collect();
                for call in calls {
                    is_refused |= call.await.unwrap().code() == Code::ResourceExhausted;
                }
            }
            worker.is_stuck.store(false, Relaxed);
            let mut places_again = served.client().await;
            while places_again.get_status(GetStatusRequest {}).await.is_err() {
                assert!(Instant::now() < deadline, "places are not free again");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_from_outside_takes_no_place_of_this_host() {
    let bench = Bench::new();
    let outside = || bench.desk.watch.place(Door::Remote([10, 0, 0, 1].into()));
    let held: Vec<_> = (0..MOST_WATCHERS).map(|_| outside().unwrap()).collect();
    assert_eq!(outside().unwrap_err().code(), Code::ResourceExhausted);
    drop(bench.desk.watch.place(Door::Local).expect("a place of this host"));
    drop(held);
    drop(outside().expect("free again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_with_the_handler() {
    let bench = Bench::new();
    bench.desk.start_lines().unwrap();
    let counts = ChannelCounts { next_sequence: 10, known_sequence: 12, state: 3, ..ChannelCounts::default() };
    bench.shared.channels[0].store(&counts.values());
    let desk = Arc::clone(&bench.desk);
    let draining = tokio::spawn(async move { desk.drain("itch/equities", Some(Duration::from_secs(60)), "x").await });
    until("it has begun", || !bench.desk.line_states()[0].in_force).await;
    assert!(!draining.is_finished());
    bench.desk.watch.end();
    let error = tokio::time::timeout(Duration::from_secs(5), draining).await.expect("it ends").unwrap().unwrap_err();
    let status = Status::from(error);
    assert_eq!(
        (status.code(), status.get_error_details().error_info().unwrap().reason.as_str()),
        (Code::Unavailable, "STOPPING")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_the_health_is_told_that_the_handler_stops() {
    let mut bench = Bench::new();
    let (mut watched, began) = bench
        .served(async |served| {
            let mut client = tonic_health::pb::health_client::HealthClient::new(served.channel().await);
            let request = tonic_health::pb::HealthCheckRequest::default();
            let mut watched = client.watch(request).await.unwrap().into_inner();
            watched.message().await.unwrap().expect("the state");
            (watched, Instant::now())
        })
        .await;
    let end = tokio::time::timeout(Duration::from_secs(5), watched.message()).await.expect("it ends").unwrap_err();
    assert_eq!(end.get_error_details().error_info().unwrap().reason, "STOPPING", "{end}");
    assert!(began.elapsed() < Duration::from_millis(1900), "the end waited for it: {:?}", began.elapsed());
}
