//! What can go wrong with an interface that runs, and what has.
#![forbid(unsafe_code)]

/// One kind of trouble. The worst of several counts: they are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fault {
    /// There is no interface of that name, or the one that is there now could not be taken into use yet.
    Gone,
    /// It is administratively down.
    Down,
    /// It is up, without a carrier.
    NoCarrier,
    /// Our program is not attached to it any more.
    Detached,
    /// The kernel had frames for us and no room: a fill ring ran empty, an RX ring or a socket buffer was full.
    Starved,
    /// The link was made again, and does not take the NIC settings of the configuration.
    Untuned,
}

impl Fault {
    /// Every fault, in discriminant order.
    pub const ALL: [Self; 6] = [Self::Gone, Self::Down, Self::NoCarrier, Self::Detached, Self::Starved, Self::Untuned];

    /// Number of faults.
    pub const COUNT: usize = Self::ALL.len();

    /// The label used in metrics and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Down => "down",
            Self::NoCarrier => "no_carrier",
            Self::Detached => "detached",
            Self::Starved => "starved",
            Self::Untuned => "untuned",
        }
    }

    /// Whether nothing comes or goes while it lasts. Starvation loses frames, and is over when the burst is; without its
    /// settings a link works, but not as it should.
    #[must_use]
    pub const fn is_outage(self) -> bool {
        !matches!(self, Self::Starved | Self::Untuned)
    }
}

/// How an interface has fared since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What is wrong now, and the particulars for a person.
    pub now: Option<(Fault, String)>,
    /// How often each fault has begun, in the order of [`Fault::ALL`].
    pub begun: [u64; Fault::COUNT],
    /// How often the link or the program was lost and is in use again.
    pub healed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_indexed_by_their_discriminant() {
        for (i, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, i, "{}", fault.label());
        }
    }
}
