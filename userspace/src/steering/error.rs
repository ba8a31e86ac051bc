//! Why frames cannot be steered, and what to do about it.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};

use aya::programs::ProgramError;

/// Why frames cannot be steered. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SteeringError {
    /// The process may not load programs.
    #[error("not permitted to load XDP programs: missing {missing}; start as root, or grant it to the service")]
    NotPermitted {
        /// Names of the missing capabilities.
        missing: String,
    },
    /// There is no such interface in this network namespace.
    #[error("interface `{interface}` does not exist in this network namespace; `ip link` lists those that do")]
    NoInterface {
        /// Kernel name as configured.
        interface: String,
    },
    /// The interface is down or nothing is plugged in.
    #[error(
        "interface `{interface}` has no carrier (state: {state}); bring it up with `ip link set dev {interface} up` and \
         check the cable, or the other end of a veth pair"
    )]
    NoCarrier {
        /// Kernel name as configured.
        interface: String,
        /// Operational state (RFC 2863) by the kernel.
        state: String,
    },
    /// Somebody else's program (or another instance of ours) is attached.
    #[error(
        "an XDP program is attached to `{interface}` already: id {program_id} (`{program}`); stop the process that \
         attached it, or detach it with `ip link set dev {interface} xdp off`"
    )]
    AlreadyAttached {
        /// Kernel name as configured.
        interface: String,
        /// The kernel's id of the attached program; `bpftool prog show id N` tells more.
        program_id: u32,
        /// Its name; `?` if the kernel would not tell.
        program: String,
    },
    /// The driver has no native XDP.
    #[error(
        "the driver of `{interface}` refuses native XDP ({reason}); use mode = \"skb\", or check MTU and queue counts"
    )]
    NoNativeXdp {
        /// Kernel name as configured.
        interface: String,
        /// The kernel's reason.
        reason: String,
    },
    /// The kernel cannot hold the attachment as a bpf_link, so a crash would leave the program attached.
    #[error("the kernel cannot attach to `{interface}` by bpf_link: {reason}; Linux 5.9 or newer is needed")]
    NoLink {
        /// Kernel name as configured.
        interface: String,
        /// The kernel's reason.
        reason: String,
    },
    /// Mode `socket` uses no XDP.
    #[error("mode `socket` does not steer: kernel sockets receive without an XDP program")]
    NotAnXdpMode,
    /// A queue number beyond the XSKMAP.
    #[error("queue {queue} is beyond the last that can be steered, {}", xdp_ebpf::MAX_QUEUES - 1)]
    QueueOutOfRange {
        /// Receive queue as configured.
        queue: u32,
    },
    /// A line number beyond the counters.
    #[error("line {line} is beyond the last that can be counted, {}", xdp_ebpf::MAX_LINES - 1)]
    LineOutOfRange {
        /// Index of the line in the plan.
        line: u16,
    },
    /// The rules map is full.
    #[error("all {} rules of the program are in use; unsubscribe a group first", xdp_ebpf::MAX_RULES)]
    RulesFull,
    /// The embedded program is not what this code expects: a build fault.
    #[error("the embedded XDP program has no {what}: rebuild")]
    BadObject {
        /// Name of the missing map or program.
        what: &'static str,
    },
    /// The group could not be joined.
    #[error("cannot join {group} on `{interface}`: {source}")]
    Join {
        /// Multicast group.
        group: Ipv4Addr,
        /// Kernel name of the interface.
        interface: String,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The kernel's stack could not be listened to.
    #[error("cannot watch the kernel's stack for {group} on `{interface}`: {source}")]
    Canary {
        /// Multicast group and port.
        group: SocketAddrV4,
        /// Kernel name of the interface.
        interface: String,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The kernel refused a map operation.
    #[error("{operation}: {source}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// The kernel's reason.
        source: aya::maps::MapError,
    },
    /// The kernel refused the object (creating maps, BTF).
    #[error("cannot load the XDP program: {0}")]
    Load(#[from] aya::EbpfError),
    /// The kernel refused the program (verifier, attach, test run).
    #[error("XDP program: {0}")]
    Program(#[from] ProgramError),
}
