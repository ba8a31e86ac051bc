//! Where the process's log goes: standard error. While the handler runs a thread of its own writes it, for whoever reads
//! may stand still, and anybody whose call is refused can cause a line.
#![forbid(unsafe_code)]

use std::io::{self, Stderr, Write};
use std::sync::{Arc, OnceLock};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::config::plan::Privileges;
use crate::privilege;

/// Lines that wait to be written at most; more are lost, and counted.
const MOST_LINES: usize = 8192;

static BEHIND: OnceLock<NonBlocking> = OnceLock::new();

/// What lines are written to.
#[derive(Debug)]
pub enum Out {
    /// Standard error itself.
    Direct(Stderr),
    /// A thread that writes them.
    Behind(NonBlocking),
}

/// What the next line is written to: standard error, and after [`begin`] the thread.
#[must_use]
pub fn out() -> Out {
    BEHIND.get().map_or_else(|| Out::Direct(io::stderr()), |behind| Out::Behind(behind.clone()))
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Direct(out) => out.write(bytes),
            Self::Behind(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Direct(out) => out.flush(),
            Self::Behind(out) => out.flush(),
        }
    }
}

/// From now on nobody waits for the log. Call it once, when the calling thread has given up its privileges, for the log's
/// thread has what that has. When what is returned is dropped the lines that wait are written, for a second at most, and
/// later ones are lost.
pub fn begin(privileges: Privileges) -> WorkerGuard {
    let (behind, guard) = start(io::stderr(), MOST_LINES, move || privilege::drop_worker(privileges));
    // A second call changes nothing.
    let _ = BEHIND.set(behind);
    guard
}

fn start<W, F>(out: W, most_lines: usize, begin: F) -> (NonBlocking, WorkerGuard)
where
    W: Write + Send + 'static,
    F: FnOnce() + Send + 'static,
{
    let lost = Arc::new(OnceLock::new());
    let writer = Writer { out, begin: Some(begin), lost: Arc::clone(&lost), told: 0 };
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(most_lines).thread_name("log");
    let (behind, guard) = builder.finish(writer);
    let _ = lost.set(behind.error_counter());
    (behind, guard)
}

/// Writes on the log's thread.
struct Writer<W, F> {
    out: W,
    /// To be done on the thread before anything else.
    begin: Option<F>,
    lost: Arc<OnceLock<ErrorCounter>>,
    /// Lost lines that were told.
    told: usize,
}

impl<W: Write, F: FnOnce()> Write for Writer<W, F> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(begin) = self.begin.take() {
            begin();
        }
        self.out.write_all(line)?;
        let lost = self.lost.get().map_or(0, ErrorCounter::dropped_lines);
        if lost > self.told {
            self.told = lost;
            // It takes its place behind the others; lost itself, it is told with the next.
            tracing::warn!(lost, "log lines since the start that were lost: standard error was read too slowly");
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_stands_still() {
        let shared = Shared::default();
        let (behind, guard) = start(shared.clone(), 4, || {});
        let counter = behind.error_counter();
        let make = move || behind.clone();
        let log = tracing_subscriber::fmt().with_writer(make).with_ansi(false).finish();
        let held = shared.0.lock().unwrap();
        let begun = Instant::now();
        tracing::subscriber::with_default(log, || (0..100).for_each(|number| tracing::info!(number, "a line")));
        assert!(
            begun.elapsed() < Duration::from_secs(5) && counter.dropped_lines() >= 90,
            "{}",
            counter.dropped_lines()
        );
        drop(held);
        drop(guard);
        let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert!((1..=10).contains(&text.lines().count()), "{text}");
    }
}
