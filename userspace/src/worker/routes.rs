//! Another route for a destination, between two duty cycles.
#![forbid(unsafe_code)]

use super::Worker;
use super::shared::Event;
use crate::publish::Route;

impl Worker {
    /// Has a destination take what `route` says from the next batch on.
    pub(super) fn set_route(&mut self, destination: usize, route: Box<Route>) {
        debug_assert!(self.route_out.is_none(), "no command is taken before the last route is handed back");
        self.route_out = self.publisher.set_route(destination, route);
        self.hand_back_route();
    }

    /// Gives a replaced route back to control, which frees it; false while the event queue has no room.
    pub(super) fn hand_back_route(&mut self) -> bool {
        if self.route_out.is_some() && self.events.slots() == 0 {
            return false;
        }
        if let Some(route) = self.route_out.take() {
            self.report(Event::RouteOut(route));
        }
        true
    }
}
