//! Signals and panics: whatever ends the program, its namespaces go.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::lab;

static STOP: AtomicBool = AtomicBool::new(false);

/// True once the user wants the program to end.
pub(crate) fn is_stopping() -> bool {
    STOP.load(Relaxed)
}

/// Installs what removes the namespaces on SIGINT, SIGTERM, SIGHUP and panics, also where a panic aborts.
///
/// The first signal asks the program to end in order, the second one ends it at once.
///
/// # Errors
/// If the signals cannot be listened to.
pub fn clean_up_when_killed() -> Result<()> {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default_hook(panic);
        lab::remove_all();
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    // Registered before the thread starts, so that no signal is missed.
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                if STOP.swap(true, Relaxed) {
                    lab::remove_all();
                    std::process::exit(130);
                }
            }
        });
    })?;
    Ok(())
}
