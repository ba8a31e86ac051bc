//! Carrying out an [`Edit`]: between two duty cycles, all of it at once, by moving things.
#![forbid(unsafe_code)]

use std::io;

use super::edit::{Edit, NewChannel, NewLine, NewStream, Removed, Retention};
use super::shared::Event;
use super::{LineSlot, Worker};
use crate::feed::ChannelState;
use crate::metrics::DropCounts;
use crate::net::{LineIndex, Outlets, RxPort, TxPort};

impl Worker {
    /// Carries out an edit and hands it back.
    pub(super) fn edit(&mut self, mut edit: Box<Edit>, clock: &impl Fn() -> u64) {
        self.finish_what_goes(&edit, clock);
        // The last that is heard of what goes.
        self.publish_counts(clock());
        self.take_out(&mut edit);
        for (port, with) in &mut edit.ports {
            if *port < self.ports.rx.len() {
                self.swap_port(*port, with);
            }
        }
        self.wants.connect(&mut edit.wants);
        self.put_in(&mut edit);
        for (port, rules) in &mut edit.rules {
            if let Some(Some(rx)) = self.ports.rx.get_mut(*port) {
                rx.swap_rules(rules);
            }
        }
        // What is new begins at zero, whatever had its number before.
        self.publish_counts(clock());
        if !edit.is_done() {
            self.shared.count_refused(&io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.edited = Some(edit);
        self.hand_back_edit();
    }

    /// Gives an edit back to control, which frees what is in it; false while the event queue has no room.
    pub(super) fn hand_back_edit(&mut self) -> bool {
        if self.edited.is_some() && self.events.slots() == 0 {
            return false;
        }
        if let Some(edit) = self.edited.take() {
            self.report(Event::Edited(edit));
        }
        true
    }

    /// Takes what has come for lines that go, sends what is open for streams that go, and drops what channels that go hold.
    fn finish_what_goes(&mut self, edit: &Edit, clock: &impl Fn() -> u64) {
        for port in 0..self.ports.rx.len() {
            if self.ports.rx[port].as_ref().is_some_and(|rx| may_hold(rx, edit)) {
                self.take_what_waits(port, clock);
            }
        }
        if !edit.remove_streams.is_empty() {
            self.ports.tx.iter_mut().flatten().for_each(TxPort::insist);
        }
        for destination in &edit.remove_streams {
            let mut out = Outlets::new(&self.ports.frames, &mut self.ports.tx);
            self.publisher.hand_over(*destination, &mut out);
        }
        for index in &edit.remove_channels {
            if let Some(place) = self.channels.place_of(*index)
                && let Some(slot) = self.channels.get_mut(place)
            {
                slot.channel.close();
            }
        }
    }

    fn take_out(&mut self, edit: &mut Edit) {
        let removed = &mut edit.removed;
        for destination in &edit.remove_streams {
            let Some(stream) = self.publisher.remove(*destination) else { continue };
            if let Some(Some(tx)) = self.ports.tx.get_mut(stream.port()) {
                removed.destinations.extend(tx.take_destination(*destination));
            }
            removed.streams.push(stream);
        }
        for line in &edit.remove_lines {
            self.take_line(*line, removed);
        }
        for index in &edit.remove_channels {
            let Some(place) = self.channels.place_of(*index) else { continue };
            for line in 0..self.lines.len() {
                if self.lines[line].is_some_and(|slot| slot.channel == place) {
                    self.take_line(line as LineIndex, removed);
                }
            }
            self.wants.end(place);
            removed.channels.extend(self.channels.take(place));
        }
    }

    fn take_line(&mut self, line: LineIndex, removed: &mut Removed) {
        if let Some(slot) = self.lines.get_mut(usize::from(line)) {
            *slot = None;
        }
        for port in self.ports.receiving() {
            if let RxPort::Socket(port) = port {
                removed.sockets.extend(port.remove(line));
            }
        }
    }

    fn put_in(&mut self, edit: &mut Edit) {
        let Edit { add_channels, add_lines, add_streams, removed, .. } = edit;
        place_all(add_channels, |channel| self.put_channel(channel));
        place_all(add_lines, |line| self.put_line(line, removed));
        place_all(add_streams, |stream| self.put_stream(stream, removed));
    }

    /// Puts a channel in its place; hands it back if it cannot be.
    fn put_channel(&mut self, new: NewChannel) -> Option<NewChannel> {
        let is_vacant = |line: LineIndex| matches!(self.lines.get(usize::from(line)), Some(None));
        let has_lines = new.own_lines.iter().all(|(line, _)| is_vacant(*line));
        let is_known = self.channels.place_of(new.index).is_some() || new.index >= self.shared.channels.len();
        let Some(place) = self.channels.next_place().filter(|_| has_lines && !is_known) else { return Some(new) };
        let NewChannel { index, channel, own_lines } = new;
        self.channels.put(place, index, channel);
        self.wants.begin(place, index);
        self.shared.sessions[index].store(&[0; 10]);
        for (line, role) in own_lines {
            // Nobody switches these: without servers nothing comes.
            self.lines[usize::from(line)] = Some(LineSlot { channel: place, role, enabled: true });
            self.line_drops[usize::from(line)] = DropCounts::default();
        }
        None
    }

    /// The same with a line.
    fn put_line(&mut self, mut new: NewLine, removed: &mut Removed) -> Option<NewLine> {
        let line = usize::from(new.line);
        let Some(place) = self.channels.place_of(new.channel) else { return Some(new) };
        let is_taken = |slot: &LineSlot| slot.channel == place && slot.role == new.role;
        if !matches!(self.lines.get(line), Some(None)) || self.lines.iter().flatten().any(is_taken) {
            return Some(new);
        }
        if let Some((port, socket)) = new.socket.take() {
            match self.ports.rx.get_mut(port) {
                Some(Some(RxPort::Socket(rx))) => {
                    if let Err(socket) = rx.add(socket) {
                        return Some(NewLine { socket: Some((port, socket)), ..new });
                    }
                }
                // Its link is gone: whoever opens the port anew opens this line, too.
                _ => removed.sockets.push(socket),
            }
        }
        self.lines[line] = Some(LineSlot { channel: place, role: new.role, enabled: false });
        self.line_drops[line] = DropCounts::default();
        if let Some(slot) = self.channels.get_mut(place) {
            slot.channel.renew_line(new.role);
        }
        None
    }

    /// The same with a stream.
    fn put_stream(&mut self, new: NewStream, removed: &mut Removed) -> Option<NewStream> {
        let number = new.stream.destination();
        let Some(place) = self.channels.place_of(usize::from(new.stream.channel())) else { return Some(new) };
        let is_beyond = number >= self.shared.destinations.len() || new.stream.port() >= self.ports.tx.len();
        if is_beyond || self.publisher.has(number) {
            return Some(new);
        }
        let NewStream { mut stream, retention, continues, destination } = new;
        match &mut self.ports.tx[stream.port()] {
            Some(tx) => match tx.put_destination(number, destination) {
                Ok(before) => removed.destinations.extend(before),
                Err(destination) => return Some(NewStream { stream, retention, continues, destination }),
            },
            // Its link is gone: whoever opens the port anew registers this destination, too.
            None => removed.destinations.push(destination),
        }
        let mut before = removed.streams.iter_mut().find(|before| before.destination() == number);
        match before.as_mut().filter(|_| continues) {
            Some(before) => stream.follow(before),
            None => {
                if let Some(slot) = self.channels.get(place) {
                    stream.join(slot.channel.directory());
                }
            }
        }
        let retainer = match retention {
            Retention::None => None,
            Retention::New(retainer) => Some(retainer),
            Retention::Kept => before.and_then(|before| before.take_retainer()),
        };
        if let Some(retainer) = retainer {
            stream.retain(retainer);
        }
        if let Some(slot) = self.channels.get(place)
            && let Some(session) = slot.channel.session().filter(|_| !slot.channel.is_unnumbered())
        {
            let has_ended = slot.channel.state() == ChannelState::Ended;
            stream.begin(&session, slot.channel.counts().next_sequence, has_ended);
        }
        if let Err(stream) = self.publisher.add(stream) {
            unreachable!("there is room for every destination, and {} had no stream", stream.destination());
        }
        None
    }
}

/// Whether something may wait in a port for what an edit removes. A port that is looked at for nothing keeps the others
/// waiting.
fn may_hold(port: &RxPort, edit: &Edit) -> bool {
    let Edit { remove_lines, remove_channels, .. } = edit;
    !remove_channels.is_empty()
        || match port {
            // What another thread hands over is for the channel itself, not for a line that anybody switches.
            RxPort::Handoff(_) => false,
            RxPort::Socket(port) => remove_lines.iter().any(|line| port.has(*line)),
            RxPort::Xsk(_) | RxPort::Memory(_) => !remove_lines.is_empty(),
        }
}

/// Puts each of a list in its place; what is handed back stays in the list.
fn place_all<T>(list: &mut Vec<T>, mut place: impl FnMut(T) -> Option<T>) {
    for i in (0..list.len()).rev() {
        // What moves here from the end was looked at before.
        if let Some(refused) = place(list.swap_remove(i)) {
            list.push(refused);
        }
    }
}
