//! A channel: one sequenced stream, from the datagrams of its lines to messages in order and their records.
//!
//! This module knows no socket, no clock, no thread and no log: time comes in as a number, what comes out goes to a
//! [`BlockSink`].
//!
//! Data flows through the modules in this order: [`transport`] (header and blocks of a datagram), [`arbiter`] (order,
//! duplicates, gaps, deadlines; sees sequences, never payload), [`hold`] (packets that are ahead of a gap), [`decode`]
//! (messages to records) over [`orders`]; [`channel`] ties them together.
//
// `forbid` would reach into prefetch, which needs it.
#![deny(unsafe_code)]

pub mod arbiter;
pub mod channel;
pub mod decode;
pub mod directory;
pub mod hold;
pub mod midnights;
pub mod orders;
pub mod prefetch;
pub mod transport;

pub use arbiter::{Beginning, ChannelState, Gap, JoinState};
pub use channel::{ADMIT_LIMIT, Channel, ChannelError, ChannelSettings, HOLES, Holes};
pub use directory::{Directory, Symbol};
pub use midnights::Midnights;

/// Index of a channel in the plan.
pub type ChannelIndex = u16;

/// A session's name, exactly as on the wire.
pub type Session = [u8; 10];

/// A line within its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineRole {
    /// The first copy.
    A,
    /// The second copy.
    B,
    /// Answers of a retransmission server. They fill gaps, but prove no liveness and begin no session.
    Recovery,
    /// A snapshot, handed over by our own thread: its messages stand for those before a late start.
    Snapshot,
    /// The one stream of a channel that comes over TCP. Nothing of it is damaged or strays, so nothing needs a witness.
    Soup,
}

impl LineRole {
    /// Every role, in index order.
    pub const ALL: [Self; 5] = [Self::A, Self::B, Self::Recovery, Self::Snapshot, Self::Soup];

    /// Whether it is a copy of the channel, and not what was asked for.
    #[must_use]
    pub const fn is_copy(self) -> bool {
        matches!(self, Self::A | Self::B | Self::Soup)
    }
}

/// Where a channel puts what it delivers, in sequence order.
///
/// The publisher is one; capture replay and the test consumer's reference are others.
pub trait BlockSink {
    /// One message: its own bytes, and the DBN records that came of it (possibly none), concatenated.
    fn block(&mut self, block: &Block<'_>);
    /// Messages `from..to` will never come: given up.
    fn lost(&mut self, channel: ChannelIndex, session: &Session, from: u64, to: u64);
    /// A session begins, or its numbers do: `first` is the first message that is to be delivered. Before any of its blocks.
    fn began(&mut self, _channel: ChannelIndex, _session: &Session, _first: u64, _how: Beginning) {}
    /// The session is over; `next` is the number after its last message.
    fn end_of_session(&mut self, channel: ChannelIndex, session: &Session, next: u64);
    /// All blocks of one packet, also of one that was held, were handed over; it had arrived at `received_ns`,
    /// CLOCK_MONOTONIC. Called before [`Channel::deliver`] returns; for those who measure latency.
    fn delivered(&mut self, _received_ns: u64) {}
}

/// One delivered message.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The channel that delivered it.
    pub channel: ChannelIndex,
    /// Session it belongs to.
    pub session: &'a Session,
    /// Its sequence number.
    pub sequence: u64,
    /// A DBN system record that says what happened before this message, such as a loss; most often empty. It belongs to no
    /// message: whoever takes the message's records takes it in front of them.
    pub notice: &'a [u8],
    /// The exchange's message, without framing.
    pub message: &'a [u8],
    /// DBN records, concatenated: all of one instrument, because a message is.
    pub records: &'a [u8],
    /// Number of records.
    pub record_count: u8,
    /// What the channel's instrument ids stand for, this message's own mapping included.
    pub directory: &'a Directory,
}
