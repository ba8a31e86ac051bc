//! Threads that run beside the workers: told to end, and waited for, when what holds them is dropped.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle};

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

    /// Starts one that does the same again and again.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn repeat(name: &'static str, mut body: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let mut beside = Self::new(name);
        beside.start(move |is_over| {
            while !is_over.load(Relaxed) {
                body();
            }
        })?;
        Ok(beside)
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
        let mut beside = Beside::repeat("test", move || {
            counted.fetch_add(1, Relaxed);
            std::thread::yield_now();
        })
        .unwrap();
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
