//! One channel: datagrams of its lines in, messages in order and their records out.
//!
//! [`Channel::admit`] takes each datagram of a batch, [`Channel::deliver`] then decodes what the batch made deliverable.
//! The two are apart so that the order store's cache lines are asked for well before the message that needs them.
#![forbid(unsafe_code)]

mod admit;
mod claims;
mod copies;
mod deliver;
mod holes;
mod notice;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;

use super::arbiter::{Arbiter, ChannelState, Deadlines, Gap};
use super::decode::{Decoder, Records};
use super::hold::{Held, Hold, SLOT_BYTES};
use super::{ChannelIndex, Directory, LineRole, Session};
use crate::config::plan::{OnGap, TransportKind};
use crate::metrics::{ChannelCounts, DropCounts, DropReason, LineCounts, SkewCounts};
use claims::{Kept, MOST_KEPT};
use copies::Copies;
use deliver::Delivery;
pub use holes::{HOLES, Holes};
use notice::Notice;
pub use settings::{ChannelError, ChannelSettings, MAX_HOLD_PACKETS, MAX_ORDERS};

/// Most datagrams that may be admitted between two calls of [`Channel::deliver`].
pub const ADMIT_LIMIT: usize = 1024;

/// Events of a snapshot, which comes once: its beginning, its end, and what is lost of it; or that there is none.
const SNAPSHOT_EVENTS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    counts: LineCounts,
    drops: DropCounts,
    /// How far it is behind the other line, where it is.
    skew: SkewCounts,
}

impl Line {
    /// Counts a held packet of the line that turned out to be a duplicate.
    fn discard(&mut self, held: &Held, counts: &mut ChannelCounts) {
        self.counts.duplicate += 1;
        self.drops.add(DropReason::Duplicate);
        counts.duplicate_messages += held.end - held.sequence;
    }
}

/// One sequenced stream, arbitrated and decoded. Allocates in [`Channel::new`] and never again.
#[derive(Debug)]
pub struct Channel {
    index: ChannelIndex,
    transport: TransportKind,
    arbiter: Arbiter,
    hold: Hold,
    decoder: Decoder,
    records: Records,
    /// What [`Channel::deliver`] will do, in order.
    queue: Vec<Delivery>,
    kept: Kept,
    copies: Copies,
    /// How much later than another line's copy one is late, nanoseconds.
    late_ns: u64,
    notice: Notice,
    publisher_id: u16,
    /// Datagrams admitted since the last delivery.
    admitted: usize,
    /// Session of the delivery; behind the arbiter's while a session change is queued.
    delivered_session: Session,
    /// The end of session that was queued last, so that repeated ones are not.
    told_end: Option<u64>,
    lines: [Line; LineRole::ALL.len()],
    counts: ChannelCounts,
}

impl Channel {
    /// Makes a channel and allocates everything that it will ever use.
    ///
    /// # Errors
    /// A size out of its legal range.
    pub fn new(settings: ChannelSettings) -> Result<Self, ChannelError> {
        if !(1..=MAX_HOLD_PACKETS).contains(&settings.hold_packets) {
            return Err(ChannelError::HoldPackets(settings.hold_packets));
        }
        if !(1..=MAX_ORDERS).contains(&settings.max_orders) {
            return Err(ChannelError::MaxOrders(settings.max_orders));
        }
        let deadlines = Deadlines {
            gap_timeout_ns: settings.gap_timeout_ns,
            give_up_ns: match settings.on_gap {
                OnGap::Hold => settings.give_up_ns,
                OnGap::Pass => settings.gap_timeout_ns,
            },
            doubt_ns: settings.give_up_ns,
            stale_ns: settings.stale_ns,
            backfill_ns: settings.backfill_ns,
        };
        let slot_bytes = settings.payload_bytes.max(SLOT_BYTES);
        // Those of a batch, and those from before that waited for a second witness.
        let admitted = ADMIT_LIMIT + MOST_KEPT;
        // Each held packet has at most one gap in front of it, and each admitted one may open one by itself.
        let gap_capacity = settings.hold_packets + admitted;
        // Per admitted or held packet: itself and the loss in front of it; per admitted one also a session's end and
        // beginning, and that lines are back.
        let queue_capacity = 2 * (settings.hold_packets + admitted) + gap_capacity + 4 * admitted + SNAPSHOT_EVENTS;
        Ok(Self {
            index: settings.index,
            transport: settings.transport,
            arbiter: Arbiter::new(deadlines, settings.start, gap_capacity),
            hold: Hold::new(settings.hold_packets, admitted, slot_bytes),
            decoder: Decoder::new(settings.decoder, settings.publisher_id, settings.max_orders, settings.midnights),
            records: Records::new(),
            queue: Vec::with_capacity(queue_capacity),
            kept: Kept::new(),
            copies: Copies::new(),
            late_ns: settings.gap_timeout_ns,
            notice: Notice::new(),
            publisher_id: settings.publisher_id,
            admitted: 0,
            delivered_session: [b' '; 10],
            told_end: None,
            lines: Default::default(),
            counts: ChannelCounts::default(),
        })
    }

