//! What workers report: losses and state changes go to the log, latencies are added up.
#![forbid(unsafe_code)]

use std::sync::Arc;

use feedhandler_proto::v1::event::What;
use feedhandler_proto::v1::{ChannelChanged, MessagesLost, SessionBegan};

use super::latency::Round;
use super::watch::Watch;
use crate::clock::utc_ns;
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
    /// Shared with who looks at it: copied only when more is added meanwhile.
    total: Arc<StageHistograms>,
    /// Per worker: empty histograms to swap in, away while the worker has them.
    spare: Vec<Option<Box<StageHistograms>>>,
    /// When the workers are asked next.
    next_swap_ns: u64,
    /// When they were asked last, as long as not all have answered: CLOCK_MONOTONIC and UTC.
    asked: Option<(u64, u64)>,
}

impl Events {
    pub(super) fn new(channels: usize, workers: usize) -> Self {
        Self {
            limits: vec![RateLimit::default(); channels],
            total: Arc::default(),
            spare: (0..workers).map(|_| Some(Box::default())).collect(),
            next_swap_ns: 0,
            asked: None,
        }
    }

    pub(super) fn latencies(&self) -> StageHistograms {
        StageHistograms::clone(&self.total)
    }

    /// Drains every worker's events, and once a second asks for the latencies.
    pub(super) fn take_all(&mut self, plan: &Plan, links: &[WorkerLink], watch: &Watch, now_ns: u64) {
        let ask = now_ns >= self.next_swap_ns;
        if ask {
            // Once a second on average, whenever we are called.
            self.next_swap_ns = (self.next_swap_ns + SECOND_NS).max(now_ns + SECOND_NS / 2);
            self.end_round(watch);
            self.asked = Some((now_ns, utc_ns()));
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
        if !ask && self.spare.iter().all(Option::is_some) {
            self.end_round(watch);
        }
        for (limit, (_, channel)) in self.limits.iter_mut().zip(plan.channels.slots()) {
            let Some(channel) = channel else { continue };
            if let Some(suppressed) = limit.roll(now_ns) {
                tracing::warn!(channel = channel.name, suppressed, "more events than are logged; the metrics have all");
            }
        }
    }

    /// Tells everybody what was recorded until the workers were asked. One that has not answered counts in the next round.
    fn end_round(&mut self, watch: &Watch) {
        if let Some((until_ns, until_utc_ns)) = self.asked.take() {
            watch.tell_round(Round { until_ns, until_utc_ns, total: Arc::clone(&self.total) });
        }
    }

    fn take(&mut self, plan: &Plan, worker: usize, event: Event, watch: &Watch, now_ns: u64) {
        match event {
            Event::Latency(mut full) => {
                Arc::make_mut(&mut self.total).add(&full);
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
                let (Some(name), session) = (name_of(plan, channel), session_text(&session)) else { return };
                if self.limits[channel].allows(now_ns) {
                    log_beginning(&name, &session, first, how);
                }
                let how = beginning_word(how).to_owned();
                watch.tell(What::SessionBegan(SessionBegan { channel: name, session, first, how }));
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

fn log_beginning(channel: &str, session: &str, first: u64, how: Beginning) {
    match how {
        Beginning::New => tracing::info!(channel, session, first, "session begins"),
        Beginning::Late => tracing::warn!(channel, session, first, "session joined late; before is unknown"),
        Beginning::Joined => tracing::info!(channel, session, first, "session joined by a snapshot"),
        Beginning::Restarted => tracing::warn!(channel, session, first, "numbers of the session begin again"),
    }
}

/// As the control service says it.
const fn beginning_word(how: Beginning) -> &'static str {
    match how {
        Beginning::New => "new",
        Beginning::Late => "late",
        Beginning::Joined => "joined",
        Beginning::Restarted => "restarted",
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

    /// Counts lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            super::super::locked(&self.0).extend(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_from_the_wire_is_a_few_lines_in_the_log_and_whole_for_watchers() {
        use crate::config::sample::{DESTINATION, LINE, one_channel};
        let plan = one_channel(LINE, DESTINATION);
        let (mut reported, events) = rtrb::RingBuffer::new(4_096);
        let shared = crate::worker::shared::WorkerShared::new(plan.line_count(), 1, 1, 1);
        let link = WorkerLink {
            index: 0,
            commands: rtrb::RingBuffer::new(8).0.into(),
            events: events.into(),
            shared,
            payload_bytes: vec![],
        };
        let session = *b"\x1b]0;evil\n\n";
        for number in 0..1_000 {
            reported.push(Event::Lost { channel: 0, session, from: number, to: number + 1 }).unwrap();
            reported.push(Event::State { channel: 0, state: number % 6 }).unwrap();
            reported.push(Event::Began { channel: 0, session, first: number, how: Beginning::Restarted }).unwrap();
        }
        let (mut taken, watch, lines) = (Events::new(1, 1), Watch::default(), Lines::default());
        let mut watcher = watch.watch(crate::control::access::places::Door::Local, String::new()).unwrap();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            taken.take_all(&plan, std::slice::from_ref(&link), &watch, 5 * SECOND_NS);
            taken.take_all(&plan, std::slice::from_ref(&link), &watch, 7 * SECOND_NS);
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count() as u64, LOG_LINES + 1, "{text}");
        assert!(text.lines().last().unwrap().contains("suppressed=2990") && !text.contains('\x1b'), "{text}");
        // 1024 of 3000 are kept for a watcher, which is told of the others.
        let missed = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(async { tokio_stream::StreamExt::next(&mut watcher).await.unwrap().unwrap().what });
        assert!(matches!(missed, Some(What::EventsMissed(missed)) if missed.count == 3_000 - 1_024), "{missed:?}");
    }

    #[test]
    fn sessions_lose_their_padding() {
        assert_eq!(session_text(b"0000000042"), "0000000042");
        assert_eq!(session_text(b"        7A"), "7A");
        assert_eq!(session_text(&[0; 10]), "");
        assert_eq!(session_text(b"\x1bcS\n1     "), "?cS?1");
    }
}
