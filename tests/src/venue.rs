//! The exchange by hand: it publishes days, one session after the other, until it is stopped; for trying the handler out.
//!
//! It makes three hosts with links (network namespaces, veth), or sends on interfaces that are there already.
#![forbid(unsafe_code)]

mod place;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::day::{Day, DaySettings};
use crate::demo::send::{Outcome, Sender};
use crate::demo::serve::Servers;
use crate::demo::workload::Workload;
use crate::exchange::ExchangeSettings;
use crate::lab;
use crate::line::LineSettings;
use crate::retransmission::{Manner, ServerCounts, ServerSettings};
use crate::testbed::signal;
use place::Place;

/// How often a running session is looked after.
const TICK: Duration = Duration::from_millis(20);

/// Publishes generated ITCH 5.0 days over MoldUDP64 on lines A and B, each with its own losses, until Ctrl-C; answers
/// requests for what was lost.
///
/// Without --interface it makes network namespaces for exchange, handler and consumer, and says how to run the handler in
/// its one; they are removed in the end. Needs root.
#[derive(Clone, Debug, Parser)]
#[command(name = "feedhandler-exchange", version)]
pub struct Options {
    /// Seed of everything random; each further session has the next.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Messages per second on average.
    #[arg(long, default_value_t = 20_000.0, value_parser = rate)]
    pub rate: f64,
    /// How long one session lasts; then the next begins, with message 1.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    pub session_seconds: f64,
    /// Sessions after which it ends by itself. Default: none, Ctrl-C ends it.
    #[arg(long)]
    pub sessions: Option<u64>,
    /// A session is left without saying that it ends.
    #[arg(long)]
    pub abrupt: bool,
    /// Most messages of a packet.
    #[arg(long, default_value_t = 24)]
    pub packet_messages: u16,
    /// Share of packets that each line loses by itself, 0 to 0.5.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub loss: f64,
    /// Mean number of packets lost in a row.
    #[arg(long, default_value_t = 1.0, value_parser = burst)]
    pub loss_burst: f64,
    /// Share of messages at which both lines lose the packet that has it, 0 to 0.5.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub common_loss: f64,
    /// Share of packets that arrive twice, 0 to 0.5.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub duplicate: f64,
    /// Share of packets that are held up, so that later ones overtake them, 0 to 0.5.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub reorder: f64,
    /// Longest such hold-up, microseconds.
    #[arg(long, default_value_t = 300)]
    pub reorder_us: u32,
    /// How far line B is behind line A, microseconds.
    #[arg(long, default_value_t = 15)]
    pub skew_us: u32,
    /// Random addition to each packet's delay, microseconds.
    #[arg(long, default_value_t = 0)]
    pub jitter_us: u32,
    /// Share of packets that are damaged, 0 to 0.5.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub corrupt: f64,
    /// Re-request servers: none, or what is wrong with each, in order; two at most.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "honest,honest")]
    pub servers: Vec<ServerKind>,
    /// Requests per second that a server answers; 0 = all.
    #[arg(long, default_value_t = 0)]
    pub server_rate: u64,
    /// Messages that a server puts into an answer at most.
    #[arg(long, default_value_t = u16::MAX)]
    pub server_messages: u16,
    /// Share of requests that a server does not answer, 0 to 0.5.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub server_loss: f64,
    /// Newest messages that a server keeps.
    #[arg(long, default_value_t = 1 << 20)]
    pub server_retention: usize,
    /// Send on this interface of this host, line A on the first, B on the second (or on the same).
    #[arg(long, value_name = "NAME", num_args = 1..=2)]
    pub interface: Vec<String>,
    /// The handler's configuration to take groups and names from. Default: config/demo.toml as built in.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A re-request server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServerKind {
    /// No server there.
    None,
    /// Answers as it should.
    Honest,
    /// Never answers.
    Silent,
    /// Answers with another session.
    OtherSession,
    /// Answers with the messages under other numbers.
    WrongSequence,
    /// Answers with numbers that nobody has sent yet.
    Ahead,
    /// Answers with more messages than were asked for.
    TooMany,
    /// Says that the session is over.
    EndOfSession,
    /// Answers with random bytes.
    Garbage,
    /// Answers a hundred times with all of the above.
    Flood,
}

impl ServerKind {
    const fn manner(self) -> Option<Manner> {
        Some(match self {
            Self::None => return None,
            Self::Honest => Manner::Honest,
            Self::Silent => Manner::Silent,
            Self::OtherSession => Manner::OtherSession,
            Self::WrongSequence => Manner::WrongSequence,
            Self::Ahead => Manner::Ahead,
            Self::TooMany => Manner::TooMany,
            Self::EndOfSession => Manner::EndOfSession,
            Self::Garbage => Manner::Garbage,
            Self::Flood => Manner::Flood,
        })
    }
}

fn within(text: &str, low: f64, high: f64, what: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("must be {what}, {low} to {high}")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    within(text, 100.0, 10_000_000.0, "a number of messages per second")
}

fn seconds(text: &str) -> Result<f64, String> {
    within(text, 0.5, 86_400.0, "a number of seconds")
}

fn share(text: &str) -> Result<f64, String> {
    within(text, 0.0, 0.5, "a share")
}

fn burst(text: &str) -> Result<f64, String> {
    within(text, 1.0, 10_000.0, "a number of packets")
}

