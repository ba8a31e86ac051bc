//! One loaded instance of `feed_filter` and its maps.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;

use aya::maps::{Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use xdp_ebpf::{GroupKey, GroupRule, LineStats, MAX_LINES, MAX_QUEUES, Verdict};

use super::rules::RuleMaps;
use super::trial::{TestRun, Trial, Trials};
use super::{SteeringError, probe};
use crate::config::plan::Unsubscribed;

/// Compiled by build.rs. Aligned, because the ELF reader looks at it in place.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/feed_filter"));

/// Name of the program, in the object and in the kernel.
pub const PROGRAM: &str = "feed_filter";

/// The same for packets over several buffers. All our programs' names begin with [`PROGRAM`].
const PROGRAM_SG: &str = "feed_filter_sg";

/// What an instance of the program is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterSettings {
    /// Marks its stamps ([`xdp_ebpf::FrameMeta::cookie`]); give every instance another one.
    pub cookie: u16,
    /// What becomes of multicast that no rule takes.
    pub unsubscribed: Unsubscribed,
    /// Whether packets may lie in several buffers (multi-buffer XDP).
    pub multi_buffer: bool,
}

/// With that cookie, everything passes that no rule takes, and each packet lies in one buffer.
impl From<u16> for FilterSettings {
    fn from(cookie: u16) -> Self {
        Self { cookie, unsubscribed: Unsubscribed::Pass, multi_buffer: false }
    }
}

/// A loaded program. Not attached to anything: [`Steering`](super::Steering) does that.
///
/// Rules and counters cross to the kernel as plain bytes and words, whose layout xdp-ebpf defines.
pub struct Filter {
    ebpf: Ebpf,
    /// Which of the object's programs is loaded.
    name: &'static str,
    rules: RuleMaps,
    sockets: XskMap<MapData>,
    verdicts: PerCpuArray<MapData, u64>,
    line_stats: PerCpuArray<MapData, [u64; 3]>,
}

// By hand: aya's maps have no Debug.
impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("program", &self.program()).finish_non_exhaustive()
    }
}

impl Filter {
    /// Loads a new instance with its own maps.
    ///
    /// # Errors
    /// Missing capabilities, or the kernel's refusal of a map or of the program.
    pub fn load(settings: impl Into<FilterSettings>) -> Result<Self, SteeringError> {
        let FilterSettings { cookie, unsubscribed, multi_buffer } = settings.into();
        probe::check_capabilities()?;
        let drops = u8::from(unsubscribed == Unsubscribed::Drop);
        let mut ebpf = EbpfLoader::new()
            .override_global("COOKIE", &cookie, true)
            .override_global("DROP_UNSUBSCRIBED", &drops, true)
            .load(OBJECT)?;
        let rules = RuleMaps::take(&mut ebpf)?;
        let sockets = take(&mut ebpf, "XSKS")?;
        let verdicts = take(&mut ebpf, "VERDICTS")?;
        let line_stats = take(&mut ebpf, "LINE_STATS")?;
        let name = if multi_buffer { PROGRAM_SG } else { PROGRAM };
        let mut filter = Self { ebpf, name, rules, sockets, verdicts, line_stats };
        filter.program_mut()?.load()?;
        Ok(filter)
    }

    pub(super) fn program(&self) -> Result<&Xdp, SteeringError> {
        let program = self.ebpf.program(self.name).ok_or(SteeringError::BadObject { what: self.name })?;
        Ok(program.try_into()?)
    }

    pub(super) fn program_mut(&mut self) -> Result<&mut Xdp, SteeringError> {
        let program = self.ebpf.program_mut(self.name).ok_or(SteeringError::BadObject { what: self.name })?;
        Ok(program.try_into()?)
    }

    /// See [`Steering::program_id`](super::Steering::program_id).
    ///
    /// # Errors
    /// The kernel's.
    pub fn program_id(&self) -> Result<u32, SteeringError> {
        Ok(self.program()?.info()?.id())
    }

    /// See [`Steering::set_socket`](super::Steering::set_socket).
    ///
    /// # Errors
    /// [`SteeringError::QueueOutOfRange`], or the kernel's.
    pub fn set_socket(&mut self, queue: u32, socket: impl AsRawFd) -> Result<(), SteeringError> {
        check_queue(queue)?;
        self.sockets.set(queue, socket, 0).map_err(map_error("cannot put the AF_XDP socket into the program's map"))
    }

