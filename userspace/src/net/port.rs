//! A port as the unit that a worker owns and that can be replaced while it runs: one pool of frames, and the halves that
//! use it.
//!
//! Each AF_XDP socket has a UMEM of its own. So a link that goes takes nothing of another link's with it, each link has the
//! mode that its own driver has, and a socket that is starved of frames starves no other.
#![forbid(unsafe_code)]

use super::{Frame, Frames, RxPort, TxPort};
use crate::metrics::DropReason;

/// One (interface, queue) of a worker.
#[derive(Debug)]
pub struct Port {
    /// The frames of both halves.
    pub frames: Frames,
    /// The receiving half, if the worker receives there.
    pub rx: Option<RxPort>,
    /// The transmitting half, if the worker transmits there.
    pub tx: Option<TxPort>,
}

impl Port {
    /// The place of a port whose link is gone: nothing comes in, and no packet can be built for it.
    #[must_use]
    pub fn vacant() -> Self {
        Self { frames: Frames::heap(0, 2048), rx: None, tx: None }
    }
}

/// The transmitting halves of a worker's ports and the frames of each, by port index.
#[derive(Debug)]
pub struct Outlets<'a> {
    frames: &'a [Frames],
    ports: &'a mut [Option<TxPort>],
}

impl<'a> Outlets<'a> {
    /// Of parallel slices: port i has the frames `frames[i]`.
    ///
    /// # Panics
    /// If they are not of one length.
    pub fn new(frames: &'a [Frames], ports: &'a mut [Option<TxPort>]) -> Self {
        assert_eq!(frames.len(), ports.len(), "each port has its frames");
        Self { frames, ports }
    }

    /// The frames that packets for a port are built in.
    #[must_use]
    pub fn frames(&self, port: usize) -> &'a Frames {
        &self.frames[port]
    }

    /// A free frame to build a packet for a port in.
    ///
    /// # Errors
    /// Why there is none; the drop is the caller's to count.
    pub fn alloc(&self, port: usize) -> Result<Frame, DropReason> {
        match self.ports[port] {
            Some(_) => self.frames[port].alloc().ok_or(DropReason::NoFreeFrame),
            None => Err(DropReason::LinkLost),
        }
    }

    /// Queues a packet that was built in one of the port's own frames; see [`TxPort::send`].
    ///
    /// # Errors
    /// Why it was dropped; the frame was freed and the drop counted.
    ///
    /// # Panics
    /// If the port transmits nothing: a frame of such a port cannot be.
    pub fn send(&mut self, port: usize, frame: Frame, bytes: usize, destination: usize) -> Result<(), DropReason> {
        let tx = self.ports[port].as_mut().expect("the frame is of a port that transmits");
        tx.send(&self.frames[port], frame, bytes, destination)
    }

    /// Flushes every port; see [`TxPort::flush`].
    pub fn flush(&mut self) {
        for (frames, port) in self.frames.iter().zip(self.ports.iter_mut()) {
            if let Some(port) = port {
                port.flush(frames);
            }
        }
    }
}
