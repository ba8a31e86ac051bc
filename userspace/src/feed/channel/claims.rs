//! Packets that wait for a second witness: kept, so that nothing of a session's beginning is lost by the waiting.
#![forbid(unsafe_code)]

use super::Channel;
use super::deliver::Source;
use crate::feed::LineRole;
use crate::feed::arbiter::{Claim, Verdict, Witness};
use crate::feed::transport::PacketHeader;
use crate::metrics::DropReason;

impl Channel {
    /// Keeps a packet that claims what it alone does not prove, or acts on the kept one if this one confirms it. True if
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
        match self.arbiter.witness(header, role, received_ns) {
            Witness::First { dropped } => {
                if let Some(claim) = dropped {
                    self.drop_claim(&claim);
                }
                self.claimed.clear();
                self.claimed.extend_from_slice(payload);
                Ok(false)
            }
            Witness::Second(claim) => {
                if self.arbiter.session() != Some(claim.header.session) {
                    self.change_session(&claim.header);
                }
                self.act_on_claim(&claim);
                Ok(true)
            }
            Witness::Repeated => Err(DropReason::Unconfirmed),
        }
    }

    /// Begins the session of a packet that needs no witness. A packet of it that waited for one comes first.
    pub(super) fn begin_session(&mut self, role: LineRole, header: &PacketHeader) {
        let claim = self.arbiter.take_claim();
        let confirmed = claim.filter(|claim| claim.is_confirmed_by(header, role));
        self.change_session(header);
        match (claim, confirmed) {
            (_, Some(claim)) => self.act_on_claim(&claim),
            (Some(claim), None) => self.drop_claim(&claim),
            (None, None) => {}
        }
    }

    /// Drops the packet of a claim that nobody confirmed.
    pub(super) fn drop_claim(&mut self, claim: &Claim) {
        self.lines[claim.role as usize].drops.add(DropReason::Unconfirmed);
    }

    /// Does with the kept packet what would have been done when it came.
    fn act_on_claim(&mut self, claim: &Claim) {
        let payload = std::mem::take(&mut self.claimed);
        let verdict = self.arbiter.place(&claim.header);
        let source = match verdict {
            Verdict::Deliver { .. } => Source::Held(self.hold.keep(&payload)),
            // Not delivered now, so never read.
            _ => Source::Held(u32::MAX),
        };
        if let Err(reason) = self.act(verdict, source, claim.role, &claim.header, &payload, claim.received_ns) {
            self.lines[claim.role as usize].drops.add(reason);
        }
        self.claimed = payload;
    }
}
