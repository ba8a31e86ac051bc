//! How many packets per second go in and out again: AF_XDP to AF_XDP beside `recvmmsg` to `sendmmsg`.
//!
//! ```text
//! exchange: generator ── ge0 ⇄ fh0 ── handler: worker ── fo0 ⇄ co0 ── consumer: the kernel counts
//! ```
//!
//! Generator and worker have a core each, the first and the last that this process may use. The worker is the ports' own
//! cycle, receive, forward, flush, reclaim, refill, the same code for both kinds. Offered is what the generator put out,
//! delivered what the consumer's interface received; the difference was lost somewhere in between. Rounds alternate
//! between the kinds, so that a disturbance of the host hits both. At its highest rates the generator, with the softirq
//! work that the packets cause on its core, is what limits: such points are marked.
#![forbid(unsafe_code)]

mod generator;
mod report;
mod worker;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::latency::Placement;
use crate::lab::{self, End, Namespace, connect};
use crate::testbed::signal;
use generator::Offered;
use worker::{Forwarded, Kind};

const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 10, 0, 1), 26_400);
const OUT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 20, 0, 1), 30_001);
const EXCHANGE_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const HANDLER_IN_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const HANDLER_OUT_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 1);
const CONSUMER_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 2);

/// The rate that stands for "as fast as it can".
const FLOOD: u64 = 0;

/// How long what is under way may take to arrive after the generator has stopped.
const DRAIN: Duration = Duration::from_millis(150);

/// Options of `feedhandler-bench throughput`.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Offered rates, thousands of packets per second; 0 = flood with all that the kernel can make.
    #[arg(long, value_delimiter = ',', default_value = "25,50,100,150,200,300,0")]
    rates: Vec<u64>,
    /// UDP payload of each packet, bytes.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1400))]
    payload_bytes: u16,
    /// Seconds that each rate is offered, per kind and round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds; each kind runs at each rate once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Also write every round's figures here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Who runs where.
#[derive(Clone, Copy, Debug)]
struct Cores {
    generator: usize,
    worker: usize,
}

impl Cores {
    fn choose() -> Result<Self> {
        let placement = Placement::choose()?;
        let (Some(generator), Some(worker)) = (placement.bench_core, placement.worker_core) else {
            bail!("the generator and the worker need a core each, and this process may use one only");
        };
        Ok(Self { generator, worker })
    }
}

/// One measurement: one kind at one rate for some seconds.
#[derive(Clone, Copy, Debug)]
struct Run {
    arrived: Arrived,
    forwarded: Forwarded,
}

/// What one run offered, and what came of it.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    offered: Offered,
    delivered: u64,
    softirq_ns: u64,
}

/// All rounds of one kind at one rate.
#[derive(Clone, Debug)]
struct Point {
    kind: Kind,
    rate_kpps: u64,
    runs: Vec<Run>,
}

/// Three namespaces in a row.
struct Course {
    exchange: Namespace,
    handler: Namespace,
    consumer: Namespace,
}

impl Course {
    fn new() -> Result<Self> {
        let course = Self {
            exchange: Namespace::new("gen")?,
            handler: Namespace::new("fwd")?,
            consumer: Namespace::new("con")?,
        };
        let end = |namespace, name, address| End { namespace, name, address };
        connect([end(&course.exchange, "ge0", EXCHANGE_IP), end(&course.handler, "fh0", HANDLER_IN_IP)])?;
        connect([end(&course.handler, "fo0", HANDLER_OUT_IP), end(&course.consumer, "co0", CONSUMER_IP)])?;
        // What makes a veth take frames from XDP is switching GRO on while the interface is up.
        for state in ["off", "on"] {
            let status = course
                .handler
                .command(Path::new("ethtool"))
                .args(["-K", "fh0", "gro", state])
                .status()
                .context("ethtool")?;
            ensure!(status.success(), "ethtool -K fh0 gro {state} failed");
        }
        Ok(course)
    }

    /// Packets that the consumer's interface has received.
    fn delivered(&self) -> Result<u64> {
        let table = self.consumer.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix("co0:"));
        let packets = line.and_then(|figures| figures.split_ascii_whitespace().nth(1));
        packets.and_then(|packets| packets.parse().ok()).with_context(|| format!("no co0 in {table}"))
    }
}

/// Measures all rates, prints the table, writes the file.
///
/// # Errors
/// No root, too few cores, or a step of the set-up that fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    let cores = Cores::choose()?;
    ensure!(arguments.rounds > 0 && !arguments.rates.is_empty(), "nothing to measure: --rounds and --rates");
    ensure!(arguments.seconds > 0.0 && arguments.seconds < 3600.0, "--seconds: from above 0 to 3600");
    for name in lab::sweep() {
        eprintln!("removed namespace {name}, left behind by a program that was killed");
    }
    let mut points: Vec<Point> = arguments
        .rates
        .iter()
        .flat_map(|rate_kpps| Kind::ALL.map(|kind| Point { kind, rate_kpps: *rate_kpps, runs: Vec::new() }))
        .collect();
    for round in 0..arguments.rounds {
        for point in &mut points {
            eprint!(
                "\rround {} of {}: {} at {} kpps      ",
                round + 1,
                arguments.rounds,
                point.kind.label(),
                point.rate_kpps
            );
            point.runs.push(measure(arguments, cores, point.kind, point.rate_kpps)?);
            if signal::is_stopping() {
                bail!("interrupted");
            }
        }
    }
    eprintln!();
    report::print(arguments, &points);
    if let Some(path) = &arguments.json {
        report::write(arguments, &points, path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// One run, on a course of its own: nothing is left over from another.
fn measure(arguments: &Arguments, cores: Cores, kind: Kind, rate_kpps: u64) -> Result<Run> {
    let course = Course::new()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ready, is_ready) = mpsc::channel();
        let worker = scope.spawn(|| course.handler.enter(|| worker::run(kind, cores.worker, ready, &stop)));
        // A worker that fails drops its sender.
        let generated = match is_ready.recv() {
            Ok(()) => offer(&course, arguments, cores, rate_kpps),
            Err(_) => Err(anyhow!("the worker did not start")),
        };
        stop.store(true, Relaxed);
        let forwarded = worker.join().map_err(|_| anyhow!("the worker panicked"))???;
        Ok(Run { arrived: generated?, forwarded })
    })
}

/// Offers packets and counts what arrives.
fn offer(course: &Course, arguments: &Arguments, cores: Cores, rate_kpps: u64) -> Result<Arrived> {
    let payload_bytes = usize::from(arguments.payload_bytes);
    let duration = Duration::from_secs_f64(arguments.seconds);
    let delivered_before = course.delivered()?;
    let softirq_before = softirq_ns()?;
    let offered = course.exchange.enter(|| {
        worker::pin(cores.generator)?;
        match rate_kpps {
            FLOOD => generator::flood(payload_bytes, duration),
            rate_kpps => generator::paced(payload_bytes, rate_kpps * 1000, duration),
        }
    })??;
    std::thread::sleep(DRAIN);
    let softirq_ns = softirq_ns()? - softirq_before;
    Ok(Arrived { offered, delivered: course.delivered()? - delivered_before, softirq_ns })
}

/// Time that all cores have spent in softirq since boot, nanoseconds; the kernel counts in hundredths of a second.
fn softirq_ns() -> Result<u64> {
    const NS_PER_TICK: u64 = 10_000_000;
    let stat = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let ticks = stat.lines().next().and_then(|line| line.split_ascii_whitespace().nth(7)?.parse::<u64>().ok());
    Ok(ticks.context("/proc/stat has no softirq column")? * NS_PER_TICK)
}
