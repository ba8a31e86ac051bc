//! A running worker allocates nothing.
#![forbid(unsafe_code)]

use feedhandler::config::plan::Format;
use feedhandler::feed::{JoinState, LineRole};
use feedhandler::net::TxDestination;
use feedhandler::worker::edit::{Edit, NewLine, NewStream, Retention};
use feedhandler::worker::shared::{Command, Event};
use feedhandler_testkit::day::{Day, DaySettings};
use feedhandler_testkit::exchange::{Exchange, ExchangeSettings, Transmission};
use feedhandler_testkit::line::LineSettings;
use feedhandler_testkit::mold;
use feedhandler_testkit::retransmission::{RetransmissionServer, ServerSettings};

use feedhandler::config::plan::{RecordKind, RoutePlan};
use feedhandler::metrics::DestinationCounts;
use feedhandler::publish::{Route, retention};

use crate::edits;
use crate::edits::rig::Rig;
use crate::retransmission::{responder, take_sent};
use crate::routes::oracle::symbols;
use crate::snapshot::sim::packets;
use feedhandler_testkit::bench_worker::{BenchWorker, plan, plan_to, plan_with};

#[test]
fn a_running_worker_allocates_nothing() {
    let day = DaySettings { seed: 3, messages: 30_000, instruments: 100, live_orders: 5_000, recency: 0.5 };
    let imperfect = LineSettings {
        loss: 0.05,
        duplicate: 0.02,
        reorder: 0.02,
        reorder_ns: 500_000,
        skew_ns: 50_000,
        ..LineSettings::default()
    };
    let settings = ExchangeSettings { seed: 3, lines: [imperfect, imperfect], ..ExchangeSettings::default() };
    let transmissions: Vec<Transmission> = Exchange::new(settings, Day::new(&day)).collect();
    let mut bench = BenchWorker::new(&plan(20, 512));
    let mut sent = 0;
    let counted = allocation_counter::measure(|| {
        for transmission in &transmissions {
            let line = u16::try_from(transmission.line).unwrap_or_default();
            bench.inject(line, &transmission.payload, transmission.at_ns);
            bench.cycle(transmission.at_ns, |_| sent += 1);
        }
    });
    let counts = bench.link.shared.channel(0);
    assert!(sent > 1_000, "the worker was at work: {sent} packets");
    assert!(counts.held_packets > 0 && counts.gaps_lost > 0, "gaps were held and given up: {counts:?}");
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "allocations, bytes");
}

/// Nor does it when it tells what is missing and is handed what was recovered.
#[test]
fn a_worker_that_recovers_allocates_nothing() {
    let lossy = LineSettings { loss: 0.1, ..LineSettings::default() };
    let day = DaySettings { seed: 7, messages: 10_000, instruments: 100, live_orders: 5_000, recency: 0.5 };
    let settings = ExchangeSettings { seed: 7, lines: [lossy, lossy], ..ExchangeSettings::default() };
    let mut exchange = Exchange::new(settings, Day::new(&day));
    let transmissions: Vec<Transmission> = exchange.by_ref().collect();
    let servers = "[feed.channel.recovery]\nservers = [\"10.0.9.1:18000\"]";
    let plan = plan_with(20, 512, servers);
    let (mut bench, mut ends) = BenchWorker::recovering(&plan);
    // The answers exist before: here the worker is measured, and not those who ask for it.
    let mut server = RetransmissionServer::new(ServerSettings::default(), Day::new(&day));
    server.advance(exchange.next_sequence());
    let answers: Vec<Vec<u8>> = (1..exchange.next_sequence())
        .map(|sequence| {
            let mut request = mold::heartbeat(b"DEMO000001", sequence);
            request[19] = 1;
            server.request(&request, 0).remove(0).1
        })
        .collect();
    let mut handed = 0;
    let counted = allocation_counter::measure(|| {
        for transmission in &transmissions {
            let line = u16::try_from(transmission.line).unwrap_or_default();
            bench.inject(line, &transmission.payload, transmission.at_ns);
            bench.cycle(transmission.at_ns, |_| {});
            while let Ok(wanted) = ends.wanted.pop() {
                for sequence in wanted.holes.iter().flat_map(|(from, to)| *from..*to) {
                    let answer = &answers[usize::try_from(sequence - 1).unwrap_or_default()];
                    handed += u64::from(ends.answers.hand(plan.recovery_line(0), answer, bench.base_ns));
                }
            }
        }
    });
    let recovered = bench.link.shared.line(plan.recovery_line(0).into()).first;
    assert!(handed > 20 && recovered > 20, "{handed} handed, {recovered} of them recovered");
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "allocations, bytes");
}

