//! Putting packets together that came over several frames (XDP_USE_SG, Linux 6.6): each descriptor but a packet's last has
//! XDP_PKT_CONTD. The pieces are copied, as they come, into one jumbo buffer, and their frames are free at once.
//!
//! A packet's descriptors follow one another in the ring, but a receive call may end between two of them: what is under
//! way waits for the next call. The first piece alone is stamped. A stamp on a later one shows that the end of the packet
//! before it is missing, and begins a packet of its own.
#![forbid(unsafe_code)]

use xdp_ebpf::FrameMeta;

use crate::metrics::{DropCounts, DropReason, PortCounts};
use crate::net::umem::{Frame, Frames, Owner};

/// What a descriptor says of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Where it lies in its frame.
    pub(super) start: usize,
    pub(super) len: usize,
    /// Whether the packet goes on in the next descriptor.
    pub(super) has_more: bool,
}

/// A packet in one piece, in a frame or in a jumbo buffer, and its stamp.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) frame: Frame,
    pub(super) meta: Option<FrameMeta>,
}

/// The packet that is under way, if one is.
#[derive(Debug, Default)]
pub(super) struct Gather(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// All its pieces so far are in the jumbo buffer.
    Filling(Whole),
    /// It was dropped already, and counted; its other pieces go the same way.
    Skipping,
}

impl Gather {
    /// Whether the next piece belongs to a packet that has begun.
    #[inline]
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.0, State::Idle)
    }

    /// Jumbo buffers in its hands.
    pub(super) fn frames_held(&self) -> usize {
        usize::from(matches!(self.0, State::Filling(_)))
    }

    /// Takes the next piece; the packet, if that was its last. What is dropped is counted and its frame freed.
    // Out of the way of packets in one frame.
    #[cold]
    pub(super) fn add(
        &mut self,
        frames: &Frames,
        mut frame: Frame,
        piece: Piece,
        cookie: u16,
        counts: &mut PortCounts,
        drops: &mut DropCounts,
    ) -> Option<Whole> {
        counts.pieces += 1;
        if !frames.set_packet(&frame, piece.start, piece.len) {
            frames.free(frame);
            self.lose(frames, piece.has_more, DropReason::BadBounds, drops);
            return None;
        }
        let meta = frames.take_meta(&mut frame, cookie);
        if meta.is_some() && self.is_under_way() {
            self.lose(frames, false, DropReason::BrokenChain, drops);
            if !piece.has_more {
                counts.pieces -= 1;
                return Some(Whole { frame, meta });
            }
        }
        if matches!(self.0, State::Idle) {
            self.0 = match frames.alloc_jumbo() {
                Some(frame) => State::Filling(Whole { frame, meta }),
                None => {
                    drops.add(DropReason::NoFreeFrame);
                    State::Skipping
                }
            };
        }
        let fits = match &mut self.0 {
            State::Filling(whole) => frames.append(&mut whole.frame, &frame),
            State::Idle | State::Skipping => true,
        };
        frames.free(frame);
        if !fits {
            self.lose(frames, piece.has_more, DropReason::TooLong, drops);
        } else if !piece.has_more
            // Whatever was under way is over.
            && let State::Filling(whole) = std::mem::take(&mut self.0)
        {
            frames.assign(&whole.frame, Owner::User);
            counts.gathered += 1;
            return Some(whole);
        }
        None
    }

    /// Drops the packet that is under way, or that a bad piece would have begun, unless it was dropped already. Where it
    /// `has_more` pieces they are dropped, too.
    #[cold]
    pub(super) fn lose(&mut self, frames: &Frames, has_more: bool, reason: DropReason, drops: &mut DropCounts) {
        let next = if has_more { State::Skipping } else { State::Idle };
        match std::mem::replace(&mut self.0, next) {
            State::Skipping => {}
            State::Idle => drops.add(reason),
            State::Filling(whole) => {
                frames.free(whole.frame);
                drops.add(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests;
