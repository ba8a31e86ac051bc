//! Busy polling of an AF_XDP socket, as far as a veth can show it: since Linux 6.14 the kernel polls for zero-copy sockets
//! only, so what is seen here is that the calls are made, do no harm, and are counted.
#![forbid(unsafe_code)]

use feedhandler::config::plan::Mode;
use feedhandler::net::Batch;
use feedhandler::net::busy_poll::BusyPoll;

use super::veth::{
    GROUP, consume, consumer, exchange, header, in_namespace, open, payload, pool, receive, send, settle, steer,
};

const COUNT: u32 = 50;

#[test]
fn an_empty_ring_is_polled_by_a_call_only_if_asked_for() {
    in_namespace("busy_poll::an_empty_ring_is_polled_by_a_call_only_if_asked_for", || {
        for busy_poll in [BusyPoll::default(), BusyPoll { duration_us: 50, budget: 64, prefer: true }] {
            let frames = pool();
            let mut steering = steer(Mode::Native);
            let mut pair = open(&frames, "fh0", true, true, Mode::Native);
            pair.set_busy_poll(busy_poll).unwrap();
            let (mut rx, mut tx) = (pair.rx.unwrap(), pair.tx.unwrap());
            rx.refill(&frames);
            steering.set_socket(0, pair.fd).unwrap();
            let (exchange, consumer) = (exchange(), consumer("fh1"));
            for i in 0..COUNT {
                exchange.send_to(&payload(i, 100), &GROUP.into()).unwrap();
            }
            let got = receive(&frames, &mut rx, COUNT as usize);
            let expected: Vec<Vec<u8>> = (0..COUNT).map(|i| payload(i, 100)).collect();
            assert_eq!(got.into_iter().map(|(.., bytes)| bytes).collect::<Vec<_>>(), expected);

            let (kicks, mut batch) = (rx.counts().kicks, Batch::new());
            (0..100).for_each(|_| rx.receive(&frames, &mut batch));
            let calls = rx.counts().kicks - kicks;
            assert_eq!((calls, rx.counts().kick_errors), (if busy_poll.is_on() { 100 } else { 0 }, 0));

            let destination = tx.add_destination(&header("fh0", [10, 9, 1, 77]));
            (0..COUNT).for_each(|i| send(&frames, &mut tx, &payload(i, 100), destination).unwrap());
            settle(&frames, &mut tx);
            assert_eq!(consume(&consumer, COUNT as usize), expected);
            frames.assert_conserved(rx.frames_held(), 0, 0);
        }
    });
}
