//! One life of the handler: from its start to its end, with a consumer that checks what it says in this life.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::script::Round;
use crate::consumer::{CheckSettings, Checker, Report, SessionAccount, day_truth};
use crate::demo::receive::Consumer;
use crate::testbed::{Client, Handler, Network, OutputAddress};

/// Where it lives.
pub(super) struct Site {
    pub(super) network: Network,
    pub(super) output: OutputAddress,
    pub(super) binary: PathBuf,
    pub(super) config: PathBuf,
    /// Control socket.
    pub(super) socket: PathBuf,
    pub(super) publisher_id: u16,
    pub(super) midnight_ns: u64,
    pub(super) started_ns: u64,
    pub(super) directory: tempfile::TempDir,
}

/// The handler's memory and open files at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Anonymous resident memory, kB.
    pub(super) kilobytes: u64,
    pub(super) files: usize,
}

/// A running handler and its consumer. Fields are dropped in this order.
pub(super) struct Life {
    pub(super) client: Client,
    pub(super) handler: Handler,
    pub(super) consumer: Consumer,
    /// Index of the session in which it began.
    pub(super) first: usize,
    /// At the end of each session.
    pub(super) usage: Vec<Usage>,
    /// Messages that it had declared lost when it was last asked.
    pub(super) lost: u64,
}

impl Life {
    /// Starts the consumer, then the handler. From session `first` on everything must come, from its first message.
    pub(super) fn begin(site: &Site, script: &[Round], first: usize) -> Result<Self> {
        let settings = CheckSettings {
            publisher_id: site.publisher_id,
            midnight_ns: site.midnight_ns,
            started_ns: site.started_ns,
        };
        let truths = script[first..].iter().map(|round| day_truth(round.exchange.session, &round.day)).collect();
        let network = &site.network;
        let address = network.consumer_addresses[&site.output.interface];
        let consumer = Consumer::start(Checker::new(settings, truths), &site.output, address, &network.consumer)?;
        let mut handler = Handler::start(&site.binary, &site.config, &network.handler, site.directory.path())?;
        let client = Client::connect(&site.socket, &mut handler)?;
        Ok(Self { client, handler, consumer, first, usage: Vec::new(), lost: 0 })
    }

    /// Ends the handler, by SIGTERM or at once, then the consumer; what it found. `accounts` are those of the sessions that
    /// are over; one that is not is accounted for as far as it got.
    pub(super) fn end(self, kill: bool, mut accounts: Vec<SessionAccount>, is_within: bool) -> Result<(Report, u64)> {
        let Self { client, mut handler, consumer, .. } = self;
        // An open connection would keep the handler waiting for its end.
        drop(client);
        if kill {
            handler.signal(Signal::KILL)?;
        } else {
            handler.stop()?;
        }
        drop(handler);
        // What it sent lies in the consumer's socket.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let (checker, dropped) = consumer.finish()?;
        if is_within {
            accounts.push(SessionAccount { next_sequence: checker.next(), ..SessionAccount::default() });
        }
        Ok((checker.finish(&accounts), dropped))
    }

    /// Messages declared lost since the last call.
    pub(super) fn newly_lost(&mut self) -> Result<u64> {
        let all: u64 = self.client.status()?.channels.iter().map(|channel| channel.messages_lost).sum();
        Ok(all - std::mem::replace(&mut self.lost, all))
    }

    /// Looks at the process.
    pub(super) fn look(&mut self) -> Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.handler.pid().as_raw_nonzero()));
        let status = std::fs::read_to_string(folder.join("status")).context("status of the handler")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        let kilobytes = line.trim().trim_end_matches(" kB").parse().context("RssAnon")?;
        let files = std::fs::read_dir(folder.join("fd")).context("the handler's open files")?.count();
        let usage = Usage { kilobytes, files };
        self.usage.push(usage);
        Ok(usage)
    }
}
