//! What a route costs, beside none: `cargo test -p feedhandler-testkit --test it routes::cost -- --ignored --nocapture`.
#![forbid(unsafe_code)]

use std::time::Instant;

use feedhandler::app::build;
use feedhandler::clock;
use feedhandler::config::plan::{Format, RecordKind, RoutePlan};
use feedhandler::feed::{Channel, LineRole};
use feedhandler::net::headers::Header;
use feedhandler::net::memory::MemoryTx;
use feedhandler::net::{Frames, Outlets, TxPort};
use feedhandler::publish::{Publisher, Stream, StreamSettings};
use feedhandler_testkit::bench_worker::plan;
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::mold::Packet;

use super::oracle::symbols;

const MESSAGES: u64 = 300_000;
const ROUNDS: usize = 7;
const BATCH: usize = 32;

fn packets(day: &DaySettings) -> Vec<Vec<u8>> {
    let (mut packets, mut packet, mut bytes) = (Vec::new(), Packet::new(b"ROUTE00001", 1), Vec::new());
    for (next, message) in (2..).zip(Day::new(day)) {
        bytes.clear();
        message.encode(&mut bytes);
        packet.push(&bytes);
        if packet.count() == 24 {
            packets.push(std::mem::replace(&mut packet, Packet::new(b"ROUTE00001", next)).into_payload());
        }
    }
    packets
}

/// Nanoseconds per message from a datagram to packets that are ready to be sent.
fn measure(packets: &[Vec<u8>], route: &RoutePlan) -> f64 {
    let mut tx = TxPort::Memory(MemoryTx::with_capacity(1 << 10, 1 << 20));
    let (source, group) = ("10.0.0.1:1".parse().unwrap(), "239.1.1.1:1".parse().unwrap());
    let destination = tx.add_destination(Header::multicast([2; 6], 0, source, group, 1).unwrap()).unwrap();
    let (channel, port, payload_bytes) = (0, 0, 1472);
    let settings = StreamSettings { destination, channel, port, format: Format::Dbn, payload_bytes };
    let mut publisher = Publisher::new(vec![Stream::new(settings).routed(route)]);
    let (frames, mut ports) = ([Frames::heap(512, 2048)], [Some(tx)]);
    let mut channel = Channel::new(build::channel_settings(&plan(20, 512), 0, clock::utc_ns()).unwrap()).unwrap();
    let (now_ns, offset_ns) = (clock::monotonic_ns(), clock::utc_offset_ns());
    let started = Instant::now();
    for batch in packets.chunks(BATCH) {
        for (slot, payload) in (0..).zip(batch) {
            let _ = channel.admit(slot, LineRole::A, payload, now_ns);
        }
        let mut outbound = publisher.outbound(Outlets::new(&frames, &mut ports));
        channel.deliver(|slot| &batch[usize::from(slot)][..], offset_ns, &mut outbound);
        publisher.flush(&mut Outlets::new(&frames, &mut ports));
        if let Some(TxPort::Memory(port)) = &mut ports[0] {
            port.drain(|_, payload| {
                let _ = std::hint::black_box(payload);
            });
        }
    }
    started.elapsed().as_nanos() as f64 / channel.counts().messages as f64
}

#[test]
#[ignore = "a measurement, for a quiet machine"]
fn cost_of_a_route() {
    let day = DaySettings { seed: 1, messages: MESSAGES, instruments: 2_000, live_orders: 50_000, recency: 0.6 };
    let (packets, all) = (packets(&day), symbols(&Day::new(&day)));
    let instruments =
        |step: usize| RoutePlan { instruments: all.iter().step_by(step).copied().collect(), ..RoutePlan::default() };
    let kinds = |records: &[RecordKind]| RoutePlan { records: records.to_vec(), ..RoutePlan::default() };
    let cases = [
        ("no route", RoutePlan::default()),
        ("every symbol by name", instruments(1)),
        ("half of the symbols", instruments(2)),
        ("one symbol in 100", instruments(100)),
        ("mbo, definition", kinds(&[RecordKind::Mbo, RecordKind::Definition])),
        ("trade", kinds(&[RecordKind::Trade])),
    ];
    let mut best = [f64::MAX; 6];
    for _ in 0..ROUNDS {
        for (best, (_, route)) in best.iter_mut().zip(&cases) {
            *best = best.min(measure(&packets, route));
        }
    }
    for (ns, (name, _)) in best.iter().zip(&cases) {
        println!("{name:22} {ns:6.1} ns per message, {:.2} of no route", ns / best[0]);
    }
    assert!(best[1] < best[0] * 1.5, "a route that takes everything costs half as much again");
}
