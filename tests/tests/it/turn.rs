//! One test at a time, of those that care about time.
#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other test that takes a turn runs. Each of them has several busy threads or counts what real rings hold;
/// side by side on two cores one would pass its waiting on to another as loss. Tests that take none run beside them.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
