//! Two traffic generators. Paced: an AF_XDP socket, a few packets at a time. Flood: the kernel runs an XDP program on live
//! frames (BPF_PROG_TEST_RUN), which needs no skb and is several times faster, but each call has to wait for an RCU grace
//! period (some 25 ms) at its end, so that no rate can be kept.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use feedhandler::config::plan::Mode;
use feedhandler::net::headers::{Header, Template};
use feedhandler::net::interface::Interface;
use feedhandler::net::{Frames, xsk};

use super::{EXCHANGE_IP, GROUP};
use crate::bytecode;
use crate::testbed::signal;

/// Interface that the packets leave by.
const INTERFACE: &str = "ge0";

/// Packets of one flush, and of one system call: what the kernel sends at once.
const BURST: u64 = 32;

/// Frames of one system call when flooding: its fixed cost is small beside them.
const FLOOD: u32 = 1 << 16;

/// Frames that the kernel runs before it flushes them to the device.
const FLOOD_BATCH: u32 = 64;

const PROGRAM: &str = "send_back";

/// What was offered, and in what time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offered {
    pub(super) packets: u64,
    pub(super) seconds: f64,
}

/// The packets' headers, from the caller's namespace.
fn header() -> Result<Header> {
    let mac = Interface::read(INTERFACE)?.mac;
    let source = SocketAddrV4::new(EXCHANGE_IP, 30_000);
    Header::multicast(mac, 0, source, GROUP, 8).context("the group is not multicast")
}

/// Offers `per_second` packets over an AF_XDP socket, or as many as it can.
pub(super) fn paced(payload_bytes: usize, per_second: u64, duration: Duration) -> Result<Offered> {
    const RING: u32 = 1024;
    let frames = Frames::umem(2 * RING, 2048, RING, false)?;
    let opened = xsk::open(&frames, INTERFACE, 0, false, true, Mode::Native, RING, 1)?;
    let mut port = opened.tx.context("no transmit port")?;
    let destination = port.add_destination(&header()?);
    let start = Instant::now();
    let mut due = 0;
    while start.elapsed() < duration && !signal::is_stopping() {
        let now = (start.elapsed().as_nanos() * u128::from(per_second) / 1_000_000_000) as u64;
        for _ in 0..now.saturating_sub(due).min(BURST) {
            let Some(frame) = frames.alloc() else { break };
            // A full ring is a packet not offered.
            let _ = port.send(&frames, frame, payload_bytes, destination);
            due += 1;
        }
        port.flush(&frames);
        port.reclaim(&frames);
    }
    ensure!(port.counts().kick_errors == 0, "the generator cannot send: {:?}", port.counts());
    Ok(Offered { packets: port.counts().frames, seconds: start.elapsed().as_secs_f64() })
}

/// Offers live frames as fast as the kernel makes them.
pub(super) fn flood(payload_bytes: usize, duration: Duration) -> Result<Offered> {
    let mut ebpf = Ebpf::load(&object()?).context("loading the generator's program")?;
    let program: &mut Xdp = ebpf.program_mut(PROGRAM).context("the generator's program")?.try_into()?;
    program.load()?;
    let template = Template::new(&header()?);
    let mut frame = vec![0; template.len()];
    template.write(&mut frame, payload_bytes);
    frame.resize(template.len() + payload_bytes, 0x5a);
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let words = [0, frame.len() as u32, 0, Interface::read(INTERFACE)?.index, 0, 0];
    let metadata: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let start = Instant::now();
    let mut packets = 0;
    while start.elapsed() < duration && !signal::is_stopping() {
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&metadata),
            repeat: FLOOD,
            attrs: TestRunAttrs::new().xdp_live_frames(FLOOD_BATCH),
            ..TestRunOptions::new()
        };
        program.test_run(options).context("BPF_PROG_TEST_RUN with live frames (kernel 5.18 or newer)")?;
        packets += u64::from(FLOOD);
    }
    Ok(Offered { packets, seconds: start.elapsed().as_secs_f64() })
}

/// The whole program: `return XDP_TX`, which for live frames means "out of the interface that the frame is said to have
/// come in by".
fn object() -> Result<Vec<u8>> {
    const XDP_TX: u8 = 3;
    // r0 = XDP_TX; exit
    bytecode::object("xdp", PROGRAM, &[[0xb7, 0, 0, 0, XDP_TX, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]])
}
