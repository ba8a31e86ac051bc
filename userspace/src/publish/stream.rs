//! One output stream: a channel on its way to one destination.
#![forbid(unsafe_code)]

use super::packet::{OpenPacket, write_header};
use super::retain::Retainer;
use super::route::Route;
use crate::config::plan::{Format, RoutePlan};
use crate::feed::transport::moldudp64::{self, BLOCK_HEADER_BYTES, END_OF_SESSION, HEADER_BYTES, HEARTBEAT};
use crate::feed::{Block, ChannelIndex, Directory, Session};
use crate::metrics::{DestinationCounts, DropCounts, DropReason};
use crate::net::{Frame, Outlets, PAYLOAD_OFFSET};

/// Silence after which a heartbeat is sent, nanoseconds (MoldUDP64 1.00: "typically once per second").
const HEARTBEAT_NS: u64 = 1_000_000_000;

/// End-of-session packets that follow the first one, a heartbeat interval apart.
const END_REPEATS: u32 = 30;

/// Where a stream goes and what it carries.
#[derive(Clone, Copy, Debug)]
pub struct StreamSettings {
    /// Index into the plan's destinations, and the number under which its port knows it.
    pub destination: usize,
    /// The channel that it carries.
    pub channel: ChannelIndex,
    /// Index of the worker's port.
    pub port: usize,
    /// Content of the blocks.
    pub format: Format,
    /// Largest UDP payload, bytes.
    pub payload_bytes: usize,
}

/// The newest position of the stream, for heartbeats.
#[derive(Clone, Copy, Debug)]
struct Position {
    session: Session,
    next: u64,
    /// End-of-session packets still to send; `None` while the session lives.
    ends_left: Option<u32>,
}

/// One output stream.
#[derive(Debug)]
pub struct Stream {
    settings: StreamSettings,
    open: Option<OpenPacket>,
    /// What of the channel it takes; `None` = everything, and so it was since the session began.
    route: Option<Box<Route>>,
    /// Where packets with messages are copied to before they are sent.
    retainer: Option<Retainer>,
    position: Option<Position>,
    /// CLOCK_MONOTONIC of the newest tick that saw something sent, nanoseconds.
    quiet_since_ns: u64,
    /// Whether the channel hears its exchange: while it does not, no heartbeat claims that all is well.
    is_input_alive: bool,
    /// Whether anything was sent since that tick: the stages have no clock, so the tick dates it.
    sent_since_tick: bool,
    counts: DestinationCounts,
    drops: DropCounts,
}

impl Stream {
    /// A stream that has sent nothing yet.
    #[must_use]
    pub fn new(settings: StreamSettings) -> Self {
        Self {
            settings,
            open: None,
            route: None,
            retainer: None,
            position: None,
            quiet_since_ns: 0,
            is_input_alive: false,
            sent_since_tick: false,
            counts: DestinationCounts::default(),
            drops: DropCounts::default(),
        }
    }

    /// The same, taking what is wanted of its channel. Before it runs.
    #[must_use]
    pub fn routed(mut self, wanted: &RoutePlan) -> Self {
        self.route = (!wanted.takes_all()).then(|| Route::new(wanted));
        self
    }

    /// The same for a stream that begins while a session may run: it has a route in any case, which remembers what was not
    /// sent before. [`Self::join`] or [`Self::follow`] says what that is.
    #[must_use]
    pub fn joining(mut self, wanted: &RoutePlan) -> Self {
        self.route = Some(Route::new(wanted));
        self
    }

    /// Begins where the channel is: of the instruments in its `directory`, nothing was sent before.
    pub fn join(&mut self, directory: &Directory) {
        if let Some(route) = &mut self.route {
            route.join(directory);
        }
    }

    /// Goes on where the stream before it to the same consumers was: what that one withheld is known, and nothing else was.
    /// What is to be freed is with that one afterwards.
    pub fn follow(&mut self, before: &mut Self) {
        match (&mut self.route, &mut before.route) {
            (Some(route), Some(old)) => route.follow(old),
            (Some(route), None) if route.takes_all() => before.route = self.route.take(),
            _ => {}
        }
    }

