//! Midway, line A is switched off and on again over the control service; the stream has to go on from B alone.
//!
//! While A is off, what B loses is lost for good, so B loses nothing from shortly before the call to Unsubscribe until
//! shortly after Subscribe has returned: the account of what at least one line carried stays exact.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use feedhandler_proto::v1::GetStatusResponse;
use serde::Serialize;

use super::receive::Consumer;
use super::send::Sender;
use crate::testbed::{Client, LineAddress, Network, signal};

/// Longer than any packet is under way: packing, skew, reordering and the handler's queues together.
const SETTLE: Duration = Duration::from_millis(80);

/// Messages that the sender makes within the time by which it reorders and delays packets, and some.
const FRESH_MESSAGES: u64 = 100;

/// How long a membership may take to follow.
const JOIN_TIMEOUT: Duration = Duration::from_millis(500);

/// A slow day need not get so far.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the toggle showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Toggle {
    /// How long line A was off.
    pub off_ms: u64,
    /// Messages that the consumer got meanwhile.
    pub messages_while_off: u64,
    /// What was not as it has to be.
    pub faults: Vec<String>,
}

/// Switches `lines[0]` off for `off`, and on again.
pub(crate) fn toggle(
    client: &mut Client,
    lines: &[LineAddress],
    network: &Network,
    sender: &Sender,
    consumer: &Consumer,
    off: Duration,
) -> Result<Toggle> {
    let line = &lines[0];
    let mut toggle = Toggle { off_ms: off.as_millis() as u64, ..Default::default() };
    let mut expect = |is_right: bool, fault: &str| {
        if !is_right {
            toggle.faults.push(fault.to_owned());
        }
    };
    // With kernel sockets the worker itself joins and leaves, at its next turn: a busy machine may make that late.
    let is_soon_joined = |wanted: bool| -> Result<bool> {
        let deadline = Instant::now() + JOIN_TIMEOUT;
        while network.handler.joined_groups(&line.interface)?.contains(line.group.ip()) != wanted {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    };
    expect(is_soon_joined(true)?, "line A's group is not joined before the toggle");
    sender.lossless[1].store(true, Relaxed);
    settle(sender, consumer);
    client.switch(line, false)?;
    expect(is_soon_joined(false)?, "line A's group is still joined after Unsubscribe");
    settle(sender, consumer);
    let (packets, next) = (line_packets(&client.status()?, line)?, consumer.next());
    let until = Instant::now() + off;
    // A busy machine may leave the consumer no turn for longer.
    let is_still = || consumer.next() <= next && !sender.is_done() && Instant::now() < until + SETTLE_TIMEOUT;
    while (Instant::now() < until || is_still()) && !signal::is_stopping() {
        std::thread::sleep(Duration::from_millis(10));
    }
    expect(line_packets(&client.status()?, line)? == packets, "line A took packets while it was off");
    toggle.messages_while_off = consumer.next() - next;
    let mut expect = |is_right: bool, fault: &str| {
        if !is_right {
            toggle.faults.push(fault.to_owned());
        }
    };
    expect(consumer.next() > next || sender.is_done(), "the stream did not go on from line B while A was off");
    client.switch(line, true)?;
    expect(is_soon_joined(true)?, "line A's group is not joined after Subscribe");
    settle(sender, consumer);
    expect(
        line_packets(&client.status()?, line)? > packets || sender.is_done(),
        "line A took no packets after Subscribe",
    );
    sender.lossless[1].store(false, Relaxed);
    Ok(toggle)
}

/// Waits until what was under way has arrived: the usual time, and on a busy machine, where the sender's thread or the
/// handler may stand still for longer, until messages sent after that have come out.
pub(crate) fn settle(sender: &Sender, consumer: &Consumer) {
    std::thread::sleep(SETTLE);
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let fresh = sender.progress.load(Relaxed) + FRESH_MESSAGES;
    while consumer.next() <= fresh && !sender.is_done() && !signal::is_stopping() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn line_packets(status: &GetStatusResponse, line: &LineAddress) -> Result<u64> {
    let channel = status.channels.iter().find(|channel| channel.name == line.channel);
    let lines = &channel.with_context(|| format!("GetStatus has no channel {}", line.channel))?.lines;
    let found = lines.iter().find(|l| l.group.as_ref().is_some_and(|group| group.line == line.name));
    Ok(found.with_context(|| format!("GetStatus has no line {}", line.name))?.packets)
}
