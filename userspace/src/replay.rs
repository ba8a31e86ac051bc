//! Capture files through the very same channel code as live traffic, and what came of it as a report.
#![forbid(unsafe_code)]

mod books;
mod report;
mod tally;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::app::build;
use crate::config::plan::{Plan, StartAt, TransportKind};
use crate::feed::{Channel, ChannelError, LineRole};
use crate::net::LineIndex;
use crate::net::capture::{CaptureError, CaptureReader};
use tally::Tally;
use tracing::warn;
use xdp_ebpf::{GroupKey, headers};

pub use report::{BestPrices, ChannelReport, FileReport, LineReport, Report};

/// Why a replay could not be done. Broken packets, and files that are damaged further on, are never among the reasons:
/// they are counted and reported.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file could not be opened, or is damaged or no capture from its beginning on.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A channel could not be built from the plan.
    #[error("channel {name}: {source}")]
    Channel {
        /// Its name in the plan.
        name: String,
        /// What is wrong.
        source: ChannelError,
    },
    /// The plan's time zone or date is out of range.
    #[error(transparent)]
    Time(#[from] build::BuildError),
}

/// One channel under replay.
struct Lane {
    channel: Channel,
    tally: Tally,
}

/// Replays files, merged by their packets' times, through the plan's channels.
///
/// A packet belongs to the line with its group, port and VLAN; the interface it was captured on does not matter.
/// Deadlines run on the capture's own clock. After the last packet every gap still open is given up.
///
/// A file that is damaged somewhere is read up to there; the report and the log say where and why, and the other files go
/// on.
///
/// # Errors
/// A file of which nothing can be read because it is no capture, or a plan whose channels cannot be built.
pub fn replay(plan: &Plan, files: &[PathBuf]) -> Result<Report, ReplayError> {
    let mut sources = files.iter().map(|file| Source::open(file.clone())).collect::<Result<Vec<_>, _>>()?;
    let first_ns = sources.iter().filter_map(|source| source.next_ns).min().unwrap_or_default();
    let mut replay = Replay::new(plan, first_ns)?;
    // A merge over a handful of files: a linear scan per packet is cheaper than a heap.
    while let Some(source) = sources.iter_mut().filter(|s| s.next_ns.is_some()).min_by_key(|s| s.next_ns) {
        replay.packet(source.next_ns.unwrap_or_default(), &source.frame);
        if let Err(damage) = source.advance() {
            warn!("{damage}: the rest of this file is left out");
            source.damage = Some(damage.to_string());
        }
    }
    replay.finish();
    let files = files.iter().zip(&sources).map(|(path, source)| FileReport {
        path: path.display().to_string(),
        frames: source.frames,
        skipped_not_ethernet: source.capture.skipped_count(),
        damage: source.damage.clone(),
    });
    Ok(report::build(plan, &replay, files.collect()))
}

/// One file, with its next packet read ahead.
struct Source {
    capture: CaptureReader,
    next_ns: Option<u64>,
    frame: Vec<u8>,
    /// Frames read so far.
    frames: u64,
    /// Why the file was left before its end.
    damage: Option<String>,
}

impl Source {
    fn open(path: PathBuf) -> Result<Self, CaptureError> {
        let capture = CaptureReader::open(&path)?;
        let mut source = Self { capture, next_ns: None, frame: Vec::new(), frames: 0, damage: None };
        source.advance()?;
        Ok(source)
    }

    fn advance(&mut self) -> Result<(), CaptureError> {
        self.next_ns = None;
        if let Some(packet) = self.capture.next_frame()? {
            self.next_ns = Some(packet.utc_ns);
            self.frames += 1;
            self.frame.clear();
            self.frame.extend_from_slice(packet.frame);
        }
        Ok(())
    }
}

