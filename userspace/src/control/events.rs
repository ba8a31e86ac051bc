//! What workers report: losses and state changes go to the log, latencies are added up.
#![forbid(unsafe_code)]

use feedhandler_proto::v1::event::What;
use feedhandler_proto::v1::{ChannelChanged, MessagesLost};

use super::watch::Watch;
use crate::config::plan::Plan;
use crate::feed::Beginning;
use crate::latency::StageHistograms;
use crate::worker::shared::{Command, Event, WorkerLink};

/// Log lines per channel and second; the rest is counted, and the metrics have all of it.
const LOG_LINES: u64 = 10;
const SECOND_NS: u64 = 1_000_000_000;

/// What has been reported so far.
#[derive(Debug)]
pub(super) struct Events {
    limits: Vec<RateLimit>,
    total: StageHistograms,
    /// Per worker: empty histograms to swap in, away while the worker has them.
    spare: Vec<Option<Box<StageHistograms>>>,
    swapped_ns: u64,
}

impl Events {
    pub(super) fn new(channels: usize, workers: usize) -> Self {
        Self {
            limits: vec![RateLimit::default(); channels],
            total: StageHistograms::default(),
            spare: (0..workers).map(|_| Some(Box::default())).collect(),
            swapped_ns: 0,
        }
    }

    pub(super) fn latencies(&self) -> StageHistograms {
        self.total.clone()
    }

    /// Drains every worker's events, and once a second asks for the latencies.
    pub(super) fn take_all(&mut self, plan: &Plan, links: &[WorkerLink], watch: &Watch, now_ns: u64) {
        let ask = now_ns.saturating_sub(self.swapped_ns) >= SECOND_NS;
        if ask {
            self.swapped_ns = now_ns;
        }
        for link in links {
            loop {
                // The lock is taken anew each time, so that nothing waits for the log behind it.
                let event = super::locked(&link.events).pop();
                let Ok(event) = event else { break };
                self.take(plan, link.index, event, watch, now_ns);
            }
            if !ask {
                continue;
            }
            let Some(empty) = self.spare[link.index].take() else { continue };
            if let Err(Command::SwapLatency(empty)) = link.send(Command::SwapLatency(empty)) {
                self.spare[link.index] = Some(empty);
            }
        }
        for (limit, (_, channel)) in self.limits.iter_mut().zip(plan.channels.slots()) {
            let Some(channel) = channel else { continue };
            if let Some(suppressed) = limit.roll(now_ns) {
                tracing::warn!(channel = channel.name, suppressed, "more events than are logged; the metrics have all");
            }
        }
    }

    fn take(&mut self, plan: &Plan, worker: usize, event: Event, watch: &Watch, now_ns: u64) {
        match event {
            Event::Latency(mut full) => {
                self.total.add(&full);
                full.clear();
                self.spare[worker] = Some(full);
            }
            // Dropped here, and not by the worker: that closes sockets and unmaps memory.
            Event::PortOut(port) => drop(port),
            Event::Edited(edit) => drop(edit),
            Event::RouteOut(route) => drop(route),
            Event::Lost { channel, session, from, to } => {
                let Some(name) = name_of(plan, channel) else { return };
                let session = session_text(&session);
                if self.limits[channel].allows(now_ns) {
                    let messages = to.saturating_sub(from);
                    tracing::warn!(channel = name, session, from, to, messages, "messages lost");
                }
                watch.tell(What::MessagesLost(MessagesLost { channel: name, session, from, to }));
            }
            Event::Began { channel, session, first, how } => {
                let Some(name) = name_of(plan, channel) else { return };
                if self.limits[channel].allows(now_ns) {
                    let session = session_text(&session);
                    match how {
                        Beginning::New => tracing::info!(channel = name, session, first, "session begins"),
                        Beginning::Late => {
                            tracing::warn!(channel = name, session, first, "session joined late; before is unknown");
                        }
                        Beginning::Joined => {
                            tracing::info!(channel = name, session, first, "session joined by a snapshot");
                        }
                        Beginning::Restarted => {
                            tracing::warn!(channel = name, session, first, "numbers of the session begin again");
                        }
                    }
                }
            }
            Event::State { channel, state } => {
                let Some(name) = name_of(plan, channel) else { return };
                let state = super::status::channel_state(state);
                if self.limits[channel].allows(now_ns) {
                    tracing::info!(channel = name, state = state.word(), "channel state");
                }
                watch.tell(What::ChannelChanged(ChannelChanged { channel: name, state: state.into() }));
            }
        }
    }
}

/// Of a channel that is there: what a worker had still to say of one that was removed is nobody's any more.
fn name_of(plan: &Plan, channel: usize) -> Option<String> {
    plan.channels.get(channel).map(|channel| channel.name.clone())
}

/// A session's name without its padding (MoldUDP64 pads with spaces); what is not text is replaced, and what would move a
/// terminal's cursor, too: these are bytes from the wire.
pub(super) fn session_text(session: &[u8; 10]) -> String {
    let text = String::from_utf8_lossy(session);
    text.trim_matches(['\0', ' ']).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// At most [`LOG_LINES`] a second.
#[derive(Clone, Copy, Debug, Default)]
struct RateLimit {
    window_ns: u64,
    passed: u64,
    suppressed: u64,
}

impl RateLimit {
    fn allows(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.window_ns) >= SECOND_NS && self.suppressed == 0 {
            (self.window_ns, self.passed) = (now_ns, 0);
        }
        let allowed = self.passed < LOG_LINES;
        self.passed += u64::from(allowed);
        self.suppressed += u64::from(!allowed);
        allowed
    }

    /// At the end of a second in which something was suppressed: how much.
    fn roll(&mut self, now_ns: u64) -> Option<u64> {
        if self.suppressed == 0 || now_ns.saturating_sub(self.window_ns) < SECOND_NS {
            return None;
        }
        (self.window_ns, self.passed) = (now_ns, 0);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_and_then_how_many_more() {
        let mut limit = RateLimit::default();
        let start = 5 * SECOND_NS;
        assert_eq!((0..25).filter(|i| limit.allows(start + i)).count(), 10);
        assert_eq!(limit.roll(start + SECOND_NS / 2), None);
        assert_eq!(limit.roll(start + SECOND_NS), Some(15));
        assert_eq!(limit.roll(start + SECOND_NS), None);
        assert!(limit.allows(start + SECOND_NS));
    }

    #[test]
    fn sessions_lose_their_padding() {
        assert_eq!(session_text(b"0000000042"), "0000000042");
        assert_eq!(session_text(b"        7A"), "7A");
        assert_eq!(session_text(&[0; 10]), "");
        assert_eq!(session_text(b"\x1bcS\n1     "), "?cS?1");
    }
}
