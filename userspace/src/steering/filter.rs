//! One loaded instance of `feed_filter` and its maps.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use xdp_ebpf::{FrameMeta, GroupKey, GroupRule, LineStats, MAX_LINES, MAX_QUEUES, Verdict};

use super::{SteeringError, probe};

/// Compiled by build.rs. Aligned, because the ELF reader looks at it in place.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/feed_filter"));

/// Name of the program, in the object and in the kernel.
pub const PROGRAM: &str = "feed_filter";

/// Action `XDP_PASS`: on to the kernel's network stack.
pub const XDP_PASS: u32 = 2;
/// Action `XDP_REDIRECT`: to the AF_XDP socket.
pub const XDP_REDIRECT: u32 = 4;

/// What the program did with one frame in a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// XDP action: [`XDP_PASS`] or [`XDP_REDIRECT`].
    pub action: u32,
    /// The stamp that was written in front of the frame, if one was.
    pub meta: Option<FrameMeta>,
    /// The frame after the run.
    pub frame: Vec<u8>,
}

/// A loaded program. Not attached to anything: [`Steering`](super::Steering) does that.
///
/// Rules and counters cross to the kernel as plain bytes and words, whose layout xdp-ebpf defines.
pub struct Filter {
    ebpf: Ebpf,
    rules: HashMap<MapData, [u8; 8], [u8; 8]>,
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
    /// Loads a new instance with its own maps; `cookie` goes into its stamps.
    ///
    /// # Errors
    /// Missing capabilities, or the kernel's refusal of a map or of the program.
    pub fn load(cookie: u16) -> Result<Self, SteeringError> {
        probe::check_capabilities()?;
        let mut ebpf = EbpfLoader::new().override_global("COOKIE", &cookie, true).load(OBJECT)?;
        let rules = take(&mut ebpf, "RULES")?;
        let sockets = take(&mut ebpf, "XSKS")?;
        let verdicts = take(&mut ebpf, "VERDICTS")?;
        let line_stats = take(&mut ebpf, "LINE_STATS")?;
        let mut filter = Self { ebpf, rules, sockets, verdicts, line_stats };
        filter.program_mut()?.load()?;
        Ok(filter)
    }

    pub(super) fn program(&self) -> Result<&Xdp, SteeringError> {
        let program = self.ebpf.program(PROGRAM).ok_or(SteeringError::BadObject { what: PROGRAM })?;
        Ok(program.try_into()?)
    }

    pub(super) fn program_mut(&mut self) -> Result<&mut Xdp, SteeringError> {
        let program = self.ebpf.program_mut(PROGRAM).ok_or(SteeringError::BadObject { what: PROGRAM })?;
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

    /// See [`Steering::clear_socket`](super::Steering::clear_socket).
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
        self.rules.insert(key.to_bytes(), rule.to_bytes(), 0).map_err(|error| match error_number(&error) {
            Some(rustix::io::Errno::TOOBIG | rustix::io::Errno::NOMEM) => SteeringError::RulesFull,
            _ => map_error("cannot write the group rule")(error),
        })
    }

    /// See [`Steering::remove_rule`](super::Steering::remove_rule).
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_rule(&mut self, key: &GroupKey) -> Result<bool, SteeringError> {
        match self.rules.remove(&key.to_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(map_error("cannot remove the group rule")(error)),
        }
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

    /// Runs the program once on a frame (BPF_PROG_TEST_RUN), as if it had come in on queue 0; the counters count it.
    /// Nothing is delivered, even when the action is redirect.
    ///
    /// # Errors
    /// The kernel's: it takes frames from 14 bytes to about a page.
    pub fn test_run(&self, frame: &[u8]) -> Result<TestRun, SteeringError> {
        let mut out = vec![0; frame.len() + FrameMeta::BYTES];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = self.program()?.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        // The kernel hands out everything from the metadata on.
        let meta = match out.len().checked_sub(frame.len()) {
            Some(FrameMeta::BYTES) => out.first_chunk().copied().map(FrameMeta::from_bytes),
            _ => None,
        };
        let frame = out.split_off(if meta.is_some() { FrameMeta::BYTES } else { 0 });
        Ok(TestRun { action: result.return_value, meta, frame })
    }
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, SteeringError> {
    let map = ebpf.take_map(name).ok_or(SteeringError::BadObject { what: name })?;
    map.try_into().map_err(map_error(name))
}

fn check_queue(queue: u32) -> Result<(), SteeringError> {
    if queue < MAX_QUEUES { Ok(()) } else { Err(SteeringError::QueueOutOfRange { queue }) }
}

fn check_line(line: u16) -> Result<(), SteeringError> {
    if u32::from(line) < MAX_LINES { Ok(()) } else { Err(SteeringError::LineOutOfRange { line }) }
}

fn map_error(operation: &'static str) -> impl Fn(MapError) -> SteeringError {
    move |source| SteeringError::Map { operation, source }
}

fn error_number(error: &MapError) -> Option<rustix::io::Errno> {
    match error {
        MapError::SyscallError(error) => rustix::io::Errno::from_io_error(&error.io_error),
        _ => None,
    }
}

fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || error_number(error) == Some(rustix::io::Errno::NOENT)
}
