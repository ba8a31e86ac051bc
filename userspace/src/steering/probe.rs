//! What must hold before a program can be attached, and what the driver and the kernel can do.
#![forbid(unsafe_code)]

use std::fs;
use std::io;

use aya::programs::{ProgramError, XdpError, XdpMode, loaded_programs};
use libbpf_rs::{Xdp as XdpQuery, XdpFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use rustix::thread::{CapabilitySet, capabilities};

use super::SteeringError;

/// Driver's XDP abilities as the kernel tells them over netlink (Linux 6.3 and newer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverFeatures {
    /// Native XDP with the basic actions.
    pub native: bool,
    /// XDP_REDIRECT from native programs.
    pub redirect: bool,
    /// Zero-copy AF_XDP sockets.
    pub zero_copy: bool,
    /// Packets over several buffers, for programs that can take them.
    pub multi_buffer: bool,
}

/// `enum netdev_xdp_act` (linux/netdev.h).
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_REDIRECT: u64 = 2;
const NETDEV_XDP_ACT_XSK_ZEROCOPY: u64 = 8;
const NETDEV_XDP_ACT_RX_SG: u64 = 32;

impl DriverFeatures {
    /// Of the kernel's flags, `enum netdev_xdp_act`.
    #[must_use]
    pub const fn from_flags(flags: u64) -> Self {
        Self {
            native: flags & NETDEV_XDP_ACT_BASIC != 0,
            redirect: flags & NETDEV_XDP_ACT_REDIRECT != 0,
            zero_copy: flags & NETDEV_XDP_ACT_XSK_ZEROCOPY != 0,
            multi_buffer: flags & NETDEV_XDP_ACT_RX_SG != 0,
        }
    }
}

/// What the interface's driver can do; `None` if the kernel is too old to say.
///
/// # Errors
/// [`SteeringError::NoInterface`].
pub fn driver_features(interface: &str) -> Result<Option<DriverFeatures>, SteeringError> {
    let index = interface_index(interface)?;
    let Ok(null) = fs::File::open("/dev/null") else { return Ok(None) };
    // The query does not look at the program; the type wants one.
    let Ok(answer) = XdpQuery::new(std::os::fd::AsFd::as_fd(&null)).query(index.cast_signed(), XdpFlags::NONE) else {
        return Ok(None);
    };
    Ok(told(answer.feature_flags, &rustix::system::uname().release().to_string_lossy()))
}

/// libbpf makes 0 of it, too, that a kernel has no such family: then nothing is known, and it must be tried.
fn told(flags: u64, release: &str) -> Option<DriverFeatures> {
    let is_told = flags != 0 || kernel_version(release).is_none_or(|version| version >= (6, 3));
    is_told.then(|| DriverFeatures::from_flags(flags))
}

/// Whether AF_XDP sockets of this kernel take packets over several frames (XDP_USE_SG); true if that is unknown.
#[must_use]
pub fn has_multi_buffer_sockets() -> bool {
    kernel_version(&rustix::system::uname().release().to_string_lossy()).is_none_or(|version| version >= (6, 6))
}

/// Major and minor number of a kernel's release, such as `6.1.0-18-amd64`; `None` if it has none.
pub(crate) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Kernel index of an interface in the caller's network namespace.
///
/// # Errors
/// [`SteeringError::NoInterface`].
pub fn interface_index(interface: &str) -> Result<u32, SteeringError> {
    let none = || SteeringError::NoInterface { interface: interface.to_owned() };
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map_err(|_| none())?;
    netdevice::name_to_index(&socket, interface).map_err(|_| none())
}

/// Refuses an interface that is down or has no link.
pub(super) fn check_carrier(interface: &str, index: u32) -> Result<(), SteeringError> {
    let read = |name: &str| fs::read_to_string(format!("/sys/class/net/{interface}/{name}"));
    // A thread that changed its network namespace still sees the old one's sysfs: then nothing can be said.
    if read("ifindex").ok().and_then(|text| text.trim().parse().ok()) != Some(index) {
        return Ok(());
    }
    // Reading `carrier` of an interface that is down fails with EINVAL.
    if matches!(read("carrier").as_deref().map(str::trim), Ok("1")) {
        return Ok(());
    }
    let state = read("operstate").map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
    Err(SteeringError::NoCarrier { interface: interface.to_owned(), state })
}