    /// The worker was not running for the last `still_ns` nanoseconds. Call it before [`Self::poll`].
    pub fn stood_still(&mut self, still_ns: u64, now_ns: u64) {
        self.arbiter.stood_still(still_ns, now_ns);
    }

    /// Housekeeping: gives up gaps that are too old and notices silence. Call [`Channel::deliver`] after it.
    pub fn poll(&mut self, now_ns: u64) {
        while let Some(to) = self.arbiter.poll(now_ns, self.hold.nearest(), self.hold.has_room()) {
            self.give_up(to, now_ns);
        }
        if self.arbiter.take_contradicted().is_some() {
            self.drop_claim();
        }
        if self.arbiter.is_join_overdue(now_ns) {
            self.forsake_snapshot(now_ns);
        }
        self.tell_end();
    }

    /// Drops what is held, and counts it as [`DropReason::Removed`] of the line that brought it: the channel is about to go.
    /// Between two deliveries; all that was deliverable has been delivered.
    pub fn close(&mut self) {
        while let Some(held) = self.hold.take(u64::MAX) {
            self.lines[held.role as usize].drops.add(DropReason::Removed);
            self.hold.release(held.slot);
        }
        self.drop_kept(DropReason::Removed);
    }

    /// Another line takes a role from now on: its counters begin at zero, and nothing that the one before said is held
    /// against it. What that one brought and is held stays.
    pub fn renew_line(&mut self, role: LineRole) {
        self.lines[role as usize] = Line::default();
        self.arbiter.renew_course(role);
    }

    /// The messages that the channel waits for, if any.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        self.arbiter.gap(self.hold.nearest())
    }

    /// The session that is received; `None` before the first packet.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.arbiter.session()
    }

    /// What the session has said of its instruments.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        self.decoder.directory()
    }

    /// State of the channel.
    #[must_use]
    pub fn state(&self) -> ChannelState {
        self.arbiter.state()
    }

    /// First sequence that was to be delivered in this session: above 1 after a late start, when what came before is
    /// unknown.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.arbiter.first()
    }

    /// Whether [`Channel::deliver`] has something to do.
    #[must_use]
    pub fn has_deliveries(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Counters of the channel.
    #[must_use]
    pub fn counts(&self) -> ChannelCounts {
        let mut counts = self.counts;
        let gaps = self.arbiter.counts();
        counts.gaps_opened = gaps.gaps_opened;
        counts.gaps_closed = gaps.gaps_closed;
        counts.gaps_lost = gaps.gaps_lost;
        counts.messages_lost = gaps.messages_lost;
        counts.sessions = gaps.sessions;
        counts.restarts = gaps.restarts;
        counts.first_sequence = self.arbiter.first();
        counts.next_sequence = self.arbiter.expected();
        counts.known_sequence = self.arbiter.known();
        counts.snapshot_state = self.arbiter.join_state() as u64;
        counts.state = self.state() as u64;
        self.decoder.add_counts(&mut counts);
        counts
    }

    /// Counters of one line.
    #[must_use]
    pub fn line_counts(&self, role: LineRole) -> LineCounts {
        self.lines[role as usize].counts
    }

    /// How much later copies came on this line than on the other, where it was the later one.
    #[must_use]
    pub fn line_skew(&self, role: LineRole) -> SkewCounts {
        self.lines[role as usize].skew
    }

    /// Dropped packets of one line.
    #[must_use]
    pub fn line_drops(&self, role: LineRole) -> DropCounts {
        self.lines[role as usize].drops
    }
}
