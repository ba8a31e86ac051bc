//! Records to destinations: each delivered message becomes one MoldUDP64 block of every stream that carries its channel.
//!
//! The output is *sequence-transparent*: session and sequence are the input's own, one block per input message, empty
//! where the message yields nothing. So a gap in the output is the exchange's gap, and two instances emit the same
//! stream without coordination.
#![forbid(unsafe_code)]

mod packet;
mod retain;
mod route;
mod stream;

use std::ops::Range;

pub use packet::OpenPacket;
pub use retain::{RETAIN_RING_BYTES, Retained, Retainer, retention};
pub use route::Route;
pub use stream::{Stream, StreamSettings};

use crate::feed::{Beginning, Block, BlockSink, ChannelIndex, Session};
use crate::metrics::{DestinationCounts, DropCounts};
use crate::net::Outlets;

/// All output streams of one worker.
#[derive(Debug)]
pub struct Publisher {
    /// Sorted by channel.
    streams: Vec<Stream>,
    /// By channel index: its streams. Found by index, because it is asked for once per message.
    by_channel: Vec<Range<usize>>,
}

impl Publisher {
    /// A publisher for these streams.
    #[must_use]
    pub fn new(mut streams: Vec<Stream>) -> Self {
        streams.sort_by_key(Stream::channel);
        let channel_count = streams.last().map_or(0, |stream| usize::from(stream.channel()) + 1);
        let mut publisher = Self { streams, by_channel: vec![0..0; channel_count] };
        publisher.index();
        publisher
    }

    /// Makes room for so many streams in all, of channels below this index, so that adding them allocates nothing.
    pub fn make_room(&mut self, channels: usize, streams: usize) {
        self.streams.reserve_exact(streams.saturating_sub(self.streams.len()));
        self.by_channel.resize(channels.max(self.by_channel.len()), 0..0);
    }

    /// Whether there is a stream to this destination.
    #[must_use]
    pub fn has(&self, destination: usize) -> bool {
        self.streams.iter().any(|stream| stream.destination() == destination)
    }

    /// Begins a stream.
    ///
    /// # Errors
    /// The stream itself, if there is one to its destination, or no room.
    #[expect(clippy::result_large_err, reason = "nothing may be allocated here")]
    pub fn add(&mut self, stream: Stream) -> Result<(), Stream> {
        let is_full = self.streams.len() == self.streams.capacity();
        if is_full || usize::from(stream.channel()) >= self.by_channel.len() || self.has(stream.destination()) {
            return Err(stream);
        }
        let at = self.streams.partition_point(|other| other.channel() <= stream.channel());
        self.streams.insert(at, stream);
        self.index();
        Ok(())
    }

    /// Takes a stream out; `None` if there is none to this destination. See [`Self::hand_over`].
    pub fn remove(&mut self, destination: usize) -> Option<Stream> {
        let at = self.streams.iter().position(|stream| stream.destination() == destination)?;
        let stream = self.streams.remove(at);
        self.index();
        Some(stream)
    }

    /// Hands over the open packet of a destination's stream, whatever it holds, and transmits: the stream is about to go.
    pub fn hand_over(&mut self, destination: usize, out: &mut Outlets<'_>) {
        for stream in self.streams.iter_mut().filter(|stream| stream.destination() == destination) {
            stream.send_open(out);
        }
        out.flush();
    }

    /// Finds every channel's streams again.
    fn index(&mut self) {
        let mut from = 0;
        for (channel, range) in self.by_channel.iter_mut().enumerate() {
            let count =
                self.streams[from..].iter().take_while(|stream| usize::from(stream.channel()) == channel).count();
            *range = from..from + count;
            from += count;
        }
    }

    /// The streams that carry a channel; none, if it has no destination.
    fn of_channel(&mut self, channel: ChannelIndex) -> &mut [Stream] {
        let range = self.by_channel.get(usize::from(channel)).cloned().unwrap_or_default();
        &mut self.streams[range]
    }

