//! The keepers: a thread for each interface, which looks after it and brings back what was lost.
//!
//! A keeper looks ten times a second, by asking the kernel how things stand, not by listening for changes: what was missed
//! once is seen the next time. A flap that is over between two looks shows in the carrier's own counter. What it finds it
//! tells the desk (metrics, log, readiness). What it mends:
//!
//! - a link that was deleted and made again: workers' ports given up, filter attached, sockets opened, ports exchanged;
//! - a program that somebody detached: attached again, as soon as the place is free.
//!
//! A keeper also holds the NIC settings that were changed: a new link gets them anew, once, and they are put back when the
//! keeper ends. Keepers are the only threads that keep privileges after the start.
//!
//! A link that goes down and comes up needs nothing: sockets and program stay, and the kernel reports its groups again. No
//! interface waits for another, and no worker is stopped.
#![forbid(unsafe_code)]

mod look;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::monotonic_ns;
use crate::config::plan::{Plan, Privileges};
use crate::control::Desk;
use crate::net::interface::Interface;
use crate::privilege::{self, PrivilegeError};
use crate::steering::nic::Applied;
use look::Keeper;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Why the keepers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// There is no thread for one.
    #[error("cannot start the keeper of `{interface}`: {source}")]
    Thread {
        /// Kernel name of its interface.
        interface: String,
        /// The system's reason.
        source: io::Error,
    },
    /// One could not give up its privileges.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
}

/// The running keepers; they end and are waited for when dropped.
#[derive(Debug, Default)]
pub struct Running {
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    /// What is sent is dropped by the keeper once it has stopped looking. Itself dropped to end it.
    pause: Sender<Sender<()>>,
}

impl Running {
    /// Ends the looking and the mending, before what is looked after is taken down on purpose. NIC settings stay.
    pub fn pause(&self) {
        for thread in &self.threads {
            let (answer, answered) = channel();
            if thread.pause.send(answer).is_ok() {
                // The answer is that its sender is dropped: by the keeper that has read it, or by its end.
                let _ = answered.recv();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // All are told first: what they put back at their end takes time.
        let (handles, pauses): (Vec<_>, Vec<_>) = self.threads.drain(..).map(|one| (one.handle, one.pause)).unzip();
        drop(pauses);
        for handle in handles {
            if handle.join().is_err() {
                tracing::error!("a keeper panicked: its interface was not looked after any more");
            }
        }
    }
}

/// Starts a keeper for every interface of the plan, as it was when it was brought up, with the NIC settings that were
/// changed; all with the caller's privileges, as far as the plan lets them keep these.
///
/// # Errors
/// The first that could not be started, or could not give up what it should. Those before it are ended.
pub fn start(
    plan: &Arc<Plan>,
    desk: &Arc<Desk>,
    interfaces: Vec<Interface>,
    nics: Vec<Applied>,
) -> Result<Running, KeeperError> {
    let mut running = Running::default();
    for (index, (interface, nic)) in interfaces.into_iter().zip(nics).enumerate() {
        let name = interface.name.clone();
        let keeper = Keeper::new(Arc::clone(plan), Arc::clone(desk), index, &interface, nic);
        let (pause, pauses) = channel();
        let (ready, is_ready) = channel();
        let privileges = plan.privileges;
        let body = move || run(keeper, privileges, &ready, &pauses);
        let handle = std::thread::Builder::new().name("keeper".to_owned()).spawn(body);
        let handle = handle.map_err(|source| KeeperError::Thread { interface: name, source })?;
        running.threads.push(Thread { handle, pause });
        // A thread that ends without an answer has panicked, which its join tells.
        is_ready.recv().unwrap_or(Ok(()))?;
    }
    Ok(running)
}

/// Looks until it is told to pause, waits for the end, and puts the NIC settings back.
fn run(
    mut keeper: Keeper,
    privileges: Privileges,
    ready: &Sender<Result<(), PrivilegeError>>,
    pauses: &Receiver<Sender<()>>,
) {
    // Nobody listens any more only if the start was given up.
    let _ = ready.send(privilege::drop_keeper(privileges));
    while let Err(RecvTimeoutError::Timeout) = pauses.recv_timeout(INTERVAL).map(drop) {
        keeper.look(monotonic_ns());
    }
    while pauses.recv().is_ok() {}
    keeper.put_back();
}
