//! A port as the unit that a worker owns and that can be replaced while it runs: one pool of frames, and the halves that
//! use it.
//!
//! Each AF_XDP socket has a UMEM of its own. So a link that goes takes nothing of another link's with it, each link has the
//! mode that its own driver has, and a socket that is starved of frames starves no other.
#![forbid(unsafe_code)]

use super::headers::Template;
use super::socket::SocketDestination;
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

/// A destination as a transmit port needs it: made by whoever may allocate and make system calls, so that a worker only puts
/// it in its place.
#[derive(Debug)]
pub enum TxDestination {
    /// For an AF_XDP port: its headers.
    Headers(Template),
    /// For a port over kernel sockets: a socket of its own.
    Socket(SocketDestination),
    /// For a port in memory.
    Memory,
}

impl TxPort {
    /// Makes places for destinations of the numbers below `room`, so that putting them there allocates nothing.
    pub fn make_room(&mut self, room: usize) {
        fn grow<T>(places: &mut Vec<Option<T>>, room: usize) {
            places.resize_with(room.max(places.len()), || None);
        }
        match self {
            Self::Xsk(port) => grow(port.places(), room),
            Self::Socket(port) => grow(port.places(), room),
            Self::Memory(port) => grow(port.places(), room),
        }
    }

    /// Registers a destination under a number: the one for [`Self::send`]. What had the number until now must have been
    /// flushed; it is returned.
    ///
    /// # Errors
    /// The destination itself, if it is one for another kind of port, or its number is beyond the port's room.
    pub fn put_destination(
        &mut self,
        number: usize,
        with: TxDestination,
    ) -> Result<Option<TxDestination>, TxDestination> {
        match (self, with) {
            (Self::Xsk(port), TxDestination::Headers(with)) => put(port.places(), number, with, TxDestination::Headers),
            (Self::Socket(port), TxDestination::Socket(with)) => {
                put(port.places(), number, with, TxDestination::Socket)
            }
            (Self::Memory(port), TxDestination::Memory) => put(port.places(), number, (), |()| TxDestination::Memory),
            (_, with) => Err(with),
        }
    }

    /// Takes a destination out; what is sent to its number from now on is dropped. What was queued must have been flushed.
    pub fn take_destination(&mut self, number: usize) -> Option<TxDestination> {
        match self {
            Self::Xsk(port) => port.places().get_mut(number)?.take().map(TxDestination::Headers),
            Self::Socket(port) => port.places().get_mut(number)?.take().map(TxDestination::Socket),
            Self::Memory(port) => port.places().get_mut(number)?.take().map(|()| TxDestination::Memory),
        }
    }
}

fn put<T>(
    places: &mut [Option<T>],
    number: usize,
    with: T,
    wrap: impl Fn(T) -> TxDestination,
) -> Result<Option<TxDestination>, TxDestination> {
    match places.get_mut(number) {
        Some(place) => Ok(place.replace(with).map(wrap)),
        None => Err(wrap(with)),
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
