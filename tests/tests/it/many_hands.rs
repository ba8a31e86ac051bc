//! A thousand changes from eight clients at a time, with traffic: what they change is changed, and nothing else notices.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use feedhandler_proto::v1::control_client::ControlClient;
use feedhandler_proto::v1::edit::Edit as What;
use feedhandler_proto::v1::{
    ChangeRequest, ChannelSpec, DestinationSpec, Edit, GetStatusRequest, GetStatusResponse, LineSpec, ReloadRequest,
    Selector, SubscribeRequest, UnsubscribeRequest,
};
use feedhandler_testkit::consumer::Receiver;
use feedhandler_testkit::mold::{self, Packet};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::site::Site;
use crate::turn::turn;

/// As at the same time as two cores allow.
const CLIENTS: usize = 8;
/// Calls in all.
const CALLS: u64 = 1000;
/// Of one round of a client that changes, and of one that reloads.
const CALLS_A_ROUND: u64 = 5;

const SESSION: &[u8; 10] = b"0000000001";
const MESSAGE: &[u8; 12] = b"S\0\0\0\0\0\0\0\0\0\x01O";
/// Between two packets of the channel that nobody touches.
const PACE: Duration = Duration::from_micros(500);

/// What all clients share.
#[derive(Default)]
struct Tally {
    calls: AtomicU64,
    /// Reloads begun, and ended: each takes everybody's channels away.
    begun: AtomicU64,
    ended: AtomicU64,
}

struct Hand<'a> {
    number: usize,
    runtime: Runtime,
    control: ControlClient<Channel>,
    tally: &'a Tally,
}

impl<'a> Hand<'a> {
    fn new(number: usize, socket: &Path, tally: &'a Tally) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("an address");
        let channel = {
            let _inside = runtime.enter();
            endpoint.timeout(Duration::from_secs(30)).connect_lazy()
        };
        Self { number, runtime, control: ControlClient::new(channel), tally }
    }

    fn count(&self) {
        self.tally.calls.fetch_add(1, Relaxed);
    }

    fn name(&self) -> String {
        format!("hand-{}", self.number)
    }

    fn channel(&self) -> String {
        format!("itch/{}", self.name())
    }

    fn change(&mut self, edits: Vec<What>) -> Result<usize, Status> {
        self.count();
        let edits = edits.into_iter().map(|edit| Edit { edit: Some(edit) }).collect();
        let answer = self.runtime.block_on(self.control.change(ChangeRequest { edits, dry_run: false }))?;
        Ok(answer.into_inner().changes.len())
    }

    fn switch(&mut self, on: bool) -> Result<usize, Status> {
        self.count();
        let selector = Some(Selector { channel: self.channel(), ..Default::default() });
        Ok(if on {
            let answer = self.control.subscribe(SubscribeRequest { selector, dry_run: false });
            self.runtime.block_on(answer)?.into_inner().changed.len()
        } else {
            let answer = self.control.unsubscribe(UnsubscribeRequest { selector, dry_run: false });
            self.runtime.block_on(answer)?.into_inner().changed.len()
        })
    }

    fn status(&mut self) -> GetStatusResponse {
        self.runtime.block_on(self.control.get_status(GetStatusRequest {})).expect("a status").into_inner()
    }

    /// Adds a channel and a destination, switches it on, off, and removes it; each must have done what it says, unless a
    /// reload has come between.
    fn change_round(&mut self) {
        // In this order: one that is under way is seen to be.
        let (ended, begun) = (self.tally.ended.load(SeqCst), self.tally.begun.load(SeqCst));
        let port = 26_500 + self.number as u16;
        let line = LineSpec {
            name: "A".into(),
            interface: "fh-in".into(),
            group: format!("239.10.1.{}:{port}", self.number),
            subscribed: Some(false),
            ..Default::default()
        };
        let (name, feed) = (self.name(), "itch".to_owned());
        let channel = ChannelSpec { feed, name, max_orders: Some(1000), lines: vec![line], ..Default::default() };
        let destination = DestinationSpec {
            name: self.name(),
            channel: self.channel(),
            interface: "fh-out".into(),
            group: format!("239.20.1.{}:{port}", self.number),
            ..Default::default()
        };
        let added = self.change(vec![What::AddChannel(channel), What::AddDestination(destination)]);
        let on = self.switch(true);
        let is_there = self.status().channels.iter().any(|channel| channel.name == self.channel());
        let off = self.switch(false);
        let removed = self.change(vec![What::RemoveChannel(self.channel())]);
        let is_gone = !self.status().channels.iter().any(|channel| channel.name == self.channel());
        let again = self.change(vec![What::RemoveChannel(self.channel())]);
        assert!(matches!(again, Ok(0)), "what is gone already: {again:?}");
        assert!(added.as_ref().is_ok_and(|changes| *changes > 0), "{added:?}");
        assert!(removed.is_ok() && is_gone, "{removed:?}");
        let is_alone = ended == begun && self.tally.begun.load(SeqCst) == begun;
        for (what, switched) in [("on", on), ("off", off)] {
            match switched {
                Ok(1) if is_alone => assert!(is_there),
                Ok(_) if !is_alone => {}
                Err(error) if !is_alone && error.code() == Code::NotFound => {}
                other => panic!("{}, {what}: {other:?}", self.channel()),
            }
        }
    }

