//! Channels that come over TCP, as far as they make the handler not ready.
#![forbid(unsafe_code)]

use super::Desk;
use crate::metrics::SoupState;

impl Desk {
    /// Channels over TCP that were logged in and are not, or may not. One whose session has ended waits for the next, and one
    /// that never was waits for the exchange to open: that is no fault.
    pub(super) fn stream_reasons(&self) -> Vec<String> {
        let plan = self.plan();
        let channels = plan.channels.iter().filter(|(_, channel)| channel.soup.is_some());
        let reasons = channels.filter_map(|(index, channel)| {
            let counts = self.link_of_channel(index).shared.soup(index);
            let state = counts.state;
            let name = &channel.name;
            if state == SoupState::Stopped as u64 {
                Some(format!("`{name}`: the server refused the login (SoupBinTCP): not authorised"))
            } else if counts.logins > 0 && [SoupState::Waiting as u64, SoupState::Connecting as u64].contains(&state) {
                Some(format!("`{name}` is not logged in to a server any more (SoupBinTCP)"))
            } else {
                None
            }
        });
        reasons.collect()
    }
}
