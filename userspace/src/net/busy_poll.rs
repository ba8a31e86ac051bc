//! Busy polling: the receiving thread runs the driver's receive routine (NAPI) itself, instead of waiting for the interrupt.
//! See Documentation/networking/napi.rst and af_xdp.rst in the kernel.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use super::socket::set_option;
use crate::config::plan::SocketPlan;

/// Busy-poll options of a socket, AF_XDP or UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusyPoll {
    /// SO_BUSY_POLL, microseconds that a receive call on a UDP socket polls for; an AF_XDP socket polls once per call.
    /// 0 = off, whatever the other options say.
    pub duration_us: u32,
    /// SO_BUSY_POLL_BUDGET: packets that one poll takes at most.
    pub budget: u16,
    /// SO_PREFER_BUSY_POLL: the queue's interrupts stay off while it is polled often enough.
    pub prefer: bool,
}

/// Why a socket does not busy-poll.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {option} to {value}: {source}; {}", remedy(option, source))]
pub struct BusyPollError {
    /// Name of the socket option.
    option: &'static str,
    /// What it should have been.
    value: u32,
    /// What the kernel said.
    source: io::Error,
}

impl BusyPollError {
    /// Whether a privilege was missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EPERM)
    }
}

impl BusyPoll {
    /// Whether the socket shall busy-poll at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.duration_us > 0
    }

    /// Sets the options, if it shall.
    ///
    /// # Errors
    /// See [`BusyPollError`]: mostly a missing CAP_NET_ADMIN.
    pub(super) fn set(&self, socket: impl AsFd) -> Result<(), BusyPollError> {
        if !self.is_on() {
            return Ok(());
        }
        for (option, name, value) in [
            (libc::SO_BUSY_POLL, "SO_BUSY_POLL", self.duration_us),
            (libc::SO_BUSY_POLL_BUDGET, "SO_BUSY_POLL_BUDGET", self.budget.into()),
            (libc::SO_PREFER_BUSY_POLL, "SO_PREFER_BUSY_POLL", self.prefer.into()),
        ] {
            set_option(socket.as_fd(), option, i32::try_from(value).unwrap_or(i32::MAX))
                .map_err(|source| BusyPollError { option: name, value, source })?;
        }
        Ok(())
    }
}

impl From<&SocketPlan> for BusyPoll {
    fn from(plan: &SocketPlan) -> Self {
        Self { duration_us: plan.busy_poll_us, budget: plan.busy_poll_budget, prefer: plan.prefer_busy_poll }
    }
}

fn remedy(option: &str, error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        // 8 is the kernel's own default (BUSY_POLL_BUDGET), which nobody needs a privilege for.
        Some(libc::EPERM) if option == "SO_BUSY_POLL_BUDGET" => {
            "give the process CAP_NET_ADMIN, set busy_poll_budget = 8, or set busy_poll_us = 0"
        }
        Some(libc::EPERM) => "give the process CAP_NET_ADMIN, or set busy_poll_us = 0",
        Some(libc::ENOPROTOOPT) => {
            "this kernel does not busy-poll (5.11 and CONFIG_NET_RX_BUSY_POLL); set busy_poll_us = 0"
        }
        _ => "set busy_poll_us = 0 to go without",
    }
}
