//! The worker of the throughput bench: the ports' cycle and nothing else.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Sender;

use anyhow::{Context, Result, anyhow};
use feedhandler::config::plan::Mode;
use feedhandler::net::interface::Interface;
use feedhandler::net::socket::{SocketLine, SocketOptions, SocketRx, SocketTx};
use feedhandler::net::{Batch, Frames, Header, RxPort, TxPort, xsk};
use feedhandler::steering::Steering;
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use xdp_ebpf::{GroupKey, GroupRule};

use super::{GROUP, HANDLER_OUT_IP, OUT};

const COOKIE: u16 = 0xbe4c;
const RING: u32 = 2048;
const FRAMES: u32 = 8192;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// AF_XDP in and out, native XDP, copy mode.
    Xsk,
    /// Kernel sockets in and out.
    Socket,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Xsk, Self::Socket];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Xsk => "AF_XDP -> AF_XDP",
            Self::Socket => "recvmmsg -> sendmmsg",
        }
    }
}

/// What the worker did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Forwarded {
    pub(crate) packets: u64,
    /// CPU time of the cycles that moved packets; the empty ones spin and say nothing.
    pub(crate) busy_ns: u64,
}

/// Pins the calling thread to a core, before everything else that wants to run there.
pub(super) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("pinning to core {core}"))?;
    // For Linux the "process" is the thread.
    setpriority_process(None, -20).context("raising the priority")
}

/// Opens the ports in the caller's namespace, says so, and forwards until told to stop.
pub(super) fn run(kind: Kind, core: usize, ready: Sender<()>, stop: &AtomicBool) -> Result<Forwarded> {
    pin(core)?;
    let frames = match kind {
        Kind::Xsk => Frames::umem(FRAMES, 2048, RING, false)?,
        Kind::Socket => Frames::heap(FRAMES, 2048),
    };
    // Kept until the end: dropping it detaches the program.
    let (mut rx, mut tx, _steering) = match kind {
        Kind::Xsk => {
            let (rx, tx, steering) = open_xsk(&frames)?;
            (rx, tx, Some(steering))
        }
        Kind::Socket => {
            let (rx, tx) = open_sockets()?;
            (rx, tx, None)
        }
    };
    let mac = Interface::read("fo0")?.mac;
    let header = Header::multicast(mac, 0, SocketAddrV4::new(HANDLER_OUT_IP, 30_000), OUT, 8);
    let destination = tx.add_destination(header.ok_or_else(|| anyhow!("{OUT} is not multicast"))?)?;
    rx.refill(&frames);
    ready.send(())?;

    let mut forwarded = Forwarded::default();
    let mut batch = Batch::new();
    while !stop.load(Relaxed) {
        let start = cpu_ns();
        rx.receive(&frames, &mut batch);
        let count = batch.len() as u64;
        for received in batch.drain(..) {
            // What does not go is counted by the port, and missing at the consumer.
            let _ = tx.forward(&frames, received, destination);
        }
        tx.flush(&frames);
        tx.reclaim(&frames);
        rx.refill(&frames);
        if count > 0 {
            forwarded.packets += count;
            forwarded.busy_ns += cpu_ns() - start;
        }
    }
    frames.assert_conserved(rx.frames_held(), tx.frames_held(), 0);
    Ok(forwarded)
}

fn open_xsk(frames: &Frames) -> Result<(RxPort, TxPort, Steering)> {
    let mut steering = Steering::attach("fh0", Mode::Native, COOKIE)?;
    let key = GroupKey { dst_ip: GROUP.ip().octets(), dst_port: GROUP.port(), vlan: 0 };
    steering.insert_rule(key, GroupRule { source_ip: [0; 4], line: 0, flags: 0 })?;
    let rx = xsk::open(frames, "fh0", 0, true, false, Mode::Native, RING, COOKIE)?;
    let tx = xsk::open(frames, "fo0", 0, false, true, Mode::Native, RING, COOKIE)?;
    steering.set_socket(0, rx.fd)?;
    let (Some(rx), Some(tx)) = (rx.rx, tx.tx) else { unreachable!("one of each was asked for") };
    Ok((RxPort::Xsk(rx), TxPort::Xsk(tx), steering))
}

fn open_sockets() -> Result<(RxPort, TxPort)> {
    let line = SocketLine { line: 0, group: GROUP, interface: "fh0".into(), source: None, subscribed: true };
    let rx = SocketRx::new(&[line], &SocketOptions::default())?;
    Ok((RxPort::Socket(rx), TxPort::Socket(SocketTx::new("fo0"))))
}

/// CPU time of the calling thread, nanoseconds.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
