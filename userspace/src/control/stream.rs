//! Streams that answer again and again: status and latencies.
//!
//! Nothing is made ahead: an answer is made when the connection has room for it, so that who reads slowly gets fewer, and
//! what it gets is new.
#![forbid(unsafe_code)]

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use feedhandler_proto::v1::{GetLatencyResponse, GetStatusResponse, WatchLatencyRequest, WatchStatusRequest};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_stream::Stream;
use tonic::Status;

use super::Desk;
use super::access::places::Door;
use super::latency::{Round, answer};
use super::refusal;
use super::watch::Over;

/// Legal intervals, milliseconds.
const STATUS_MS: RangeInclusive<u32> = 100..=60_000;
const LATENCY_MS: RangeInclusive<u32> = 1_000..=3_600_000;
/// What an interval of 0 means, milliseconds.
const DEFAULT_MS: u32 = 1_000;
/// So much before it is over an interval may end: workers are asked when the desk is polled, and that is not exact.
pub(super) const EARLY_NS: u64 = 200_000_000;
/// Answers are up to some 10 kB, and making one takes a millisecond or two.
type Made<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a caller of WatchStatus reads.
pub(super) type Statuses = Made<GetStatusResponse>;
/// What a caller of WatchLatency reads.
pub(super) type Latencies = Made<GetLatencyResponse>;

/// The status at once, and then again and again.
///
/// # Errors
/// The interval is not legal, too many watch already, or the handler stops.
pub(super) fn statuses(desk: &Arc<Desk>, door: Door, request: WatchStatusRequest) -> Result<Statuses, Status> {
    let interval_ms = legal(request.interval_ms, STATUS_MS)?;
    let mut timer = interval(Duration::from_millis(interval_ms.into()));
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let look =
        Look { desk: Arc::clone(desk), timer, over: desk.watch.over(), place: Arc::new(desk.watch.place(door)?) };
    Ok(Repeated::stream(look, Look::next))
}

/// The latencies of one interval after the other; the first begins with the newest second.
///
/// # Errors
/// As [`statuses`].
pub(super) fn latencies(desk: &Arc<Desk>, door: Door, request: WatchLatencyRequest) -> Result<Latencies, Status> {
    let interval_ns = u64::from(legal(request.interval_ms, LATENCY_MS)?) * 1_000_000;
    let place = Arc::new(desk.watch.place(door)?);
    let mut rounds = desk.watch.rounds();
    let base = rounds.borrow_and_update().clone();
    let due_ns = base.until_ns + interval_ns;
    let over = desk.watch.over();
    Ok(Repeated::stream(Listen { rounds, base, due_ns, interval_ns, over, place }, Listen::next))
}

fn legal(interval_ms: u32, range: RangeInclusive<u32>) -> Result<u32, Status> {
    match interval_ms {
        0 => Ok(DEFAULT_MS),
        legal if range.contains(&legal) => Ok(legal),
        wrong => {
            let (least, most) = (range.start(), range.end());
            let reason =
                format!("interval_ms = {wrong}: must be {least} to {most} milliseconds, or 0 for {DEFAULT_MS}");
            Err(refusal::violations([("interval_ms", reason)]))
        }
    }
}

/// Who watches the status.
struct Look {
    desk: Arc<Desk>,
    timer: Interval,
    over: Over,
    place: Arc<OwnedSemaphorePermit>,
}

impl Look {
    async fn next(mut self) -> Option<(Result<GetStatusResponse, Status>, Self)> {
        tokio::select! {
            () = self.over.wait() => return None,
            _ = self.timer.tick() => {}
        }
        let desk = Arc::clone(&self.desk);
        Some((beside(&self.place, move || desk.status()).await, self))
    }
}

/// Who watches the latencies.
struct Listen {
    rounds: watch::Receiver<Round>,
    /// Where the interval begins.
    base: Round,
    due_ns: u64,
    interval_ns: u64,
    over: Over,
    place: Arc<OwnedSemaphorePermit>,
}

impl Listen {
    async fn next(mut self) -> Option<(Result<GetLatencyResponse, Status>, Self)> {
        let round = loop {
            tokio::select! {
                () = self.over.wait() => return None,
                changed = self.rounds.changed() => changed.ok()?,
            }
            let round = self.rounds.borrow_and_update().clone();
            if round.until_ns + EARLY_NS >= self.due_ns {
                break round;
            }
        };
        // Not from now on, so that intervals do not grow; but who was asleep does not get them all at once.
        self.due_ns = (self.due_ns + self.interval_ns).max(round.until_ns + EARLY_NS + 1);
        let base = std::mem::replace(&mut self.base, round.clone());
        let made = move || answer(&round.total.since(&base.total), base.until_utc_ns, round.until_utc_ns);
        Some((beside(&self.place, made).await, self))
    }
}

/// Makes an answer where it may take its time; the watcher's place is taken until it is made.
async fn beside<T: Send + 'static>(
    place: &Arc<OwnedSemaphorePermit>,
    make: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let place = Arc::clone(place);
    let made = tokio::task::spawn_blocking(move || {
        let made = make();
        drop(place);
        made
    })
    .await;
    made.map_err(|error| Status::internal(format!("the control desk failed: {error}")))
}

/// The future of an item and of the state after it.
type Next<T, S> = Pin<Box<dyn Future<Output = Option<(T, S)>> + Send>>;

/// A stream of what `make` makes of a state, until it makes nothing.
struct Repeated<T, S, F> {
    /// None once it is over.
    next: Option<Next<T, S>>,
    make: F,
}

impl<T, S, F, R> Repeated<T, S, F>
where
    T: 'static,
    S: Send + 'static,
    F: Fn(S) -> R + Send + Unpin + 'static,
    R: Future<Output = Option<(T, S)>> + Send + 'static,
{
    fn stream(state: S, make: F) -> Pin<Box<dyn Stream<Item = T> + Send>> {
        Box::pin(Self { next: Some(Box::pin(make(state))), make })
    }
}

impl<T, S, F, R> Stream for Repeated<T, S, F>
where
    F: Fn(S) -> R + Unpin,
    R: Future<Output = Option<(T, S)>> + Send + 'static,
{
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        match next.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.next = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some((item, state))) => {
                self.next = Some(Box::pin((self.make)(state)));
                Poll::Ready(Some(item))
            }
        }
    }
}
