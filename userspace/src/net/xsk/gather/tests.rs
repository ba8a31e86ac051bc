//! Chains of pieces: whole, broken, too long, across receive calls; against a plain account of what must come out.
#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::*;
use crate::net::umem::{BUFFER_START, HOME, JUMBO_BYTES};

const COOKIE: u16 = 0xC00C;

/// Largest packet that a jumbo buffer has room for.
const MOST: usize = JUMBO_BYTES as usize - HOME;

struct Rig {
    frames: Frames,
    gather: Gather,
    counts: PortCounts,
    drops: DropCounts,
    got: Vec<Vec<u8>>,
    /// Number in the stamp of each packet that came out; `None` if it had none.
    stamps: Vec<Option<u64>>,
}

impl Rig {
    fn new(jumbos: u32) -> Self {
        Self {
            frames: Frames::heap(8, 2048).with_jumbos(jumbos),
            gather: Gather::default(),
            counts: PortCounts::default(),
            drops: DropCounts::default(),
            got: vec![],
            stamps: vec![],
        }
    }

    /// A frame with these bytes as the kernel would fill it.
    fn frame(&self, bytes: &[u8], stamp: Option<u64>) -> Frame {
        let mut frame = self.frames.alloc().expect("frames are given back");
        let at = HOME - BUFFER_START;
        let buffer = self.frames.buffer_mut(&mut frame);
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        if let Some(number) = stamp {
            buffer[at - 16..at - 8].copy_from_slice(&number.to_ne_bytes());
            buffer[at - 2..at].copy_from_slice(&COOKIE.to_ne_bytes());
        }
        frame
    }

    fn add(&mut self, bytes: &[u8], stamp: Option<u64>, has_more: bool) {
        let frame = self.frame(bytes, stamp);
        self.add_at(frame, Piece { start: HOME, len: bytes.len(), has_more });
    }

    fn add_at(&mut self, frame: Frame, piece: Piece) {
        let Self { frames, gather, counts, drops, .. } = self;
        if let Some(Whole { frame, meta }) = gather.add(frames, frame, piece, COOKIE, counts, drops) {
            self.got.push(self.frames.data(&frame).to_vec());
            self.stamps.push(meta.map(|meta| meta.received_ns));
            self.frames.free(frame);
        }
        let held = self.gather.frames_held();
        self.frames.assert_conserved(held, 0, 0);
    }

    /// A packet in pieces of at most so many bytes, of which the first `wanted` come.
    fn send(&mut self, packet: &[u8], piece_bytes: usize, wanted: usize, stamp: Option<u64>) {
        let last = packet.len().div_ceil(piece_bytes) - 1;
        for (i, bytes) in packet.chunks(piece_bytes).enumerate().take(wanted) {
            self.add(bytes, stamp.filter(|_| i == 0), i < last);
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let all: u64 = self.drops.values().iter().sum();
        let of_it = self.drops.get(reason);
        assert_eq!(all, of_it, "nothing but {}: {:?}", reason.label(), self.drops);
        of_it
    }
}

fn packet(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + number) as u8).collect()
}

#[test]
fn a_packet_over_several_frames_comes_out_in_one_piece() {
    let mut rig = Rig::new(1);
    for (number, (len, piece_bytes)) in
        [(9000, 1728), (1729, 1728), (MOST, 1728), (2, 1), (5184, 1728)].into_iter().enumerate()
    {
        rig.send(&packet(number, len), piece_bytes, usize::MAX, Some(number as u64));
        assert_eq!(rig.got.pop(), Some(packet(number, len)), "{len}");
        assert_eq!(rig.stamps.pop(), Some(Some(number as u64)));
    }
    let pieces = 6 + 2 + MOST.div_ceil(1728) as u64 + 2 + 3;
    assert_eq!((rig.counts.gathered, rig.counts.pieces), (5, pieces));
    assert_eq!(rig.dropped(DropReason::TooLong), 0);
}

#[test]
fn a_packet_without_a_stamp_is_gathered_too() {
    let mut rig = Rig::new(1);
    rig.send(&packet(1, 4000), 1728, usize::MAX, None);
    assert_eq!((&rig.got[..], &rig.stamps[..]), (&[packet(1, 4000)][..], &[None][..]));
}

#[test]
fn one_byte_too_long_is_dropped_once_and_whole_and_the_next_is_not() {
    let mut rig = Rig::new(1);
    // In the last piece, and long before it.
    for len in [MOST + 1, 5 * MOST] {
        rig.send(&packet(1, len), 1728, usize::MAX, Some(1));
        assert!(rig.got.is_empty() && !rig.gather.is_under_way());
    }
    assert_eq!(rig.dropped(DropReason::TooLong), 2);
    rig.send(&packet(2, MOST), 1728, usize::MAX, Some(2));
    assert_eq!(rig.got, [packet(2, MOST)]);
}