    /// Lets matching frames of a receive queue pass to the kernel's stack again. Clearing an empty slot is fine.
    ///
    /// # Errors
    /// [`SteeringError::QueueOutOfRange`], or the kernel's.
    pub fn clear_socket(&mut self, queue: u32) -> Result<(), SteeringError> {
        check_queue(queue)?;
        match self.sockets.unset(queue) {
            Err(error) if !is_absent(&error) => Err(map_error("cannot clear the program's socket map")(error)),
            _ => Ok(()),
        }
    }

    /// See [`Steering::insert_rule`](super::Steering::insert_rule).
    ///
    /// # Errors
    /// [`SteeringError::LineOutOfRange`], [`SteeringError::RulesFull`], or the kernel's.
    pub fn insert_rule(&mut self, key: GroupKey, rule: GroupRule) -> Result<(), SteeringError> {
        check_line(rule.line)?;
        self.rules.insert(key, rule)
    }

    /// See [`Steering::remove_rule`](super::Steering::remove_rule).
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_rule(&mut self, key: &GroupKey, source_ip: [u8; 4]) -> Result<bool, SteeringError> {
        self.rules.remove(*key, source_ip)
    }

    /// See [`Steering::verdicts`](super::Steering::verdicts).
    ///
    /// # Errors
    /// The kernel's.
    pub fn verdicts(&self) -> Result<[u64; Verdict::COUNT], SteeringError> {
        let mut counts = [0; Verdict::COUNT];
        for (index, count) in (0..).zip(&mut counts) {
            let per_cpu = self.verdicts.get(&index, 0).map_err(map_error("cannot read the verdict counters"))?;
            *count = per_cpu.iter().sum();
        }
        Ok(counts)
    }

    /// See [`Steering::line_stats`](super::Steering::line_stats).
    ///
    /// # Errors
    /// [`SteeringError::LineOutOfRange`], or the kernel's.
    pub fn line_stats(&self, line: u16) -> Result<LineStats, SteeringError> {
        check_line(line)?;
        let per_cpu = self.line_stats.get(&u32::from(line), 0).map_err(map_error("cannot read the line counters"))?;
        Ok(per_cpu.iter().fold(LineStats::default(), |sum, &[packets, bytes, last_seen_ns]| LineStats {
            packets: sum.packets + packets,
            bytes: sum.bytes + bytes,
            last_seen_ns: sum.last_seen_ns.max(last_seen_ns),
        }))
    }

    /// Runs the program once on a frame; see [`Trials::run`].
    ///
    /// # Errors
    /// As there.
    pub fn test_run(&self, frame: &[u8]) -> Result<TestRun, SteeringError> {
        let mut trials = self.trials()?;
        let Trial { action, meta, frame } = trials.run(frame)?;
        Ok(TestRun { action, meta, frame: frame.to_owned() })
    }

    /// For running the program on many frames.
    ///
    /// # Errors
    /// [`SteeringError::BadObject`].
    pub fn trials(&self) -> Result<Trials<'_>, SteeringError> {
        self.program().map(Trials::new)
    }
}

pub(super) fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, SteeringError> {
    let map = ebpf.take_map(name).ok_or(SteeringError::BadObject { what: name })?;
    map.try_into().map_err(map_error(name))
}

fn check_queue(queue: u32) -> Result<(), SteeringError> {
    if queue < MAX_QUEUES { Ok(()) } else { Err(SteeringError::QueueOutOfRange { queue }) }
}

fn check_line(line: u16) -> Result<(), SteeringError> {
    if u32::from(line) < MAX_LINES { Ok(()) } else { Err(SteeringError::LineOutOfRange { line }) }
}

pub(super) fn map_error(operation: &'static str) -> impl Fn(MapError) -> SteeringError {
    move |source| SteeringError::Map { operation, source }
}

pub(super) fn error_number(error: &MapError) -> Option<rustix::io::Errno> {
    match error {
        MapError::SyscallError(error) => rustix::io::Errno::from_io_error(&error.io_error),
        _ => None,
    }
}

pub(super) fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || error_number(error) == Some(rustix::io::Errno::NOENT)
}
