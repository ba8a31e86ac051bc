//! Making a UMEM, and saying clearly why there is none.
#![forbid(unsafe_code)]

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::umem::Umem;
use xsk_rs::umem::frame::FrameDesc;

/// How long a UMEM that is beyond the locked-memory limit is tried again: the kernel counts one that was closed, by this
/// process or one of the same user that was killed, for a little longer.
const RELEASE_PATIENCE: Duration = Duration::from_millis(500);

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    /// A size that AF_XDP does not take.
    #[error("{name} = {value}: must be a power of two, {legal}")]
    Size {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: u32,
        /// What is legal.
        legal: &'static str,
    },
    /// The kernel refused the UMEM.
    #[error("cannot create a UMEM of {frame_count} frames of {frame_bytes} bytes ({}): {source}; {remedy}",
        if *huge_pages { "huge pages" } else { "normal pages" })]
    Umem {
        /// Frames asked for.
        frame_count: u32,
        /// Bytes of each.
        frame_bytes: u32,
        /// Whether huge pages were asked for.
        huge_pages: bool,
        /// What the kernel said.
        source: std::io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
}

/// Whether a size is one that AF_XDP takes.
pub(super) fn check_size(
    name: &'static str,
    value: u32,
    range: std::ops::RangeInclusive<u32>,
    legal: &'static str,
) -> Result<(), FramesError> {
    if value.is_power_of_two() && range.contains(&value) {
        return Ok(());
    }
    Err(FramesError::Size { name, value, legal })
}

/// A UMEM, and a descriptor of each frame that begins `headroom` bytes behind [`super::BUFFER_START`].
pub(super) fn create_umem(
    frame_count: u32,
    frame_bytes: u32,
    ring_entries: u32,
    headroom: usize,
    huge_pages: bool,
) -> Result<(Umem, Vec<FrameDesc>), FramesError> {
    let fail = |source: std::io::Error| {
        let remedy = match source.raw_os_error() {
            Some(libc::EPERM) => "run as root, or with CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF",
            Some(libc::ENOMEM) if huge_pages => "reserve huge pages (sysctl vm.nr_hugepages) or set huge_pages = false",
            Some(libc::ENOMEM | libc::ENOBUFS) => "raise the locked-memory limit (ulimit -l), or lower frame_count",
            Some(libc::EAFNOSUPPORT) => "the kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
            _ => "see the kernel's log",
        };
        FramesError::Umem { frame_count, frame_bytes, huge_pages, source, remedy }
    };
    let illegal = |error: &dyn std::fmt::Display| fail(std::io::Error::other(error.to_string()));
    let rings = QueueSize::new(ring_entries).map_err(|error| illegal(&error))?;
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(frame_bytes).map_err(|error| illegal(&error))?)
        .fill_queue_size(rings)
        .comp_queue_size(rings)
        .frame_headroom(headroom as u32)
        .build()
        .map_err(|error| illegal(&error))?;
    let count = NonZeroU32::new(frame_count).ok_or_else(|| illegal(&"no frames"))?;
    let give_up = Instant::now() + RELEASE_PATIENCE;
    loop {
        let error = match Umem::new(config, count, huge_pages) {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        match cause.and_then(std::io::Error::raw_os_error) {
            Some(libc::ENOBUFS) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(5)),
            Some(code) => return Err(fail(std::io::Error::from_raw_os_error(code))),
            None => return Err(illegal(&error)),
        }
    }
}
