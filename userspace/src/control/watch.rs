//! Events, for everybody who watches: one bounded queue that all read, so that who reads slowly misses some and delays nobody.
//! And what all who watch share, whatever it is that they watch: their number, the end, and the newest latencies.
#![forbid(unsafe_code)]

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use feedhandler_proto::v1::event::What;
use feedhandler_proto::v1::{Event, EventsMissed};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::access::places::Door;
use super::latency::Round;
use super::locked;
use super::refusal::Reason;
use crate::clock::{monotonic_ns, utc_ns};

/// Events that a watcher may be behind.
const BEHIND: usize = 1024;

/// Most watchers at a time, of each address that we listen on: nobody from outside can take the places of this host.
pub(super) const MOST_WATCHERS: usize = 64;

/// What a watcher reads.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

/// The events and who reads them.
#[derive(Debug)]
pub(super) struct Watch {
    /// None once the handler stops.
    sender: Mutex<Option<broadcast::Sender<Event>>>,
    /// By [`Door`].
    places: [Arc<Semaphore>; 2],
    rounds: watch::Sender<Round>,
    /// True once the handler stops.
    over: watch::Sender<bool>,
}

/// Knows when the handler stops.
#[derive(Debug)]
pub(super) struct Over(watch::Receiver<bool>);

impl Over {
    /// Until it does.
    pub(super) async fn wait(&mut self) {
        // An error says that the desk is gone.
        let _ = self.0.wait_for(|over| *over).await;
    }
}

impl Default for Watch {
    fn default() -> Self {
        let sender = Mutex::new(Some(broadcast::Sender::new(BEHIND)));
        let places = [(); 2].map(|()| Arc::new(Semaphore::new(MOST_WATCHERS)));
        let start = Round { until_ns: monotonic_ns(), until_utc_ns: utc_ns(), ..Round::default() };
        Self { sender, places, rounds: watch::Sender::new(start), over: watch::Sender::new(false) }
    }
}

impl Watch {
    /// Tells everybody.
    pub(super) fn tell(&self, what: What) {
        if let Some(sender) = &*locked(&self.sender) {
            // An error says that nobody watches.
            let _ = sender.send(Event { time_ns: utc_ns(), what: Some(what) });
        }
    }

    /// Events from now on; with a channel, its own only.
    ///
    /// # Errors
    /// Too many watch already, or the handler stops.
    pub(super) fn watch(&self, door: Door, channel: String) -> Result<Events, Status> {
        let place = self.place(door)?;
        let sender = locked(&self.sender);
        let sender = sender.as_ref().ok_or_else(|| Reason::Stopping.says("the handler stops"))?;
        Ok(Box::pin(BroadcastStream::new(sender.subscribe()).filter_map(move |event| of(event, &channel, &place))))
    }

    /// A watcher's place; given back when dropped.
    ///
    /// # Errors
    /// Too many watch already, or the handler stops.
    pub(super) fn place(&self, door: Door) -> Result<OwnedSemaphorePermit, Status> {
        if *self.over.borrow() {
            return Err(Reason::Stopping.says("the handler stops"));
        }
        Arc::clone(&self.places[door.index()]).try_acquire_owned().map_err(|_| {
            Reason::TooManyWatchers
                .says(format!("{MOST_WATCHERS} callers watch already, and no more may; end one of them"))
        })
    }

    /// The newest latencies, and each round of them that follows.
    pub(super) fn rounds(&self) -> watch::Receiver<Round> {
        self.rounds.subscribe()
    }

    /// Tells everybody the newest latencies.
    pub(super) fn tell_round(&self, round: Round) {
        self.rounds.send_replace(round);
    }

    /// Says when the handler stops.
    pub(super) fn over(&self) -> Over {
        Over(self.over.subscribe())
    }

    /// Ends every watcher's stream, after what it has not read yet.
    pub(super) fn end(&self) {
        *locked(&self.sender) = None;
        self.over.send_replace(true);
    }
}

/// What a watcher of `channel` gets of an event. It keeps its place as long as its stream lives.
fn of(
    event: Result<Event, BroadcastStreamRecvError>,
    channel: &str,
    _place: &OwnedSemaphorePermit,
) -> Option<Result<Event, Status>> {
    let event = event.unwrap_or_else(|BroadcastStreamRecvError::Lagged(count)| Event {
        time_ns: utc_ns(),
        what: Some(What::EventsMissed(EventsMissed { count })),
    });
    let is_wanted = channel.is_empty()
        || match event.what.as_ref()? {
            What::MessagesLost(lost) => lost.channel == channel,
            What::ChannelChanged(changed) => changed.channel == channel,
            What::LineSwitched(switched) => switched.channel == channel,
            What::SessionBegan(began) => began.channel == channel,
            What::InterfaceFault(_) | What::OperatorAction(_) => false,
            What::EventsMissed(_) => true,
        };
    is_wanted.then_some(Ok(event))
}