/// Nor does it when it waits for a snapshot, delivers it and goes on.
#[test]
fn a_worker_that_is_joined_late_allocates_nothing() {
    let day = DaySettings { seed: 9, messages: 10_000, instruments: 100, live_orders: 2_000, recency: 0.5 };
    let settings = ExchangeSettings { seed: 9, ..ExchangeSettings::default() };
    let session = settings.session;
    let transmissions: Vec<Transmission> = Exchange::new(settings, Day::new(&day)).collect();
    let plan = plan_with(20, 4096, "start = \"snapshot\"\n[feed.channel.snapshot]\nservers = [\"10.0.9.1:19000\"]");
    let (mut bench, ends) = BenchWorker::joining(&plan);
    let mut handoff = ends.snapshot.packets.lock().expect("nobody panics here");
    let snapshot = packets(&session, &day, 6_000);
    let mut packets = snapshot.iter().peekable();
    let counted = allocation_counter::measure(|| {
        for transmission in transmissions.iter().skip(transmissions.len() / 2) {
            let line = u16::try_from(transmission.line).unwrap_or_default();
            bench.inject(line, &transmission.payload, transmission.at_ns);
            bench.cycle(transmission.at_ns, |_| {});
            let is_time = bench.link.shared.channel(0).known_sequence > 6_500;
            while is_time
                && packets.next_if(|packet| handoff.hand(plan.snapshot_line(0), packet, bench.base_ns)).is_some()
            {
            }
        }
    });
    let counts = bench.link.shared.channel(0);
    assert_eq!(counts.snapshot_state, JoinState::Joined as u64, "{counts:?}");
    assert!(counts.snapshot_messages > 1_000 && counts.held_packets > 10, "{counts:?}");
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "allocations, bytes");
}

/// Nor does it when what it sends is retained; nor does who retains it, and answers.
#[test]
fn a_worker_whose_output_is_retained_allocates_nothing() {
    let day = DaySettings { seed: 11, messages: 20_000, instruments: 100, live_orders: 5_000, recency: 0.5 };
    let settings = ExchangeSettings { seed: 11, ..ExchangeSettings::default() };
    let transmissions: Vec<Transmission> = Exchange::new(settings, Day::new(&day)).collect();
    let mut bench = BenchWorker::new(&plan(20, 512));
    // Smaller than the day: it goes round.
    let (retainer, mut retained) = retention(1 << 16);
    bench.worker.retain(0, retainer);
    let mut responder = responder(1 << 19);
    let mut buffer = vec![0; 1 << 16];
    let mut request = [0; mold::HEADER_BYTES];
    let counted = allocation_counter::measure(|| {
        for transmission in &transmissions {
            let line = u16::try_from(transmission.line).unwrap_or_default();
            bench.inject(line, &transmission.payload, transmission.at_ns);
            bench.cycle(transmission.at_ns, |payload| request.copy_from_slice(&payload[..mold::HEADER_BYTES]));
            take_sent(&mut retained, &mut responder, &mut buffer);
            let _ = responder.request([10, 0, 0, 7].into(), &request, transmission.at_ns);
        }
    });
    let counts = responder.counts();
    assert!(counts.retained > 1_000 && counts.answers > 1_000, "{counts:?}");
    assert!(counts.first_sequence > 1 && counts.next_sequence > 15_000, "the oldest went: {counts:?}");
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "allocations, bytes");
}

