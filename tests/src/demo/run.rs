//! The demo from start to end.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use super::receive::Consumer;
use super::report::{LineSummary, Summary};
use super::send::{Outcome, Sender};
use super::serve::{self, Servers};
use super::toggle::{Toggle, toggle};
use super::trouble::{Scene, Trouble};
use super::workload::Workload;
use super::{FaultOption, Options, fault};
use crate::consumer::{CheckSettings, Checker, SessionAccount, utc_ns};
use crate::lab;
use crate::retransmission::{Manner, ServerSettings};
use crate::testbed::{Client, Handler, HandlerConfig, LineAddress, Network, OutputAddress, handler_binary, signal};

/// How often the demo looks after its parts.
const TICK: Duration = Duration::from_millis(20);

/// How long the output of a session may go on after the exchange has sent everything.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Output that has not moved for so long has settled, where no end of session is to be expected.
const SETTLED: Duration = Duration::from_millis(1500);

/// A capture that takes longer than this is announced.
const LONG_SECONDS: f64 = 600.0;

/// Everything that runs. Fields are dropped in this order: the handler goes before its network.
struct Stage {
    consumers: Vec<Consumer>,
    client: Client,
    handler: Handler,
    network: Network,
    lines: Vec<LineAddress>,
    outputs: Vec<OutputAddress>,
    // Last: the others have files in it.
    _directory: tempfile::TempDir,
}

/// Runs the demo.
///
/// # Errors
/// If it could not be run to its end. What the check finds is in the summary.
pub fn run(options: &Options) -> Result<Summary> {
    for name in lab::sweep() {
        eprintln!("removed namespace {name}, left behind by a demo that was killed");
    }
    let workload = Workload::new(options)?;
    let mut config = HandlerConfig::load(options.config.as_deref())?;
    if let Workload::Capture { capture, .. } = &workload {
        let line_counts: Vec<usize> = capture.channels.iter().map(ExactSizeIterator::len).collect();
        config.replace_channels(&line_counts)?;
    } else {
        ensure!(
            config.lines()?.len() == 2 && config.outputs()?.len() == 1,
            "a generated day needs a configuration with one channel, lines A and B, and one destination"
        );
    }
    let settings = CheckSettings {
        publisher_id: config.publisher_id()?,
        midnight_ns: config.midnight_ns()?,
        started_ns: utc_ns(),
    };
    let (truths, mut accounts): (Vec<_>, Vec<_>) = workload.truths().into_iter().unzip();
    ensure!(truths.iter().any(|sessions| !sessions.is_empty()), "the capture has no MoldUDP64 packet");
    if workload.seconds() > LONG_SECONDS {
        let minutes = workload.seconds() / 60.0;
        eprintln!("the capture takes {minutes:.0} minutes at its own times; --speed N makes it N times faster");
    }
    let checkers = truths.into_iter().map(|sessions| Checker::new(settings, sessions)).collect();
    let mut stage = Stage::set(options, &mut config, checkers)?;

    if options.late_start {
        stage.switch_lines(false)?;
    }
    let sender = Sender::start(workload.clone(), stage.network.line_sockets(&stage.lines)?)?;
    let servers = stage.serve(&workload, &sender, options)?;
    let midway = stage.attend(&workload, &sender, options)?;
    let outcome = sender.finish()?;
    ensure!(outcome.is_complete, "interrupted");
    stage.wait_for_output(outcome.account.is_some())?;
    if let Some(account) = outcome.account.clone() {
        accounts = vec![vec![account]];
    }
    let mut recovered = 0;
    if let Some(servers) = servers {
        // Who can ask for everything has no excuse for a loss.
        for account in accounts.iter_mut().flatten() {
            recovered += std::mem::take(&mut account.common_losses).count();
        }
        let counts = servers.finish();
        ensure!(
            counts.iter().any(|counts| counts.answers > 0),
            "the retransmission servers were not asked: {counts:?}"
        );
    }
    let mut summary = stage.report(&workload, &outcome, midway, &accounts)?;
    summary.channels.messages_recovered = recovered;
    Ok(summary)
}