/// Refuses an interface that runs a program already, in any mode.
pub(super) fn check_nothing_attached(interface: &str, index: u32) -> Result<(), SteeringError> {
    // Where nothing is known attaching will fail if there is one; only its name is not known then.
    match attached_ids(index).unwrap_or_default().into_iter().find(|id| *id != 0) {
        None => Ok(()),
        Some(program_id) => Err(already_attached(interface, program_id)),
    }
}

fn already_attached(interface: &str, program_id: u32) -> SteeringError {
    SteeringError::AlreadyAttached {
        interface: interface.to_owned(),
        program_id,
        program: program_name(program_id).unwrap_or_else(|| "?".to_owned()),
    }
}

/// Name of a loaded program; the kernel tells it to root only.
pub(crate) fn program_name(id: u32) -> Option<String> {
    let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id)?;
    program.name_as_str().map(str::to_owned)
}

/// Turns the kernel's refusal to attach into what the operator can act on.
pub(super) fn explain_attach(interface: &str, index: u32, mode: XdpMode, error: ProgramError) -> SteeringError {
    let number = match &error {
        ProgramError::SyscallError(error) => Errno::from_io_error(&error.io_error),
        // aya's fallback for kernels without bpf_link; the first refusal was EINVAL.
        ProgramError::XdpError(XdpError::NetlinkError(_)) => Some(Errno::INVAL),
        _ => None,
    };
    let named = || interface.to_owned();
    match number {
        Some(Errno::PERM | Errno::ACCESS) => SteeringError::NotPermitted { missing: "CAP_NET_ADMIN".to_owned() },
        Some(Errno::NODEV) => SteeringError::NoInterface { interface: named() },
        Some(Errno::BUSY | Errno::EXIST) => already_attached(interface, attached_ids(index).unwrap_or_default()[0]),
        Some(Errno::OPNOTSUPP | Errno::INVAL | Errno::RANGE | Errno::NOSPC | Errno::NOMEM)
            if matches!(mode, XdpMode::Driver) =>
        {
            let reason = number.map_or_else(String::new, |number| io::Error::from(number).to_string());
            SteeringError::NoNativeXdp { interface: named(), reason }
        }
        _ => SteeringError::Program(error),
    }
}

/// Ids of the programs attached to an interface, in any mode; 0 = none.
///
/// # Errors
/// The kernel's: nothing is known then.
pub(crate) fn attached_ids(index: u32) -> io::Result<[u32; 4]> {
    let null = fs::File::open("/dev/null")?;
    // The query does not look at the program; the type wants one.
    let query = XdpQuery::new(std::os::fd::AsFd::as_fd(&null)).query(index.cast_signed(), XdpFlags::NONE);
    let answer = query.map_err(io::Error::other)?;
    Ok([answer.prog_id, answer.drv_prog_id, answer.skb_prog_id, answer.hw_prog_id])
}

/// Refuses a process that may not load XDP programs: names what is missing instead of a bare EPERM later.
pub(super) fn check_capabilities() -> Result<(), SteeringError> {
    let Ok(sets) = capabilities(None) else { return Ok(()) };
    let has = |capability| sets.effective.contains(capability);
    // CAP_PERFMON admits the pointer arithmetic, CAP_BPF the program and maps; CAP_SYS_ADMIN stands for both.
    let mut missing = Vec::new();
    if !has(CapabilitySet::NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    if !has(CapabilitySet::SYS_ADMIN) {
        missing.extend((!has(CapabilitySet::BPF)).then_some("CAP_BPF"));
        missing.extend((!has(CapabilitySet::PERFMON)).then_some("CAP_PERFMON"));
    }
    if missing.is_empty() { Ok(()) } else { Err(SteeringError::NotPermitted { missing: missing.join(", ") }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernels_silence_is_not_a_driver_without_features() {
        let nothing = DriverFeatures { native: false, redirect: false, zero_copy: false, multi_buffer: false };
        assert_eq!(told(0, "6.1.0-18-amd64"), None);
        assert_eq!(told(0, "5.15.0-101-generic"), None);
        assert_eq!(told(0, "6.3.0"), Some(nothing), "the driver has none");
        assert_eq!(told(0, "7.0"), Some(nothing));
        // A distribution's kernel may have it from a later one.
        assert_eq!(told(1, "5.14.0-503.el9"), Some(DriverFeatures { native: true, ..nothing }));
        assert_eq!(kernel_version("unheard-of"), None);
    }
}