/// One session, as it went.
#[derive(Clone, Debug)]
pub struct SessionSummary {
    /// Its name.
    pub session: String,
    /// Messages sent.
    pub messages: u64,
    /// Messages that no line carried.
    pub on_no_line: u64,
    /// Packets lost by themselves or in common, by line.
    pub lost_packets: Vec<u64>,
    /// What each server did.
    pub servers: Vec<ServerCounts>,
}

impl fmt::Display for SessionSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, messages, on_no_line, .. } = self;
        write!(f, "session {session}: {messages} messages, {on_no_line} on no line; packets lost")?;
        self.lost_packets.iter().try_for_each(|lost| write!(f, " {lost}"))?;
        self.servers.iter().try_for_each(|counts| {
            write!(f, "; {} requests, {} answers, {} refused", counts.requests, counts.answers, counts.refused)
        })
    }
}

/// Publishes until it is stopped; `say` gets every line for the user.
///
/// # Errors
/// If a part of it cannot be made or used.
pub fn run(options: &Options, mut say: impl FnMut(&str)) -> Result<Vec<SessionSummary>> {
    for name in lab::sweep() {
        say(&format!("removed namespace {name}, left behind by somebody who was killed"));
    }
    let place = Place::new(options)?;
    say(&place.manual(options));
    let mut summaries = Vec::new();
    for number in 1..=options.sessions.unwrap_or(u64::MAX) {
        let (summary, is_complete) = session(options, &place, number)?;
        say(&summary.to_string());
        summaries.push(summary);
        if !is_complete || signal::is_stopping() {
            break;
        }
    }
    Ok(summaries)
}

fn session(options: &Options, place: &Place, number: u64) -> Result<(SessionSummary, bool)> {
    let (day, exchange) = settings(options, number);
    let name = exchange.session.escape_ascii().to_string();
    let workload = Workload::Day { day: day.clone(), exchange: exchange.clone() };
    let sender = Sender::start(workload, place.line_sockets()?)?;
    let manners = options.servers.iter().filter_map(|kind| kind.manner());
    let server = |(seed, manner)| ServerSettings {
        seed,
        session: exchange.session,
        loss: options.server_loss,
        most_messages: options.server_messages,
        requests_per_second: options.server_rate,
        retention: options.server_retention,
        manner,
        ..ServerSettings::default()
    };
    let servers: Vec<ServerSettings> = (options.seed..).zip(manners).map(server).collect();
    let servers = Servers::start(place.server_sockets(servers.len())?, &servers, &day, &sender.progress)?;
    let mut told = Instant::now();
    while !sender.is_done() {
        std::thread::sleep(TICK);
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            eprintln!("session {name}: {} of {} messages", sender.progress.load(Relaxed), day.messages);
        }
    }
    // Who asks for the last messages shall get them.
    if !signal::is_stopping() {
        std::thread::sleep(Duration::from_millis(200));
    }
    let Outcome { lines, account, is_complete, .. } = sender.finish()?;
    let account = account.context("a day has an account")?;
    let summary = SessionSummary {
        session: name,
        messages: account.next_sequence - 1,
        on_no_line: account.common_losses.count(),
        lost_packets: lines.iter().map(|sent| sent.lost).collect(),
        servers: servers.finish(),
    };
    Ok((summary, is_complete))
}

/// The day and the exchange of a session.
fn settings(options: &Options, number: u64) -> (DaySettings, ExchangeSettings) {
    let seed = options.seed + number - 1;
    let messages = (options.rate * options.session_seconds) as u64;
    let day = Day::new(&DaySettings { seed, messages, ..DaySettings::default() }).settings().clone();
    let ns = |us: u32| u64::from(us) * 1_000;
    let line = LineSettings {
        loss: options.loss,
        loss_burst: options.loss_burst,
        duplicate: options.duplicate,
        reorder: options.reorder,
        reorder_ns: ns(options.reorder_us).max(1),
        skew_ns: 0,
        jitter_ns: ns(options.jitter_us),
        corrupt: options.corrupt,
    };
    let mut session = *b"LAB0000000";
    let digits = format!("{:07}", number % 10_000_000);
    session[3..].copy_from_slice(digits.as_bytes());
    let exchange = ExchangeSettings {
        seed,
        session,
        rate: options.rate,
        packet_messages: options.packet_messages,
        end_count: if options.abrupt { 0 } else { ExchangeSettings::default().end_count },
        common_loss: options.common_loss,
        lines: [line, LineSettings { skew_ns: ns(options.skew_us), ..line }],
        ..ExchangeSettings::default()
    };
    (day, exchange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_limits_and_reach_the_lines() {
        let parse = |arguments: &[&str]| Options::try_parse_from([&["exchange"], arguments].concat());
        for bad in [["--loss", "0.6"], ["--rate", "1"], ["--loss-burst", "0"], ["--servers", "kind"]] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
        let options =
            parse(&["--loss", "0.1", "--loss-burst", "4", "--skew-us", "700", "--abrupt", "--seed", "9"]).unwrap();
        let (day, exchange) = settings(&options, 3);
        assert_eq!((day.seed, &exchange.session, exchange.end_count), (11, b"LAB0000003", 0));
        let [a, b] = exchange.lines;
        assert_eq!((a.loss, a.loss_burst, a.skew_ns, b.skew_ns), (0.1, 4.0, 0, 700_000));
        assert_eq!(parse(&["--servers", "flood,honest"]).unwrap().servers, [ServerKind::Flood, ServerKind::Honest]);
    }
}