    /// Writes the file with one more channel or without, and has it read.
    fn reload_round(&mut self, site: &Site, round: u64) {
        for step in 0..CALLS_A_ROUND {
            let with_more = (round * CALLS_A_ROUND + step).is_multiple_of(2);
            write_config(site, with_more);
            self.tally.begun.fetch_add(1, SeqCst);
            self.count();
            let answer = self.runtime.block_on(self.control.reload(ReloadRequest { dry_run: false }));
            self.tally.ended.fetch_add(1, SeqCst);
            answer.unwrap_or_else(|error| panic!("reload: {error}"));
            let has_more = self.status().channels.iter().any(|channel| channel.name == "itch/more");
            assert_eq!(has_more, with_more);
        }
    }
}

/// The file that the handler was started with.
fn write_config(site: &Site, with_more: bool) {
    let more = "[[feed.channel]]\nname = \"more\"\nmax_orders = 1000\n[[feed.channel.line]]\nname = \"A\"\ninterface = \"fh-in\"\n\
                group = \"239.10.2.1:26600\"\n[[destination]]";
    site.config("hands", |text| if with_more { text.replacen("[[destination]]", more, 1) } else { text });
}

/// Everything that comes out of the channel that nobody touches, until message `last`.
fn assert_whole(consumer: &mut Receiver, last: &AtomicU64, sent: &AtomicBool) {
    let (mut next, mut quiet_since) = (1, Instant::now());
    loop {
        if sent.load(Relaxed) && next > last.load(Relaxed) {
            return;
        }
        assert!(quiet_since.elapsed() < Duration::from_secs(10), "nothing comes after message {}", next - 1);
        let Some((payload, _)) = consumer.receive().expect("a socket") else { continue };
        let view = mold::parse(payload).expect("MoldUDP64");
        if view.blocks.is_empty() {
            continue;
        }
        quiet_since = Instant::now();
        assert_eq!(view.sequence, next, "lost, or doubled");
        next += view.blocks.len() as u64;
    }
}

#[test]
fn a_thousand_changes_by_eight_clients_lose_nothing_elsewhere() {
    let _turn = turn();
    let site = Site::new();
    let running = site.start("hands");
    let consumer =
        site.far.enter(|| Receiver::join("239.20.0.1:30001".parse().expect("a group"), Ipv4Addr::new(10, 9, 2, 2)));
    let mut consumer = consumer.expect("inside").expect("a socket");
    let (sender, tally) = (site.sender(), Tally::default());
    let (last, sent, done) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for sequence in 1.. {
                let mut packet = Packet::new(SESSION, sequence);
                packet.push(MESSAGE);
                sender.send(&packet.into_payload()).expect("sent");
                last.store(sequence, Relaxed);
                if done.load(Relaxed) {
                    break;
                }
                std::thread::sleep(PACE);
            }
            sent.store(true, Relaxed);
        });
        let whole = scope.spawn(|| assert_whole(&mut consumer, &last, &sent));
        let hands: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (tally, site, socket) = (&tally, &site, &running.socket);
                scope.spawn(move || {
                    let mut hand = Hand::new(number, socket, tally);
                    for round in 0..CALLS / CALLS_A_ROUND / CLIENTS as u64 {
                        // One file: one who writes it.
                        if number == 0 { hand.reload_round(site, round) } else { hand.change_round() }
                    }
                })
            })
            .collect();
        let results: Vec<_> = hands.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Relaxed);
        whole.join().expect("the channel that nobody touches is whole");
        results.into_iter().for_each(|result| result.expect("a client"));
    });
    assert_eq!(tally.calls.load(Relaxed), CALLS);
    write_config(&site, false);
    let mut hand = Hand::new(CLIENTS, &running.socket, &tally);
    hand.runtime.block_on(hand.control.reload(ReloadRequest { dry_run: false })).expect("the file as it was");
    let status = hand.status();
    assert_eq!(status.channels.iter().map(|channel| &channel.name[..]).collect::<Vec<_>>(), ["itch/one"]);
    assert_eq!(status.channels[0].messages, last.load(Relaxed));
    assert!(status.ready, "{:?}", status.not_ready_reasons);
}
