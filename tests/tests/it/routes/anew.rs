//! A destination that is made anew while its channel runs: what its consumers have missed, and only that, is said of books.
#![forbid(unsafe_code)]

use feedhandler::app::build;
use feedhandler::config::plan::{Plan, RoutePlan};
use feedhandler::net::TxDestination;
use feedhandler::publish::Route;
use feedhandler::worker::edit::{Edit, NewStream, Retention};
use feedhandler::worker::shared::Command;
use feedhandler_testkit::bench_worker::{BenchWorker, plan_to};
use feedhandler_testkit::day::Day;
use feedhandler_testkit::exchange::Transmission;

use super::oracle::{Blocks, Oracle, add_packet, cut, symbols, without_notice};
use super::worker::{day, destination, transmissions, words};

const MAPPING: u8 = 0x16;

/// Destinations 0, which gets everything, and 1.
struct Bench {
    bench: BenchWorker,
    blocks: [Blocks; 2],
}

impl Bench {
    fn new(plan: &Plan) -> Self {
        Self { bench: BenchWorker::whole(plan), blocks: [Blocks::new(), Blocks::new()] }
    }

    fn feed(&mut self, transmission: &Transmission) {
        self.bench.inject(u16::try_from(transmission.line).expect("two"), &transmission.payload, transmission.at_ns);
        self.cycle(transmission.at_ns);
    }

    fn cycle(&mut self, at_ns: u64) {
        self.bench.cycle_to(at_ns, |destination, payload| add_packet(&mut self.blocks[destination], payload));
    }

    /// Has it done; the messages before are all but a last one without records.
    fn command(&mut self, command: Command, at_ns: u64) -> u64 {
        self.bench.link.send(command).expect("room");
        self.cycle(at_ns);
        self.blocks[0].last_key_value().map_or(1, |((_, last), _)| last + 1)
    }

    /// Destination 1 anew.
    fn anew(&mut self, plan: &Plan, continues: bool, at_ns: u64) -> u64 {
        let (stream, destination) = (build::joining_stream(plan, 1), TxDestination::Memory);
        let new = NewStream { stream, retention: Retention::None, continues, destination };
        let edit = Edit { remove_streams: vec![1], add_streams: vec![new], ..Edit::default() };
        self.command(Command::Edit(edit.ready()), at_ns)
    }

    /// Every block of destination 1 against the oracle, who hears of `what` before that message; how many differ from what
    /// destination 0 got.
    fn check(&self, oracle: &mut Oracle, mut before: impl FnMut(&mut Oracle, u64, &[u8])) -> usize {
        let mut marked = 0;
        for (key, block) in &self.blocks[0] {
            let records = without_notice(block);
            before(oracle, key.1, records);
            let Some(sent) = self.blocks[1].get(key) else { continue };
            let expected = oracle.dbn(records);
            assert_eq!(without_notice(sent), expected, "message {}", key.1);
            marked += usize::from(expected != records);
        }
        marked
    }
}

#[test]
fn what_was_withheld_is_remembered_also_where_everything_is_taken() {
    let some: Vec<_> = symbols(&Day::new(&day())).into_iter().step_by(4).collect();
    let narrow = plan_to(20, 512, "", &destination("part", 2, &words(&some)));
    let wide = plan_to(20, 512, "", &destination("part", 2, ""));
    let transmissions = transmissions(0.0);
    let mut bench = Bench::new(&narrow);
    let mut changes = vec![];
    for (i, transmission) in transmissions.iter().enumerate() {
        let at_ns = transmission.at_ns;
        if i == transmissions.len() / 4 {
            let route = Route::new(&RoutePlan::default());
            changes.push(bench.command(Command::SetRoute { destination: 1, route }, at_ns));
        }
        if i == transmissions.len() / 2 || i == transmissions.len() / 4 * 3 {
            changes.push(bench.anew(&wide, true, at_ns));
        }
        bench.feed(transmission);
    }
    assert_eq!(bench.blocks[0].len(), bench.blocks[1].len());
    let mut oracle = Oracle::new(RoutePlan { instruments: some, ..RoutePlan::default() });
    let last = changes[2];
    let mut marked_before = 0;
    let marked = bench.check(&mut oracle, |oracle, sequence, _| {
        if changes.contains(&sequence) {
            oracle.set_route(RoutePlan::default());
        }
        marked_before += usize::from(sequence < last);
    });
    assert!(marked > marked_before / 2 + 1_000, "{marked} blocks, {marked_before} messages before the last change");
}

#[test]
fn who_joins_has_missed_the_instruments_that_the_session_has_said_and_no_others() {
    let plan = plan_to(20, 512, "", &destination("part", 2, ""));
    let mut bench = Bench::new(&plan);
    let mapped = |blocks: &Blocks| {
        blocks.values().flat_map(|block| cut(without_notice(block))).filter(|record| record[1] == MAPPING).count()
    };
    let mut missed = None;
    for transmission in &transmissions(0.0) {
        if missed.is_none() && mapped(&bench.blocks[0]) >= 10 {
            missed = Some(mapped(&bench.blocks[0]));
            bench.anew(&plan, false, transmission.at_ns);
            // What the consumer before had is not this one's.
            bench.blocks[1].clear();
        }
        bench.feed(transmission);
    }
    let begin = bench.blocks[1].first_key_value().expect("it gets blocks").0.1;
    let mut oracle = Oracle::new(RoutePlan::default());
    let marked = bench.check(&mut oracle, |oracle, sequence, records| {
        if sequence < begin {
            oracle.miss(records);
        }
    });
    let (missed, all) = (missed.expect("a directory"), mapped(&bench.blocks[0]));
    let messages = bench.blocks[1].len();
    assert!(missed < all * 3 / 4, "{missed} of {all}: some come later");
    assert!(marked > messages / 20 && marked < messages * 3 / 4, "{marked} of {messages}");
}
