//! Frames: who owns them.

/// One frame of the pool; move-only.
#[derive(Debug)]
pub struct Frame {
    _index: u32,
}
