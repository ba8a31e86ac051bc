//! The exchange's thread: sends each payload from a kernel socket at its time.
#![forbid(unsafe_code)]

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::capture::Capture;
use super::workload::Workload;
use crate::consumer::SessionAccount;
use crate::day::Day;
use crate::exchange::Exchange;
use crate::line::LineSent;
use crate::testbed::signal;

/// A sleep shorter than this takes longer than it says.
const SHORTEST_SLEEP: Duration = Duration::from_micros(60);

/// What was sent, in the end.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// By line.
    pub(crate) lines: Vec<LineSent>,
    /// Of a day: what neither line carried. Captures have theirs from the start.
    pub(crate) account: Option<SessionAccount>,
    /// Whether everything was sent.
    pub(crate) is_complete: bool,
    /// Farthest behind its time that a packet was sent.
    pub(crate) latest: Duration,
}

/// The running exchange.
pub(crate) struct Sender {
    thread: JoinHandle<Result<Outcome>>,
    /// Messages (of a day) or packets (of a capture) sent.
    pub(crate) progress: Arc<AtomicU64>,
    /// Stops the losses of each line of a day while set.
    pub(crate) lossless: Vec<Arc<AtomicBool>>,
    /// While set, what a line's link does not take is lost instead of ending the demo.
    pub(crate) may_fail: Arc<AtomicBool>,
    /// While set, nothing is sent; what follows is that much later.
    pub(crate) hold: Arc<AtomicBool>,
    sockets: Arc<[Mutex<UdpSocket>]>,
}

impl Sender {
    /// Starts to send, each line on its socket.
    pub(crate) fn start(workload: Workload, sockets: impl IntoIterator<Item = UdpSocket>) -> Result<Self> {
        let sockets: Arc<[Mutex<UdpSocket>]> = sockets.into_iter().map(Mutex::new).collect();
        let (may_fail, hold) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let pacer = Pacer {
            sockets: Arc::clone(&sockets),
            may_fail: Arc::clone(&may_fail),
            hold: Arc::clone(&hold),
            start: Instant::now(),
            latest: Duration::ZERO,
        };
        let progress = Arc::new(AtomicU64::new(0));
        let mirror = Arc::clone(&progress);
        let mut lossless = Vec::new();
        let spawn = std::thread::Builder::new().name("exchange".to_owned());
        let thread = match workload {
            Workload::Day { day, exchange } => {
                let exchange = Exchange::new(exchange, Day::new(&day));
                lossless = vec![exchange.lossless(0), exchange.lossless(1)];
                spawn.spawn(move || send_day(exchange, pacer, &mirror))
            }
            Workload::Capture { capture, speed } => spawn.spawn(move || send_capture(&capture, speed, pacer, &mirror)),
        };
        let thread = thread.context("thread of the exchange")?;
        Ok(Self { thread, progress, lossless, may_fail, hold, sockets })
    }

    /// Sends on another socket from now on: the line's link is a new one.
    pub(crate) fn replace_socket(&self, line: usize, socket: UdpSocket) {
        *self.sockets[line].lock().unwrap_or_else(PoisonError::into_inner) = socket;
    }

    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    pub(crate) fn finish(self) -> Result<Outcome> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Sends payloads on time.
struct Pacer {
    sockets: Arc<[Mutex<UdpSocket>]>,
    may_fail: Arc<AtomicBool>,
    hold: Arc<AtomicBool>,
    start: Instant,
    latest: Duration,
}

impl Pacer {
    fn wait_while_held(&mut self) {
        if self.hold.load(Relaxed) {
            let since = Instant::now();
            while self.hold.load(Relaxed) && !signal::is_stopping() {
                std::thread::sleep(Duration::from_millis(2));
            }
            self.start += since.elapsed();
        }
    }

    /// Sends on the line's socket when it is time; false if the demo is to stop.
    fn send(&mut self, at_ns: u64, line: usize, payload: &[u8]) -> Result<bool> {
        let at = Duration::from_nanos(at_ns);
        loop {
            self.wait_while_held();
            let elapsed = self.start.elapsed();
            let left = at.saturating_sub(elapsed);
            if signal::is_stopping() {
                return Ok(false);
            }
            if left < SHORTEST_SLEEP {
                self.latest = self.latest.max(elapsed.saturating_sub(at));
                break;
            }
            // Captures may have minutes of silence; a signal should not wait for their end.
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        let sent = self.sockets[line].lock().unwrap_or_else(PoisonError::into_inner).send(payload);
        if !self.may_fail.load(Relaxed) {
            sent.context("send of the exchange")?;
        }
        Ok(true)
    }
}

fn send_day(mut exchange: Exchange<Day>, mut pacer: Pacer, progress: &AtomicU64) -> Result<Outcome> {
    let mut is_complete = true;
    while let Some(next) = exchange.next() {
        if !pacer.send(next.at_ns, next.line, &next.payload)? {
            is_complete = false;
            break;
        }
        progress.store(exchange.next_sequence() - 1, Relaxed);
    }
    let account = SessionAccount {
        common_losses: exchange.common_losses(),
        next_sequence: exchange.next_sequence(),
        must_end: true,
    };
    let lines = vec![exchange.sent(0), exchange.sent(1)];
    Ok(Outcome { lines, account: Some(account), is_complete, latest: pacer.latest })
}

fn send_capture(capture: &Capture, speed: f64, mut pacer: Pacer, progress: &AtomicU64) -> Result<Outcome> {
    let mut outcome = Outcome { lines: vec![LineSent::default(); capture.groups.len()], ..Default::default() };
    outcome.is_complete = true;
    for packet in &capture.packets {
        if !pacer.send((packet.at_ns as f64 / speed) as u64, packet.group, &packet.payload)? {
            outcome.is_complete = false;
            break;
        }
        outcome.lines[packet.group].packets += 1;
        progress.fetch_add(1, Relaxed);
    }
    outcome.latest = pacer.latest;
    Ok(outcome)
}
