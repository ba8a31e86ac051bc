//! Which core does what.
#![forbid(unsafe_code)]

use std::fmt;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use crate::testbed::allowed_cores;

/// The cores in use. Sender and receiver are one thread that polls both, whatever the machine has: no scheduler stands
/// between them, and sending always goes first.
#[derive(Clone, Debug, Serialize)]
pub struct Placement {
    /// Cores that this process may use.
    pub core_count: usize,
    /// Core of the handler's worker, which spins; `None`: there is only one, so it is not pinned and yields.
    pub worker_core: Option<usize>,
    /// Core of the sender and receiver.
    pub bench_core: Option<usize>,
}

impl Placement {
    /// The first core for sender and receiver, the last one for the worker.
    ///
    /// # Errors
    /// If the kernel does not say which cores there are.
    pub fn choose() -> Result<Self> {
        let cores = allowed_cores()?;
        let (bench_core, worker_core) = match cores[..] {
            [first, .., last] => (Some(first), Some(last)),
            _ => (None, None),
        };
        Ok(Self { core_count: cores.len(), worker_core, bench_core })
    }

    /// Pins the calling thread to the bench's core.
    pub(super) fn pin(&self) -> Result<()> {
        let Some(core) = self.bench_core else { return Ok(()) };
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).with_context(|| format!("pin to core {core}"))
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.worker_core, self.bench_core) {
            (Some(worker), Some(bench)) => write!(
                f,
                "{} cores: the worker spins on core {worker}; sender and receiver share core {bench}, as one polling \
                 thread in which sending goes first",
                self.core_count
            ),
            _ => f.write_str("one core: worker, sender and receiver share it and yield to each other"),
        }
    }
}
