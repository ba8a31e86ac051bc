//! One session: the exchange, its servers, what happens meanwhile, and the account of it.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Options;
use super::life::{Life, Site};
use super::report::{RoundSummary, Summary};
use super::script::{Event, Round};
use crate::consumer::SessionAccount;
use crate::demo::send::Sender;
use crate::demo::serve::{self, Servers};
use crate::demo::toggle::toggle;
use crate::demo::trouble::Scene;
use crate::demo::workload::Workload;
use crate::ranges::RangeSet;
use crate::retransmission::Manner;
use crate::testbed::{LineAddress, signal};

/// How often the parts are looked after.
const TICK: Duration = Duration::from_millis(20);

/// Share of a session after which nothing begins any more.
const LATEST: f64 = 0.75;

/// How long the output may take to get to the end of a session after its last packet, as long as it moves.
const STILL: Duration = Duration::from_secs(8);

/// The soak as it goes on.
pub(super) struct Rounds<'a> {
    site: Site,
    lines: Vec<LineAddress>,
    script: &'a [Round],
    /// Always there, but while the handler is started again.
    life: Option<Life>,
    /// Of the sessions of this life that are over.
    accounts: Vec<SessionAccount>,
    summary: Summary,
}

impl<'a> Rounds<'a> {
    /// Starts the handler.
    pub(super) fn new(site: Site, lines: Vec<LineAddress>, script: &'a [Round]) -> Result<Self> {
        let life = Some(Life::begin(&site, script, 0)?);
        Ok(Self { site, lines, script, life, accounts: Vec::new(), summary: Summary::default() })
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("there is a life between the events")
    }

    /// Runs one session to its end.
    pub(super) fn run(&mut self, number: usize, cheat: bool) -> Result<()> {
        let script = self.script;
        let round = &script[number];
        let mut exchange = round.exchange.clone();
        if cheat {
            exchange.common_loss = exchange.common_loss.max(0.002);
        }
        let workload = Workload::Day { day: round.day.clone(), exchange };
        let sender = Sender::start(workload, self.site.network.line_sockets(&self.lines)?)?;
        let mut settings = round.servers.clone();
        if cheat {
            settings.iter_mut().for_each(|server| server.manner = Manner::Silent);
        }
        let servers = Servers::start(serve::sockets(&self.site.network)?, &settings, &round.day, &sender.progress)?;
        let mut summary = RoundSummary::new(round);
        let events = if cheat { &[][..] } else { &round.events };
        self.attend(number, events, &sender, &mut summary)?;
        let outcome = sender.finish()?;
        let account = outcome.account.context("a day has an account")?;
        if !outcome.is_complete {
            // Interrupted: what came until now is all that can be judged.
            return Ok(());
        }
        summary.on_no_line = account.common_losses.count();
        let account = settle_account(round, account);
        self.wait_for(account.next_sequence)?;
        summary.requests = servers.finish().iter().map(|counts| counts.requests).sum();
        let life = self.life();
        summary.lost = life.newly_lost()?;
        let usage = life.look()?;
        (summary.kilobytes, summary.files) = (usage.kilobytes, usage.files);
        if summary.lost != account.common_losses.count() {
            let due = account.common_losses.count();
            summary.faults.push(format!("{} messages declared lost instead of {due}", summary.lost));
        }
        self.accounts.push(account);
        eprintln!("{summary}");
        self.summary.rounds.push(summary);
        Ok(())
    }

