//! A worker's own bookkeeping of frames, in cache lines that no other worker's memory shares.
#![forbid(unsafe_code)]

use std::cell::Cell;

/// Entries of one [`Line`].
const PER_LINE: usize = 16;

/// Sixteen entries of at most 8 bytes: two cache lines of 64 bytes, which processors fetch in pairs.
#[repr(align(128))]
struct Line<T>([Cell<T>; PER_LINE]);

/// A fixed number of cells. The buffer begins and ends with lines of its own, whatever else is on the heap.
pub(super) struct Lines<T> {
    lines: Box<[Line<T>]>,
    len: usize,
}

impl<T: Copy> Lines<T> {
    pub(super) fn new(len: usize, value: T) -> Self {
        const { assert!(size_of::<Line<T>>() == 128) };
        let line = || Line(std::array::from_fn(|_| Cell::new(value)));
        Self { lines: std::iter::repeat_with(line).take(len.div_ceil(PER_LINE)).collect(), len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The cell of this number.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn at(&self, index: usize) -> &Cell<T> {
        &self.lines[index / PER_LINE].0[index % PER_LINE]
    }

    /// The cell of this number; `None` if there is none.
    pub(super) fn get(&self, index: usize) -> Option<&Cell<T>> {
        (index < self.len).then(|| self.at(index))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Cell<T>> {
        self.lines.iter().flat_map(|line| &line.0).take(self.len)
    }
}

/// Indices of free frames; the one that was freed last, while it is warm, is used first.
pub(super) struct FreeStack {
    indices: Lines<u32>,
    len: Cell<usize>,
}

impl Default for FreeStack {
    fn default() -> Self {
        Self::full(0)
    }
}

impl FreeStack {
    /// All of them free; 0 comes first.
    pub(super) fn full(count: u32) -> Self {
        let indices = Lines::new(count as usize, 0);
        indices.iter().zip((0..count).rev()).for_each(|(cell, index)| cell.set(index));
        Self { indices, len: Cell::new(count as usize) }
    }

    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    pub(super) fn pop(&self) -> Option<u32> {
        let len = self.len.get().checked_sub(1)?;
        self.len.set(len);
        Some(self.indices.at(len).get())
    }

    pub(super) fn push(&self, index: u32) {
        let len = self.len.get();
        assert!(len < self.indices.len(), "a frame was freed twice");
        self.indices.at(len).set(index);
        self.len.set(len + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_two_pools_share_no_line() {
        for len in [1, 15, 16, 17, 8192] {
            let lines = Lines::new(len, 7_u32);
            assert_eq!((lines.len(), lines.iter().count(), lines.lines.len()), (len, len, len.div_ceil(16)));
            assert!(lines.get(len).is_none() && lines.get(len - 1).is_some());
            assert_eq!(std::ptr::from_ref(lines.at(0)).addr() % 128, 0, "{len}");
        }
    }

    #[test]
    fn the_stack_gives_back_the_newest_first_and_never_more_than_all() {
        let stack = FreeStack::full(3);
        assert_eq!([stack.pop(), stack.pop(), stack.pop(), stack.pop()], [Some(0), Some(1), Some(2), None]);
        stack.push(1);
        stack.push(2);
        assert_eq!((stack.len(), stack.pop()), (2, Some(2)));
    }
}
