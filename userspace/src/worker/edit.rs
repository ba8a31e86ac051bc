//! Changes of what a worker does while it runs: channels, lines and streams that come and go.
//!
//! Whoever sends an [`Edit`] has allocated and opened everything in it. The worker applies it between two duty cycles, in this
//! order: streams out, lines out, channels out, channels in, lines in, streams in; it only moves, and what it has taken out
//! it hands back. So no packet sees half of a change, and nothing is allocated, freed or opened on the hot path.
#![forbid(unsafe_code)]

use super::shared::Wanted;
use crate::feed::{Channel, LineRole};
use crate::net::socket::LineSocket;
use crate::net::{LineIndex, Port, Rules, TxDestination};
use crate::publish::{Retainer, Stream};

/// One change, applied as a whole. What is to be removed and is not there is passed over; what cannot be added (its number
/// is taken, its channel is not there, no room) stays in its list, and the command counts as refused.
#[derive(Debug, Default)]
pub struct Edit {
    /// Streams that end, by index of the destination. What is open is sent first; no session ends by it.
    pub remove_streams: Vec<usize>,
    /// Lines that go. What has come on one that is still enabled is taken first.
    pub remove_lines: Vec<LineIndex>,
    /// Channels that go, by index into the plan, with all their lines; their streams are to be among those above. What one still
    /// holds is dropped and counted
    /// ([`DropReason::Removed`](crate::metrics::DropReason::Removed)).
    pub remove_channels: Vec<usize>,
    /// Channels that begin.
    pub add_channels: Vec<NewChannel>,
    /// Lines that begin, disabled.
    pub add_lines: Vec<NewLine>,
    /// Streams that begin, with the next message of their channel.
    pub add_streams: Vec<NewStream>,
    /// By port: the rules for frames that the filter could not stamp. Those that were in force are here afterwards.
    pub rules: Vec<(usize, Rules)>,
    /// By index: ports that take the place of vacant ones, which are here afterwards.
    pub ports: Vec<(usize, Box<Port>)>,
    /// The way to the recovery thread, for a worker that has none yet.
    pub wants: Option<rtrb::Producer<Wanted>>,
    /// What was taken out.
    pub removed: Removed,
}

/// A channel that begins.
#[derive(Debug)]
pub struct NewChannel {
    /// Index into `Plan::channels`.
    pub index: usize,
    /// The channel.
    pub channel: Channel,
    /// The lines that nobody switches: what is recovered, what a snapshot has, what comes over TCP.
    pub own_lines: [(LineIndex, LineRole); 3],
}

/// A line that begins.
#[derive(Debug)]
pub struct NewLine {
    /// Index into `Plan::lines`.
    pub line: LineIndex,
    /// Index into `Plan::channels`.
    pub channel: usize,
    /// Which copy it is. No other line of the channel may be that copy.
    pub role: LineRole,
    /// On an interface in socket mode: the port, and the socket that receives there, joined to nothing yet. Where the port is
    /// vacant now, the socket is handed back: a port that is opened later has one of its own.
    pub socket: Option<(usize, LineSocket)>,
}

/// A stream that begins.
#[derive(Debug)]
pub struct NewStream {
    /// The stream; its destination must not be in use, or be removed by the same edit.
    pub stream: Stream,
    /// Where what it sends is copied to.
    pub retention: Retention,
    /// Whether its consumers are those of the stream that the same edit removes from this destination: they miss nothing by
    /// the change. The stream is to be made as one that joins ([`Stream::joining`]) in either case: what that one withheld
    /// it remembers only so.
    pub continues: bool,
    /// What its port sends it by. Where the port is vacant now, it is handed back: a port that is opened later knows it.
    pub destination: TxDestination,
}

/// Whether what a new stream sends is retained.
#[derive(Debug, Default)]
pub enum Retention {
    /// It is not.
    #[default]
    None,
    /// As that of the stream that the same edit removes from this destination: who retains does not notice the change.
    Kept,
    /// Here.
    New(Retainer),
}

/// What a worker gives back. Dropping it closes sockets and frees memory.
#[derive(Debug, Default)]
pub struct Removed {
    /// Channels by index, with their last counters.
    pub channels: Vec<(usize, Channel)>,
    /// Streams.
    pub streams: Vec<Stream>,
    /// Sockets of lines.
    pub sockets: Vec<LineSocket>,
    /// What ports sent streams by.
    pub destinations: Vec<TxDestination>,
    /// What would be retained nowhere.
    pub retainers: Vec<Retainer>,
}

impl Edit {
    /// Makes room for what the worker will hand back, so that it allocates nothing. Call it last.
    #[must_use]
    pub fn ready(mut self) -> Box<Self> {
        let Removed { channels, streams, sockets, destinations, retainers } = &mut self.removed;
        channels.reserve(self.remove_channels.len());
        streams.reserve(self.remove_streams.len());
        // Removed ones, and new ones that have no place.
        sockets.reserve(2 * (self.remove_lines.len() + self.add_lines.len()) + 2 * self.remove_channels.len());
        destinations.reserve(self.remove_streams.len() + 2 * self.add_streams.len());
        retainers.reserve(self.add_streams.len());
        Box::new(self)
    }

    /// Whether all that was to be added was. To be asked when the edit has come back.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.add_channels.is_empty() && self.add_lines.is_empty() && self.add_streams.is_empty()
    }
}