/// Nor does it when destinations take a part of it, and other parts again and again; what it hands back is freed by control.
#[test]
fn a_worker_whose_routes_change_allocates_nothing() {
    let day = DaySettings { seed: 13, messages: 30_000, instruments: 100, live_orders: 5_000, recency: 0.5 };
    let settings = ExchangeSettings { seed: 13, ..ExchangeSettings::default() };
    let transmissions: Vec<Transmission> = Exchange::new(settings, Day::new(&day)).collect();
    let symbols = symbols(&Day::new(&day));
    let mut bench = BenchWorker::whole(&plan_to(20, 512, "", "records = [\"mbo\", \"status\"]"));
    let (mut changes, mut back) = (0, 0);
    let mut counted = allocation_counter::AllocationInfo::default();
    for (i, transmission) in transmissions.iter().enumerate() {
        if i % 20 == 0 {
            let instruments = symbols.iter().skip(changes % 40).copied().collect();
            let records = if changes % 3 == 0 { vec![RecordKind::Trade] } else { vec![] };
            let route = Route::new(&RoutePlan { instruments, records });
            bench.link.send(Command::SetRoute { destination: 0, route }).expect("room");
            changes += 1;
        }
        let now = allocation_counter::measure(|| {
            let line = u16::try_from(transmission.line).unwrap_or_default();
            bench.inject(line, &transmission.payload, transmission.at_ns);
            bench.cycle(transmission.at_ns, |_| {});
        });
        counted.count_total += now.count_total;
        counted.bytes_total += now.bytes_total;
        // Freed is nothing either: the old route is there, whole, for control to free.
        assert_eq!(now.count_current, 0, "freed by the worker");
        let mut events = bench.link.events.lock().expect("not poisoned");
        while let Ok(event) = events.pop() {
            back += usize::from(matches!(event, Event::RouteOut(_)));
        }
    }
    let counts = DestinationCounts::from_values(bench.link.shared.destinations[0].load());
    assert!(changes > 50 && back == changes, "{changes} changes, {back} came back");
    assert!(counts.blocks_filtered > 1_000 && counts.records > 1_000 && counts.mappings_added > 10, "{counts:?}");
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "allocations, bytes");
}

#[test]
fn the_counter_can_count() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1_u64)))).count_total, 1);
}

/// Nor does it when it is changed, and it frees nothing: channels, lines and streams come and go under load.
#[test]
fn a_worker_that_is_edited_allocates_and_frees_nothing() {
    let mut rig = Rig::new();
    let session = *b"SESSION001";
    let packets: Vec<Vec<u8>> = (0..4_000_u64)
        .map(|i| {
            let mut packet = mold::Packet::new(&session, 1 + 2 * i);
            (0..2).for_each(|_| packet.push(b"?message"));
            packet.into_payload()
        })
        .collect();
    let add = |i: usize| Edit {
        add_channels: vec![edits::rig::channel(1 + i % 4)],
        add_lines: vec![NewLine { line: 2, channel: 1 + i % 4, role: LineRole::A, socket: None }],
        add_streams: vec![NewStream {
            stream: edits::rig::stream(1, 1 + i % 4, i % 2, Format::Dbn),
            retention: Retention::New(retention(1 << 16).0),
            continues: false,
            destination: TxDestination::Memory,
        }],
        ..Edit::default()
    };
    let remove = |i: usize| Edit {
        remove_channels: vec![1 + i % 4],
        remove_lines: vec![2],
        remove_streams: vec![1],
        ..Edit::default()
    };
    let both = |i: usize| [add(i).ready(), remove(i).ready()];
    let mut edits = (0..50).flat_map(both).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>();
    let mut back = Vec::with_capacity(edits.len());
    let mut sent = [0; 2];
    let counted = allocation_counter::measure(|| {
        for (i, packet) in packets.iter().enumerate() {
            match i % 40 {
                0 => assert!(edits.pop().is_some_and(|edit| rig.link.send(Command::Edit(edit)).is_ok())),
                1 => assert!(rig.link.send(Command::SetLine { line: 2, enabled: true }).is_ok()),
                _ => {}
            }
            // Channel 0 gets all of it, the others what comes while they are there; they hold it behind what is missing.
            rig.inject(0, (i % 2) as u16, packet);
            rig.inject(1, 2, packet);
            rig.cycle(50_000);
            rig.drain(|to, _| sent[to] += 1);
            while let Some(event) = rig.event() {
                if let Event::Edited(edit) = event {
                    back.push(edit);
                }
            }
        }
    });
    assert!(edits.is_empty() && back.len() == 100 && back.iter().all(|edit| edit.is_done()));
    assert!(back.iter().filter(|edit| edit.removed.channels.len() == 1).count() == 50);
    let held: u64 =
        back.iter().flat_map(|edit| &edit.removed.channels).map(|(_, channel)| channel.counts().held_packets).sum();
    assert!(sent[0] > 3_000 && sent[1] > 0 && held > 500, "{sent:?} sent, {held} held");
    assert_eq!(
        (counted.count_total, counted.bytes_total, counted.count_current),
        (0, 0, 0),
        "allocations, bytes, frees"
    );
}
