//! Numbered places of which some are vacant: what is in one keeps its number for as long as it is there.
#![forbid(unsafe_code)]

use std::iter::{Enumerate, Flatten};
use std::ops::{Index, IndexMut};
use std::slice;

/// Channels, lines or destinations by their number. A number is not used again before what has it is gone; how many
/// numbers there are is fixed when the handler starts, because everything that counts is sized by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots<T> {
    slots: Vec<Option<T>>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// All vacant.
    #[must_use]
    pub fn with_room(room: usize) -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(room).collect() }
    }

    /// Slots in all, vacant ones included: one more than the highest number there can be.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.slots.len()
    }

    /// Adds vacant slots until there are so many.
    pub fn grow(&mut self, room: usize) {
        while self.slots.len() < room {
            self.slots.push(None);
        }
    }

    /// How many are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values().count()
    }

    /// Whether all are vacant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values().next().is_none()
    }

    /// Adds a slot for `value`, behind all others; returns its number.
    pub fn push(&mut self, value: T) -> usize {
        self.slots.push(Some(value));
        self.slots.len() - 1
    }

    /// What has this number; `None` if the slot is vacant or there is none.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.slots.get(index)?.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// Vacates a slot.
    pub fn take(&mut self, index: usize) -> Option<T> {
        self.slots.get_mut(index)?.take()
    }

    /// Puts `value` into the slot, whatever is in it; `None` if there is no such slot.
    pub fn put(&mut self, index: usize, value: T) -> Option<()> {
        *self.slots.get_mut(index)? = Some(value);
        Some(())
    }

    /// The lowest vacant number.
    #[must_use]
    pub fn vacant(&self) -> Option<usize> {
        self.slots.iter().position(Option::is_none)
    }

    /// What there is, by ascending number.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, &T)> + Clone {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
    }

    /// The same, to change it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| Some((index, slot.as_mut()?)))
    }

    /// What there is, without the numbers.
    pub fn values(&self) -> Flatten<slice::Iter<'_, Option<T>>> {
        self.slots.iter().flatten()
    }

    /// Every slot.
    pub fn slots(&self) -> Enumerate<slice::Iter<'_, Option<T>>> {
        self.slots.iter().enumerate()
    }

    /// The numbers that are taken.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.iter().map(|(index, _)| index)
    }
}

impl<T> Index<usize> for Slots<T> {
    type Output = T;

    /// # Panics
    /// If the slot is vacant.
    fn index(&self, index: usize) -> &T {
        self.get(index).expect("a slot that is taken")
    }
}

impl<T> IndexMut<usize> for Slots<T> {
    /// # Panics
    /// If the slot is vacant.
    fn index_mut(&mut self, index: usize) -> &mut T {
        self.get_mut(index).expect("a slot that is taken")
    }
}

impl<T> FromIterator<T> for Slots<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self { slots: values.into_iter().map(Some).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_keeps_its_number_and_what_goes_leaves_it_to_the_next() {
        let mut slots: Slots<char> = "abc".chars().collect();
        slots.grow(5);
        assert_eq!((slots.len(), slots.room(), slots.vacant()), (3, 5, Some(3)));
        assert_eq!(slots.take(1), Some('b'));
        assert_eq!(slots.take(1), None);
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(0, &'a'), (2, &'c')]);
        assert_eq!((slots[2], slots.get(1), slots.get(9)), ('c', None, None));
        let vacant = slots.vacant().unwrap();
        assert_eq!((vacant, slots.put(vacant, 'd')), (1, Some(())));
        assert_eq!(slots.put(5, 'e'), None, "behind the room");
        assert_eq!(slots.values().collect::<String>(), "adc");
        slots.grow(2);
        assert_eq!(slots.room(), 5, "never fewer");
    }

    #[test]
    #[should_panic(expected = "a slot that is taken")]
    fn a_vacant_slot_has_nothing() {
        let _ = Slots::<u8>::with_room(1)[0];
    }
}
