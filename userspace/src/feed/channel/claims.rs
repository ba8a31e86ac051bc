//! Packets that wait for a second witness: kept, so that nothing of a session's beginning is lost by the waiting.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use super::Channel;
use super::deliver::Source;
use crate::feed::LineRole;
use crate::feed::arbiter::{Claim, Verdict, Witness};
use crate::feed::hold::SLOT_BYTES;
use crate::feed::transport::PacketHeader;
use crate::metrics::DropReason;

/// Packets of one claim that are kept while the other line still goes on with what is: a few milliseconds of a session's
/// beginning.
pub(super) const MOST_KEPT: usize = 256;

/// Payload bytes of all of them.
const KEPT_BYTES: usize = MOST_KEPT / 4 * SLOT_BYTES;

/// The packets of the arbiter's claim, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Kept {
    payloads: Vec<u8>,
    /// Each with the end of its payload.
    packets: ArrayVec<(Claim, usize), MOST_KEPT>,
}

impl Kept {
    pub(super) fn new() -> Self {
        Self { payloads: Vec::with_capacity(KEPT_BYTES), packets: ArrayVec::new() }
    }

    fn clear(&mut self) {
        self.payloads.clear();
        self.packets.clear();
    }

    /// Keeps a packet, if there is room.
    fn push(&mut self, claim: Claim, payload: &[u8]) -> Result<(), DropReason> {
        if self.packets.is_full() || self.payloads.len() + payload.len() > KEPT_BYTES {
            return Err(DropReason::Unconfirmed);
        }
        self.payloads.extend_from_slice(payload);
        self.packets.push((claim, self.payloads.len()));
        Ok(())
    }
}

impl Channel {
    /// Keeps a packet that claims what it alone does not prove, or acts on the kept ones if this one confirms them. True if
    /// the packet is now to be believed.
    pub(super) fn prove(
        &mut self,
        role: LineRole,
        header: &PacketHeader,
        payload: &[u8],
        received_ns: u64,
    ) -> Result<bool, DropReason> {
        if payload.len() > self.hold.slot_bytes() {
            return Err(DropReason::Unconfirmed);
        }
        let claim = Claim { header: *header, role, received_ns };
        match self.arbiter.witness(header, role, received_ns) {
            Witness::First { .. } => {
                self.drop_claim();
                self.kept.push(claim, payload).map(|()| false)
            }
            Witness::Another => {
                // Once more what is kept: one witness, and one packet.
                if self.kept.packets.iter().any(|(kept, _)| kept.is_repeated_by(header, role)) {
                    return Err(DropReason::Unconfirmed);
                }
                self.kept.push(claim, payload).map(|()| false)
            }
            Witness::Second(claim) => {
                if self.arbiter.is_beginning(&claim.header) {
                    self.change_session(&claim.header);
                }
                self.act_on_claim();
                Ok(true)
            }
            Witness::Repeated => Err(DropReason::Unconfirmed),
        }
    }

    /// Begins the session of a packet that needs no witness. Packets of it that waited for one come first.
    pub(super) fn begin_session(&mut self, role: LineRole, header: &PacketHeader) {
        let claim = self.arbiter.take_claim();
        if !claim.is_some_and(|claim| claim.is_confirmed_by(header, role)) {
            self.drop_claim();
        }
        self.change_session(header);
        self.act_on_claim();
    }

    /// Drops the packets of a claim that nobody confirmed.
    pub(super) fn drop_claim(&mut self) {
        self.drop_kept(DropReason::Unconfirmed);
    }

    pub(super) fn drop_kept(&mut self, reason: DropReason) {
        for (claim, _) in &self.kept.packets {
            self.lines[claim.role as usize].drops.add(reason);
        }
        self.kept.clear();
    }

    /// Does with the kept packets what would have been done when they came.
    fn act_on_claim(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        let mut from = 0;
        for (claim, to) in &kept.packets {
            let payload = &kept.payloads[from..*to];
            from = *to;
            let verdict = self.arbiter.place(&claim.header);
            let source = match verdict {
                Verdict::Deliver { .. } => Source::Held(self.hold.keep(payload)),
                // Not delivered now, so never read.
                _ => Source::Held(u32::MAX),
            };
            if let Err(reason) = self.act(verdict, source, claim.role, &claim.header, payload, claim.received_ns) {
                self.lines[claim.role as usize].drops.add(reason);
            }
        }
        kept.clear();
        self.kept = kept;
    }
}
