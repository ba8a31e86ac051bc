//! The runs: every cell in both modes, round by round, each with a fresh handler.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use feedhandler::clock::{monotonic_ns, utc_ns};
use feedhandler_proto::v1::GetStatusResponse;

use super::legs::Legs;
use super::receive::Log;
use super::report::{Report, RoundReport, Run};
use super::send::Sender;
use super::{Arguments, Cell, MODES, Placement};
use crate::consumer::Receiver;
use crate::lab;
use crate::testbed::{
    Client, Handler, HandlerConfig, LineAddress, Mode, Network, OutputAddress, handler_binary, signal,
};

/// Messages of so long are sent before those that count, seconds.
const WARM_UP_SECONDS: f64 = 0.1;

/// From the last preparations to the first message.
const LEAD_NS: u64 = 50_000_000;

/// How long the last messages may take. Longer than the handler waits before it gives a lost message up.
const SETTLE_NS: u64 = 500_000_000;

/// How long the handler may take to tell its latencies; it collects them once a second.
const STAGES_TIMEOUT: Duration = Duration::from_secs(5);

/// The offset between the clocks may differ so much between start and end of a run: more is a step, and no latency that
/// crosses from one clock to the other is right.
const OFFSET_TOLERANCE_NS: u64 = 1_000;

/// What all runs share.
struct Bench<'a> {
    arguments: &'a Arguments,
    placement: Placement,
    network: Network,
    line: LineAddress,
    output: OutputAddress,
    binary: PathBuf,
    directory: tempfile::TempDir,
}

/// Runs all cells.
pub(super) fn run(arguments: &Arguments, cells: &[Cell]) -> Result<Report> {
    for name in lab::sweep() {
        eprintln!("removed namespace {name}, left behind by a program that was killed");
    }
    let mut config = HandlerConfig::load(None)?;
    config.keep_first_line()?;
    let (line, output) = (config.lines()?.swap_remove(0), config.outputs()?.swap_remove(0));
    let bench = Bench {
        arguments,
        placement: Placement::choose()?,
        network: Network::new(std::slice::from_ref(&line), std::slice::from_ref(&output))?,
        line,
        output,
        binary: handler_binary(arguments.handler.as_deref())?,
        directory: tempfile::Builder::new().prefix("feedhandler-bench-").tempdir().context("temporary directory")?,
    };
    let mut report = Report::new(arguments, bench.placement.clone(), cells);
    for round in 0..arguments.rounds {
        for (index, cell) in cells.iter().enumerate() {
            // Who goes first changes, so that neither always follows the other.
            let order = if (round as usize + index).is_multiple_of(2) { [0, 1] } else { [1, 0] };
            for mode in order {
                let what =
                    || format!("{} messages/s in bursts of {}, mode {}", cell.rate, cell.burst, MODES[mode].word());
                report.cells[index].add(mode, bench.measure(*cell, MODES[mode]).with_context(what)?);
            }
        }
    }
    Ok(report)
}