    /// Borrows what is needed to publish: a [`BlockSink`] that writes into output packets.
    pub fn outbound<'a>(&'a mut self, out: Outlets<'a>) -> Outbound<'a> {
        Outbound { publisher: self, out }
    }

    /// Hands over every open packet that holds at least one record, then transmits.
    ///
    /// A packet of nothing but empty blocks stays open: it waits for the next record or for [`Self::tick`].
    pub fn flush(&mut self, out: &mut Outlets<'_>) {
        for stream in &mut self.streams {
            stream.flush(out);
        }
        out.flush();
    }

    /// Sends what is due by time: packets of empty blocks, heartbeats, repeated ends of session.
    pub fn tick(&mut self, now_ns: u64, out: &mut Outlets<'_>) {
        for stream in &mut self.streams {
            stream.tick(now_ns, out);
        }
    }

    /// Hands over every open packet of one port, whatever it holds: the port and its frames are about to go.
    pub fn vacate(&mut self, port: usize, out: &mut Outlets<'_>) {
        for stream in self.streams.iter_mut().filter(|stream| stream.port() == port) {
            stream.send_open(out);
        }
        out.flush();
    }

    /// Tells the streams of a channel what it knows without a message; see [`ChannelState`](crate::feed::ChannelState).
    pub fn set_input(&mut self, channel: ChannelIndex, session: &Session, next: u64, is_alive: bool) {
        for stream in self.of_channel(channel) {
            stream.set_input(session, next, is_alive);
        }
    }

    /// Has what the streams of a destination send retained from now on. Before the worker runs.
    pub fn retain(&mut self, destination: usize, retainer: Retainer) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.destination() == destination) {
            stream.retain(retainer);
        }
    }

    /// Has a destination take what `route` says from now on. Returns what is to be freed: the route that was, if any, or this
    /// one, if no such destination is here.
    #[must_use]
    pub fn set_route(&mut self, destination: usize, route: Box<Route>) -> Option<Box<Route>> {
        match self.streams.iter_mut().find(|stream| stream.destination() == destination) {
            Some(stream) => stream.set_route(route),
            None => Some(route),
        }
    }

    /// Gives the open packets' frames back, at shutdown.
    pub fn close(&mut self, out: &Outlets<'_>) {
        for stream in &mut self.streams {
            stream.close(out);
        }
    }

    /// Frames that open packets hold.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.streams.iter().filter(|stream| stream.is_open()).count()
    }

    /// Per stream: index into the plan's destinations, its counters, and its drops.
    pub fn counts(&self) -> impl Iterator<Item = (usize, &DestinationCounts, &DropCounts)> {
        self.streams.iter().map(|stream| (stream.destination(), stream.counts(), stream.drops()))
    }
}

/// The publisher together with the ports that it writes to.
#[derive(Debug)]
pub struct Outbound<'a> {
    publisher: &'a mut Publisher,
    out: Outlets<'a>,
}

