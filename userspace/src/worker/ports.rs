//! A worker's ports, and the exchange of one for another while the worker runs.
#![forbid(unsafe_code)]

use super::Worker;
use super::shared::{Event, WorkerShared};
use crate::metrics::{DropCounts, DropReason, PortCounts};
use crate::net::{BATCH, Frames, Outlets, Port, RxPort, TxPort};

/// Batches that are taken out of a port before it or a line of it goes: more than the largest ring or socket buffer holds.
const MOST_LAST_BATCHES: usize = 1024;

/// The parts of each port, by port index: apart, because received frames are read while other ports are written to.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) frames: Vec<Frames>,
    pub(super) rx: Vec<Option<RxPort>>,
    pub(super) tx: Vec<Option<TxPort>>,
    /// What ports counted that are gone: their successors go on from there.
    retired: Vec<Retired>,
    /// A port that was replaced, while the event queue has no room for it.
    outgoing: Option<Box<Port>>,
}

#[derive(Clone, Debug, Default)]
struct Retired {
    rx: PortCounts,
    tx: PortCounts,
    rx_drops: DropCounts,
    tx_drops: DropCounts,
}

impl Ports {
    pub(super) fn new(ports: Vec<Port>) -> Self {
        let mut all = Self { retired: vec![Retired::default(); ports.len()], ..Self::default() };
        for Port { frames, rx, tx } in ports {
            all.frames.push(frames);
            all.rx.push(rx);
            all.tx.push(tx);
        }
        all
    }

    pub(super) fn receiving(&mut self) -> impl Iterator<Item = &mut RxPort> {
        self.rx.iter_mut().flatten()
    }

    pub(super) fn update_kernel_counts(&mut self) {
        self.receiving().for_each(RxPort::update_kernel_counts);
        self.tx.iter_mut().flatten().for_each(TxPort::update_kernel_counts);
    }

    pub(super) fn reclaim(&mut self) {
        for (frames, port) in self.frames.iter().zip(&mut self.tx) {
            if let Some(port) = port {
                port.reclaim(frames);
            }
        }
    }

    /// Frames sent since the ports were made; only differences mean anything.
    pub(super) fn frames_sent(&self) -> u64 {
        self.tx.iter().flatten().map(|port| port.counts().frames).sum()
    }

    /// Frames that are free or with a port.
    pub(super) fn frames_free_or_lent(&self) -> usize {
        let free: usize = self.frames.iter().map(|frames| frames.free_count() + frames.free_jumbo_count()).sum();
        let rx: usize = self.rx.iter().flatten().map(RxPort::frames_held).sum();
        let tx: usize = self.tx.iter().flatten().map(TxPort::frames_held).sum();
        free + rx + tx
    }

    /// Drops of all receiving halves that belong to no line.
    pub(super) fn rx_drops(&self) -> DropCounts {
        let now = self.rx.iter().flatten().map(|port| *port.drops());
        now.chain(self.retired.iter().map(|retired| retired.rx_drops)).fold(DropCounts::default(), |a, b| a.plus(&b))
    }

    pub(super) fn publish_counts(&self, shared: &WorkerShared) {
        for (i, retired) in self.retired.iter().enumerate() {
            let rx = self.rx[i].as_ref().map_or_else(PortCounts::default, |port| *port.counts());
            let tx = self.tx[i].as_ref().map_or_else(PortCounts::default, |port| *port.counts());
            let tx_drops = self.tx[i].as_ref().map_or_else(DropCounts::default, |port| *port.drops());
            shared.rx[i].store(&rx.plus(&retired.rx).values());
            shared.tx[i].store(&tx.plus(&retired.tx).values());
            shared.tx_drops[i].store(&tx_drops.plus(&retired.tx_drops).values());
        }
    }

    /// Notes what the port has counted, and the packets that will never leave it.
    fn retire(&mut self, port: usize) {
        let retired = &mut self.retired[port];
        if let Some(rx) = &mut self.rx[port] {
            rx.update_kernel_counts();
            retired.rx = retired.rx.plus(rx.counts());
            retired.rx_drops = retired.rx_drops.plus(rx.drops());
        }
        if let Some(tx) = &mut self.tx[port] {
            tx.reclaim(&self.frames[port]);
            tx.update_kernel_counts();
            retired.tx = retired.tx.plus(tx.counts());
            retired.tx_drops = retired.tx_drops.plus(tx.drops());
            for _ in 0..tx.packets_held() {
                retired.tx_drops.add(DropReason::LinkLost);
            }
        }
    }
}

impl Worker {
    /// Puts another port in the place of one: what it has received is delivered first, what is open for it is sent.
    pub(super) fn replace_port(&mut self, port: usize, mut with: Box<Port>, clock: &impl Fn() -> u64) {
        self.take_what_waits(port, clock);
        self.swap_port(port, &mut with);
        self.ports.outgoing = Some(with);
        self.hand_back_port();
    }

    /// Takes what a port has received through all stages, until it has nothing or as much was taken as it can have held; of
    /// what another thread hands over, what is there now, however fast it goes on.
    pub(super) fn take_what_waits(&mut self, port: usize, clock: &impl Fn() -> u64) {
        // Counted in frames, not in usable datagrams: a batch of which nothing can be used is no end.
        let frames = |worker: &Self| worker.ports.rx[port].as_ref().map_or(0, |rx| rx.counts().frames);
        let most = match self.ports.rx[port] {
            Some(RxPort::Xsk(_)) => self.ports.frames[port].frame_count() / BATCH + 1,
            Some(RxPort::Handoff(ref rx)) => rx.waiting().div_ceil(BATCH),
            _ => MOST_LAST_BATCHES,
        };
        for _ in 0..most {
            let before = frames(self);
            self.receive(port, clock);
            if frames(self) == before {
                break;
            }
            self.ports.reclaim();
        }
    }

    /// Exchanges a port, as it is, for another; what is open for it is sent.
    pub(super) fn swap_port(&mut self, port: usize, with: &mut Port) {
        if let Some(tx) = &mut self.ports.tx[port] {
            tx.insist();
        }
        self.publisher.vacate(port, &mut Outlets::new(&self.ports.frames, &mut self.ports.tx));
        self.ports.retire(port);
        std::mem::swap(&mut self.ports.frames[port], &mut with.frames);
        std::mem::swap(&mut self.ports.rx[port], &mut with.rx);
        std::mem::swap(&mut self.ports.tx[port], &mut with.tx);
        if let Some(rx) = &mut self.ports.rx[port] {
            for (line, slot) in (0..).zip(&self.lines) {
                // Kernel sockets were opened with the lines that were wanted then; most often nothing is left to do.
                if let Some(slot) = slot
                    && let Err(error) = rx.set_line(line, slot.enabled)
                {
                    self.shared.count_refused(&error);
                }
            }
            rx.refill(&self.ports.frames[port]);
        }
    }

    /// Gives a replaced port back to control, which closes it; false while the event queue has no room.
    pub(super) fn hand_back_port(&mut self) -> bool {
        if self.ports.outgoing.is_some() && self.events.slots() == 0 {
            return false;
        }
        if let Some(port) = self.ports.outgoing.take() {
            self.report(Event::PortOut(port));
        }
        true
    }
}
