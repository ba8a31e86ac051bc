//! Telling a worker something, and waiting until it has done it. Not for an async thread.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Acquire;
use std::thread;
use std::time::{Duration, Instant};

use crate::worker::shared::{Command, WorkerLink};

/// Time between two looks at a worker: a living one needs microseconds.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_micros(50);

/// Puts a command into a worker's queue as soon as there is room; its number, or `None` if there was none until `deadline`.
pub(super) fn send(link: &WorkerLink, mut command: Command, deadline: Instant) -> Option<u64> {
    loop {
        match link.send(command) {
            Ok(number) => return Some(number),
            Err(refused) if Instant::now() < deadline => command = refused,
            Err(_) => return None,
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

/// Waits until a worker has carried out the command of this number; whether it has by `deadline`.
pub(super) fn is_applied(link: &WorkerLink, number: u64, deadline: Instant) -> bool {
    while link.shared.commands_applied.load(Acquire) < number {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(RETRY_INTERVAL);
    }
    true
}
