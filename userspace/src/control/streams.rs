//! Channels that come over TCP, as far as they make the handler not ready.
#![forbid(unsafe_code)]

use super::Desk;
use crate::metrics::SoupState;

impl Desk {
    /// Channels over TCP that are not logged in. One whose session has ended waits for the next: that is no fault.
    pub(super) fn stream_reasons(&self) -> impl Iterator<Item = String> {
        let channels = self.plan.channels.iter().enumerate().filter(|(_, channel)| channel.soup.is_some());
        channels.filter_map(|(index, channel)| {
            let state = self.link_of_channel(index).shared.soup(index).state;
            let name = &channel.name;
            if state == SoupState::Stopped as u64 {
                Some(format!("`{name}`: the server refused the login (SoupBinTCP): not authorised"))
            } else if state == SoupState::Waiting as u64 || state == SoupState::Connecting as u64 {
                Some(format!("`{name}` is not logged in to a server (SoupBinTCP)"))
            } else {
                None
            }
        })
    }
}
