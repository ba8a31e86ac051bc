//! Framing of the input: what one datagram says about itself, and its message blocks.
#![forbid(unsafe_code)]

pub mod moldudp64;

use super::Session;
use crate::config::plan::TransportKind;
use crate::metrics::DropReason;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// Carries messages.
    Data,
    /// Carries none; tells the next sequence.
    Heartbeat,
    /// Carries none; the session ends before [`PacketHeader::sequence`].
    EndOfSession,
}

/// The header of one packet, host byte order. `sequence + count` never overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// Session, as on the wire.
    pub session: Session,
    /// Sequence of the first message; without messages, of the next one.
    pub sequence: u64,
    /// Messages in the packet; 0 unless [`PacketKind::Data`].
    pub count: u16,
    /// What the packet is.
    pub kind: PacketKind,
}

impl PacketHeader {
    /// Reads and checks the header, not the blocks.
    ///
    /// # Errors
    /// [`DropReason::TruncatedHeader`] and [`DropReason::BadSequence`].
    pub fn parse(transport: TransportKind, payload: &[u8]) -> Result<Self, DropReason> {
        match transport {
            TransportKind::MoldUdp64 => moldudp64::parse_header(payload),
        }
    }

    /// The sequence after the packet's last message.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.sequence + self.count as u64
    }
}

/// Walks all blocks of a packet before any of them is delivered.
///
/// Returns how many bytes follow the last block.
///
/// # Errors
/// [`DropReason::TruncatedBlocks`] if the payload ends before the last block does.
pub fn check_blocks(transport: TransportKind, payload: &[u8], count: u16) -> Result<usize, DropReason> {
    match transport {
        TransportKind::MoldUdp64 => moldudp64::check_blocks(payload, count),
    }
}

/// The message blocks of a packet that [`check_blocks`] accepted.
#[must_use]
pub fn blocks(transport: TransportKind, payload: &[u8], count: u16) -> moldudp64::Blocks<'_> {
    match transport {
        TransportKind::MoldUdp64 => moldudp64::Blocks::new(payload, count),
    }
}
