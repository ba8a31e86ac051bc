//! Kernel UDP sockets as ports: the baseline, and the way on hosts where AF_XDP cannot be had.
//!
//! `recvmmsg` straight into frames and `sendmmsg` straight from them, up to a batch per call. This file is the unsafe
//! wall: the batched calls over borrowed frames. The ports behind it ([`SocketRx`], [`SocketTx`]) are safe code.
#![allow(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use arrayvec::ArrayVec;
use socket2::{SockAddr, Socket};

use super::busy_poll::BusyPollError;
use super::interface::InterfaceError;
use super::umem::{Frame, Frames};
use super::{BATCH, PAYLOAD_OFFSET};

mod rx;
mod tx;

pub use rx::{LineSocket, SocketLine, SocketOptions, SocketRx};
pub use tx::{SocketDestination, SocketTx};

/// Why a kernel socket could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// An interface that cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Busy polling was asked for and refused.
    #[error("{address}: {source}")]
    BusyPoll {
        /// The group.
        address: SocketAddrV4,
        /// Which option, why, and what to do about it.
        source: BusyPollError,
    },
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

/// Room for a SCM_TIMESTAMPNS and a SO_RXQ_OVFL control message, aligned as control messages must be.
type Control = [u64; 8];

// SAFETY: CMSG_SPACE only computes.
const _: () = assert!(
    size_of::<Control>()
        >= unsafe { libc::CMSG_SPACE(size_of::<libc::timespec>() as u32) + libc::CMSG_SPACE(4) } as usize
);

/// One received datagram, lying in the frame with the same number.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    len: usize,
    /// It was longer than its frame.
    is_truncated: bool,
    /// When the kernel received it, CLOCK_REALTIME nanoseconds.
    utc_ns: Option<u64>,
    /// Datagrams that the socket had dropped when this one was queued; absent as long as there are none.
    dropped: Option<u32>,
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
        let mut one = Arrived {
            len: header.msg_len as usize,
            is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            utc_ns: None,
            dropped: None,
        };
        read_control(&header.msg_hdr, &mut one);
        arrived.push(one);
    }
    Ok(())
}

/// The receive stamp and the drop counter among a message's control messages.
fn read_control(header: &libc::msghdr, arrived: &mut Arrived) {
    // SAFETY: the kernel filled the control buffer that the header points to, and set its length.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() };
    while let Some(message) = control {
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: this type of message holds a timespec; it may not be aligned for one.
                let time: libc::timespec = unsafe { ptr::read_unaligned(libc::CMSG_DATA(message).cast()) };
                let parts = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
                if let (Ok(seconds), Ok(nanoseconds)) = parts {
                    arrived.utc_ns = Some(seconds * 1_000_000_000 + nanoseconds);
                }
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                // SAFETY: this type of message holds a u32; it may not be aligned for one.
                arrived.dropped = Some(unsafe { ptr::read_unaligned(libc::CMSG_DATA(message).cast()) });
            }
            _ => {}
        }
        // SAFETY: as above; the walk ends at the length that the kernel set.
        control = unsafe { libc::CMSG_NXTHDR(header, message).as_ref() };
    }
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

/// Sets an integer option of the socket level that `socket2` does not know.
pub(super) fn set_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_value(socket, libc::SOL_SOCKET, option, &value)
}

/// Joins or leaves a group for one source only, on an interface by its index: unlike the option that `socket2` has, it
/// needs no address on the interface, and means no other interface with the same address. (MCAST_JOIN_SOURCE_GROUP,
/// RFC 3678.)
///
/// # Errors
/// What the kernel said.
pub fn set_source_member(
    socket: BorrowedFd<'_>,
    interface: u32,
    group: Ipv4Addr,
    source: Ipv4Addr,
    joined: bool,
) -> io::Result<()> {
    let storage = |address: Ipv4Addr| -> libc::sockaddr_storage {
        let address = SockAddr::from(SocketAddrV4::new(address, 0));
        // SAFETY: `SockAddrStorage` is a transparent wrapper of `sockaddr_storage`, all of it initialised.
        unsafe { ptr::read(address.as_ptr().cast()) }
    };
    let request =
        libc::group_source_req { gsr_interface: interface, gsr_group: storage(group), gsr_source: storage(source) };
    let option = if joined { libc::MCAST_JOIN_SOURCE_GROUP } else { libc::MCAST_LEAVE_SOURCE_GROUP };
    set_value(socket, libc::IPPROTO_IP, option, &request)
}

/// Sets an option whose value is the plain C type `T`; which type an option takes is for the two callers above to know.
fn set_value<T: Copy>(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads just the size that it is told, which is that of the value borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Datagrams that the socket has dropped since it was made, mostly for lack of buffer: the very counter that SO_RXQ_OVFL
/// attaches to datagrams ([`Arrived::dropped`]), here also right when no further datagram comes. The attached one says
/// where in the stream the loss was, and needs no system call; this one has the last word.
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
