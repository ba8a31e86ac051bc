//! `feedctl top`: a live view of rates, gaps, latencies and drops.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use feedhandler_proto::v1::control_client::ControlClient;
use feedhandler_proto::v1::{DropStatus, GetStatusResponse, WatchStatusRequest};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Row, Table};

use super::{Arguments, EXIT_UNREACHABLE, EXIT_USAGE, Failure, connect, refusal};

/// How often keys are looked for.
const KEYS: Duration = Duration::from_millis(100);
/// How long an answer is waited for between two looks at the keys.
const ANSWER: Duration = Duration::from_millis(5);

/// Two looks at the handler, from which rates come.
struct Looks {
    before: GetStatusResponse,
    now: GetStatusResponse,
    between: Duration,
}

/// Shows until q, Escape or Ctrl-C is pressed.
pub(super) async fn run(arguments: &Arguments, interval: Duration) -> Result<(), Failure> {
    let endpoint = &arguments.endpoint;
    let mut client = ControlClient::new(connect(arguments).await?);
    let refused = |status: tonic::Status| refusal(endpoint, &status);
    let request = WatchStatusRequest { interval_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX) };
    let mut answers = client.watch_status(request).await.map_err(refused)?.into_inner();
    let stopped = || Failure(EXIT_UNREACHABLE, format!("the handler at {endpoint} has stopped"));
    let first = answers.message().await.map_err(refused)?.ok_or_else(stopped)?;
    let mut looks = Looks { before: first.clone(), now: first, between: interval };
    let no_terminal = |error| Failure(EXIT_USAGE, format!("top needs a terminal ({error}); `feedctl status` does not"));
    let mut terminal = ratatui::try_init().map_err(no_terminal)?;
    let mut looked = Instant::now();
    let ended = loop {
        if let Err(error) = terminal.draw(|frame| draw(frame, &looks)) {
            break Err(no_terminal(error));
        }
        match is_over(KEYS.min(interval)) {
            Ok(false) => {}
            Ok(true) => break Ok(()),
            Err(error) => break Err(no_terminal(error)),
        }
        // An error says that there is no answer yet: keys are looked at meanwhile.
        let Ok(answer) = tokio::time::timeout(ANSWER, answers.message()).await else { continue };
        match answer.map_err(refused).and_then(|answer| answer.ok_or_else(stopped)) {
            Ok(now) => looks = Looks { before: looks.now, now, between: looked.elapsed() },
            Err(failure) => break Err(failure),
        }
        looked = Instant::now();
    };
    ratatui::restore();
    ended
}

