//! The consumer's threads: one per destination.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::consumer::{Checker, Receiver};
use crate::lab::Namespace;
use crate::testbed::OutputAddress;

/// A running consumer.
pub(crate) struct Consumer {
    thread: JoinHandle<Result<(Checker, u64)>>,
    next: Arc<AtomicU64>,
    has_ended: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Consumer {
    /// Joins the output group at `address` inside the namespace and begins to check.
    pub(crate) fn start(
        mut checker: Checker,
        output: &OutputAddress,
        address: Ipv4Addr,
        namespace: &Namespace,
    ) -> Result<Self> {
        let mut receiver = namespace.enter(|| Receiver::join(output.group, address))??;
        let consumer_name = namespace.name().to_owned();
        let (next, has_ended, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default(), Arc::default());
        let thread = {
            let (next, has_ended, stop) = (Arc::clone(&next), Arc::clone(&has_ended), Arc::<AtomicBool>::clone(&stop));
            let check = move || -> Result<(Checker, u64)> {
                crate::lab::move_thread_to(&consumer_name)?;
                while !stop.load(Relaxed) {
                    if let Some((payload, received_ns)) = receiver.receive()? {
                        checker.packet(payload, received_ns);
                        next.store(checker.next(), Relaxed);
                        has_ended.store(checker.has_ended(), Relaxed);
                    }
                }
                let dropped = receiver.dropped()?;
                Ok((checker, dropped))
            };
            std::thread::Builder::new().name("consumer".to_owned()).spawn(check).context("thread of the consumer")?
        };
        Ok(Self { thread, next, has_ended, stop })
    }

    /// Number of the next message that it expects.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Whether the last session was declared over.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// Whether it has given up by itself.
    pub(crate) fn is_dead(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it; returns its state and how many packets its socket dropped.
    pub(crate) fn finish(self) -> Result<(Checker, u64)> {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
