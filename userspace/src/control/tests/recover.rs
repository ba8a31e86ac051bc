//! Forced recovery.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use feedhandler_proto::v1::event::What;
use feedhandler_proto::v1::{RecoverRequest, WatchEventsRequest};
use tonic::Code;

use super::*;
use crate::beside::threads::{Ends, PreparedChannel};
use crate::feed::Holes;
use crate::net::handoff::handoff;
use crate::{recovery, snapshot, source};

impl Bench {
    /// With a server of the channel's, the recovery thread, and a worker that will tell it of these holes when it is asked to.
    fn missing(holes: &[(u64, u64)]) -> (Self, UdpSocket) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bench = Self::new();
        let mut plan = (*bench.desk.plan()).clone();
        let SocketAddr::V4(address) = server.local_addr().unwrap() else { unreachable!("an IPv4 address") };
        plan.channels[0].recovery.as_mut().unwrap().servers = vec![address];
        let (wants, wanted) = rtrb::RingBuffer::new(4);
        let shared = || Arc::clone(&bench.shared);
        let ends = Ends {
            recovery: recovery::Ends { worker: 0, wanted, answers: handoff(8).0, shared: shared() },
            snapshot: snapshot::Ends { worker: 0, packets: Arc::new(Mutex::new(handoff(8).0)), shared: shared() },
            source: source::Ends { worker: 0, datagrams: handoff(8).0, shared: shared() },
            shared: shared(),
        };
        let threads = Threads::new(vec![ends]);
        threads.begin();
        threads.start(PreparedChannel::new(&plan, 0).unwrap()).unwrap();
        let holes = Holes::from_iter(holes.iter().copied());
        let missing = Wanted { channel: 0, session: *b"SESSION001", holes };
        let desk = Arc::get_mut(&mut bench.desk).expect("nobody else has it yet");
        (desk.plan, desk.threads) = (Mutex::new(Arc::new(plan)), threads);
        *locked(&bench.worker.missing) = Some((missing, wants));
        (bench, server)
    }
}

async fn recover(served: &Served, channel: &str) -> Result<u64, tonic::Status> {
    let request = RecoverRequest { channel: channel.to_owned() };
    served.client().await.recover(request).await.map(|answer| answer.into_inner().missing)
}

#[tokio::test]
async fn what_the_worker_misses_is_asked_for_at_once_and_everybody_is_told_who_wanted_it() {
    let (mut bench, server) = Bench::missing(&[(7, 9), (20, 30)]);
    bench
        .served(async |served| {
            let watch = WatchEventsRequest::default();
            let mut events = served.client().await.watch_events(watch).await.unwrap().into_inner();
            assert_eq!(recover(&served, "itch/equities").await.unwrap(), 12);
            let told = events.message().await.unwrap().unwrap().what;
            let Some(What::OperatorAction(action)) = told else { panic!("{told:?}") };
            assert_eq!((action.action.as_str(), action.error.as_str()), ("recover", ""));
            assert_eq!(action.changes, ["itch/equities: 12 missing messages are asked for"]);
            assert!(action.by.starts_with("uid "), "{}", action.by);
            let error = recover(&served, "itch/nothing").await.unwrap_err();
            assert_eq!((error.code(), error.message().contains("itch/nothing")), (Code::NotFound, true));
            let told = events.message().await.unwrap().unwrap().what;
            let Some(What::OperatorAction(action)) = told else { panic!("{told:?}") };
            assert!(action.changes.is_empty() && action.error.contains("no channel `itch/nothing`"), "{action:?}");
        })
        .await;
    let mut request = [0; 64];
    for expected in [&b"SESSION001\0\0\0\0\0\0\0\x07\0\x02"[..], b"SESSION001\0\0\0\0\0\0\0\x14\0\x0A"] {
        let length = server.recv(&mut request).expect("a request");
        assert_eq!(&request[..length], expected);
    }
}

#[tokio::test]
async fn nothing_missing_is_no_error_but_nobody_to_ask_is_and_a_worker_that_is_stuck() {
    let (mut bench, server) = Bench::missing(&[]);
    assert_eq!(bench.desk.recover("itch/equities", "a test").unwrap(), 0);
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.recv(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    bench.worker.is_stuck.store(true, Relaxed);
    bench
        .served(async |served| {
            let error = recover(&served, "itch/equities").await.unwrap_err();
            assert_eq!((error.code(), error.message().contains("worker `w0`")), (Code::Unavailable, true));
        })
        .await;
    let mut bench = Bench::new();
    let mut plan = (*bench.desk.plan()).clone();
    plan.channels[0].recovery = None;
    Arc::get_mut(&mut bench.desk).expect("nobody else has it yet").plan = Mutex::new(Arc::new(plan));
    bench
        .served(async |served| {
            let error = recover(&served, "itch/equities").await.unwrap_err();
            assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
            assert!(error.message().contains("has no retransmission servers"), "{error}");
        })
        .await;
}
