//! The worker's channels, each in a place that stays its own for as long as it lives.
#![forbid(unsafe_code)]

use crate::feed::{Channel, ChannelState};

/// One channel.
#[derive(Debug)]
pub(super) struct ChannelSlot {
    pub(super) plan_index: usize,
    pub(super) channel: Channel,
    /// The state that was last reported.
    pub(super) reported: ChannelState,
}

/// All channels. A place that a channel left is taken by the next one that comes, so there are never more places than there
/// were channels at a time.
#[derive(Debug)]
pub(super) struct Channels(Vec<Place>);

#[derive(Debug)]
pub(super) struct Place {
    /// Set by `admit`, cleared by `deliver`: saves a look at the channel and a call per channel and batch.
    touched: bool,
    slot: Option<ChannelSlot>,
}

impl Channels {
    /// These channels, with room for so many in all.
    pub(super) fn new(channels: Vec<(usize, Channel)>, room: usize) -> Self {
        let mut all = Self(Vec::with_capacity(room.max(channels.len())));
        for (plan_index, channel) in channels {
            all.put(all.0.len(), plan_index, channel);
        }
        all
    }

    /// Channels that there is room for.
    pub(super) fn room(&self) -> usize {
        self.0.capacity()
    }

    /// A place's channel, as a line knows it.
    pub(super) fn get(&self, place: usize) -> Option<&ChannelSlot> {
        self.0.get(place)?.slot.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut ChannelSlot> {
        self.0.get_mut(place)?.slot.as_mut()
    }

    /// The same, for one that may have something to deliver from now on.
    #[inline]
    pub(super) fn touch(&mut self, place: usize) -> Option<&mut ChannelSlot> {
        let place = self.0.get_mut(place)?;
        place.touched = true;
        place.slot.as_mut()
    }

    /// Touches all.
    pub(super) fn touch_all(&mut self) {
        self.0.iter_mut().for_each(|place| place.touched = true);
    }

    /// Those that were touched since this was called last.
    #[inline]
    pub(super) fn take_touched(&mut self) -> impl Iterator<Item = &mut ChannelSlot> {
        self.0.iter_mut().filter(|place| place.touched).filter_map(|place| {
            place.touched = false;
            place.slot.as_mut()
        })
    }

    /// All channels.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ChannelSlot> {
        self.0.iter().filter_map(|place| place.slot.as_ref())
    }

    /// The same, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut ChannelSlot> {
        self.0.iter_mut().filter_map(|place| place.slot.as_mut())
    }

    /// All places in order, the vacant ones too.
    pub(super) fn places(&self) -> impl Iterator<Item = Option<&ChannelSlot>> {
        self.0.iter().map(|place| place.slot.as_ref())
    }

    /// The place of a channel of the plan.
    pub(super) fn place_of(&self, plan_index: usize) -> Option<usize> {
        self.places().position(|slot| slot.is_some_and(|slot| slot.plan_index == plan_index))
    }

    /// The place that the next channel gets; `None` without room.
    pub(super) fn next_place(&self) -> Option<usize> {
        let vacant = self.places().position(|slot| slot.is_none());
        vacant.or_else(|| (self.0.len() < self.0.capacity()).then_some(self.0.len()))
    }

    /// Puts a channel into the place that [`Self::next_place`] named.
    pub(super) fn put(&mut self, place: usize, plan_index: usize, channel: Channel) {
        let slot = Some(ChannelSlot { plan_index, reported: channel.state(), channel });
        match self.0.get_mut(place) {
            Some(vacant) => vacant.slot = slot,
            None => self.0.push(Place { touched: false, slot }),
        }
    }

    /// Takes a channel out of its place.
    pub(super) fn take(&mut self, place: usize) -> Option<(usize, Channel)> {
        self.0.get_mut(place)?.slot.take().map(|slot| (slot.plan_index, slot.channel))
    }
}
