//! Opening a socket, and saying clearly why it cannot be.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};

use super::tx::Prefilled;
use super::{CreateError, FillRing, Rings, XskRx, XskTx, borrow, create};
use crate::config::plan::Mode;
use crate::net::busy_poll::{BusyPoll, BusyPollError};
use crate::net::umem::Frames;

/// How long a busy queue is tried again: the kernel releases a killed process's socket a little after the process.
const BUSY_PATIENCE: Duration = Duration::from_millis(500);

/// The ports of one opened socket.
#[derive(Debug)]
pub struct XskPair {
    /// The receiving side, if it was asked for.
    pub rx: Option<XskRx>,
    /// The sending side, if it was asked for.
    pub tx: Option<XskTx>,
    /// The socket, for the XSKMAP. Open for as long as one of the ports.
    pub fd: RawFd,
    mode: Mode,
}

impl XskPair {
    /// The mode in force, as the kernel says: zero-copy, or else native or skb as asked for (a socket cannot tell in
    /// which mode the program is attached; `steering` can).
    #[must_use]
    pub fn in_force(&self) -> Mode {
        self.mode
    }

    /// Makes both ports busy-poll: where the receiving one finds its ring empty, it runs the driver's poll itself.
    ///
    /// # Errors
    /// [`XskError::BusyPoll`]: mostly a missing CAP_NET_ADMIN.
    pub fn set_busy_poll(&mut self, busy_poll: BusyPoll) -> Result<(), XskError> {
        let Self { rx, tx, .. } = self;
        let fd = rx.as_ref().map(AsFd::as_fd).or(tx.as_ref().map(AsFd::as_fd));
        if let Some(fd) = fd.filter(|_| busy_poll.is_on()) {
            busy_poll.set(fd)?;
            rx.iter_mut().for_each(|rx| rx.set_busy_poll());
            tx.iter_mut().for_each(|tx| tx.set_busy_poll());
        }
        Ok(())
    }
}

