//! Steering: which frames leave the kernel's network stack for our AF_XDP sockets.
//!
//! Loads `feed_filter` (crate xdp-ebpf), attaches it to an interface and edits its rules while it runs. The attachment
//! is a bpf_link that this process holds: when the process ends, by whatever cause, the kernel detaches the program.
//! Nothing here is on the data path.
#![forbid(unsafe_code)]

mod canary;
mod error;
mod filter;
mod membership;
pub mod nic;
pub(crate) mod probe;
mod rules;
mod trial;

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use aya::programs::XdpMode;
use aya::programs::links::FdLink;
use xdp_ebpf::{GroupKey, GroupRule, LineStats, Verdict};

pub use canary::{Canary, SETTLE_NS};
pub use error::SteeringError;
pub use filter::{Filter, FilterSettings, PROGRAM as PROGRAM_NAME};
pub use membership::{
    IgmpVersion, Lease, MembershipCounts, MembershipEvent, MembershipKey, Memberships, forced_igmp_version,
    igmp_version,
};
pub use probe::{DriverFeatures, driver_features, has_multi_buffer_sockets, interface_index};
pub use trial::{TestRun, Trial, Trials, XDP_DROP, XDP_PASS, XDP_REDIRECT};

use crate::config::plan::Mode;

/// `feed_filter` attached to one interface.
///
/// Drop this before the AF_XDP sockets: frames then pass to the kernel's stack again and none is lost in a closed
/// socket.
#[derive(Debug)]
pub struct Steering {
    // First, so that dropping detaches before the maps go. `None` while an attempt to attach anew has failed.
    link: Option<FdLink>,
    filter: Filter,
    cookie: u16,
    interface: String,
    interface_index: u32,
    mode: Mode,
}

impl Steering {
    /// Loads a new instance of the program and attaches it to `interface`.
    ///
    /// `Mode::Auto` tries native and then skb; `Mode::ZeroCopy` needs native. A bare cookie will do for `settings`.
    ///
    /// # Errors
    /// Missing capabilities, no such interface, no carrier, another program attached, no native XDP in the driver.
    pub fn attach(interface: &str, mode: Mode, settings: impl Into<FilterSettings>) -> Result<Self, SteeringError> {
        if mode == Mode::Socket {
            return Err(SteeringError::NotAnXdpMode);
        }
        let settings = settings.into();
        let filter = Filter::load(settings)?;
        wait_until_free(interface, probe::interface_index(interface)?)?;
        let interface = interface.to_owned();
        let mut steering = Self { link: None, filter, cookie: settings.cookie, interface, interface_index: 0, mode };
        steering.reattach()?;
        Ok(steering)
    }

    /// Attaches the same program again, to whatever interface has the name now: its rules stay in force and its counters go
    /// on. The XSKMAP has lost the sockets of a link that was deleted: enter new ones.
    ///
    /// # Errors
    /// As [`Self::attach`]. The program is then attached to nothing, and this can be tried again.
    pub fn reattach(&mut self) -> Result<(), SteeringError> {
        self.link = None;
        let index = probe::interface_index(&self.interface)?;
        probe::check_carrier(&self.interface, index)?;
        probe::check_nothing_attached(&self.interface, index)?;
        let mut attach = |mode| attach_link(&mut self.filter, &self.interface, index, mode);
        let (link, in_force) = match self.mode {
            Mode::Skb => (attach(XdpMode::Skb)?, Mode::Skb),
            Mode::Auto => match attach(XdpMode::Driver) {
                Ok(link) => (link, Mode::Native),
                Err(SteeringError::NoNativeXdp { .. }) => (attach(XdpMode::Skb)?, Mode::Skb),
                Err(error) => return Err(error),
            },
            Mode::Native | Mode::ZeroCopy | Mode::Socket => (attach(XdpMode::Driver)?, Mode::Native),
        };
        (self.link, self.interface_index, self.mode) = (Some(link), index, in_force);
        Ok(())
    }