struct Replay {
    lines: HashMap<GroupKey, LineIndex>,
    /// Lines of one group may differ by their source alone. A source that no line names is not refused: a capture may come
    /// from another place than the feed.
    lines_by_source: HashMap<(GroupKey, [u8; 4]), LineIndex>,
    roles: Vec<(usize, LineRole)>,
    transports: Vec<TransportKind>,
    lanes: Vec<Lane>,
    line_tallies: Vec<tally::LineTally>,
    frames: u64,
    not_for_us: u64,
    /// Frames that are no whole multicast datagram, by the parser's verdict.
    no_datagram: BTreeMap<&'static str, u64>,
    newest_ns: u64,
}

impl Replay {
    fn new(plan: &Plan, utc_ns: u64) -> Result<Self, ReplayError> {
        let mut lanes = Vec::new();
        for (index, channel_plan) in plan.channels.iter() {
            let mut settings = build::channel_settings(plan, index, utc_ns)?;
            // Nobody has a snapshot of a capture's time.
            if let StartAt::Snapshot { .. } = settings.start {
                settings.start = StartAt::Now;
            }
            let channel = Channel::new(settings)
                .map_err(|source| ReplayError::Channel { name: channel_plan.name.clone(), source })?;
            lanes.push(Lane { channel, tally: Tally::default() });
        }
        let numbered = || plan.numbered_lines().map(|(index, line)| (line.key_on_the_wire(), line.source, index));
        let lines = numbered().map(|(key, _, index)| (key, index)).collect();
        let with_source = numbered().filter_map(|(key, source, index)| Some(((key, source?.octets()), index)));
        let lines_by_source = with_source.collect();
        let line_tallies = plan.lines.values().map(|_| tally::LineTally::default()).collect();
        let roles = plan.lines.values().map(|line| (line.channel, build::line_role(line))).collect();
        let transports = plan.channels.values().map(|channel| channel.transport).collect();
        Ok(Self {
            lines,
            lines_by_source,
            roles,
            transports,
            lanes,
            line_tallies,
            frames: 0,
            not_for_us: 0,
            no_datagram: BTreeMap::new(),
            newest_ns: 0,
        })
    }

    fn packet(&mut self, utc_ns: u64, frame: &[u8]) {
        self.frames += 1;
        // A capture's clock may step back (two ports, one file); deadlines must not.
        self.newest_ns = self.newest_ns.max(utc_ns);
        let parsed = match headers::parse(frame) {
            Ok(parsed) => parsed,
            // Among them what the snap length cut: its verdict is `pass_truncated`.
            Err(verdict) => {
                *self.no_datagram.entry(verdict.label()).or_default() += 1;
                return;
            }
        };
        let by_source = self.lines_by_source.get(&(parsed.key, parsed.source_ip));
        let Some(&line) = by_source.or_else(|| self.lines.get(&parsed.key)) else {
            self.not_for_us += 1;
            return;
        };
        let start = usize::from(parsed.payload_offset);
        // The parser has seen that the frame holds it.
        let payload = &frame[start..start + usize::from(parsed.payload_len)];
        let (channel, role) = self.roles[usize::from(line)];
        self.line_tallies[usize::from(line)].packet(self.transports[channel], payload);
        for lane in &mut self.lanes {
            lane.channel.poll(self.newest_ns);
        }
        let lane = &mut self.lanes[channel];
        // What it refuses it counts, by line and reason.
        let _ = lane.channel.admit(0, role, payload, utc_ns);
        for lane in &mut self.lanes {
            lane.channel.deliver(|_| payload, 0, &mut lane.tally);
        }
    }

    /// Gives up every gap that is still open: each step passes all deadlines, and what was held behind a gap may show the
    /// next one.
    fn finish(&mut self) {
        for lane in &mut self.lanes {
            let mut now_ns = self.newest_ns;
            loop {
                now_ns += DAY_NS;
                lane.channel.poll(now_ns);
                lane.channel.deliver(|_| unreachable!("no packet in hand"), 0, &mut lane.tally);
                if lane.channel.gap().is_none() {
                    break;
                }
            }
        }
    }
}

/// Longer than any deadline.
const DAY_NS: u64 = 86_400_000_000_000;

#[cfg(test)]
mod tests;
