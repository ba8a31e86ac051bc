//! What the service manager is told, by sd_notify(3): that all is up, that the workers go on, and how it stands.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::control::Desk;

/// Time between two looks; shorter where the watchdog wants it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reports until it is dropped: READY at once, then WATCHDOG=1 for as long as every worker goes on, and STATUS when it
/// changes. Without a service manager (no NOTIFY_SOCKET) it does nothing.
///
/// READY means that everything is up, not that [`Desk::not_ready_reasons`] is empty: a start must not fail, over and over,
/// because a link has no carrier yet. A worker that stands still gets no WATCHDOG, and the manager starts the handler again.
pub async fn report(desk: Arc<Desk>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // Three looks in its time: one that comes late must not end the process.
    let interval = watchdog.map_or(INTERVAL, |time| INTERVAL.min(time / 3));
    tell(&[NotifyState::Ready]);
    let mut told = String::new();
    loop {
        if watchdog.is_some() && desk.dead_workers().next().is_none() {
            tell(&[NotifyState::Watchdog]);
        }
        let status = status(&desk.not_ready_reasons());
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        tokio::time::sleep(interval).await;
    }
}

/// Says that the handler is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn status(reasons: &[String]) -> String {
    if reasons.is_empty() { "ready".to_owned() } else { format!("not ready: {}", reasons.join("; ")) }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager cannot be told");
    }
}