impl Bench<'_> {
    /// One run of one cell in one mode.
    fn measure(&self, cell: Cell, mode: Mode) -> Result<Run> {
        let warm_up = cell.messages(WARM_UP_SECONDS);
        let count = warm_up + cell.messages(self.arguments.seconds);
        let group = self.output.group;
        let address = self.network.consumer_addresses[&self.output.interface];
        let receiver = self.network.consumer.enter(|| Receiver::join(group, address))??;
        let mut log = Log::new(receiver, count)?;
        let mut sender = Sender::new(self.network.line_socket(&self.line)?, cell, count);
        let drops_before = self.network.link_drops()?;
        let (mut handler, mut client) = self.start_handler(mode)?;
        let waited_before_ns = worker_waited_ns(&handler)?;

        let offset_ns = utc_offset_ns();
        let own_waited_ns = thread::scope(|scope| {
            let drive = scope.spawn(|| self.drive(&mut sender, &mut log));
            drive.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let offset_end_ns = utc_offset_ns();
        ensure!(
            offset_ns.abs_diff(offset_end_ns) <= OFFSET_TOLERANCE_NS,
            "the wall clock was set during the run, by {} ns",
            offset_ns.abs_diff(offset_end_ns)
        );
        let worker_waited_ns = worker_waited_ns(&handler)? - waited_before_ns;

        let arrivals = log.arrivals(count)?;
        let status = stages_of(&mut client, &mut handler, count as u64)?;
        let legs = Legs::new(&sender.sent(), &arrivals, warm_up, offset_ns);
        let mut round = RoundReport::new(&legs, &status, count - warm_up);
        round.doubled = arrivals.doubled;
        round.lost_in_warm_up = arrivals.messages[..warm_up].iter().filter(|message| message.is_none()).count() as u64;
        round.worker_waited_ns = worker_waited_ns;
        round.bench_waited_ns = own_waited_ns;
        round.add_drops("consumer: socket buffer full", self.network.consumer.enter(|| log.dropped())??);
        for (place, drops) in self.network.link_drops()? {
            round.add_drops(&format!("link {place}"), drops - drops_before.get(&place).copied().unwrap_or(0));
        }
        handler.stop()?;
        let mode_in_force = status.interfaces.iter().map(|interface| interface.mode_in_force.clone()).collect();
        Ok(Run { round, samples: legs.samples, mode_in_force })
    }

    fn start_handler(&self, mode: Mode) -> Result<(Handler, Client)> {
        let directory = self.directory.path();
        let socket = directory.join("control.sock");
        let mut config = HandlerConfig::load(None)?;
        config.adapt(&socket, Some(mode))?;
        config.keep_first_line()?;
        config.place_workers(self.placement.worker_core, self.placement.worker_core.is_some())?;
        if mode == Mode::Socket {
            config.busy_poll(self.arguments.busy_poll_us)?;
        }
        let path = directory.join("latency.toml");
        config.write(&path)?;
        let mut handler = Handler::start(&self.binary, &path, &self.network.handler, directory)?;
        let client = Client::connect(&socket, &mut handler)?;
        Ok((handler, client))
    }

    /// Sends by the schedule and receives in between, until everything has arrived or has had its time. Returns how long
    /// the thread was kept from its core, nanoseconds.
    fn drive(&self, sender: &mut Sender, log: &mut Log) -> Result<u64> {
        self.placement.pin()?;
        let own = Path::new("/proc/thread-self/schedstat");
        let before = waited_ns(own)?;
        let start_ns = monotonic_ns() + LEAD_NS;
        sender.start_at(start_ns);
        let mut sent_all_ns = u64::MAX;
        let count = sender.count();
        loop {
            let now_ns = monotonic_ns();
            // Sending goes first, always: what is late at the receiver must not make the next message late.
            if sender.is_due(now_ns) {
                sender.send(monotonic_ns)?;
                if sender.is_done() {
                    sent_all_ns = monotonic_ns();
                }
            } else if !log.poll(monotonic_ns)? {
                if signal::is_stopping() {
                    bail!("interrupted");
                }
                if sender.is_done() && (log.message_count() >= count || now_ns > sent_all_ns.saturating_add(SETTLE_NS))
                {
                    break;
                }
                if self.placement.bench_core.is_none() {
                    thread::yield_now();
                }
            }
        }
        Ok(waited_ns(own)? - before)
    }
}

/// The handler's status once its stage histograms hold everything that it received.
fn stages_of(client: &mut Client, handler: &mut Handler, sent: u64) -> Result<GetStatusResponse> {
    let deadline = Instant::now() + STAGES_TIMEOUT;
    loop {
        handler.check()?;
        let status = client.status()?;
        let received: u64 = status.channels.iter().flat_map(|channel| &channel.lines).map(|line| line.packets).sum();
        let recorded = status.latencies.iter().find(|latency| latency.stage == "entry_to_worker");
        let recorded = recorded.context("GetStatus has no stage entry_to_worker")?.count;
        // `received` is itself behind until the next housekeeping; what was sent and not lost arrives for certain.
        if recorded >= received && (recorded >= sent || Instant::now() + STAGES_TIMEOUT / 2 > deadline) {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "the handler told {recorded} latencies of {received} packets");
        thread::sleep(Duration::from_millis(20));
    }
}

/// UTC − CLOCK_MONOTONIC: of many readings the one that was disturbed least.
fn utc_offset_ns() -> u64 {
    let reading = |_| {
        let before = monotonic_ns();
        let utc = utc_ns();
        let width_ns = monotonic_ns() - before;
        (width_ns, utc.wrapping_sub(before + width_ns / 2))
    };
    (0..256).map(reading).min().map_or(0, |(_, offset_ns)| offset_ns)
}

/// How long the handler's worker was ready to run and did not, so far.
fn worker_waited_ns(handler: &Handler) -> Result<u64> {
    let tasks = format!("/proc/{}/task", handler.pid().as_raw_nonzero());
    for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let task = task?.path();
        // The name that config/demo.toml gives it.
        if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == "w0") {
            return waited_ns(&task.join("schedstat"));
        }
    }
    bail!("the handler has no thread w0")
}

/// The second figure of a schedstat file; 0 on a kernel without them.
fn waited_ns(schedstat: &Path) -> Result<u64> {
    let text = match std::fs::read_to_string(schedstat) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        text => text.with_context(|| schedstat.display().to_string())?,
    };
    text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).context("schedstat")
}
