//! Latencies as the control service tells them: sums, the curve, and the histogram itself.
#![forbid(unsafe_code)]

use std::sync::Arc;

use feedhandler_proto::v1;
use hdrhistogram::Histogram;

use super::Desk;
use crate::latency::{Stage, StageHistograms, hdr};

/// Points of a curve per halving of what is left to 100 %.
const CURVE_POINTS: u32 = 5;

/// What was recorded up to a moment at which every worker was asked for its histograms.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// The moment, CLOCK_MONOTONIC, nanoseconds.
    pub until_ns: u64,
    /// The same, UTC, nanoseconds since 1970.
    pub until_utc_ns: u64,
    /// Everything since the start, over all workers.
    pub total: Arc<StageHistograms>,
}

impl Desk {
    /// Everything since the start, about a second old at most. A worker that does not answer counts with what it said last.
    #[must_use]
    pub fn newest_round(&self) -> Round {
        self.watch.rounds().borrow().clone()
    }

    /// [`Self::newest_round`] for the control service.
    pub(super) fn latency_answer(&self) -> v1::GetLatencyResponse {
        let Round { until_utc_ns, total, .. } = self.newest_round();
        answer(&total, self.started_utc_ns(), until_utc_ns)
    }
}

/// The latencies of an interval, UTC, nanoseconds since 1970.
pub(super) fn answer(histograms: &StageHistograms, from_ns: u64, to_ns: u64) -> v1::GetLatencyResponse {
    let stages = Stage::ALL.into_iter().map(|stage| {
        let histogram = histograms.stage(stage);
        v1::StageLatency {
            summary: Some(summary(stage, histogram)),
            mean_ns: histogram.mean(),
            percentiles: curve(histogram),
            hdr: hdr::encode(histogram),
        }
    });
    v1::GetLatencyResponse { from_ns, to_ns, stages: stages.collect() }
}

/// The sums of one stage.
pub(super) fn summary(stage: Stage, histogram: &Histogram<u64>) -> v1::LatencyStatus {
    v1::LatencyStatus {
        stage: stage.label().to_owned(),
        count: histogram.len(),
        p50_ns: histogram.value_at_quantile(0.5),
        p90_ns: histogram.value_at_quantile(0.9),
        p99_ns: histogram.value_at_quantile(0.99),
        p999_ns: histogram.value_at_quantile(0.999),
        p9999_ns: histogram.value_at_quantile(0.9999),
        max_ns: histogram.max(),
    }
}

/// The curve, denser towards 100 %; without values no point.
fn curve(histogram: &Histogram<u64>) -> Vec<v1::PercentilePoint> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let mut points: Vec<v1::PercentilePoint> = Vec::new();
    let mut below = 0;
    for step in histogram.iter_quantiles(CURVE_POINTS) {
        below += step.count_since_last_iteration();
        let point =
            v1::PercentilePoint { percentile: step.percentile(), value_ns: step.value_iterated_to(), count: below };
        // Several steps may end in one bucket: the last says it all.
        if points.last().is_some_and(|last| last.value_ns == point.value_ns) {
            points.pop();
        }
        points.push(point);
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> StageHistograms {
        let mut stages = StageHistograms::default();
        values.into_iter().for_each(|ns| stages.record(Stage::EntryToSent, ns));
        stages
    }

    #[test]
    fn the_curve_ascends_and_ends_with_the_longest() {
        let stages = of((1..=10_000).map(|us| us * 1_000));
        let answer = answer(&stages, 5, 6);
        assert_eq!((answer.from_ns, answer.to_ns, answer.stages.len()), (5, 6, 4));
        assert!(answer.stages[0].percentiles.is_empty() && answer.stages[0].summary.as_ref().unwrap().count == 0);
        let stage = &answer.stages[3];
        let points = &stage.percentiles;
        assert!((40..200).contains(&points.len()), "{}", points.len());
        let ascends = |pair: &[v1::PercentilePoint]| {
            pair[0].percentile < pair[1].percentile
                && pair[0].value_ns < pair[1].value_ns
                && pair[0].count < pair[1].count
        };
        assert!(points.windows(2).all(ascends), "{points:?}");
        let last = points.last().unwrap();
        assert_eq!((last.percentile, last.count), (100.0, 10_000));
        assert_eq!(last.value_ns, stage.summary.as_ref().unwrap().max_ns);
        // What is at a point is really there: so many values are no longer.
        for point in points {
            let share = point.count as f64 / 100.0;
            assert!((point.percentile - share).abs() < 0.011, "{point:?}");
        }
        assert!((stage.mean_ns - 5_000_500.0).abs() < 5_000.0, "{}", stage.mean_ns);
        assert_eq!(&hdr::decode(&stage.hdr).unwrap(), stages.stage(Stage::EntryToSent));
    }

    #[test]
    fn an_interval_has_only_what_came_in_it() {
        let before = of([1_000, 2_000, 50_000_000]);
        let mut now = before.clone();
        now.record(Stage::EntryToSent, 3_000);
        now.record(Stage::EntryToSent, 2_000);
        let interval = now.since(&before);
        let values: Vec<(u64, u64)> = interval
            .stage(Stage::EntryToSent)
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect();
        assert_eq!(values, [(2_000, 1), (3_001, 1)]);
        assert_eq!(interval.stage(Stage::EntryToSent).max(), 3_001, "not the 50 ms of the time before");
        assert!(before.since(&before).stage(Stage::EntryToSent).is_empty());
    }
}
