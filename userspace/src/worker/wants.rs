//! What the worker tells of missing messages, for the recovery thread to ask for.
//!
//! Apart from the event queue, which is drained a few times a second: a hole is worth asking for within milliseconds.
#![forbid(unsafe_code)]

use super::ChannelSlot;
use super::shared::Wanted;
use crate::feed::{ChannelIndex, Holes};

/// The way to the recovery thread, and what it was told last.
#[derive(Debug)]
pub(super) struct Wants {
    queue: rtrb::Producer<Wanted>,
    /// By position of the channel within the worker.
    told: Vec<Wanted>,
    now: Holes,
}

impl Wants {
    pub(super) fn new(queue: rtrb::Producer<Wanted>, channels: &[ChannelSlot]) -> Self {
        let nothing = |slot: &ChannelSlot| Wanted {
            channel: ChannelIndex::try_from(slot.plan_index).expect("fewer than 65,536 channels"),
            session: [b' '; 10],
            holes: Holes::new(),
        };
        Self { queue, told: channels.iter().map(nothing).collect(), now: Holes::new() }
    }

    /// Tells what has changed. With the queue full it is told at the next housekeeping, as it is then.
    pub(super) fn tell(&mut self, channels: &[ChannelSlot]) {
        for (slot, told) in channels.iter().zip(&mut self.told) {
            let Some(session) = slot.channel.session() else { continue };
            slot.channel.holes(&mut self.now);
            if self.now == told.holes && (session == told.session || self.now.is_empty()) {
                continue;
            }
            let wanted = Wanted { channel: told.channel, session, holes: self.now.clone() };
            if self.queue.push(wanted.clone()).is_ok() {
                *told = wanted;
            }
        }
    }
}