fn is_over(patience: Duration) -> std::io::Result<bool> {
    if !event::poll(patience)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else { return Ok(false) };
    let interrupts = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    Ok(interrupts || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

impl Looks {
    /// Per second.
    fn rate(&self, before: Option<u64>, now: u64) -> String {
        let more = now.saturating_sub(before.unwrap_or(now));
        count(more as f64 / self.between.as_secs_f64().max(1e-3))
    }
}

/// A number of at most three digits and its unit.
fn count(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn microseconds(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1e3)
}

fn draw(frame: &mut Frame<'_>, looks: &Looks) {
    let now = &looks.now;
    let lines = now.channels.iter().map(|channel| channel.lines.len()).sum::<usize>();
    let drops = drops(looks);
    let height = |rows: usize| Constraint::Length(u16::try_from(rows + 2).unwrap_or(u16::MAX));
    let areas = Layout::vertical([
        Constraint::Length(u16::try_from(1 + now.not_ready_reasons.len()).unwrap_or(9).min(9)),
        height(now.channels.len()),
        height(lines),
        height(now.destinations.len()),
        height(now.latencies.len()),
        height(drops.len()),
        Constraint::Min(0),
    ])
    .split(frame.area());
    frame.render_widget(ratatui::widgets::Paragraph::new(header(now)), areas[0]);
    channels(frame, areas[1], looks);
    self::lines(frame, areas[2], looks);
    destinations(frame, areas[3], looks);
    latencies(frame, areas[4], now);
    table(frame, areas[5], ["drops", "reason", "packets/s", "packets", "", "", "", ""], drops);
    frame.render_widget(Line::from("q ends").dim(), areas[6]);
}

fn header(now: &GetStatusResponse) -> Vec<Line<'static>> {
    let ready = if now.ready { "READY".green().bold() } else { "NOT READY".red().bold() };
    let up = Duration::from_secs(now.uptime_ms / 1000);
    let first = Line::from(vec![
        Span::from(format!("{}  version {}  up {up:?}  ", now.name, now.version)),
        ready,
        Span::from(now.interfaces.iter().fold(String::new(), |text, interface| {
            format!("{text}  {} {} {}", interface.name, interface.mode_in_force, interface.fault)
        })),
    ]);
    let reasons = now.not_ready_reasons.iter().map(|reason| Line::from(format!("  {reason}")).red());
    std::iter::once(first).chain(reasons).collect()
}

fn table(frame: &mut Frame<'_>, area: Rect, names: [&str; 8], rows: impl IntoIterator<Item = Row<'static>>) {
    let mut widths = [Constraint::Length(12); 8];
    (widths[0], widths[1]) = (Constraint::Length(26), Constraint::Length(20));
    let header = Row::new(names.map(ToOwned::to_owned)).style(Style::new().bold());
    frame.render_widget(Table::new(rows, widths).header(header).block(Block::new().borders(Borders::TOP)), area);
}

fn channels(frame: &mut Frame<'_>, area: Rect, looks: &Looks) {
    let rows = looks.now.channels.iter().map(|channel| {
        let before = looks.before.channels.iter().find(|before| before.name == channel.name);
        let color = match channel.state().word() {
            "live" | "ended" => Color::Green,
            "stale" => Color::Red,
            _ => Color::Yellow,
        };
        Row::new([
            channel.name.clone(),
            format!("{} {}", channel.state().word(), channel.session),
            looks.rate(before.map(|before| before.messages), channel.messages),
            channel.next_sequence.to_string(),
            channel.gaps_opened.to_string(),
            channel.gaps_lost.to_string(),
            channel.messages_lost.to_string(),
            count(channel.orders_live as f64),
        ])
        .style(Style::new().fg(color))
    });
    let names = ["channel", "state, session", "messages/s", "next", "gaps", "gaps lost", "msgs lost", "orders"];
    table(frame, area, names, rows);
}

fn lines(frame: &mut Frame<'_>, area: Rect, looks: &Looks) {
    let before = |channel: &str, name: &str| {
        let channel = looks.before.channels.iter().find(|before| before.name == channel)?;
        channel.lines.iter().find(|line| line.group.as_ref().is_some_and(|group| group.line == name))
    };
    let lines = looks.now.channels.iter().flat_map(|channel| &channel.lines);
    let rows = lines.filter_map(|line| {
        let group = line.group.as_ref()?;
        let before = before(&group.channel, &group.line);
        let row = Row::new([
            format!("{} {}", group.channel, group.line),
            group.group.clone(),
            looks.rate(before.map(|before| before.packets), line.packets),
            looks.rate(before.map(|before| before.first), line.first),
            looks.rate(before.map(|before| before.duplicate), line.duplicate),
            line.malformed.to_string(),
            line.last_seen_age_ns.map_or_else(|| "never".to_owned(), |age_ns| format!("{} ms", age_ns / 1_000_000)),
            if group.in_force { "yes" } else { "no" }.to_owned(),
        ]);
        Some(if group.desired && !group.in_force { row.red() } else { row })
    });
    let names = ["line", "group", "packets/s", "first/s", "duplicate/s", "malformed", "last seen", "in force"];
    table(frame, area, names, rows);
}

fn destinations(frame: &mut Frame<'_>, area: Rect, looks: &Looks) {
    let rows = looks.now.destinations.iter().map(|to| {
        let before = looks.before.destinations.iter().find(|before| before.name == to.name);
        Row::new([
            to.name.clone(),
            to.group.clone(),
            looks.rate(before.map(|before| before.packets), to.packets),
            looks.rate(before.map(|before| before.blocks), to.blocks),
            looks.rate(before.map(|before| before.records), to.records),
            looks.rate(before.map(|before| before.bytes), to.bytes),
        ])
    });
    let names = ["destination", "group", "packets/s", "blocks/s", "records/s", "bytes/s", "", ""];
    table(frame, area, names, rows);
}

fn latencies(frame: &mut Frame<'_>, area: Rect, now: &GetStatusResponse) {
    let rows = now.latencies.iter().map(|stage| {
        Row::new([
            stage.stage.clone(),
            count(stage.count as f64),
            microseconds(stage.p50_ns),
            microseconds(stage.p90_ns),
            microseconds(stage.p99_ns),
            microseconds(stage.p999_ns),
            microseconds(stage.p9999_ns),
            microseconds(stage.max_ns),
        ])
    });
    table(frame, area, ["latency, µs, since start", "values", "p50", "p90", "p99", "p99.9", "p99.99", "max"], rows);
}

/// Drops that lose data, wherever they are counted.
fn drops(looks: &Looks) -> Vec<Row<'static>> {
    let of = |status: &GetStatusResponse| -> Vec<(String, DropStatus)> {
        let lines = status.channels.iter().flat_map(|channel| &channel.lines).flat_map(|line| {
            let name = line.group.as_ref().map(|group| format!("{} {}", group.channel, group.line)).unwrap_or_default();
            line.drops.iter().map(move |drop| (name.clone(), drop.clone()))
        });
        let ports = status.workers.iter().flat_map(|worker| &worker.ports).flat_map(|port| {
            let name = format!("{} {} {}", port.interface, port.queue, port.direction);
            port.drops.iter().map(move |drop| (name.clone(), drop.clone()))
        });
        let destinations =
            status.destinations.iter().flat_map(|to| to.drops.iter().map(|drop| (to.name.clone(), drop.clone())));
        let unmatched = status.unmatched_drops.iter().map(|drop| ("no line".to_owned(), drop.clone()));
        lines.chain(ports).chain(destinations).chain(unmatched).filter(|(_, drop)| !drop.benign).collect()
    };
    let before = of(&looks.before);
    let rows = of(&looks.now).into_iter().map(|(name, drop)| {
        let was = before.iter().find(|(at, was)| *at == name && was.reason == drop.reason);
        // A reason that is new has begun from nothing.
        let rate = looks.rate(Some(was.map_or(0, |(_, was)| was.packets)), drop.packets);
        Row::new([name, drop.reason, rate, drop.packets.to_string()]).style(Style::new().fg(Color::Yellow))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use feedhandler_proto::v1::{ChannelState, ChannelStatus, Group, LineStatus};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn status(messages: u64, dropped: u64) -> GetStatusResponse {
        let group = Group { channel: "itch/eq".into(), line: "A".into(), desired: true, ..Group::default() };
        let drops = vec![DropStatus { reason: "no_frame".into(), packets: dropped, benign: false }];
        let line = LineStatus { group: Some(group), packets: messages / 10, drops, ..LineStatus::default() };
        let channel = ChannelStatus { name: "itch/eq".into(), messages, lines: vec![line], ..ChannelStatus::default() };
        let state = ChannelState::Gap.into();
        GetStatusResponse {
            name: "host-1".into(),
            not_ready_reasons: vec!["worker `w0` is not running".into()],
            channels: vec![ChannelStatus { state, ..channel }],
            ..GetStatusResponse::default()
        }
    }

    #[test]
    fn rates_are_of_the_last_interval_and_losses_are_seen() {
        let looks = Looks { before: status(1_000, 0), now: status(51_000, 8), between: Duration::from_secs(2) };
        let mut terminal = Terminal::new(TestBackend::new(130, 30)).unwrap();
        terminal.draw(|frame| draw(frame, &looks)).unwrap();
        let screen = terminal.backend().to_string();
        for shown in
            ["host-1", "NOT READY", "worker `w0` is not running", "itch/eq", "gap", "25.0 k", "2500", "no_frame"]
        {
            assert!(screen.contains(shown), "{shown} is not on\n{screen}");
        }
        let drop = screen.lines().find(|line| line.contains("no_frame")).unwrap();
        assert_eq!(drop.split_whitespace().filter(|word| matches!(*word, "4" | "8")).count(), 2, "{drop}");
        // A terminal that is far too small is no reason to fall over.
        Terminal::new(TestBackend::new(10, 3)).unwrap().draw(|frame| draw(frame, &looks)).unwrap();
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 9_999.4, 12_345.0, 2_500_000.0].map(count), ["0", "9999", "12.3 k", "2.50 M"]);
    }
}
