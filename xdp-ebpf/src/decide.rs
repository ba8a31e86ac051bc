//! What becomes of a frame, but for the socket: parse → rule → source. The one copy of it, for the XDP program and for
//! user space.
#![forbid(unsafe_code)]

use crate::headers::{self, FrameBytes, Parsed};
use crate::{GroupKey, GroupRule, SourceKey, Verdict};

/// Where the rules are: the BPF maps, or a table in user space.
pub trait RuleLookup {
    /// The first rule of a group: the one for any source, if there is one.
    fn group(&self, key: GroupKey) -> Option<GroupRule>;

    /// The rule for one of the group's further sources. Asked only where [`GroupRule::MORE_SOURCES`] is set.
    fn source(&self, key: SourceKey) -> Option<GroupRule>;
}

/// Finds the datagram and its rule. One lookup, and a second one only where a group has rules for several sources.
///
/// # Errors
/// The verdict for a frame that no rule takes: it passes, or is dropped where `drop_unsubscribed` says so and it is safe.
///
/// Dropped is only what is certainly nobody's on a feed-only interface: a whole UDP datagram to a multicast group beyond
/// 224.0.0.0/24 without a rule for it. Fragments always pass. A later one does not say which port it is for, so it may
/// belong to a datagram that a kernel socket waits for; and of what is dropped, all must be, or the rest lies in the
/// kernel's reassembly queue until it times out.
#[inline(always)]
pub fn decide<F: FrameBytes + ?Sized, R: RuleLookup>(
    frame: &F,
    rules: &R,
    drop_unsubscribed: bool,
) -> Result<(Parsed, GroupRule), Verdict> {
    let parsed = headers::parse(frame)?;
    let Some(mut rule) = rules.group(parsed.key) else {
        // Routing protocols, mDNS, PTP's peer delay: they speak to the link, and the host may be meant.
        let is_link_local = matches!(parsed.key.dst_ip, [224, 0, 0, _]);
        return Err(if drop_unsubscribed && !is_link_local { Verdict::DropNoRule } else { Verdict::PassNoRule });
    };
    if rule.flags & GroupRule::MORE_SOURCES != 0
        && !rule.is_for(parsed.source_ip)
        && let Some(other) = rules.source(SourceKey { group: parsed.key, source_ip: parsed.source_ip })
    {
        rule = other;
    }
    if rule.accepts(parsed.source_ip) {
        Ok((parsed, rule))
    } else {
        Err(if drop_unsubscribed { Verdict::DropWrongSource } else { Verdict::PassWrongSource })
    }
}
