//! The publisher, with an ear on what must also be reported as an event or timed.
#![forbid(unsafe_code)]

use super::shared::Event;
use crate::feed::{Beginning, Block, BlockSink, ChannelIndex, Session};
use crate::publish::Outbound;

/// Passes everything on to the publisher, reports losses, and notes arrival times.
pub(super) struct Tap<'a> {
    pub(super) outbound: Outbound<'a>,
    pub(super) events: &'a mut rtrb::Producer<Event>,
    pub(super) dropped: &'a mut u64,
    /// Arrival times of the delivered packets; never grows.
    pub(super) arrivals: &'a mut Vec<u64>,
}

impl Tap<'_> {
    fn report(&mut self, event: Event) {
        if self.events.push(event).is_err() {
            *self.dropped += 1;
        }
    }
}

impl BlockSink for Tap<'_> {
    fn block(&mut self, block: &Block<'_>) {
        self.outbound.block(block);
    }

    fn delivered(&mut self, received_ns: u64) {
        if self.arrivals.len() < self.arrivals.capacity() {
            self.arrivals.push(received_ns);
        }
    }

    fn lost(&mut self, channel: ChannelIndex, session: &Session, from: u64, to: u64) {
        self.report(Event::Lost { channel: usize::from(channel), session: *session, from, to });
        self.outbound.lost(channel, session, from, to);
    }

    fn began(&mut self, channel: ChannelIndex, session: &Session, first: u64, how: Beginning) {
        self.report(Event::Began { channel: usize::from(channel), session: *session, first, how });
        self.outbound.began(channel, session, first, how);
    }

    fn end_of_session(&mut self, channel: ChannelIndex, session: &Session, next: u64) {
        self.outbound.end_of_session(channel, session, next);
    }
}