/// Why an AF_XDP socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// The pool is in plain memory.
    #[error("{interface} queue {queue}: an AF_XDP socket needs frames in a UMEM, not in plain memory")]
    NoUmem {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
    },
    /// Cookie 0 is what unwritten memory holds.
    #[error("{interface} queue {queue}: cookie 0 cannot tell metadata from memory that was never written")]
    NoCookie {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
    },
    /// A ring size that is no power of two.
    #[error("ring_entries = {0}: must be a power of two")]
    RingEntries(u32),
    /// Kernel sockets were asked for, or neither direction.
    #[error("{interface} queue {queue}: mode `{}` with rx = {rx} and tx = {tx} is not an AF_XDP socket", mode.label())]
    NotXsk {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
        /// Mode asked for.
        mode: Mode,
        /// Whether to receive.
        rx: bool,
        /// Whether to send.
        tx: bool,
    },
    /// The queue has a socket already: EBUSY, or one of this very UMEM.
    #[error(
        "{interface} queue {queue} already has an AF_XDP socket (EBUSY): stop the process that owns it (`ss -f xdp -a -p` \
         names it) or choose another queue"
    )]
    Busy {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
    },
    /// Busy polling was asked for and refused.
    #[error("AF_XDP socket: {0}")]
    BusyPoll(#[from] BusyPollError),
    /// Everything else that the kernel refuses.
    #[error("cannot open an AF_XDP socket on {interface} queue {queue} in mode `{}`: {source}; {remedy}", mode.label())]
    Refused {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
        /// Mode asked for.
        mode: Mode,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
}

/// Opens the socket of (`interface`, `queue`) on the UMEM of `frames`, and binds it with need-wakeup. Where the pool has
/// jumbo buffers it receives packets over several frames, too (XDP_USE_SG); without, the kernel drops them.
///
/// The first socket of a UMEM decides about zero-copy for all that share it (the kernel's rule for shared UMEMs), so
/// [`XskPair::in_force`] must be asked for each. The first socket stays bound until `frames` is dropped too: libxdp makes it
/// from the UMEM's own descriptor.
///
/// `cookie` is the one given to the XDP program of this interface; not 0.
///
/// # Errors
/// See [`XskError`]; the message names the interface, the queue and a remedy.
#[expect(clippy::too_many_arguments, reason = "one call site per socket, each argument a different setting")]
pub fn open(
    frames: &Frames,
    interface: &str,
    queue: u32,
    rx: bool,
    tx: bool,
    mode: Mode,
    ring_entries: u32,
    cookie: u16,
) -> Result<XskPair, XskError> {
    let name = || interface.to_owned();
    if mode == Mode::Socket || !(rx || tx) {
        return Err(XskError::NotXsk { interface: name(), queue, mode, rx, tx });
    }
    if frames.umem_and_ring_entries().is_none() {
        return Err(XskError::NoUmem { interface: name(), queue });
    }
    if cookie == 0 {
        return Err(XskError::NoCookie { interface: name(), queue });
    }
    let config = socket_config(mode, ring_entries, rx && frames.takes_jumbos())?;
    let Rings { rx: rx_ring, mut fill, tx: tx_ring, completion } = bind(frames, config, interface, queue, mode)?;

    let options = sockopt::xdp_options(borrow(rx_ring.fd()));
    let is_zero_copy =
        options.is_ok_and(|options| options.contains(rustix::net::xdp::XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY));
    let in_force = match (is_zero_copy, mode) {
        (true, _) => Mode::ZeroCopy,
        (false, Mode::Skb) => Mode::Skb,
        (false, _) => Mode::Native,
    };
    let fd = borrow(rx_ring.fd()).as_raw_fd();
    let (rx, prefilled) = match rx {
        true => (Some(XskRx::new(rx_ring, fill, ring_entries, cookie, is_zero_copy)), None),
        false if is_zero_copy => {
            let frame_count = prefill(&mut fill, frames, ring_entries);
            (None, Some(Prefilled { _fill: fill, frame_count }))
        }
        false => (None, None),
    };
    let tx = tx.then(|| XskTx::new(tx_ring, completion, ring_entries, prefilled));
    debug_assert!(rx.as_ref().is_none_or(|rx| rx.as_fd().as_raw_fd() == fd));
    Ok(XskPair { rx, tx, fd, mode: in_force })
}

fn socket_config(mode: Mode, ring_entries: u32, multi_buffer: bool) -> Result<SocketConfig, XskError> {
    let entries = QueueSize::new(ring_entries).map_err(|_| XskError::RingEntries(ring_entries))?;
    let copy = match mode {
        // Neither flag: the kernel takes zero-copy if the driver has it, and else copies.
        Mode::Auto | Mode::Socket => BindFlags::empty(),
        Mode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        Mode::Native | Mode::Skb => BindFlags::XDP_COPY,
    };
    let several = if multi_buffer { BindFlags::XDP_USE_SG } else { BindFlags::empty() };
    Ok(SocketConfig::builder()
        .rx_queue_size(entries)
        .tx_queue_size(entries)
        .bind_flags(copy | several | BindFlags::XDP_USE_NEED_WAKEUP)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .build())
}

/// Creates and binds the socket; a busy queue is tried again for a while.
fn bind(frames: &Frames, config: SocketConfig, interface: &str, queue: u32, mode: Mode) -> Result<Rings, XskError> {
    let refused = |source: io::Error| {
        let remedy = remedy(&source);
        XskError::Refused { interface: interface.to_owned(), queue, mode, source, remedy }
    };
    let device: Interface = interface.parse().map_err(|_| refused(io::ErrorKind::InvalidInput.into()))?;
    let give_up = Instant::now() + BUSY_PATIENCE;
    loop {
        let error = match create(frames, config, &device, queue) {
            Ok(rings) => return Ok(rings),
            Err(CreateError::Twice) => return Err(XskError::Busy { interface: interface.to_owned(), queue }),
            Err(CreateError::Refused(error)) => error,
        };
        let code = std::error::Error::source(&error)
            .and_then(|cause| cause.downcast_ref::<io::Error>())
            .and_then(io::Error::raw_os_error);
        match code {
            Some(libc::EBUSY) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(10)),
            Some(libc::EBUSY) => return Err(XskError::Busy { interface: interface.to_owned(), queue }),
            Some(code) => return Err(refused(io::Error::from_raw_os_error(code))),
            None => return Err(refused(io::Error::other(error.to_string()))),
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run as root, or with CAP_NET_RAW and CAP_NET_ADMIN",
        Some(libc::ENODEV | libc::ENXIO) => "there is no such interface here: see `ip link`",
        Some(libc::ENETDOWN) => "bring the interface up: `ip link set dev … up`",
        Some(libc::EINVAL) => "is there such a queue? `ethtool -l` shows how many there are",
        Some(libc::EOPNOTSUPP) => {
            "the driver cannot do zero-copy, or not over several frames (then a smaller MTU helps): use mode \"native\" or \"auto\""
        }
        Some(libc::ENOMEM | libc::ENOBUFS) => "raise the locked-memory limit (ulimit -l), or lower ring_entries",
        _ => "see the kernel's log",
    }
}

/// Fills the fill ring as far as it and the pool allow.
fn prefill(fill: &mut FillRing, frames: &Frames, ring_entries: u32) -> usize {
    let mut count = 0;
    while count < ring_entries as usize && frames.free_count() > frames.reserve() {
        match fill.lend(frames, ring_entries as usize - count) {
            0 => break,
            lent => count += lent,
        }
    }
    count
}
