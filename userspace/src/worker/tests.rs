//! What the worker does with commands, without ports.
#![forbid(unsafe_code)]

use super::*;
use crate::latency::Stage;
use crate::worker::shared::WorkerLink;

fn worker(event_count: usize) -> (Worker, WorkerLink) {
    let (commands, command_queue) = rtrb::RingBuffer::new(4);
    let (event_queue, events) = rtrb::RingBuffer::new(event_count);
    let shared = WorkerShared::new(1, 0, 0, 0);
    let worker = Worker::new(WorkerParts {
        ports: vec![],
        lines: vec![Some(LineSlot { channel: 0, role: LineRole::A, enabled: false })],
        channels: vec![],
        publisher: Publisher::new(vec![]),
        idle: Idle::Spin,
        commands: command_queue,
        events: event_queue,
        wants: None,
        shared: Arc::clone(&shared),
    });
    (worker, WorkerLink { index: 0, commands: commands.into(), events: events.into(), shared, payload_bytes: vec![] })
}

#[test]
fn a_command_counts_as_applied_once_it_is() {
    let (mut worker, link) = worker(1);
    assert_eq!(link.send(Command::SetLine { line: 0, enabled: true }).unwrap(), 1);
    assert_eq!(link.send(Command::Stop).unwrap(), 2);
    let applied = || link.shared.commands_applied.load(Relaxed);
    assert_eq!(applied(), 0);
    worker.take_command(&|| 0);
    assert!(applied() == 1 && worker.lines[0].unwrap().enabled && !worker.stopping);
    worker.take_command(&|| 0);
    assert!(applied() == 2 && worker.stopping);
    worker.take_command(&|| 0);
    assert_eq!(applied(), 2);
}

#[test]
fn latencies_wait_for_room_in_the_event_queue() {
    let (mut worker, link) = worker(1);
    worker.report(Event::State { channel: 0, state: 0 });
    worker.latency.record(Stage::EntryToSent, 700);
    link.send(Command::SwapLatency(Box::default())).unwrap();
    worker.take_command(&|| 0);
    worker.latency.record(Stage::EntryToSent, 800);
    let next = || link.events.lock().unwrap().pop().ok();
    assert!(matches!(next(), Some(Event::State { .. })));
    assert!(next().is_none() && worker.events_dropped == 0);
    worker.take_command(&|| 0);
    let Some(Event::Latency(full)) = next() else { panic!("the swap must come as soon as there is room") };
    assert_eq!(full.stage(Stage::EntryToSent).len(), 2, "both records, before and after the request");
    assert_eq!(worker.latency.stage(Stage::EntryToSent).len(), 0);
    // And the next request is answered too.
    link.send(Command::SwapLatency(full)).unwrap();
    worker.take_command(&|| 0);
    assert!(matches!(next(), Some(Event::Latency(_))));
}

#[test]
fn an_edit_waits_for_room_in_the_event_queue_and_commands_wait_for_it() {
    let (mut worker, link) = worker(1);
    worker.report(Event::State { channel: 0, state: 0 });
    link.send(Command::Edit(edit::Edit { remove_lines: vec![0, 7], ..Default::default() }.ready())).unwrap();
    link.send(Command::Stop).unwrap();
    worker.take_command(&|| 0);
    worker.take_command(&|| 0);
    assert!(worker.lines[0].is_none() && !worker.stopping && worker.events_dropped == 0);
    assert_eq!(link.shared.commands_applied.load(Relaxed), 1);
    let next = || link.events.lock().unwrap().pop().ok();
    assert!(matches!(next(), Some(Event::State { .. })));
    worker.take_command(&|| 0);
    let Some(Event::Edited(edit)) = next() else { panic!("it must come back as soon as there is room") };
    assert!(edit.is_done() && worker.stopping && link.shared.refusal(1).is_none());
}

#[test]
fn what_cannot_be_added_comes_back_and_the_command_is_refused() {
    let (mut worker, link) = worker(1);
    let line = edit::NewLine { line: 0, channel: 0, role: LineRole::A, socket: None };
    link.send(Command::Edit(edit::Edit { add_lines: vec![line], ..Default::default() }.ready())).unwrap();
    worker.take_command(&|| 0);
    let Some(Event::Edited(edit)) = link.events.lock().unwrap().pop().ok() else { panic!("there is room") };
    assert!(!edit.is_done() && edit.add_lines.len() == 1, "there is no such channel");
    assert_eq!(link.shared.refusal(1).unwrap().raw_os_error(), Some(libc::ENOSPC));
}