    /// Takes what `route` says from now on; the route that was, if any.
    pub(super) fn set_route(&mut self, mut route: Box<Route>) -> Option<Box<Route>> {
        if let Some(old) = &mut self.route {
            route.follow(old);
        }
        self.route.replace(route)
    }

    /// Has what it sends retained from now on.
    pub fn retain(&mut self, retainer: Retainer) {
        self.retainer = Some(retainer);
    }

    /// Takes away where it retains what it sends.
    pub fn take_retainer(&mut self) -> Option<Retainer> {
        self.retainer.take()
    }

    /// Begins within a session: the next message is `next`. What has ended by then is told as if it had ended now.
    pub fn begin(&mut self, session: &Session, next: u64, has_ended: bool) {
        self.position = Some(Position { session: *session, next, ends_left: has_ended.then_some(END_REPEATS) });
    }

    /// The channel that it carries.
    #[must_use]
    pub fn channel(&self) -> ChannelIndex {
        self.settings.channel
    }

    /// Index into the plan's destinations.
    #[must_use]
    pub fn destination(&self) -> usize {
        self.settings.destination
    }

    /// Index of the worker's port that it leaves by.
    #[must_use]
    pub fn port(&self) -> usize {
        self.settings.port
    }

    /// Its counters.
    #[must_use]
    pub fn counts(&self) -> &DestinationCounts {
        &self.counts
    }

