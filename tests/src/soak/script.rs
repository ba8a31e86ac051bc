//! What will happen, drawn from the seed before anything does.
#![forbid(unsafe_code)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Options;
use crate::day::DaySettings;
use crate::demo::TroubleKind;
use crate::exchange::ExchangeSettings;
use crate::line::LineSettings;
use crate::retransmission::{Manner, ServerSettings};
use crate::testbed::Mode;

/// Fewest messages per second: what waits for messages must not wait long.
const LEAST_RATE: f64 = 3_000.0;

/// Most of a session that the handler is started again in: it has to catch up with it.
const RESTART_RATE: f64 = 8_000.0;

/// A server that did not answer is left alone for a while. Nothing is lost until it is asked again.
const LONG_LEAD_NS: u64 = 1_500_000_000;

/// Something that happens during a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Event {
    /// Line A is switched off by gRPC and on again; B loses nothing meanwhile.
    Toggle { off_ms: u64 },
    /// Both lines are switched off.
    Blackout { off_ms: u64 },
    /// Something of the network breaks, line A's mostly.
    Trouble(TroubleKind),
    /// The handler stands still.
    Pause { ms: u64 },
    /// The handler ends (or is killed) and is started again.
    Restart { kill: bool },
}

impl Event {
    /// As one word.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Toggle { off_ms } => format!("toggle {off_ms} ms"),
            Self::Blackout { off_ms } => format!("blackout {off_ms} ms"),
            Self::Trouble(kind) => format!("{kind:?}").to_lowercase(),
            Self::Pause { ms } => format!("pause {ms} ms"),
            Self::Restart { kill: false } => "restart".to_owned(),
            Self::Restart { kill: true } => "kill -9".to_owned(),
        }
    }
}

/// One session.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) day: DaySettings,
    pub(super) exchange: ExchangeSettings,
    /// One per line's network.
    pub(super) servers: [ServerSettings; 2],
    /// Whether one of them answers as it should.
    pub(super) is_served: bool,
    /// Share of the session at which each begins, ascending.
    pub(super) events: Vec<(f64, Event)>,
}

impl Round {
    pub(super) fn seconds(&self) -> f64 {
        self.day.messages as f64 / self.exchange.rate
    }
}

/// All sessions.
pub(super) fn script(options: &Options) -> Vec<Round> {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let (mut rounds, mut seconds) = (Vec::<Round>::new(), 0.0);
    while seconds < options.minutes * 60.0 || rounds.len() < 2 {
        let was_silent = rounds.last().is_some_and(|round| !round.is_served);
        let round = round(&mut rng, options, rounds.len() as u64 + 1, was_silent);
        seconds += round.seconds();
        rounds.push(round);
    }
    rounds
}

fn round(rng: &mut ChaCha8Rng, options: &Options, number: u64, was_silent: bool) -> Round {
    // The first two show both: everything recovered, with a new start; and what no line carried declared.
    let is_served = match number {
        1 => true,
        2 => false,
        _ => rng.random_bool(0.7),
    };
    let restarts = is_served && (number == 1 || rng.random_bool(0.3));
    let most = if restarts { RESTART_RATE } else { options.most_rate as f64 }.min(options.most_rate as f64);
    // Evenly among magnitudes.
    let rate = rng.random_range(LEAST_RATE.ln()..=most.ln()).exp();
    let messages = (rate * rng.random_range(6.0..14.0_f64.min(options.minutes * 40.0).max(6.5))) as u64;
    let day = DaySettings {
        seed: rng.random(),
        messages,
        instruments: rng.random_range(20..500),
        live_orders: rng.random_range(500..20_000),
        recency: 0.6,
    };
    let mut session = *b"SOAK000000";
    let digits = format!("{number:06}");
    session[4..].copy_from_slice(&digits.as_bytes()[..6]);
    let exchange = ExchangeSettings {
        seed: rng.random(),
        session,
        rate,
        packet_messages: rng.random_range(2..60),
        packet_ns: 500_000,
        lead_ns: if was_silent { LONG_LEAD_NS } else { ExchangeSettings::default().lead_ns },
        // Not all say that they end.
        end_count: if rng.random_bool(0.7) { 5 } else { 0 },
        common_loss: if rng.random_bool(0.6) { rng.random_range(0.0..0.0005) } else { 0.0 },
        lines: [line(rng), line(rng)],
        ..ExchangeSettings::default()
    };
    let servers = servers(rng, &exchange, is_served, restarts);
    Round { day, exchange, servers, is_served, events: events(rng, options.mode, is_served, restarts) }
}

