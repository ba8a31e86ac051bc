//! Another route for a destination that goes on meanwhile.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::lines::WORKER_PATIENCE;
use super::{Desk, tell};
use crate::config::plan::RoutePlan;
use crate::publish::Route;
use crate::worker::shared::Command;

/// Why a route is not in force, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The worker does not take commands.
    #[error("worker `{0}` takes no commands (its queue is full); is it alive? `feedctl status` tells")]
    Worker(String),
    /// The worker has the route and may still put it in force.
    #[error("worker `{0}` has not changed the route within a second; is it alive? `feedctl status` tells")]
    NotApplied(String),
}

impl Desk {
    /// Has a destination of the plan take what `route` says, from a batch on: nothing that it took before and takes now is
    /// lost or sent twice. Waits for the worker to confirm (a second at most), so not for an async thread.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn set_route(&self, destination: usize, route: &RoutePlan) -> Result<(), RouteError> {
        let channel = self.plan().destinations[destination].channel;
        let link = self.link_of_channel(channel);
        let worker = || self.fixed.workers[link.index].name.clone();
        let deadline = Instant::now() + WORKER_PATIENCE;
        let command = Command::SetRoute { destination, route: Route::new(route) };
        let number = tell::send(link, command, deadline).ok_or_else(|| RouteError::Worker(worker()))?;
        if tell::is_applied(link, number, deadline) { Ok(()) } else { Err(RouteError::NotApplied(worker())) }
    }
}