    /// Whether the kernel has detached our program: by its own positive answer, for mending a healthy link would reset it.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.link.is_none()
            || self.filter.program_id().is_ok_and(|own| {
                probe::attached_ids(self.interface_index).is_ok_and(|attached| !attached.contains(&own))
            })
    }

    /// The cookie in this instance's stamps.
    #[must_use]
    pub const fn cookie(&self) -> u16 {
        self.cookie
    }

    /// Kernel name of the interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Kernel index of the interface.
    #[must_use]
    pub const fn interface_index(&self) -> u32 {
        self.interface_index
    }

    /// How the program is attached: `Native` or `Skb`. Whether a socket copies is the socket's own matter.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The kernel's id of the loaded program.
    ///
    /// # Errors
    /// The kernel's, when it will not describe the program.
    pub fn program_id(&self) -> Result<u32, SteeringError> {
        self.filter.program_id()
    }

    /// Directs matching frames of a receive queue to an AF_XDP socket, which must be bound to that queue.
    ///
    /// # Errors
    /// [`SteeringError::QueueOutOfRange`], or the kernel's refusal of the socket.
    pub fn set_socket(&mut self, queue: u32, socket: impl AsRawFd) -> Result<(), SteeringError> {
        self.filter.set_socket(queue, socket)
    }

    /// Adds the rule of a group and source ([`GroupRule::source_ip`]), or replaces it; takes effect with the next frame. A
    /// group may have rules for several sources, and one for any source beside them: a source's own rule comes first.
    ///
    /// # Errors
    /// [`SteeringError::LineOutOfRange`], [`SteeringError::RulesFull`], or the kernel's.
    pub fn insert_rule(&mut self, key: GroupKey, rule: GroupRule) -> Result<(), SteeringError> {
        self.filter.insert_rule(key, rule)
    }

    /// Removes the rule of a group and source (all zero: the one for any source); true if there was one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_rule(&mut self, key: &GroupKey, source_ip: [u8; 4]) -> Result<bool, SteeringError> {
        self.filter.remove_rule(key, source_ip)
    }

    /// Frames by verdict since the program was loaded, in the order of [`Verdict::ALL`], over all CPUs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn verdicts(&self) -> Result<[u64; Verdict::COUNT], SteeringError> {
        self.filter.verdicts()
    }

    /// What was redirected for one line since the program was loaded: sums over all CPUs, and the newest time.
    ///
    /// # Errors
    /// [`SteeringError::LineOutOfRange`], or the kernel's.
    pub fn line_stats(&self, line: u16) -> Result<LineStats, SteeringError> {
        self.filter.line_stats(line)
    }

    /// The loaded program itself.
    #[must_use]
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }
}

/// How long a program of our name may still be attached: the kernel detaches a killed process's a little after it died.
const DETACH_PATIENCE: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Refuses an interface that runs a program; one of ours is given the time to go with its process.
fn wait_until_free(interface: &str, interface_index: u32) -> Result<(), SteeringError> {
    let give_up = Instant::now() + DETACH_PATIENCE;
    loop {
        match probe::check_nothing_attached(interface, interface_index) {
            Err(SteeringError::AlreadyAttached { program, .. })
                if program.starts_with(filter::PROGRAM) && Instant::now() < give_up =>
            {
                std::thread::sleep(RETRY_INTERVAL);
            }
            result => return result,
        }
    }
}

/// Attaches and takes the link out of aya's hands, so that it is certain that it is a bpf_link and not the old netlink
/// attachment, which outlives the process.
fn attach_link(
    filter: &mut Filter,
    interface: &str,
    interface_index: u32,
    mode: XdpMode,
) -> Result<FdLink, SteeringError> {
    let program = filter.program_mut()?;
    let link_id = program
        .attach_to_if_index(interface_index, mode)
        .map_err(|error| probe::explain_attach(interface, interface_index, mode, error))?;
    let link = program.take_link(link_id)?;
    // On failure the link was given back inside the error's place and is dropped, which detaches it.
    FdLink::try_from(link)
        .map_err(|error| SteeringError::NoLink { interface: interface.to_owned(), reason: error.to_string() })
}