impl BlockSink for Outbound<'_> {
    fn block(&mut self, block: &Block<'_>) {
        for stream in self.publisher.of_channel(block.channel) {
            stream.block(block, &mut self.out);
        }
    }

    fn began(&mut self, channel: ChannelIndex, session: &Session, first: u64, _how: Beginning) {
        for stream in self.publisher.of_channel(channel) {
            stream.skip_to(session, first, &mut self.out);
        }
    }

    fn lost(&mut self, channel: ChannelIndex, session: &Session, _from: u64, to: u64) {
        for stream in self.publisher.of_channel(channel) {
            stream.skip_to(session, to, &mut self.out);
        }
    }

    fn end_of_session(&mut self, channel: ChannelIndex, session: &Session, next: u64) {
        for stream in self.publisher.of_channel(channel) {
            stream.end_of_session(session, next, &mut self.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Format;
    use crate::feed::Directory;
    use crate::net::memory::MemoryTx;
    use crate::net::{Frames, TxDestination, TxPort};

    #[test]
    fn a_channel_s_streams_are_found_whatever_their_order() {
        let stream = |destination, channel| {
            let (port, payload_bytes) = (0, 1472);
            let format = Format::Dbn;
            Stream::new(StreamSettings { destination, channel, port, format, payload_bytes })
        };
        let mut publisher = Publisher::new(vec![stream(0, 4), stream(1, 1), stream(2, 4)]);
        let mut found = |channel| publisher.of_channel(channel).iter().map(Stream::destination).collect::<Vec<_>>();
        assert_eq!([found(0), found(1), found(3), found(4), found(5)], [vec![], vec![1], vec![], vec![0, 2], vec![]]);
        // Nor does it matter when they come and go.
        publisher.make_room(6, 5);
        assert!(publisher.add(stream(7, 0)).is_ok() && publisher.add(stream(3, 4)).is_ok());
        assert!(publisher.add(stream(3, 1)).is_err(), "two streams to one destination");
        assert!(publisher.add(stream(4, 6)).is_err(), "no room for such a channel");
        assert!(publisher.remove(1).is_some() && publisher.remove(1).is_none());
        let mut found = |channel| publisher.of_channel(channel).iter().map(Stream::destination).collect::<Vec<_>>();
        assert_eq!(
            [found(0), found(1), found(3), found(4), found(5)],
            [vec![7], vec![], vec![], vec![0, 2, 3], vec![]]
        );
        assert!(publisher.add(stream(5, 5)).is_ok() && publisher.add(stream(6, 5)).is_err(), "full");
    }

    /// In the middle of a packet that is open, and of one that holds nothing but empty blocks.
    #[test]
    fn a_stream_that_is_replaced_continues_where_the_old_one_was() {
        let settings =
            |format, payload_bytes| StreamSettings { destination: 0, channel: 0, port: 0, format, payload_bytes };
        for format in [Format::Raw, Format::Dbn] {
            let mut tx = TxPort::Memory(MemoryTx::new());
            tx.make_room(1);
            assert!(matches!(tx.put_destination(0, TxDestination::Memory), Ok(None)));
            let directory = Directory::new();
            let (frames, mut ports) = ([Frames::heap(8, 2048)], [Some(tx)]);
            let mut publisher = Publisher::new(vec![Stream::new(settings(format, 1472))]);
            publisher.make_room(1, 1);
            for sequence in 1..=10 {
                let (session, message) = (b"SESSION001", [sequence as u8; 5]);
                let block = Block {
                    channel: 0,
                    session,
                    sequence,
                    notice: b"",
                    message: &message,
                    records: b"",
                    record_count: 0,
                    directory: &directory,
                };
                publisher.outbound(Outlets::new(&frames, &mut ports)).block(&block);
                if sequence == 4 {
                    publisher.hand_over(0, &mut Outlets::new(&frames, &mut ports));
                    let old = publisher.remove(0).unwrap();
                    assert!(!old.is_open() && old.counts().blocks == 4);
                    publisher.add(Stream::new(settings(format, 60))).unwrap();
                }
            }
            publisher.hand_over(0, &mut Outlets::new(&frames, &mut ports));
            let [Some(TxPort::Memory(port))] = &mut ports else { unreachable!() };
            let header = |payload: &[u8]| {
                (
                    u64::from_be_bytes(payload[10..18].try_into().unwrap()),
                    u16::from_be_bytes([payload[18], payload[19]]),
                )
            };
            let packets: Vec<_> = port.take().iter().map(|(_, payload)| header(payload)).collect();
            let numbers = packets.iter().flat_map(|(first, count)| *first..*first + u64::from(*count));
            assert!(numbers.eq(1..=10) && packets[0] == (1, 4) && packets[1].0 == 5, "{packets:?}");
            frames[0].assert_conserved(0, 0, 0);
        }
    }
}
