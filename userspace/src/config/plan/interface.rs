//! One interface of the plan: its mode, its sockets' options, its filter's policy, its NIC's settings.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;

/// How frames are exchanged with an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The best that works: zero-copy, then native copy, then skb.
    Auto,
    /// Native XDP, zero-copy AF_XDP.
    ZeroCopy,
    /// Native XDP, AF_XDP copy mode.
    Native,
    /// Generic (skb) XDP, AF_XDP copy mode.
    Skb,
    /// Kernel sockets (recvmmsg/sendmmsg); no XDP.
    Socket,
}

impl Mode {
    /// The word used in the configuration, metrics and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ZeroCopy => "zero-copy",
            Self::Native => "native",
            Self::Skb => "skb",
            Self::Socket => "socket",
        }
    }
}

/// One interface.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfacePlan {
    /// Kernel name, such as `ens1f0`.
    pub name: String,
    /// Wanted mode.
    pub mode: Mode,
    /// Options of its sockets.
    pub sockets: SocketPlan,
    /// What the filter does with multicast that no line takes.
    pub unsubscribed: Unsubscribed,
    /// Whether the NIC takes the VLAN tag away before XDP sees the frame.
    pub vlan_stripped: bool,
    /// Settings of its driver and NIC while the handler runs.
    pub nic: NicPlan,
}

/// Options of an interface's sockets: busy polling of AF_XDP and of kernel sockets, the rest of kernel sockets only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPlan {
    /// SO_BUSY_POLL, microseconds; 0 = off.
    pub busy_poll_us: u32,
    /// SO_BUSY_POLL_BUDGET: packets that one busy poll takes at most.
    pub busy_poll_budget: u16,
    /// SO_PREFER_BUSY_POLL.
    pub prefer_busy_poll: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// SO_RCVBUF of each kernel socket, bytes.
    pub receive_buffer_bytes: u32,
}

/// What becomes of UDP multicast that no line takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unsubscribed {
    /// The kernel's network stack has it, as without us.
    #[default]
    Pass,
    /// The XDP program drops it: the interface carries nothing but feeds.
    Drop,
}

impl Unsubscribed {
    /// The word used in the configuration and in reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

/// What is changed at an interface's driver and NIC while the handler runs; `None` or empty = left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicPlan {
    /// Descriptors of each receive ring.
    pub rx_ring: Option<u32>,
    /// Descriptors of each transmit ring.
    pub tx_ring: Option<u32>,
    /// Queue pairs.
    pub channels: Option<u32>,
    /// Longest time from a packet to its interrupt, microseconds.
    pub rx_usecs: Option<u32>,
    /// Whether the driver chooses `rx_usecs` by the traffic.
    pub adaptive_rx: Option<bool>,
    /// Empty polls after which interrupts are enabled again.
    pub napi_defer_hard_irqs: Option<u32>,
    /// Time after which the kernel polls by itself while interrupts are deferred, nanoseconds.
    pub gro_flush_timeout_ns: Option<u32>,
    /// Whether the kernel polls in threads of its own.
    pub napi_threaded: Option<bool>,
    /// Whether the NIC takes the VLAN tag out of received frames.
    pub rx_vlan_strip: Option<bool>,
    /// Whether the kernel merges received segments.
    pub gro: Option<bool>,
    /// Whether the NIC merges received segments.
    pub lro: Option<bool>,
    /// Cores that the NIC's interrupts go to; no worker's.
    pub irq_cores: Vec<usize>,
    /// Flow rules: one per line of the interface, or none.
    pub flow_rules: Vec<FlowRulePlan>,
}

/// Which receive queue the NIC delivers a group to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRulePlan {
    /// Multicast group and UDP port.
    pub group: SocketAddrV4,
    /// VLAN id; 0 = whether tagged or not.
    pub vlan: u16,
    /// Receive queue.
    pub queue: u32,
}
