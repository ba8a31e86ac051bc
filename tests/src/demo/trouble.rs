//! Midway, something of the network breaks: the stream goes on from line B, the handler says what is wrong, and what was
//! lost comes back without a restart.
//!
//! As with the toggle, B loses nothing of its own meanwhile, so the account of what at least one line carried stays exact.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use feedhandler::config::plan::Mode;
use feedhandler::steering::Steering;
use feedhandler_proto::v1::InterfaceStatus;
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;

use super::fault;
use super::receive::Consumer;
use super::send::Sender;
use super::toggle::{line_packets, settle};
use crate::testbed::{Client, Handler, LineAddress, Network};

/// How long the handler may take to see something, or to mend it. It looks ten times a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the trouble lasts.
const OUTAGE: Duration = Duration::from_millis(300);

/// Datagrams of noise: more than the rings of line A hold.
const FLOOD: usize = 8_000;

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Line A's interface goes down and comes up.
    LinkDown,
    /// Line A's interface is deleted and made again.
    LinkDeleted,
    /// Somebody detaches the XDP program from line A's interface.
    Detached,
    /// Somebody puts another XDP program in its place, and takes it away later.
    Replaced,
    /// The handler stands still while line A is flooded.
    Starved,
    /// The output interface goes down and comes up.
    OutputDown,
}

impl Kind {
    /// The fault that the handler must report.
    const fn fault(self) -> &'static str {
        match self {
            Self::LinkDown | Self::OutputDown => "down",
            Self::LinkDeleted => "gone",
            Self::Detached | Self::Replaced => "detached",
            Self::Starved => "starved",
        }
    }
}

/// What the trouble showed.
#[derive(Clone, Debug, Serialize)]
pub struct Trouble {
    /// What broke.
    pub kind: Kind,
    /// From the break until the handler had it all in use again, milliseconds.
    pub outage_ms: u64,
    /// Messages that the consumer got meanwhile.
    pub messages_meanwhile: u64,
    /// What was not as it has to be.
    pub faults: Vec<String>,
}

/// Everything that trouble is made with.
pub(crate) struct Scene<'a> {
    pub(crate) client: &'a mut Client,
    pub(crate) handler: &'a Handler,
    pub(crate) lines: &'a [LineAddress],
    pub(crate) network: &'a mut Network,
    pub(crate) sender: &'a Sender,
    pub(crate) consumer: &'a Consumer,
    /// Interface that the output leaves by.
    pub(crate) output: &'a str,
    /// The exchange waits while the handler stands still: where that may take long, line B's ring would overflow, too.
    pub(crate) is_quiet: bool,
}

