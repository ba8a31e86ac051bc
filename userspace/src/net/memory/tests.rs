//! The memory ports, and the law of frames over any order of steps.
#![forbid(unsafe_code)]

use super::*;
use crate::net::{BATCH, Header, RxPort, TxDestination, TxPort};
use proptest::prelude::*;

fn build(frames: &Frames, payload: &[u8]) -> Frame {
    let mut frame = frames.alloc().unwrap();
    frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload.len()].copy_from_slice(payload);
    frame
}

#[test]
fn injected_datagrams_come_out_in_order_and_in_batches() {
    let frames = Frames::heap(1024, 2048);
    let mut port = MemoryRx::new();
    for i in 0..100_u16 {
        port.inject(i % 3, &i.to_be_bytes(), u64::from(i));
    }
    let mut seen = 0_u16;
    let mut batch = Batch::new();
    while port.backlog() > 0 {
        port.receive(&frames, &mut batch);
        assert!(batch.len() == BATCH || port.backlog() == 0);
        frames.assert_conserved(port.frames_held(), 0, batch.len());
        for received in batch.drain(..) {
            assert_eq!(frames.payload(&received), seen.to_be_bytes());
            assert_eq!((received.line, received.received_ns), (seen % 3, u64::from(seen)));
            frames.free(received.frame);
            seen += 1;
        }
    }
    assert_eq!((seen, port.counts().frames, port.counts().batches), (100, 100, 2));
    frames.assert_conserved(0, 0, 0);
}

#[test]
fn a_datagram_longer_than_a_frame_is_dropped_and_counted() {
    let frames = Frames::heap(64, 2048);
    let mut port = MemoryRx::new();
    port.inject(0, &vec![1; frames.payload_capacity() + 1], 0);
    port.inject(0, &vec![2; frames.payload_capacity()], 0);
    let mut batch = Batch::new();
    port.receive(&frames, &mut batch);
    assert_eq!((batch.len(), port.drops().get(DropReason::TooLong)), (1, 1));
    let received = batch.pop().unwrap();
    assert!(frames.payload(&received).iter().all(|byte| *byte == 2));
    frames.free(received.frame);
    frames.assert_conserved(0, 0, 0);
}

#[test]
fn a_payload_longer_than_a_frame_is_refused() {
    let frames = Frames::heap(64, 2048);
    let mut port = MemoryTx::new();
    port.add_destination();
    let frame = frames.alloc().unwrap();
    let too_long = frames.payload_capacity() + 1;
    assert_eq!(port.send(&frames, frame, too_long, 0), Err(DropReason::BadBounds));
    assert_eq!(port.drops().get(DropReason::BadBounds), 1);
    frames.assert_conserved(0, 0, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Inject(LineIndex, Vec<u8>),
    Receive,
    Forward,
    Free,
    Send(Vec<u8>),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let payload = || prop::collection::vec(any::<u8>(), 0..40);
    let step = prop_oneof![
        3 => (0_u16..4, payload()).prop_map(|(line, payload)| Step::Inject(line, payload)),
        2 => Just(Step::Receive),
        2 => Just(Step::Forward),
        1 => Just(Step::Free),
        1 => payload().prop_map(Step::Send),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever is done in whatever order: no frame is lost, and what comes out is what a plain list says.
    #[test]
    fn frames_are_conserved_and_payloads_kept(steps in steps()) {
        let frames = Frames::heap(16, 2048);
        let mut rx = RxPort::Memory(MemoryRx::new());
        let mut tx = TxPort::Memory(MemoryTx::new());
        let header = Header::multicast(
            [2; 6], 0, "10.0.0.1:1".parse().unwrap(), "239.0.0.1:2".parse().unwrap(), 1).unwrap();
        let destination = tx.add_destination(header).unwrap();
        let mut held = std::collections::VecDeque::new();
        let mut expected: Vec<Vec<u8>> = vec![];
        let mut batch = Batch::new();
        for step in steps {
            match step {
                Step::Inject(line, payload) => match &mut rx {
                    RxPort::Memory(port) => port.inject(line, &payload, 0),
                    _ => unreachable!(),
                },
                Step::Receive => {
                    rx.receive(&frames, &mut batch);
                    held.extend(batch.drain(..));
                }
                Step::Forward => if let Some(received) = held.pop_front() {
                    expected.push(frames.payload(&received).to_vec());
                    tx.forward(&frames, received, destination).unwrap();
                },
                Step::Free => if let Some(Received { frame, .. }) = held.pop_back() {
                    frames.free(frame);
                },
                Step::Send(payload) => if frames.free_count() > 0 {
                    let frame = build(&frames, &payload);
                    tx.send(&frames, frame, payload.len(), destination).unwrap();
                    expected.push(payload);
                },
                Step::Flush => { tx.flush(&frames); tx.reclaim(&frames); }
            }
            frames.assert_conserved(rx.frames_held(), tx.frames_held(), held.len());
        }
        tx.flush(&frames);
        let TxPort::Memory(port) = &mut tx else { unreachable!() };
        let sent: Vec<_> = port.take().into_iter().map(|(_, payload)| payload).collect();
        prop_assert_eq!(sent, expected);
    }
}

#[test]
fn destinations_come_and_go_and_what_has_none_is_dropped() {
    let frames = Frames::heap(8, 2048);
    let mut port = TxPort::Memory(MemoryTx::new());
    port.make_room(3);
    let send = |port: &mut TxPort, to| port.send(&frames, build(&frames, b"abc"), 3, to);
    assert_eq!(send(&mut port, 2), Err(DropReason::Removed), "not there yet");
    assert!(matches!(port.put_destination(2, TxDestination::Memory), Ok(None)));
    assert!(port.put_destination(3, TxDestination::Memory).is_err(), "no room");
    assert_eq!(send(&mut port, 2), Ok(()));
    port.flush(&frames);
    assert!(port.take_destination(2).is_some() && port.take_destination(2).is_none());
    assert_eq!((send(&mut port, 2), send(&mut port, 9)), (Err(DropReason::Removed), Err(DropReason::Removed)));
    assert_eq!(port.drops().get(DropReason::Removed), 3);
    frames.assert_conserved(0, port.frames_held(), 0);
}
