//! What the worker tells of missing messages, for the recovery thread to ask for.
//!
//! Apart from the event queue, which is drained a few times a second: a hole is worth asking for within milliseconds.
#![forbid(unsafe_code)]

use super::Worker;
use super::channels::Channels;
use super::shared::Wanted;
use crate::feed::{ChannelIndex, Holes};

/// The way to the recovery thread, and what it was told last.
#[derive(Debug)]
pub(super) struct Wants {
    /// `None`: nobody asks.
    queue: Option<rtrb::Producer<Wanted>>,
    /// By place of the channel within the worker.
    told: Vec<Wanted>,
    now: Holes,
}

/// Nothing was told of a channel yet.
fn nothing(plan_index: usize) -> Wanted {
    let channel = ChannelIndex::try_from(plan_index).expect("fewer than 65,536 channels");
    Wanted { channel, session: [b' '; 10], holes: Holes::new() }
}

impl Wants {
    pub(super) fn new(queue: Option<rtrb::Producer<Wanted>>, channels: &Channels) -> Self {
        let mut told = Vec::with_capacity(channels.room());
        told.extend(channels.iter().map(|slot| nothing(slot.plan_index)));
        Self { queue, told, now: Holes::new() }
    }

    /// Gives a worker that has nobody to tell somebody. If it has, the queue stays where it is.
    pub(super) fn connect(&mut self, queue: &mut Option<rtrb::Producer<Wanted>>) {
        if self.queue.is_none() {
            self.queue = queue.take();
        }
    }

    /// Tells what has changed. With the queue full it is told at the next housekeeping, as it is then.
    pub(super) fn tell(&mut self, channels: &Channels) {
        let Some(queue) = &mut self.queue else { return };
        for (slot, told) in channels.places().zip(&mut self.told) {
            let Some(slot) = slot else { continue };
            let Some(session) = slot.channel.session() else { continue };
            slot.channel.holes(&mut self.now);
            if self.now == told.holes && (session == told.session || self.now.is_empty()) {
                continue;
            }
            let wanted = Wanted { channel: told.channel, session, holes: self.now.clone() };
            if queue.push(wanted.clone()).is_ok() {
                *told = wanted;
            }
        }
    }

    /// A channel has come to a place. What could not be taken back of one of the same number is told anew, as it is then.
    pub(super) fn begin(&mut self, place: usize, plan_index: usize) {
        let new = nothing(plan_index);
        match self.told.get_mut(place) {
            Some(told) if told.channel == new.channel => told.session = new.session,
            Some(told) => *told = new,
            None => self.told.push(new),
        }
    }

    /// A channel leaves its place: nothing of it is wanted any more. With the queue full this is not told; who asks is told by
    /// control, too, that the channel is gone.
    pub(super) fn end(&mut self, place: usize) {
        let (Some(queue), Some(told)) = (&mut self.queue, self.told.get_mut(place)) else { return };
        let none = Wanted { holes: Holes::new(), ..told.clone() };
        if !told.holes.is_empty() && queue.push(none).is_ok() {
            told.holes.clear();
        }
    }
}

impl Worker {
    /// Tells all that a channel misses, without waiting for the other line.
    pub(super) fn hurry(&mut self, channel: usize) {
        let place = self.channels.place_of(channel);
        if let Some(slot) = place.and_then(|place| self.channels.get_mut(place)) {
            slot.channel.hurry();
        }
        self.wants.tell(&self.channels);
    }
}