#[test]
fn a_stamp_in_the_middle_ends_a_packet_that_lacks_its_end_and_begins_another() {
    let mut rig = Rig::new(1);
    rig.send(&packet(1, 9000), 1728, 3, Some(1));
    assert_eq!(rig.gather.frames_held(), 1);
    rig.send(&packet(2, 9000), 1728, usize::MAX, Some(2));
    // The next is a short one, in its own frame.
    rig.send(&packet(3, 9000), 1728, 2, Some(3));
    rig.add(&packet(4, 100), Some(4), false);
    assert_eq!(rig.got, [packet(2, 9000), packet(4, 100)]);
    assert_eq!(rig.stamps, [Some(2), Some(4)]);
    assert_eq!(rig.dropped(DropReason::BrokenChain), 2);
    assert_eq!((rig.counts.pieces, rig.counts.gathered), (3 + 6 + 2, 1));
}

#[test]
fn a_piece_outside_its_frame_costs_its_packet_and_no_other() {
    let mut rig = Rig::new(1);
    let outside = Piece { start: HOME, len: 2049 - HOME, has_more: true };
    for (before, has_more) in [(0, true), (2, true), (5, false)] {
        rig.send(&packet(1, 9000), 1728, before, Some(1));
        let frame = rig.frame(&[], None);
        rig.add_at(frame, Piece { has_more, ..outside });
        assert_eq!(rig.gather.is_under_way(), has_more);
        if has_more {
            rig.add(&[1, 2, 3], None, true);
            rig.add(&[1, 2, 3], None, false);
        }
        rig.send(&packet(2, 4000), 1728, usize::MAX, Some(2));
        assert_eq!(rig.got.pop(), Some(packet(2, 4000)));
    }
    assert_eq!((rig.dropped(DropReason::BadBounds), rig.got.len()), (3, 0));
}

#[test]
fn a_descriptor_of_a_foreign_frame_costs_its_packet_and_no_other() {
    let mut rig = Rig::new(1);
    for has_more in [true, false] {
        rig.send(&packet(1, 9000), 1728, 2, Some(1));
        rig.gather.lose(&rig.frames, has_more, DropReason::BadBounds, &mut rig.drops);
        assert_eq!((rig.gather.is_under_way(), rig.gather.frames_held()), (has_more, 0));
        rig.send(&packet(2, 4000), 1728, usize::MAX, Some(2));
        assert_eq!(rig.got.pop(), Some(packet(2, 4000)));
    }
    rig.gather.lose(&rig.frames, false, DropReason::BadBounds, &mut rig.drops);
    assert_eq!(rig.dropped(DropReason::BadBounds), 3);
}

#[test]
fn without_a_buffer_a_packet_is_dropped_whole() {
    let mut rig = Rig::new(0);
    rig.send(&packet(1, 9000), 1728, usize::MAX, Some(1));
    assert!(rig.got.is_empty() && !rig.gather.is_under_way());
    assert_eq!(rig.dropped(DropReason::NoFreeFrame), 1);
}

#[test]
fn no_ring_can_name_a_buffer_and_none_is_transmitted() {
    let mut rig = Rig::new(1);
    rig.send(&packet(1, 9000), 1728, 2, Some(1));
    let buffer = rig.frames.frame_count() - 1;
    for owner in [Owner::Rx, Owner::Tx, Owner::User, Owner::Free] {
        assert!(rig.frames.take_back(buffer, owner).is_none());
    }
}

proptest! {
    /// Packets of all lengths, cut anyhow; some never end, some are too long. What is whole comes out as it was sent, in
    /// order, and each of the others is one drop.
    #[test]
    fn what_is_whole_comes_out_and_what_is_not_is_counted_once(
        packets in prop::collection::vec((1_usize..12_000, 1_usize..1729, prop::option::weighted(0.2, 1_usize..8)), 1..20),
    ) {
        let mut rig = Rig::new(1);
        let (mut whole, mut broken) = (vec![], 0);
        for (number, (len, piece_bytes, cut)) in packets.into_iter().enumerate() {
            let bytes = packet(number, len);
            let pieces = len.div_ceil(piece_bytes);
            let cut = cut.filter(|cut| *cut < pieces);
            // A packet in one piece and nothing before it is not the gatherer's.
            if pieces == 1 && !rig.gather.is_under_way() {
                continue;
            }
            rig.send(&bytes, piece_bytes, cut.unwrap_or(usize::MAX), Some(number as u64));
            if cut.is_none() && len <= MOST {
                whole.push(bytes);
            } else {
                broken += 1;
            }
        }
        // One that is last and has no end yet is not dropped yet.
        let open = rig.gather.frames_held() as u64;
        prop_assert_eq!(&rig.got, &whole);
        prop_assert_eq!(rig.drops.values().iter().sum::<u64>() + open, broken);
    }
}
