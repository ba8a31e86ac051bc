//! Routes that are changed while a worker runs.
#![forbid(unsafe_code)]

use super::*;
use crate::config::plan::{RecordKind, RoutePlan};

#[test]
fn a_route_goes_to_the_worker_and_a_worker_that_does_not_answer_is_named() {
    let bench = Bench::new();
    let route = RoutePlan { instruments: vec![*b"AAPL    "], records: vec![RecordKind::Trade] };
    bench.desk.set_route(0, &route).unwrap();
    let routed = std::mem::take(&mut *locked(&bench.worker.routed));
    assert_eq!(routed.len(), 1);
    assert!(routed[0].0 == 0 && routed[0].1.contains("instruments: 1, kinds: 0b00010"), "{routed:?}");
    bench.worker.is_stuck.store(true, Relaxed);
    let error = bench.desk.set_route(0, &route).unwrap_err().to_string();
    assert!(error.starts_with("worker `w0` has not changed the route within a second"), "{error}");
    while bench.desk.links()[0].send(Command::Stop).is_ok() {}
    let error = bench.desk.set_route(0, &route).unwrap_err().to_string();
    assert!(error.starts_with("worker `w0` takes no commands"), "{error}");
    bench.worker.is_stuck.store(false, Relaxed);
}