impl Scene<'_> {
    /// Breaks something, and mends what somebody outside the handler would.
    pub(crate) fn make(&mut self, kind: Kind) -> Result<Trouble> {
        let mut faults = Vec::new();
        let [line, other] = self.lines else { anyhow::bail!("trouble needs two lines") };
        let broken = if kind == Kind::OutputDown { self.output } else { &line.interface }.to_owned();
        self.sender.lossless[1].store(true, Relaxed);
        settle(self.sender, self.consumer);
        let files = self.open_files()?;
        let before = self.consumer.next();
        let start = Instant::now();
        self.sender.may_fail.store(true, Relaxed);
        if !self.break_and_mend(kind, &broken)? {
            faults.push(format!("the handler did not notice in time what became of {broken}"));
        }
        let seen = self.seen(&broken, kind.fault())?;
        if !seen {
            faults.push(format!("the handler never said that {broken} is {}", kind.fault()));
        }
        if !self.wait(|status| status.fault.is_empty() || status.fault == "starved", &broken)? {
            let status = self.interface(&broken)?;
            faults.push(format!("{broken} did not heal: {} ({})", status.fault, status.fault_particulars));
        }
        let outage_ms = start.elapsed().as_millis() as u64;
        // On a busy machine the whole of it may have been shorter than one turn of the others.
        let deadline = Instant::now() + PATIENCE;
        while self.consumer.next() <= before && !self.sender.is_done() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let messages_meanwhile = self.consumer.next() - before;
        self.sender.may_fail.store(false, Relaxed);
        let packets = line_packets(&self.client.status()?, line)?;
        settle(self.sender, self.consumer);
        if line_packets(&self.client.status()?, line)? <= packets && !self.sender.is_done() {
            faults.push("line A took no packets after the trouble".to_owned());
        }
        if !self.network.handler.joined_groups(&line.interface)?.contains(line.group.ip()) {
            faults.push("line A's group is not joined after the trouble".to_owned());
        }
        if messages_meanwhile == 0 && kind != Kind::OutputDown {
            faults.push("the stream did not go on from line B".to_owned());
        }
        if self.sender.is_done() {
            faults
                .push("the exchange was done before the trouble was over: nothing is shown; --seconds more".to_owned());
        }
        let neighbour = self.interface(&other.interface)?;
        if !neighbour.faults.is_empty() || neighbour.healed > 0 {
            faults.push(format!("{} noticed: {:?}", other.interface, neighbour.faults));
        }
        // The control side opens files for moments, too.
        let deadline = Instant::now() + PATIENCE;
        while self.open_files()? > files && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.open_files()? > files {
            faults.push(format!("the handler has more open files than the {files} before the trouble"));
        }
        self.sender.lossless[1].store(false, Relaxed);
        Ok(Trouble { kind, outage_ms, messages_meanwhile, faults })
    }

    /// Whether the handler noticed while it lasted.
    fn break_and_mend(&mut self, kind: Kind, broken: &str) -> Result<bool> {
        let mut noticed = true;
        match kind {
            Kind::LinkDown | Kind::OutputDown => {
                self.network.handler.ip(&["link", "set", broken, "down"])?;
                noticed = self.wait(|status| status.fault == "down", broken)?;
                std::thread::sleep(OUTAGE);
                self.network.handler.ip(&["link", "set", broken, "up"])?;
            }
            Kind::LinkDeleted => {
                self.network.handler.ip(&["link", "delete", broken])?;
                noticed = self.wait(|status| status.fault == "gone", broken)?;
                std::thread::sleep(OUTAGE);
                self.network.relink(broken)?;
                self.sender.replace_socket(0, self.network.line_socket(&self.lines[0])?);
            }
            Kind::Detached => self.detach(broken)?,
            Kind::Replaced => {
                let foreign = self.replace_program(broken)?;
                let names_it = |status: &InterfaceStatus| status.fault_particulars.contains("attached to");
                noticed = self.wait(|status| status.fault == "detached" && names_it(status), broken)?;
                std::thread::sleep(OUTAGE);
                drop(foreign);
            }
            Kind::Starved => {
                self.sender.hold.store(self.is_quiet, Relaxed);
                self.handler.signal(Signal::STOP)?;
                let noise = self.network.line_socket(&self.lines[0])?;
                for _ in 0..FLOOD {
                    // What the link drops is counted there.
                    let _ = noise.send(b"noise");
                }
                self.handler.signal(Signal::CONT)?;
                self.sender.hold.store(false, Relaxed);
            }
        }
        Ok(noticed)
    }

    /// Detaches the program by its bpf_link, as its owner's rival could. (`ip link set … xdp off` is refused.)
    fn detach(&self, interface: &str) -> Result<()> {
        let before = fault::program_on(&self.network.handler, interface)?;
        let _refused = self.network.handler.ip(&["link", "set", "dev", interface, "xdp", "off"]);
        let after = fault::program_on(&self.network.handler, interface);
        ensure!(after.is_ok_and(|after| after == before), "`ip link set {interface} xdp off` detached a bpf_link");
        // Links of all handlers on this machine are shown: ours is the one with the interface's program.
        let links: Value = serde_json::from_str(&self.bpftool(&["-j", "link", "show"])?).context("bpftool -j")?;
        let on_it = |link: &&Value| link["type"] == "xdp" && link["prog_id"].as_u64() == Some(before);
        let link = links.as_array().and_then(|links| links.iter().find(on_it));
        let id = link.and_then(|link| link["id"].as_u64()).context("no bpf_link on the interface")?;
        self.bpftool(&["link", "detach", "id", &id.to_string()]).map(drop)
    }

    fn bpftool(&self, arguments: &[&str]) -> Result<String> {
        let mut command: Command = self.network.handler.command(Path::new("/usr/sbin/bpftool"));
        let output = command.args(arguments).output().context("bpftool")?;
        ensure!(output.status.success(), "bpftool {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Attaches another program in the place of the handler's, which stands still meanwhile: the keeper is quick.
    fn replace_program(&self, interface: &str) -> Result<Steering> {
        self.handler.signal(Signal::STOP)?;
        let replaced = self.detach(interface).and_then(|()| {
            let foreign = self.network.handler.enter(|| Steering::attach(interface, Mode::Skb, 9))?;
            foreign.context("attach another program")
        });
        self.handler.signal(Signal::CONT)?;
        replaced
    }

    /// What the handler has open: sockets and maps of what was replaced must be gone.
    fn open_files(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.handler.pid().as_raw_nonzero());
        Ok(std::fs::read_dir(folder).context("the handler's open files")?.count())
    }

    fn interface(&mut self, name: &str) -> Result<InterfaceStatus> {
        let status = self.client.status()?;
        status.interfaces.into_iter().find(|status| status.name == name).context("an interface of the handler's")
    }

    /// Whether the handler has counted a fault.
    fn seen(&mut self, interface: &str, fault: &str) -> Result<bool> {
        self.wait(|status| status.faults.iter().any(|counter| counter.name == fault), interface)
    }

    fn wait(&mut self, done: impl Fn(&InterfaceStatus) -> bool, interface: &str) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.interface(interface)?) {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(true)
    }
}
