//! A port that is exchanged in the middle of the stream, as when a link is deleted and made again: nothing is lost or
//! doubled, no frame is, and the counters go on.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use feedhandler::metrics::{DropCounts, DropReason, PortCounts};
use feedhandler::net::TxPort;
use feedhandler::worker::shared::{Command, Event};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings, Transmission};

use feedhandler_testkit::bench_worker::{BenchWorker, plan, port};

const PACKETS_PER_EXCHANGE: usize = 50;

/// Message numbers of an output packet.
fn sequences(payload: &[u8]) -> std::ops::Range<u64> {
    let first = u64::from_be_bytes(payload[10..18].try_into().expect("a header"));
    let count = u16::from_be_bytes([payload[18], payload[19]]);
    first..first + if count == u16::MAX { 0 } else { u64::from(count) }
}

#[test]
fn what_an_exchanged_port_had_received_and_what_was_open_for_it_leaves_first() {
    let day = DaySettings { seed: 5, messages: 5_000, instruments: 50, live_orders: 1_000, recency: 0.5 };
    let transmissions: Vec<Transmission> =
        Exchange::new(ExchangeSettings { seed: 5, ..ExchangeSettings::default() }, Day::new(&day)).collect();
    let plan = plan(20, 512);
    let mut bench = BenchWorker::new(&plan);
    let mut seen = BTreeMap::<u64, u64>::new();
    let mut exchanges = 0;
    let note = |seen: &mut BTreeMap<u64, u64>, payload: &[u8]| {
        sequences(payload).for_each(|sequence| *seen.entry(sequence).or_default() += 1);
    };
    for (i, transmission) in transmissions.iter().enumerate() {
        bench.inject(u16::try_from(transmission.line).unwrap_or_default(), &transmission.payload, transmission.at_ns);
        if i % PACKETS_PER_EXCHANGE == PACKETS_PER_EXCHANGE - 1 {
            // The command is taken at the beginning of the cycle: the datagram still lies in the old port.
            bench.link.send(Command::ReplacePort { port: 0, with: Box::new(port(&plan)) }).expect("room");
            bench.cycle(transmission.at_ns, |payload| note(&mut seen, payload));
            let out = std::iter::from_fn(|| bench.link.events.lock().expect("not poisoned").pop().ok());
            let mut old = out.filter_map(|event| if let Event::PortOut(port) = event { Some(port) } else { None });
            let mut old = old.next().expect("the old port comes back");
            let Some(TxPort::Memory(tx)) = &mut old.tx else { unreachable!("a memory port") };
            tx.drain(|_, payload| note(&mut seen, payload));
            exchanges += 1;
        } else if i % 3 == 0 {
            bench.cycle(transmission.at_ns, |payload| note(&mut seen, payload));
        }
        bench.worker.audit();
    }
    let end_ns = transmissions.last().expect("a day").at_ns;
    for step in 1..100 {
        bench.cycle(end_ns + step * 20_000_000, |payload| note(&mut seen, payload));
    }
    assert!(exchanges > 10, "{exchanges} exchanges");
    let shared = &bench.link.shared;
    let (first, last) = (*seen.keys().next().expect("output"), *seen.keys().last().expect("output"));
    assert_eq!((first, last), (1, shared.channel(0).messages), "from the first message to the last");
    let wrong: Vec<_> = seen.iter().filter(|(_, count)| **count != 1).collect();
    assert!(wrong.is_empty() && seen.len() as u64 == last, "doubled, or missing between: {wrong:?}");
    let received = PortCounts::from_values(shared.rx[0].load()).frames;
    assert_eq!(received, transmissions.len() as u64, "the receive counter goes on");
    let drops = DropCounts::from_values(shared.tx_drops[0].load());
    assert_eq!(drops.get(DropReason::LinkLost), 0, "nothing was left in a ring");
}
