//! The fuzzer's bytes, taken from the front.
#![forbid(unsafe_code)]

use crate::mold::Session;

/// What is left of the bytes. Every method answers `None` once they do not suffice: then the input is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A number that is small most of the time, and anything after a 255.
    pub(super) fn number(&mut self) -> Option<u64> {
        match self.u8()? {
            u8::MAX => self.u64(),
            small => Some(u64::from(small)),
        }
    }

    /// As many bytes as there are, `len` at most.
    pub(super) fn up_to(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// One of four sessions: a fuzzer that had to guess ten bytes twice would never see a second packet accepted.
pub(super) fn session(choice: u8) -> Session {
    let mut session = *b"FUZZ000000";
    session[9] += choice % 4;
    session
}
