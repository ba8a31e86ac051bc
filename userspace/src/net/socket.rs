//! Kernel UDP sockets as ports: the baseline, and the way on hosts where AF_XDP cannot be had.
//!
//! `recvmmsg` straight into frames and `sendmmsg` straight from them, up to a batch per call. This file is the unsafe
//! wall: the batched calls over borrowed frames. The ports behind it ([`SocketRx`], [`SocketTx`]) are safe code.
#![allow(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::ptr;

use arrayvec::ArrayVec;
use socket2::Socket;

use super::interface::InterfaceError;
use super::umem::{Frame, Frames};
use super::{BATCH, PAYLOAD_OFFSET};

mod rx;
mod tx;

pub use rx::{SocketLine, SocketOptions, SocketRx};
pub use tx::SocketTx;

/// Why a kernel socket could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// An interface that cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Kernel sockets do not write Ethernet headers.
    #[error(
        "{dest}: vlan = {vlan} cannot be sent in mode `socket`; make a VLAN interface (ip link add link … type vlan) \
             and use it untagged"
    )]
    Vlan {
        /// The destination.
        dest: SocketAddrV4,
        /// VLAN asked for.
        vlan: u16,
    },
    /// The kernel refused a step.
    #[error("{address}: {step}: {source}")]
    Refused {
        /// The group or destination.
        address: SocketAddrV4,
        /// Which step.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Room for one SCM_TIMESTAMPNS control message, aligned as control messages must be.
type Control = [u64; 8];

const _: () = assert!(size_of::<Control>() >= size_of::<libc::cmsghdr>() + size_of::<libc::timespec>());

/// One received datagram, lying in the frame with the same number.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    len: usize,
    /// It was longer than its frame.
    is_truncated: bool,
    /// When the kernel received it, CLOCK_REALTIME nanoseconds.
    utc_ns: Option<u64>,
}

/// Receives up to one datagram per frame of `into`, each at [`PAYLOAD_OFFSET`], in order. Never blocks.
fn receive_batch(
    socket: &Socket,
    frames: &Frames,
    into: &mut [Frame],
    arrived: &mut ArrayVec<Arrived, BATCH>,
) -> io::Result<()> {
    let mut vectors = ArrayVec::<libc::iovec, BATCH>::new();
    let mut controls = ArrayVec::<Control, BATCH>::new();
    for frame in into.iter_mut().take(BATCH) {
        let buffer = &mut frames.buffer_mut(frame)[PAYLOAD_OFFSET..];
        vectors.push(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
        controls.push([0; 8]);
    }
    let mut headers = ArrayVec::<libc::mmsghdr, BATCH>::new();
    for (vector, control) in vectors.iter_mut().zip(&mut controls) {
        headers.push(message(vector, control.as_mut_ptr().cast(), size_of::<Control>()));
    }
    // SAFETY: every header points to a vector and a control buffer that live until the end of this function, and every
    // vector to the bytes of another frame, of which `into` holds the only `Frame`; `frames` stays borrowed throughout.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as u32,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    for header in headers.iter().take(received as usize) {
        arrived.push(Arrived {
            len: header.msg_len as usize,
            is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            utc_ns: stamp(&header.msg_hdr),
        });
    }
    Ok(())
}

/// The receive stamp among a message's control messages.
fn stamp(header: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel filled the control buffer that the header points to, and set its length.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() };
    while let Some(message) = control {
        if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_TIMESTAMPNS {
            // SAFETY: this type of message holds a timespec; it may not be aligned for one.
            let time: libc::timespec = unsafe { ptr::read_unaligned(libc::CMSG_DATA(message).cast()) };
            let seconds = u64::try_from(time.tv_sec).ok()?;
            return Some(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).ok()?);
        }
        // SAFETY: as above; the walk ends at the length that the kernel set.
        control = unsafe { libc::CMSG_NXTHDR(header, message).as_ref() };
    }
    None
}

/// Sends the data of each frame as one datagram to the socket's peer, in order; the answer is how many went, at least
/// one. Never blocks.
fn send_batch<'a>(socket: &Socket, frames: &Frames, from: impl Iterator<Item = &'a Frame>) -> io::Result<usize> {
    let mut vectors = ArrayVec::<libc::iovec, BATCH>::new();
    for frame in from.take(BATCH) {
        let data = frames.data(frame);
        vectors.push(libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() });
    }
    let mut headers = ArrayVec::<libc::mmsghdr, BATCH>::new();
    for vector in &mut vectors {
        headers.push(message(vector, ptr::null_mut(), 0));
    }
    // SAFETY: every header points to a vector that lives until the end of this function, and every vector to the bytes
    // of a frame, which the kernel only reads; `frames` stays borrowed throughout.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as u32,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// One message of a batched call: one buffer, and room for control messages.
fn message(vector: &mut libc::iovec, control: *mut libc::c_void, control_bytes: usize) -> libc::mmsghdr {
    // SAFETY: a plain C struct of integers and pointers, for which all zeroes is a valid value.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_control = control;
    header.msg_hdr.msg_controllen = control_bytes as _;
    header
}

/// Sets an integer option that `socket2` does not know.
fn set_option(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option's value is an int, and the kernel reads just its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket's address as RFC 3678 wants it: `struct sockaddr_in` in the room of a `sockaddr_storage`.
#[repr(C, align(8))]
struct StoredAddress {
    family: libc::sa_family_t,
    port: u16,
    address: [u8; 4],
    rest: [u8; 120],
}

impl StoredAddress {
    fn new(address: Ipv4Addr) -> Self {
        Self { family: libc::AF_INET as libc::sa_family_t, port: 0, address: address.octets(), rest: [0; 120] }
    }
}

/// `struct group_source_req` (RFC 3678).
#[repr(C)]
struct SourceGroup {
    interface: u32,
    group: StoredAddress,
    source: StoredAddress,
}

const _: () = assert!(size_of::<SourceGroup>() == size_of::<libc::group_source_req>());

/// Joins a group for one source only (or leaves it), on the interface with this index. By index, because
/// IP_ADD_SOURCE_MEMBERSHIP names the interface by an address that it may not have, or share.
pub(crate) fn set_source_joined(
    socket: &Socket,
    group: Ipv4Addr,
    source: Ipv4Addr,
    interface: u32,
    joined: bool,
) -> io::Result<()> {
    let request = SourceGroup { interface, group: StoredAddress::new(group), source: StoredAddress::new(source) };
    // SAFETY: the kernel reads just the request, which has the size and layout of the option's value.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            if joined { libc::MCAST_JOIN_SOURCE_GROUP } else { libc::MCAST_LEAVE_SOURCE_GROUP },
            (&raw const request).cast(),
            size_of::<SourceGroup>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Datagrams that the socket has dropped since it was made, mostly for lack of buffer: the counter that SO_RXQ_OVFL
/// attaches to datagrams, here also right when no further datagram comes.
pub(crate) fn dropped_count(socket: &Socket) -> io::Result<u32> {
    let mut values = [0_u32; 16];
    let mut bytes = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes into `values`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(values[SK_MEMINFO_DROPS]) }
}

/// Index of the drop counter in what SO_MEMINFO answers (linux/sock_diag.h).
const SK_MEMINFO_DROPS: usize = 8;
