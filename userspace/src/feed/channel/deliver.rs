//! The second stage: decodes what is queued, with a window of messages between asking for memory and using it.
#![forbid(unsafe_code)]

use super::Channel;
use super::notice::Notice;
use crate::feed::decode::{Decoder, Records};
use crate::feed::{Beginning, Block, BlockSink, ChannelIndex, Session, transport};
use crate::metrics::ChannelCounts;

/// Messages between the prefetch of an order and its use. A cache miss costs about as much as this many messages.
const WINDOW: usize = 24;

/// Where the payload of a packet is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// In the caller's batch.
    Slot(u16),
    /// In the hold buffer.
    Held(u32),
}

/// A packet, or the part of it that is to be delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub source: Source,
    /// Messages at the front that were delivered before.
    pub skip: u16,
    /// Messages of the packet, the skipped ones included.
    pub count: u16,
    /// Sequence of the first message to deliver.
    pub sequence: u64,
    pub received_ns: u64,
}

/// One step of a delivery.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delivery {
    Packet(Packet),
    Lost {
        from: u64,
        to: u64,
    },
    End {
        next: u64,
    },
    /// A session begins.
    Session {
        session: Session,
        first: u64,
        /// None: a snapshot decides.
        how: Option<Beginning>,
    },
    /// The lines had been silent and are back.
    Back,
    /// Messages of a snapshot follow, from `first` on.
    Snapshot {
        first: u64,
    },
    /// They follow no more; they began with `first`.
    SnapshotEnds {
        first: u64,
    },
    /// The session was joined late, at `first`, and no snapshot makes up for it.
    Late {
        first: u64,
    },
}

/// A message whose order is being loaded.
#[derive(Clone, Copy, Default)]
struct Pending<'a> {
    message: &'a [u8],
    sequence: u64,
    ts_recv: u64,
}

/// What decoding one message takes.
struct Stage<'a, S> {
    channel: ChannelIndex,
    session: &'a mut Session,
    decoder: &'a mut Decoder,
    records: &'a mut Records,
    notice: &'a mut Notice,
    publisher_id: u16,
    counts: &'a mut ChannelCounts,
    sink: &'a mut S,
}

impl<S: BlockSink> Stage<'_, S> {
    #[inline]
    fn decode(&mut self, pending: &Pending<'_>) {
        self.records.clear();
        self.decoder.decode(pending.message, pending.sequence, pending.ts_recv, self.records);
        self.counts.messages += 1;
        self.counts.records += u64::from(self.records.count());
        let notice = self.notice.take(self.session, self.publisher_id, pending.ts_recv);
        self.counts.notices += u64::from(!notice.is_empty());
        self.sink.block(&Block {
            channel: self.channel,
            session: self.session,
            sequence: pending.sequence,
            notice,
            message: pending.message,
            records: self.records.bytes(),
            record_count: self.records.count(),
            directory: self.decoder.directory(),
        });
    }

    fn began(&mut self, left: &Session, first: u64, how: Beginning) {
        self.notice.began(left, how, first);
        if how == Beginning::Late {
            self.decoder.lost();
        }
        self.sink.began(self.channel, self.session, first, how);
    }

    fn event(&mut self, delivery: &Delivery) {
        match *delivery {
            Delivery::Lost { from, to } => {
                self.decoder.lost();
                self.notice.lost(from, to);
                self.sink.lost(self.channel, self.session, from, to);
            }
            Delivery::End { next } => self.sink.end_of_session(self.channel, self.session, next),
            Delivery::Session { session, first, how } => {
                self.decoder.begin_session();
                let left = std::mem::replace(self.session, session);
                if let Some(how) = how {
                    self.began(&left, first, how);
                }
            }
            Delivery::Back => self.notice.is_back(),
            Delivery::Snapshot { first } => {
                self.decoder.snapshot(true);
                let session = *self.session;
                self.began(&session, first, Beginning::Joined);
            }
            Delivery::SnapshotEnds { first } => {
                self.decoder.snapshot(false);
                // Once more: who was in the session before dropped the beginning as old, and took the rest for messages.
                let session = *self.session;
                self.notice.began(&session, Beginning::Joined, first);
            }
            Delivery::Late { first } => {
                let session = *self.session;
                self.began(&session, first, Beginning::Late);
            }
            Delivery::Packet(_) => unreachable!("not an event"),
        }
    }
}

impl Channel {
    /// Decodes everything that is queued into `sink`, in sequence order.
    ///
    /// `payloads` returns the payload that was admitted with a slot. `utc_offset_ns` is what to add to CLOCK_MONOTONIC to
    /// get UTC, nanoseconds (wrapping).
    pub fn deliver<'a, S: BlockSink>(&mut self, payloads: impl Fn(u16) -> &'a [u8], utc_offset_ns: u64, sink: &mut S) {
        self.admitted = 0;
        if self.queue.is_empty() {
            return;
        }
        let hold = &self.hold;
        let mut stage = Stage {
            channel: self.index,
            session: &mut self.delivered_session,
            decoder: &mut self.decoder,
            records: &mut self.records,
            notice: &mut self.notice,
            publisher_id: self.publisher_id,
            counts: &mut self.counts,
            sink,
        };
        let mut window = [Pending::default(); WINDOW];
        // Messages put into the window, and taken out of it, each modulo WINDOW.
        let (mut put, mut waiting) = (0, 0);
        for delivery in &self.queue {
            let Delivery::Packet(packet) = delivery else {
                drain(&mut stage, &window, put, waiting);
                waiting = 0;
                stage.event(delivery);
                continue;
            };
            let payload: &[u8] = match packet.source {
                Source::Slot(slot) => payloads(slot),
                Source::Held(slot) => hold.payload(slot),
            };
            let ts_recv = packet.received_ns.wrapping_add(utc_offset_ns);
            let mut sequence = packet.sequence;
            let mut blocks = transport::blocks(self.transport, payload, packet.count);
            for _ in 0..packet.skip {
                blocks.next();
            }
            for message in blocks {
                stage.decoder.prefetch(message);
                let pending = Pending { message, sequence, ts_recv };
                if waiting == WINDOW {
                    stage.decode(&window[put]);
                } else {
                    waiting += 1;
                }
                window[put] = pending;
                put = if put + 1 == WINDOW { 0 } else { put + 1 };
                sequence += 1;
            }
        }
        drain(&mut stage, &window, put, waiting);
        for delivery in &self.queue {
            let Delivery::Packet(packet) = delivery else { continue };
            stage.sink.delivered(packet.received_ns);
            if let Source::Held(slot) = packet.source {
                self.hold.release(slot);
            }
        }
        self.queue.clear();
    }
}

/// Decodes the `waiting` messages of the window, oldest first; the newest is just before `put`.
fn drain<S: BlockSink>(stage: &mut Stage<'_, S>, window: &[Pending<'_>; WINDOW], put: usize, waiting: usize) {
    for age in (0..waiting).rev() {
        stage.decode(&window[(put + WINDOW - 1 - age) % WINDOW]);
    }
}