    /// Lets happen what is to happen, until everything is sent.
    fn attend(
        &mut self,
        number: usize,
        events: &[(f64, Event)],
        sender: &Sender,
        summary: &mut RoundSummary,
    ) -> Result<()> {
        let messages = self.script[number].day.messages as f64;
        let share = || sender.progress.load(Relaxed) as f64 / messages;
        let mut events = events.iter();
        let mut next = events.next();
        while !sender.is_done() {
            self.check()?;
            if let Some((at, event)) = next
                && share() >= *at
            {
                // On a slow machine there may be no time left to see what comes of it.
                if share() < LATEST {
                    summary.events.push(event.word());
                    self.make(event, number, sender, summary).with_context(|| event.word())?;
                } else {
                    summary.events.push(format!("no time for {}", event.word()));
                }
                next = events.next();
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        let life = self.life();
        life.handler.check()?;
        anyhow::ensure!(!life.consumer.is_dead(), "the consumer has stopped");
        Ok(())
    }

    fn make(&mut self, event: &Event, number: usize, sender: &Sender, summary: &mut RoundSummary) -> Result<()> {
        if let Event::Restart { kill } = *event {
            return self.restart(number, kill, sender);
        }
        let Self { life, lines, site, .. } = self;
        let Life { client, handler, consumer, .. } = life.as_mut().expect("there is a life");
        match *event {
            Event::Toggle { off_ms } => {
                let off = Duration::from_millis(off_ms);
                summary.faults.extend(toggle(client, lines, &site.network, sender, consumer, off)?.faults);
            }
            Event::Trouble(kind) => {
                let (network, output) = (&mut site.network, site.output.interface.as_str());
                let mut scene = Scene { client, handler, lines, network, sender, consumer, output, is_quiet: true };
                let mut faults = scene.make(kind)?.faults;
                if sender.is_done() {
                    // The session was over before it could be seen whether line A is heard again; the next one shows it.
                    faults.retain(|fault| !fault.starts_with("the exchange was done before"));
                }
                summary.faults.extend(faults);
            }
            Event::Blackout { off_ms } => {
                lines.iter().try_for_each(|line| client.switch(line, false))?;
                std::thread::sleep(Duration::from_millis(off_ms));
                lines.iter().try_for_each(|line| client.switch(line, true))?;
            }
            Event::Pause { ms } => {
                handler.signal(Signal::STOP)?;
                std::thread::sleep(Duration::from_millis(ms));
                handler.signal(Signal::CONT)?;
            }
            Event::Restart { .. } => {}
        }
        Ok(())
    }

    /// Ends the handler within a session, judges its life, and starts it again: the session comes anew, from its first
    /// message.
    ///
    /// The exchange goes on without a listener for a moment, and then waits: the start may take longer than its session.
    fn restart(&mut self, number: usize, kill: bool, sender: &Sender) -> Result<()> {
        let life = self.life.take().expect("there is a life");
        let accounts = std::mem::take(&mut self.accounts);
        self.summary.add_life(&life);
        let is_within = accounts.len() + life.first == number;
        let (report, dropped) = life.end(kill, accounts, is_within)?;
        self.summary.add_report(&report, dropped);
        sender.hold.store(true, Relaxed);
        self.life = Some(Life::begin(&self.site, self.script, number)?);
        sender.hold.store(false, Relaxed);
        Ok(())
    }

    /// Waits until the output has got there, or does not move any more.
    fn wait_for(&mut self, next: u64) -> Result<()> {
        let (mut moved, mut last) = (Instant::now(), 0);
        loop {
            self.check()?;
            let now = self.life().consumer.next();
            if now != last {
                (moved, last) = (Instant::now(), now);
            }
            if now >= next || moved.elapsed() > STILL || signal::is_stopping() {
                break;
            }
            std::thread::sleep(TICK);
        }
        // The end of the session, and the counters that housekeeping mirrors.
        std::thread::sleep(Duration::from_millis(400));
        Ok(())
    }

    /// Ends the handler and judges.
    pub(super) fn finish(mut self, options: &Options) -> Result<Summary> {
        let life = self.life.take().expect("there is a life");
        self.summary.add_life(&life);
        let is_within = signal::is_stopping();
        let (report, dropped) = life.end(false, self.accounts, is_within)?;
        self.summary.add_report(&report, dropped);
        for (place, count) in self.site.network.link_drops()? {
            self.summary.notes.push(format!("link {place}: {count} frames dropped"));
        }
        self.summary.judge(options);
        Ok(self.summary)
    }
}

/// What the handler can know, and has no excuse for: none at all where it can ask for everything.
fn settle_account(round: &Round, account: SessionAccount) -> SessionAccount {
    let mut account = if round.exchange.end_count > 0 { account } else { account.without_end() };
    if round.is_served {
        account.common_losses = RangeSet::default();
    }
    account
}