/// What was done midway.
#[derive(Default)]
struct Midway {
    toggle: Option<Toggle>,
    trouble: Option<Trouble>,
}

impl Stage {
    /// Makes the network and starts consumers, then the handler.
    fn set(options: &Options, config: &mut HandlerConfig, checkers: Vec<Checker>) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("feedhandler-demo-").tempdir().context("temporary directory")?;
        let socket = directory.path().join("control.sock");
        config.adapt(&socket, options.mode)?;
        if options.patient {
            config.be_patient()?;
        }
        let path = directory.path().join("demo.toml");
        let (lines, outputs): (Vec<LineAddress>, Vec<OutputAddress>) = (config.lines()?, config.outputs()?);
        let mut network = Network::new(&lines, &outputs)?;
        network.set_line_mtu(options.mtu)?;
        if options.recovery {
            config.ask_servers(&serve::addresses(&network))?;
        }
        config.write(&path)?;
        let start = |(checker, output): (Checker, &OutputAddress)| {
            Consumer::start(checker, output, network.consumer_addresses[&output.interface], &network.consumer)
        };
        let consumers = checkers.into_iter().zip(&outputs).map(start).collect::<Result<_>>()?;
        let mut handler =
            Handler::start(&handler_binary(options.handler.as_deref())?, &path, &network.handler, directory.path())?;
        let client = Client::connect(&socket, &mut handler)?;
        Ok(Self { consumers, client, handler, network, lines, outputs, _directory: directory })
    }

    /// Starts the exchange's retransmission servers, if there are to be any.
    fn serve(&self, workload: &Workload, sender: &Sender, options: &Options) -> Result<Option<Servers>> {
        let Workload::Day { day, exchange } = workload else { return Ok(None) };
        if !options.recovery {
            return Ok(None);
        }
        let server = |seed| ServerSettings { seed, session: exchange.session, ..ServerSettings::default() };
        let mut settings: Vec<ServerSettings> = (1..).map(server).take(self.lines.len()).collect();
        if options.hostile_server {
            settings[0].manner = Manner::Flood;
        }
        Servers::start(serve::sockets(&self.network)?, &settings, day, &sender.progress).map(Some)
    }

    /// Looks after everything while the exchange sends; does midway what is to be done midway.
    fn attend(&mut self, workload: &Workload, sender: &Sender, options: &Options) -> Result<Midway> {
        let bar = progress_bar(workload);
        let start = Instant::now();
        let midway = Duration::from_secs_f64(workload.seconds() * 0.4);
        let off = Duration::from_secs_f64((workload.seconds() / 5.0).clamp(0.1, 2.0));
        let mut done = Midway::default();
        let mut is_midway_done = false;
        while !sender.is_done() {
            self.check()?;
            bar.set_position(sender.progress.load(std::sync::atomic::Ordering::Relaxed));
            if !is_midway_done && start.elapsed() >= midway {
                is_midway_done = true;
                if options.fault == Some(FaultOption::RemoveRule) {
                    fault::remove_rules(&self.network.handler, &self.lines)?;
                } else if let Some(kind) = options.trouble {
                    bar.set_message("trouble");
                    let Self { client, handler, lines, network, consumers, outputs, .. } = self;
                    let (consumer, output) = (&consumers[0], outputs[0].interface.as_str());
                    let is_quiet = false;
                    let mut scene = Scene { client, handler, lines, network, sender, consumer, output, is_quiet };
                    done.trouble = Some(scene.make(kind)?);
                    bar.set_message("");
                } else if options.late_start {
                    ensure!(self.consumers[0].next() <= 1, "something came out before the handler heard anything");
                    self.switch_lines(true)?;
                } else if !options.undisturbed && !sender.lossless.is_empty() {
                    bar.set_message("line A is off");
                    let Self { client, lines, network, consumers, .. } = self;
                    done.toggle = Some(toggle(client, lines, network, sender, &consumers[0], off)?);
                    bar.set_message("");
                }
            }
            std::thread::sleep(TICK);
        }
        bar.finish_and_clear();
        Ok(done)
    }

    fn switch_lines(&mut self, on: bool) -> Result<()> {
        self.lines.iter().try_for_each(|line| self.client.switch(line, on))
    }

    fn check(&mut self) -> Result<()> {
        self.handler.check()?;
        if self.consumers.iter().any(Consumer::is_dead) {
            // Its error comes from joining it; the others are of no interest then.
            for consumer in self.consumers.drain(..) {
                consumer.finish()?;
            }
            bail!("the consumer has stopped");
        }
        Ok(())
    }

    /// Waits until the stream is over, or (`has_end` = false) does not move any more.
    fn wait_for_output(&mut self, has_end: bool) -> Result<()> {
        let start = Instant::now();
        let (mut moved, mut last) = (start, Vec::new());
        while !signal::is_stopping() {
            self.check()?;
            let next: Vec<u64> = self.consumers.iter().map(Consumer::next).collect();
            if next != last {
                (moved, last) = (Instant::now(), next);
            }
            let is_over = if has_end {
                self.consumers.iter().all(Consumer::has_ended) || start.elapsed() > END_TIMEOUT
            } else {
                moved.elapsed() > SETTLED
            };
            if is_over {
                break;
            }
            std::thread::sleep(TICK);
        }
        // The handler's counters are mirrored by its housekeeping.
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }

    fn report(
        mut self,
        workload: &Workload,
        outcome: &Outcome,
        midway: Midway,
        accounts: &[Vec<SessionAccount>],
    ) -> Result<Summary> {
        let Midway { toggle, trouble } = midway;
        let (workload, seconds) = (describe(workload), workload.seconds());
        let mut summary = Summary { workload, seconds, toggle, trouble, ..Default::default() };
        for (line, sent) in self.lines.iter().zip(&outcome.lines) {
            let name = format!("{} {}", line.channel, line.name);
            summary.lines.push(LineSummary { name, sent: *sent, ..Default::default() });
        }
        let on_no_line = |account: &SessionAccount| account.common_losses.count();
        summary.channels.messages_on_no_line = accounts.iter().flatten().map(on_no_line).sum();
        summary.add_status(&self.client.status()?);
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("legal bounds");
        for (consumer, accounts) in self.consumers.drain(..).zip(accounts) {
            let (checker, dropped) = consumer.finish()?;
            if dropped > 0 {
                summary.drops.insert("consumer: socket buffer full".to_owned(), dropped);
            }
            summary.add_report(&checker.finish(accounts), &mut latency);
        }
        summary.add_consumer_latency(&latency);
        for (place, count) in self.network.link_drops()? {
            summary.drops.insert(format!("link {place}"), count);
        }
        if outcome.latest > Duration::from_millis(100) {
            summary
                .notes
                .push(format!("the exchange was up to {} ms behind its own times", outcome.latest.as_millis()));
        }
        // An open connection would keep the handler waiting for its end.
        drop(self.client);
        if let Err(error) = self.handler.stop() {
            summary.faults.push(format!("{error:#}"));
        }
        summary.judge();
        if !summary.ok {
            summary.handler_log = self.handler.last_words();
        }
        Ok(summary)
    }
}

fn describe(workload: &Workload) -> String {
    match workload {
        Workload::Day { day, exchange } => {
            format!("ITCH 5.0 day, seed {}, {} messages at {}/s", day.seed, day.messages, exchange.rate)
        }
        Workload::Capture { capture, speed } => {
            format!("capture, {} packets of {} groups, speed {speed}", capture.packets.len(), capture.groups.len())
        }
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(workload: &Workload) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{elapsed_precise} {bar:40} {human_pos}/{human_len} ({per_sec}) {msg}";
    ProgressBar::new(workload.length()).with_style(ProgressStyle::with_template(style).expect("a legal template"))
}