    /// What could not be built.
    #[must_use]
    pub fn drops(&self) -> &DropCounts {
        &self.drops
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Writes one message's block, with what of it the destination takes.
    pub(super) fn block(&mut self, block: &Block<'_>, out: &mut Outlets<'_>) {
        let format = self.settings.format;
        // What is selected lies in the route, which therefore stands aside meanwhile.
        let Some(mut route) = self.route.take() else {
            let body = if format == Format::Dbn { block.records } else { block.message };
            return self.write(block, body, block.record_count, out);
        };
        let (body, record_count) = route.select(block, format, &mut self.counts);
        self.write(block, body, record_count, out);
        self.route = Some(route);
    }

    /// Writes a block, sending the open packet first if the block does not continue it or does not fit.
    #[inline]
    fn write(&mut self, block: &Block<'_>, mut body: &[u8], record_count: u8, out: &mut Outlets<'_>) {
        let mut notice = if self.settings.format == Format::Dbn { block.notice } else { &[] };
        // Also where no packet can be built: then a heartbeat is how a consumer learns of the message.
        self.position = Some(Position { session: *block.session, next: block.sequence + 1, ends_left: None });
        let room = self.settings.payload_bytes.saturating_sub(HEADER_BYTES + BLOCK_HEADER_BYTES);
        if notice.len() + body.len() > room {
            // The number must still be consumed, or the consumer would take it for a gap of the exchange.
            self.drops.add(DropReason::Oversized);
            if body.len() > room {
                body = &[];
            }
            if notice.len() + body.len() > room {
                notice = &[];
            }
        }
        let block_bytes = notice.len() + body.len();
        let fits = self.open.as_ref().is_some_and(|packet| {
            packet.continues(block.session, block.sequence) && packet.has_room(block_bytes, self.settings.payload_bytes)
        });
        if !fits {
            self.send_open(out);
            let frame = match out.alloc(self.settings.port) {
                Ok(frame) => frame,
                Err(reason) => {
                    self.drops.add(reason);
                    return self.retain_unsent(block, notice, body);
                }
            };
            self.open = Some(OpenPacket::new(frame, *block.session, block.sequence));
        }
        if let Some(packet) = &mut self.open {
            packet.push(notice, body, out.frames(self.settings.port));
        }
        self.counts.blocks += 1;
        if !body.is_empty() {
            self.counts.records += u64::from(record_count);
        }
        self.counts.records += u64::from(!notice.is_empty());
    }

    /// What finds no frame (its link is gone, or none is free) is what somebody will ask for: a packet of its own.
    #[cold]
    fn retain_unsent(&mut self, block: &Block<'_>, notice: &[u8], body: &[u8]) {
        let Some(retainer) = &mut self.retainer else { return };
        let mut header = [0; HEADER_BYTES];
        moldudp64::write_header(&mut header, block.session, block.sequence, 1);
        // Both fit: the caller has seen to it.
        let length = ((notice.len() + body.len()) as u16).to_be_bytes();
        self.counts.not_retained += u64::from(!retainer.retain(&[&header, &length, notice, body]));
    }

    /// Messages before `next` will not come, or the session begins with it: a heartbeat with that number is how a consumer
    /// learns of it.
    pub(super) fn skip_to(&mut self, session: &Session, next: u64, out: &mut Outlets<'_>) {
        self.send_open(out);
        self.position = Some(Position { session: *session, next, ends_left: None });
    }

    /// The session is over: what is open is sent, then an end of session, repeated by [`Self::tick`].
    pub(super) fn end_of_session(&mut self, session: &Session, next: u64, out: &mut Outlets<'_>) {
        self.send_open(out);
        self.position = Some(Position { session: *session, next, ends_left: Some(END_REPEATS) });
        self.send_header(session, next, END_OF_SESSION, out);
    }

    /// Sends the open packet if it holds a record.
    pub(super) fn flush(&mut self, out: &mut Outlets<'_>) {
        if self.open.as_ref().is_some_and(OpenPacket::has_content) {
            self.send_open(out);
        }
    }

    /// What the channel knows without a message: its session and next number, and whether its lines are alive.
    pub(super) fn set_input(&mut self, session: &Session, next: u64, is_alive: bool) {
        self.is_input_alive = is_alive;
        if self.open.is_none() && self.position.is_none_or(|position| position.session != *session) {
            self.position = Some(Position { session: *session, next, ends_left: None });
        }
    }

    /// Sends what is due by time.
    pub(super) fn tick(&mut self, now_ns: u64, out: &mut Outlets<'_>) {
        if std::mem::take(&mut self.sent_since_tick) {
            self.quiet_since_ns = now_ns;
            return;
        }
        if now_ns.saturating_sub(self.quiet_since_ns) < HEARTBEAT_NS {
            return;
        }
        self.quiet_since_ns = now_ns;
        if self.open.is_some() {
            self.send_open(out);
        } else if let Some(Position { session, next, ends_left }) = self.position {
            match ends_left {
                None if self.is_input_alive => self.send_header(&session, next, HEARTBEAT, out),
                None => {}
                Some(0) => {}
                Some(left) => {
                    self.position = Some(Position { session, next, ends_left: Some(left - 1) });
                    self.send_header(&session, next, END_OF_SESSION, out);
                }
            }
        }
    }

    /// Gives the open packet's frame back unsent.
    pub(super) fn close(&mut self, out: &Outlets<'_>) {
        if let Some(packet) = self.open.take() {
            out.frames(self.settings.port).free(packet.into_frame());
        }
    }

    /// Sends the open packet, if there is one.
    pub(super) fn send_open(&mut self, out: &mut Outlets<'_>) {
        if let Some(packet) = self.open.take() {
            let frames = out.frames(self.settings.port);
            let (mut frame, payload_bytes) = packet.close(frames);
            // Whatever becomes of the packet: what the port refuses is what somebody will ask for.
            if let Some(retainer) = &mut self.retainer {
                let payload = &frames.buffer_mut(&mut frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + payload_bytes];
                self.counts.not_retained += u64::from(!retainer.retain(&[payload]));
            }
            self.send(frame, payload_bytes, out);
        }
    }

    fn send_header(&mut self, session: &Session, next: u64, count: u16, out: &mut Outlets<'_>) {
        let frame = match out.alloc(self.settings.port) {
            Ok(frame) => frame,
            Err(reason) => return self.drops.add(reason),
        };
        let frame = write_header(frame, session, next, count, out.frames(self.settings.port));
        self.counts.heartbeats += 1;
        self.send(frame, HEADER_BYTES, out);
    }

    fn send(&mut self, frame: Frame, payload_bytes: usize, out: &mut Outlets<'_>) {
        let StreamSettings { port, destination, .. } = self.settings;
        // What the port refuses it counts, like everything that is lost behind this point.
        if out.send(port, frame, payload_bytes, destination).is_ok() {
            self.counts.packets += 1;
            self.counts.bytes += payload_bytes as u64;
            self.sent_since_tick = true;
        }
    }
}

#[cfg(test)]
mod tests;
