//! What the real worker says on the wire, in events and in counters when lines fall silent and when a sender restarts.
#![forbid(unsafe_code)]

use feedhandler::feed::Beginning;
use feedhandler::worker::shared::Event;
use feedhandler_testkit::mold::{self, Packet, Session};
use feedhandler_testkit::records::Record;

use feedhandler_testkit::bench_worker::{BenchWorker, plan};

const SESSION: Session = *b"0000000042";
/// A system event, which yields no record.
const MESSAGE: &[u8; 12] = b"S\0\0\0\0\0\0\0\0\0\x01O";
const MS: u64 = 1_000_000;
const GIVE_UP_MS: u64 = 20;

/// A worker with a clock, and what it said.
struct Rig {
    bench: BenchWorker,
    now_ns: u64,
    /// Sequences of blocks, each with the text of the system record in it.
    blocks: Vec<(u64, String)>,
    /// What heartbeats announced as next.
    heartbeats: Vec<u64>,
}

impl Rig {
    fn new() -> Self {
        let bench = BenchWorker::new(&plan(GIVE_UP_MS, 1024));
        Self { bench, now_ns: 0, blocks: Vec::new(), heartbeats: Vec::new() }
    }

    fn send(&mut self, lines: &[u16], payload: &[u8]) {
        lines.iter().for_each(|line| self.bench.inject(*line, payload, self.now_ns));
        self.wait(0);
    }

    fn message(&mut self, lines: &[u16], sequence: u64) {
        let mut packet = Packet::new(&SESSION, sequence);
        packet.push(MESSAGE);
        self.send(lines, &packet.into_payload());
    }

    /// Lets the time pass, in steps of a millisecond.
    fn wait(&mut self, ms: u64) {
        for _ in 0..=ms {
            let Self { bench, now_ns, blocks, heartbeats } = self;
            bench.cycle(*now_ns, |payload| {
                let view = mold::parse(payload).expect("MoldUDP64");
                assert_eq!((view.session, view.is_end), (SESSION, false));
                if view.blocks.is_empty() {
                    heartbeats.push(view.sequence);
                }
                for (sequence, mut block) in (view.sequence..).zip(view.blocks.iter().copied()) {
                    let system = (!block.is_empty()).then(|| Record::cut(&mut block).expect("a record"));
                    let text = system.and_then(|record| record.system()).map_or_else(String::new, |system| system.text);
                    blocks.push((sequence, text));
                }
            });
            self.now_ns += MS;
        }
    }

    /// What was said since the last call: sequences, with the text behind those that have one.
    fn said(&mut self) -> Vec<String> {
        let mut said: Vec<String> = Vec::new();
        let mut run: Option<(u64, u64)> = None;
        for (sequence, text) in std::mem::take(&mut self.blocks) {
            match &mut run {
                Some((_, to)) if *to + 1 == sequence && text.is_empty() => *to = sequence,
                _ => {
                    said.extend(run.replace((sequence, sequence)).map(|(from, to)| format!("{from}-{to}")));
                    if !text.is_empty() {
                        said.push(text);
                    }
                }
            }
        }
        said.extend(run.map(|(from, to)| format!("{from}-{to}")));
        said
    }

    fn events(&mut self) -> Vec<String> {
        let mut events = self.bench.link.events.lock().expect("nobody panicked");
        let each = std::iter::from_fn(|| events.pop().ok()).filter_map(|event| match event {
            Event::State { state, .. } => Some(format!("state {state}")),
            Event::Lost { from, to, session, .. } => Some(format!("lost {from}-{to} of {}", session.escape_ascii())),
            Event::Began { first, how: Beginning::Restarted, .. } => Some(format!("restarted at {first}")),
            Event::Began { first, how, .. } => Some(format!("{how:?} at {first}")),
            _ => None,
        });
        each.collect()
    }
}

#[test]
fn silence_is_a_state_and_is_told_in_front_of_what_comes_after_it() {
    let mut rig = Rig::new();
    (1..=10).for_each(|sequence| rig.message(&[0, 1], sequence));
    rig.wait(1_500);
    assert_eq!(rig.said(), ["session 0000000042: begins at message 1", "1-10"]);
    assert_eq!((rig.events(), rig.heartbeats.len()), (vec!["New at 1".to_owned(), "state 2".to_owned()], 0));
    rig.wait(5_000);
    assert_eq!(rig.events(), ["state 4"]);
    let before = rig.heartbeats.len();
    rig.wait(5_000);
    assert_eq!(rig.heartbeats.len(), before, "a stream whose input is silent does not say that all is well");
    rig.send(&[0], &mold::heartbeat(&SESSION, 11));
    rig.wait(1_500);
    assert_eq!((rig.events(), rig.heartbeats.last()), (vec!["state 2".to_owned()], Some(&11)));
    rig.message(&[1], 11);
    assert_eq!(rig.said(), ["session 0000000042: was silent and is back", "11-11"]);
    assert_eq!(rig.bench.link.shared.channel(0).messages, 11);
}

#[test]
fn a_sender_that_restarts_is_followed_and_what_the_doubt_cost_is_named() {
    let mut rig = Rig::new();
    (1..=1_000).for_each(|sequence| rig.message(&[0, 1], sequence));
    rig.wait(1_000);
    rig.said();
    rig.events();
    // The last of these is a second ago: nobody goes on there. Both lines begin again, a message per millisecond.
    (1..=100).for_each(|sequence| rig.message(&[0, 1], sequence));
    rig.wait(2_500);
    let first = 1 + GIVE_UP_MS;
    let text = format!(
        "session 0000000042: numbers begin again at message 1; session 0000000042: messages 1 to {} lost",
        first - 1
    );
    assert_eq!(rig.said(), [text, format!("{first}-100")]);
    let lost = format!("lost 1-{first} of 0000000042");
    assert_eq!(rig.events(), ["restarted at 1".to_owned(), "state 1".to_owned(), lost, "state 2".to_owned()]);
    let counts = rig.bench.link.shared.channel(0);
    assert_eq!((counts.restarts, counts.sessions, counts.messages_lost), (1, 1, GIVE_UP_MS));
    assert_eq!(rig.heartbeats.last(), Some(&101));
    // One line alone, after a silence that made the channel stale: nothing is lost.
    (101..=500).for_each(|sequence| rig.message(&[0, 1], sequence));
    rig.wait(6_000);
    rig.said();
    (1..=5).for_each(|sequence| rig.message(&[1], sequence));
    rig.wait(1_500);
    assert_eq!(rig.said(), ["session 0000000042: numbers begin again at message 1", "1-5"]);
    assert_eq!(rig.bench.link.shared.channel(0).messages_lost, GIVE_UP_MS);
    rig.bench.worker.audit();
}
