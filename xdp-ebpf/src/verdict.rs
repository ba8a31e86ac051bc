//! What the XDP program decided about a frame.
#![forbid(unsafe_code)]

/// The one decision about each frame. [`Verdict::Redirected`] takes a frame away from the kernel's network stack, and so
/// do the two drops, which only an interface with `unsubscribed = "drop"` has; the others all leave it there, untouched.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Handed to the AF_XDP socket of its receive queue.
    Redirected = 0,
    /// ARP (EtherType 0x0806).
    PassArp = 1,
    /// IPv6 (EtherType 0x86DD).
    PassIpv6 = 2,
    /// Another EtherType, or an IEEE 802.3 length.
    PassOtherEtherType = 3,
    /// More than two VLAN tags.
    PassTooManyTags = 4,
    /// IPv4, but not UDP: TCP, ICMP, IGMP.
    PassNotUdp = 5,
    /// UDP to a unicast or broadcast address.
    PassNotMulticast = 6,
    /// First fragment of a UDP datagram to a multicast group: it is not whole.
    PassFirstFragment = 7,
    /// Later fragment of a UDP datagram to a multicast group: it has no UDP header.
    PassLaterFragment = 8,
    /// No rule for this group, port and VLAN. Where such frames are dropped: to a group of 224.0.0.0/24.
    PassNoRule = 9,
    /// There is a rule, but for another source address.
    PassWrongSource = 10,
    /// There is a rule, but no AF_XDP socket for this receive queue.
    PassNoSocket = 11,
    /// The frame ends before a header, or before the end of the IP packet that its header announces.
    PassTruncated = 12,
    /// IPv4 version is not 4, the header length is below 20 bytes, or the total length is below the header length.
    PassBadIpHeader = 13,
    /// UDP length below 8, or beyond the end of the IP packet.
    PassBadUdpLength = 14,
    /// As [`Verdict::PassNoRule`], and dropped: the interface carries nothing but feeds.
    DropNoRule = 15,
    /// As [`Verdict::PassWrongSource`], and dropped.
    DropWrongSource = 16,
}

impl Verdict {
    /// Every verdict, in discriminant order.
    pub const ALL: [Self; 17] = [
        Self::Redirected,
        Self::PassArp,
        Self::PassIpv6,
        Self::PassOtherEtherType,
        Self::PassTooManyTags,
        Self::PassNotUdp,
        Self::PassNotMulticast,
        Self::PassFirstFragment,
        Self::PassLaterFragment,
        Self::PassNoRule,
        Self::PassWrongSource,
        Self::PassNoSocket,
        Self::PassTruncated,
        Self::PassBadIpHeader,
        Self::PassBadUdpLength,
        Self::DropNoRule,
        Self::DropWrongSource,
    ];

    /// Number of verdicts: the length of the program's counter array.
    pub const COUNT: usize = Self::ALL.len();

    /// The label used in metrics and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::PassArp => "pass_arp",
            Self::PassIpv6 => "pass_ipv6",
            Self::PassOtherEtherType => "pass_other_ether_type",
            Self::PassTooManyTags => "pass_too_many_tags",
            Self::PassNotUdp => "pass_not_udp",
            Self::PassNotMulticast => "pass_not_multicast",
            Self::PassFirstFragment => "pass_first_fragment",
            Self::PassLaterFragment => "pass_later_fragment",
            Self::PassNoRule => "pass_no_rule",
            Self::PassWrongSource => "pass_wrong_source",
            Self::PassNoSocket => "pass_no_socket",
            Self::PassTruncated => "pass_truncated",
            Self::PassBadIpHeader => "pass_bad_ip_header",
            Self::PassBadUdpLength => "pass_bad_udp_length",
            Self::DropNoRule => "drop_no_rule",
            Self::DropWrongSource => "drop_wrong_source",
        }
    }

    /// Whether the frame ends here: neither a socket of ours nor the kernel's network stack gets it.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop(self) -> bool {
        matches!(self, Self::DropNoRule | Self::DropWrongSource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_indexed_by_their_discriminant_and_have_distinct_labels() {
        for (i, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, i, "{}", verdict.label());
            assert!(Verdict::ALL.iter().filter(|other| other.label() == verdict.label()).count() == 1);
            assert_eq!(verdict.is_drop(), verdict.label().starts_with("drop_"), "{}", verdict.label());
            assert_eq!(verdict == Verdict::Redirected, !verdict.label().contains('_'), "{}", verdict.label());
        }
    }
}
