//! Threads that run beside the workers: told to end, and waited for, when what holds them is dropped.
#![forbid(unsafe_code)]

mod thread;
pub mod threads;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle};

pub use thread::{Thread, ThreadError, Work};

/// How far what a thread has handed to a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Index into `Plan::workers`.
    pub worker: usize,
    /// Datagrams, since the start.
    pub datagrams: u64,
}

/// Threads of one kind.
#[derive(Debug)]
pub struct Beside {
    /// Name of the threads, for the system and the log.
    name: &'static str,
    threads: Vec<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Beside {
    /// None yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, threads: Vec::new(), is_over: Arc::default() }
    }

    /// What becomes true when they are to end.
    #[must_use]
    pub fn is_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_over)
    }

    /// Starts one. It is to end soon after what it is given becomes true.
    ///
    /// # Errors
    /// The system's, if it has no thread for us.
    pub fn start(&mut self, body: impl FnOnce(&AtomicBool) + Send + 'static) -> io::Result<()> {
        let is_over = Arc::clone(&self.is_over);
        self.threads.push(Builder::new().name(self.name.to_owned()).spawn(move || body(&is_over))?);
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(thread = self.name, "panicked: nothing was done there any more");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn threads_end_when_they_are_dropped_also_beside_one_that_panicked() {
        let rounds = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&rounds);
        let mut beside = Beside::new("test");
        let repeated = move |is_over: &AtomicBool| {
            while !is_over.load(Relaxed) {
                counted.fetch_add(1, Relaxed);
                std::thread::yield_now();
            }
        };
        beside.start(repeated).unwrap();
        beside.start(|_| panic!("on purpose")).unwrap();
        while rounds.load(Relaxed) < 3 {
            std::thread::yield_now();
        }
        drop(beside);
        let ended = rounds.load(Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(rounds.load(Relaxed), ended);
    }
}