fn line(rng: &mut ChaCha8Rng) -> LineSettings {
    LineSettings {
        loss: rng.random_range(0.0..0.05),
        loss_burst: rng.random_range(1.0..8.0),
        duplicate: rng.random_range(0.0..0.03),
        reorder: rng.random_range(0.0..0.03),
        reorder_ns: rng.random_range(1..2_000_000),
        skew_ns: rng.random_range(0..2_000_000),
        jitter_ns: rng.random_range(0..50_000),
        corrupt: rng.random_range(0.0..0.005),
    }
}

fn servers(rng: &mut ChaCha8Rng, exchange: &ExchangeSettings, is_served: bool, restarts: bool) -> [ServerSettings; 2] {
    let base = ServerSettings { session: exchange.session, ..ServerSettings::default() };
    let mut honest = || ServerSettings {
        seed: rng.random(),
        loss: if restarts { 0.0 } else { rng.random_range(0.0..0.05) },
        duplicate: rng.random_range(0.0..0.05),
        most_messages: if restarts { u16::MAX } else { rng.random_range(4..80) },
        ..base.clone()
    };
    let (first, second) = (honest(), honest());
    if !is_served {
        return [(); 2].map(|()| ServerSettings { manner: Manner::Silent, ..base.clone() });
    }
    if rng.random_bool(0.3) {
        let manner = Manner::HOSTILE[rng.random_range(0..Manner::HOSTILE.len())];
        return [ServerSettings { manner, ..first }, second];
    }
    [first, second]
}

fn events(rng: &mut ChaCha8Rng, mode: Mode, is_served: bool, restarts: bool) -> Vec<(f64, Event)> {
    let mut events = Vec::new();
    if restarts {
        events.push((rng.random_range(0.2..0.35), Event::Restart { kill: rng.random() }));
    }
    let mut at = if restarts { 0.5 } else { 0.15 };
    while at < 0.7 && events.len() < 3 {
        let event = match rng.random_range(0..10) {
            0 | 1 => Event::Toggle { off_ms: rng.random_range(100..600) },
            2 | 3 if is_served => Event::Blackout { off_ms: rng.random_range(20..150) },
            4 | 5 if is_served => Event::Pause { ms: rng.random_range(20..150) },
            6 => Event::Trouble(TroubleKind::LinkDown),
            7 => Event::Trouble(TroubleKind::LinkDeleted),
            // There is no program on the interface of a kernel socket.
            8 if mode != Mode::Socket => Event::Trouble(TroubleKind::Detached),
            9 if mode != Mode::Socket => Event::Trouble(TroubleKind::Starved),
            _ => Event::Toggle { off_ms: 200 },
        };
        events.push((at, event));
        at += rng.random_range(0.2..0.5);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn a_seed_is_a_script_and_every_event_has_its_place() {
        let script_of = |seed: &str| {
            let options = ["soak", "--minutes", "60", "--seed", seed];
            script(&Options::parse_from(options))
        };
        let (first, again, other) = (script_of("5"), script_of("5"), script_of("6"));
        let text = |rounds: &[Round]| format!("{rounds:?}");
        assert_eq!(text(&first), text(&again));
        assert_ne!(text(&first), text(&other));
        assert!((250..650).contains(&first.len()), "{} sessions of an hour", first.len());
        let mut words: Vec<String> = first.iter().flat_map(|round| &round.events).map(|(_, e)| e.word()).collect();
        words.iter_mut().for_each(|word| word.retain(|c| c.is_ascii_lowercase()));
        words.sort();
        words.dedup();
        let all =
            ["blackoutms", "detached", "kill", "linkdeleted", "linkdown", "pausems", "restart", "starved", "togglems"];
        assert_eq!(words, all);
        for round in &first {
            let needs_server =
                |event: &Event| matches!(event, Event::Blackout { .. } | Event::Pause { .. } | Event::Restart { .. });
            assert!(round.is_served || !round.events.iter().any(|(_, event)| needs_server(event)), "{round:?}");
            assert!(round.events.iter().all(|(at, _)| (0.1..0.75).contains(at)), "{round:?}");
        }
    }
}
