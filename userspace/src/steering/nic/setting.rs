//! The settings: names, and which values a plan asks for. Every value is text in the form in which it is read back.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};

use crate::config::plan::NicPlan;

/// One thing that can be set at an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Setting {
    /// Number of queues of a kind.
    Channels(Queues),
    /// Descriptors per ring.
    Ring(Direction),
    /// A feature; `on` or `off`.
    Feature(Feature),
    /// Whether the driver chooses the coalescing; `on` or `off`.
    AdaptiveRx,
    /// Coalescing time, microseconds.
    RxUsecs,
    /// Empty polls before interrupts are enabled.
    NapiDeferHardIrqs,
    /// Timer of deferred polling, nanoseconds.
    GroFlushTimeoutNs,
    /// Polling in threads; `1` or `0`.
    NapiThreaded,
    /// Cores of one interrupt, as a CPU list (`0-2,5`).
    Irq {
        /// Its number.
        number: u32,
        /// Its name in /proc/interrupts.
        name: String,
    },
    /// Receive queue of a group; `none` without a rule.
    Flow {
        /// Group and UDP port.
        group: SocketAddrV4,
        /// VLAN id; 0 = not looked at.
        vlan: u16,
    },
}

/// Kinds of queues that a driver counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queues {
    /// Receive and transmit in pairs.
    Combined,
    /// Receive.
    Rx,
    /// Transmit.
    Tx,
}

/// Ways of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Receive.
    Rx,
    /// Transmit.
    Tx,
}

/// Features that `ethtool -K` switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// The NIC takes received VLAN tags out.
    RxVlan,
    /// The kernel merges segments.
    Gro,
    /// The NIC merges segments.
    Lro,
    /// Flow rules.
    Ntuple,
}

impl Direction {
    /// Name that `ethtool -G` takes.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }
}

impl Feature {
    /// Name that `ethtool -K` takes.
    pub(super) const fn short(self) -> &'static str {
        match self {
            Self::RxVlan => "rxvlan",
            Self::Gro => "gro",
            Self::Lro => "lro",
            Self::Ntuple => "ntuple",
        }
    }

    /// Name in the output of `ethtool -k`.
    pub(super) const fn long(self) -> &'static str {
        match self {
            Self::RxVlan => "rx-vlan-offload",
            Self::Gro => "generic-receive-offload",
            Self::Lro => "large-receive-offload",
            Self::Ntuple => "ntuple-filters",
        }
    }
}

impl Setting {
    /// Whether it is a file of sysfs or /proc, which root owns, and not a matter of `ethtool`.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        matches!(self, Self::NapiDeferHardIrqs | Self::GroFlushTimeoutNs | Self::NapiThreaded | Self::Irq { .. })
    }
}

impl fmt::Display for Setting {
    /// By the key of the configuration file, so that an operator finds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Channels(Queues::Combined) => "channels",
            Self::Channels(Queues::Rx) => "channels (rx)",
            Self::Channels(Queues::Tx) => "channels (tx)",
            Self::Ring(Direction::Rx) => "rx_ring",
            Self::Ring(Direction::Tx) => "tx_ring",
            Self::Feature(Feature::RxVlan) => "rx_vlan_strip",
            Self::Feature(Feature::Gro) => "gro",
            Self::Feature(Feature::Lro) => "lro",
            Self::Feature(Feature::Ntuple) => "steer (ntuple-filters)",
            Self::AdaptiveRx => "adaptive_rx",
            Self::RxUsecs => "rx_usecs",
            Self::NapiDeferHardIrqs => "napi_defer_hard_irqs",
            Self::GroFlushTimeoutNs => "gro_flush_timeout_ns",
            Self::NapiThreaded => "napi_threaded",
            Self::Irq { number, name } => return write!(f, "irq_cores (irq {number} {name})"),
            Self::Flow { group, vlan: 0 } => return write!(f, "steer ({group})"),
            Self::Flow { group, vlan } => return write!(f, "steer ({group} vlan {vlan})"),
        })
    }
}

/// What a plan asks for, in the order of application; channels, interrupts and flow rules need a look at the device.
pub(super) fn wanted(nic: &NicPlan) -> Vec<(Setting, String)> {
    let number = |setting, value: Option<u32>| value.map(|value| (setting, value.to_string()));
    let switch = |setting, value: Option<bool>, [off, on]: [&str; 2]| {
        value.map(|value| (setting, if value { on } else { off }.to_owned()))
    };
    let words = ["off", "on"];
    [
        number(Setting::Ring(Direction::Rx), nic.rx_ring),
        number(Setting::Ring(Direction::Tx), nic.tx_ring),
        switch(Setting::Feature(Feature::Lro), nic.lro, words),
        switch(Setting::Feature(Feature::Gro), nic.gro, words),
        switch(Setting::Feature(Feature::RxVlan), nic.rx_vlan_strip, words),
        // Drivers refuse a time while they choose it themselves; put back in reverse, it is right again.
        switch(Setting::AdaptiveRx, nic.adaptive_rx, words),
        number(Setting::RxUsecs, nic.rx_usecs),
        // The timer first: deferring without one is what the kernel calls not deferring.
        number(Setting::GroFlushTimeoutNs, nic.gro_flush_timeout_ns),
        number(Setting::NapiDeferHardIrqs, nic.napi_defer_hard_irqs),
        switch(Setting::NapiThreaded, nic.napi_threaded, ["0", "1"]),
    ]
    .into_iter()
    .flatten()
    .collect()
}
