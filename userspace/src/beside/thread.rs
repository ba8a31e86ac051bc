//! A thread with work of its own that control may change while it runs: what it takes on and what it lets go.
//!
//! What is to be changed is sent to the thread, which does it between two rounds and answers. So what works on a channel
//! needs no lock, and whoever asked knows, once the answer is there, that nothing of the old is under way any more.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use super::Beside;

/// How long an answer is waited for: rounds take milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a thread does.
pub trait Work: fmt::Debug + Send + 'static {
    /// Name of the thread, for the system and the log.
    const NAME: &'static str;

    /// One round, and a wait of at most some milliseconds for something to do.
    fn round(&mut self);

    /// The last thing that is done.
    fn end(&mut self) {}
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The system has no thread for us.
    #[error("cannot start the {name} thread: {error}")]
    Start {
        /// Its name.
        name: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// It ended, as the handler does, or it panicked.
    #[error("the {0} thread has ended; if the handler is not stopping, the log tells why: restart it")]
    Gone(&'static str),
    /// It does not answer.
    #[error("the {0} thread has not answered for {seconds} s; is the host overloaded?", seconds = PATIENCE.as_secs())]
    Silent(&'static str),
}

type Change<W> = Box<dyn FnOnce(&mut W) + Send>;

/// The way to the work, before its thread runs and then.
#[derive(Debug)]
pub struct Thread<W: Work>(State<W>);

#[derive(Debug)]
enum State<W: Work> {
    /// Nobody works on it yet.
    Idle(W),
    Running {
        changes: Sender<Change<W>>,
        /// Ends when it is dropped.
        _thread: Beside,
    },
    Ended,
}

impl<W: Work> Thread<W> {
    /// Work that no thread does yet.
    #[must_use]
    pub fn new(work: W) -> Self {
        Self(State::Idle(work))
    }

    /// Starts the thread, unless it runs already.
    ///
    /// # Errors
    /// The system's; the work is as it was.
    pub fn run(&mut self) -> Result<(), ThreadError> {
        if !matches!(self.0, State::Idle(_)) {
            return Ok(());
        }
        let (changes, taken) = channel();
        // By a channel of its own, so that it is still here if there is no thread.
        let (give, given) = channel::<W>();
        let mut thread = Beside::new(W::NAME);
        let body = move |is_over: &AtomicBool| {
            let Ok(mut work) = given.recv() else { return };
            while !is_over.load(Relaxed) && make_changes(&mut work, &taken) {
                work.round();
            }
            work.end();
        };
        thread.start(body).map_err(|error| ThreadError::Start { name: W::NAME, error })?;
        if let State::Idle(work) = std::mem::replace(&mut self.0, State::Running { changes, _thread: thread }) {
            // It waits for just this.
            let _ = give.send(work);
        }
        Ok(())
    }

    /// Changes the work, between two rounds of its thread if that runs; returns what came of it once it is done.
    ///
    /// # Errors
    /// A thread that is no more, or does not answer. In the second case it may still make the change.
    pub fn with<R: Send + 'static>(
        &mut self,
        change: impl FnOnce(&mut W) -> R + Send + 'static,
    ) -> Result<R, ThreadError> {
        match &mut self.0 {
            State::Idle(work) => Ok(change(work)),
            State::Running { changes, .. } => {
                let (answer, answered) = channel();
                let change = move |work: &mut W| {
                    // Who no longer waits has said so.
                    let _ = answer.send(change(work));
                };
                changes.send(Box::new(change)).map_err(|_| ThreadError::Gone(W::NAME))?;
                answered.recv_timeout(PATIENCE).map_err(|error| match error {
                    RecvTimeoutError::Timeout => ThreadError::Silent(W::NAME),
                    RecvTimeoutError::Disconnected => ThreadError::Gone(W::NAME),
                })
            }
            State::Ended => Err(ThreadError::Gone(W::NAME)),
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.0, State::Running { .. })
    }

    /// Ends the thread and waits for it.
    pub fn end(&mut self) {
        self.0 = State::Ended;
    }
}

/// Makes the changes that wait; false if there will be none any more.
fn make_changes<W: Work>(work: &mut W, changes: &Receiver<Change<W>>) -> bool {
    loop {
        match changes.try_recv() {
            Ok(change) => change(work),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Debug, Default)]
    struct Count {
        rounds: u32,
        ended: Arc<AtomicU32>,
    }

    impl Work for Count {
        const NAME: &'static str = "count";

        fn round(&mut self) {
            self.rounds += 1;
            std::thread::sleep(Duration::from_micros(100));
        }

        fn end(&mut self) {
            self.ended.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn work_is_changed_before_its_thread_runs_and_while_it_does_and_not_after() {
        let ended = Arc::new(AtomicU32::new(0));
        let mut thread = Thread::new(Count { rounds: 0, ended: Arc::clone(&ended) });
        thread.with(|count| count.rounds = 1_000_000).unwrap();
        assert!(!thread.is_running());
        thread.run().unwrap();
        thread.run().unwrap();
        while thread.with(|count| count.rounds).unwrap() < 1_000_003 {}
        thread.with(|count| count.rounds = 0).unwrap();
        assert!(thread.with(|count| count.rounds).unwrap() < 1_000_000);
        thread.end();
        assert_eq!(ended.load(Relaxed), 1, "it is waited for");
        assert!(matches!(thread.with(|_| ()), Err(ThreadError::Gone("count"))));
        thread.run().unwrap();
        assert!(!thread.is_running(), "the end is the end");
    }

    #[test]
    fn a_thread_that_panicked_is_gone_and_nobody_waits_for_it() {
        let mut thread = Thread::new(Count::default());
        thread.run().unwrap();
        let gone = thread.with(|_| panic!("on purpose")).err();
        assert!(matches!(gone, Some(ThreadError::Gone("count"))), "{gone:?}");
        assert!(matches!(thread.with(|_| ()), Err(ThreadError::Gone("count"))));
    }
}
