//! What one packet alone does not prove: a far jump of the sequence, or another session while this one is alive.
//!
//! A corrupt header, or one stray packet of another feed, must not make a channel give up all that it would receive. So
//! such a packet is only believed when a second one says the same. While the other line goes on with what is, it must be one
//! of the other line: a line that repeats yesterday's session has any number of packets that say the same.
#![forbid(unsafe_code)]

use super::Arbiter;
use crate::feed::LineRole;
use crate::feed::transport::PacketHeader;

/// How far beyond what is known to exist one packet alone may jump, messages. About a minute of the busiest feed: lines
/// that were away for longer need two packets to be believed.
pub const UNPROVEN_JUMP: u64 = 1 << 24;

/// The header of a packet that waits for a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What the packet says.
    pub header: PacketHeader,
    /// The line that brought it.
    pub role: LineRole,
    /// CLOCK_MONOTONIC of its arrival, nanoseconds.
    pub received_ns: u64,
}

impl Claim {
    /// Whether another packet says the same: one of the other line, or another one of this line, of the same session and
    /// near. A line that doubles a packet is no second witness.
    #[must_use]
    pub fn is_confirmed_by(&self, header: &PacketHeader, role: LineRole) -> bool {
        let is_near = header.sequence.abs_diff(self.header.sequence) <= UNPROVEN_JUMP;
        header.session == self.header.session && is_near && !self.is_repeated_by(header, role)
    }

    /// Whether it is the same packet of the same line once more.
    #[must_use]
    pub fn is_repeated_by(&self, header: &PacketHeader, role: LineRole) -> bool {
        *header == self.header && role == self.role
    }
}

/// What a packet with a claim is to the claim before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// The first one: keep it. The one kept until now, if any, is to be dropped.
    First {
        /// What nobody confirmed.
        dropped: Option<Claim>,
    },
    /// The second one. Act on the first one, then on this.
    Second(Claim),
    /// Another one of the line that said the first, while the other line still says something else: keep it, too.
    Another,
    /// The first one again.
    Repeated,
}

impl Arbiter {
    /// What a packet that [`Verdict::Unproven`](super::Verdict::Unproven) judged is to the one before. The caller keeps the packet of a claim.
    pub fn witness(&mut self, header: &PacketHeader, role: LineRole, received_ns: u64) -> Witness {
        let dropped = match self.claim {
            Some(claim) if !self.is_contradicted(&claim) => {
                if claim.is_confirmed_by(header, role) {
                    let is_back = self.is_forsaken(&header.session);
                    if claim.role == role && !is_back && self.is_other_alive(role, received_ns) {
                        return Witness::Another;
                    }
                    self.claim = None;
                    return Witness::Second(claim);
                }
                if claim.is_repeated_by(header, role) {
                    return Witness::Repeated;
                }
                Some(claim)
            }
            contradicted => contradicted,
        };
        self.claim = Some(Claim { header: *header, role, received_ns });
        Witness::First { dropped }
    }

    /// Whether lines went on as if nothing was for long enough that the claim can be neither slow nor reordered.
    fn is_contradicted(&self, claim: &Claim) -> bool {
        self.last_seen_ns > claim.received_ns.saturating_add(self.deadlines.doubt_ns)
    }

    /// Takes the claim away that was contradicted for too long; its packet is to be dropped.
    pub fn take_contradicted(&mut self) -> Option<Claim> {
        if self.is_contradicted(self.claim.as_ref()?) { self.claim.take() } else { None }
    }

    /// Whether a packet that is believed now begins a session, or begins its numbers again.
    #[must_use]
    pub fn is_beginning(&self, header: &PacketHeader) -> bool {
        self.session != Some(header.session) || header.end() < self.expected
    }

    /// Takes the claim away, whatever it says: another packet changes the session at once.
    pub fn take_claim(&mut self) -> Option<Claim> {
        self.claim.take()
    }
}
