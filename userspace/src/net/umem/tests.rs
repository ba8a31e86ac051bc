//! Tests of the pool in plain memory; the UMEM's are in the network tests.
#![forbid(unsafe_code)]

use super::*;

#[test]
fn alloc_and_free_conserve_the_frames_and_reuse_the_warm_one() {
    let frames = Frames::heap(4, 2048);
    let first = frames.alloc().unwrap();
    let second = frames.alloc().unwrap();
    frames.assert_conserved(0, 0, 2);
    let warm = second.index;
    frames.free(second);
    let again = frames.alloc().unwrap();
    assert_eq!(again.index, warm);
    frames.free(again);
    frames.free(first);
    frames.assert_conserved(0, 0, 0);
    let all: Vec<_> = std::iter::from_fn(|| frames.alloc()).collect();
    assert_eq!((all.len(), frames.free_count()), (4, 0));
    frames.assert_conserved(0, 0, 4);
}

#[test]
#[should_panic(expected = "a frame of another pool")]
fn a_frame_of_another_pool_is_refused() {
    let (one, other) = (Frames::heap(1, 2048), Frames::heap(1, 2048));
    let frame = one.alloc().unwrap();
    other.free(frame);
}

#[test]
fn only_what_was_lent_is_taken_back_and_only_once() {
    let frames = Frames::heap(2, 2048);
    let frame = frames.alloc().unwrap();
    let index = frames.lend(frame, Owner::Rx) as usize;
    assert!(frames.take_back(index, Owner::Tx).is_none(), "lent to a receive port, not a transmit port");
    assert!(frames.take_back(1 - index, Owner::Rx).is_none(), "free");
    assert!(frames.take_back(2, Owner::Rx).is_none(), "no such frame");
    let frame = frames.take_back(index, Owner::Rx).unwrap();
    assert!(frames.take_back(index, Owner::Rx).is_none(), "taken already");
    frames.free(frame);
    frames.assert_conserved(0, 0, 0);
}

#[test]
fn a_packet_must_lie_inside_its_frame() {
    let frames = Frames::heap(1, 2048);
    let frame = frames.alloc().unwrap();
    for (start, len, fits) in [
        (HOME, 0, true),
        (HOME, 2048 - HOME, true),
        (HOME, 2049 - HOME, false),
        (BUFFER_START, 1, true),
        (BUFFER_START - 1, 1, false),
        (2048, 0, true),
        (2049, 0, false),
        (usize::MAX, 2, false),
        (HOME, usize::MAX, false),
    ] {
        assert_eq!(frames.set_packet(&frame, start, len), fits, "{start} + {len}");
    }
    frames.free(frame);
}

#[test]
fn jumbo_buffers_are_frames_of_the_pool_that_are_never_handed_out_for_anything_else() {
    let frames = Frames::heap(2, 2048).with_jumbos(2);
    assert_eq!((frames.frame_count(), frames.free_count(), frames.free_jumbo_count()), (4, 2, 2));
    assert_eq!(frames.longest_payload(), JUMBO_BYTES as usize - BUFFER_START - PAYLOAD_OFFSET);
    let ordinary: Vec<_> = std::iter::from_fn(|| frames.alloc()).collect();
    assert_eq!(ordinary.len(), 2);
    let jumbo = frames.alloc_jumbo().unwrap();
    frames.assert_conserved(1, 0, 2);
    frames.assign(&jumbo, Owner::User);
    assert!(frames.set_packet(&jumbo, HOME, 9000) && !frames.set_packet(&jumbo, HOME, JUMBO_BYTES as usize - HOME + 1));
    assert!(!frames.set_packet(&ordinary[0], HOME, 2049 - HOME));
    frames.free(jumbo);
    ordinary.into_iter().for_each(|frame| frames.free(frame));
    frames.assert_conserved(0, 0, 0);
    assert_eq!((frames.free_count(), frames.free_jumbo_count()), (2, 2));
    assert!(!Frames::heap(1, 2048).takes_jumbos());
}

#[test]
fn metadata_is_read_once_and_only_with_the_right_cookie() {
    let frames = Frames::heap(1, 2048);
    let mut frame = frames.alloc().unwrap();
    let at = HOME - BUFFER_START - META_BYTES;
    let meta = &mut frames.buffer_mut(&mut frame)[at..at + META_BYTES];
    meta[..8].copy_from_slice(&77u64.to_ne_bytes());
    for (i, half) in [5u16, 42, 100, 0xC00C].into_iter().enumerate() {
        meta[8 + 2 * i..10 + 2 * i].copy_from_slice(&half.to_ne_bytes());
    }
    assert_eq!(frames.take_meta(&mut frame, 0xBEEF), None);
    let expected = FrameMeta { received_ns: 77, line: 5, payload_offset: 42, payload_len: 100, cookie: 0xC00C };
    assert_eq!(frames.take_meta(&mut frame, 0xC00C), Some(expected));
    assert_eq!(frames.take_meta(&mut frame, 0xC00C), None, "a stale stamp must not be believed");
    frames.free(frame);
}

#[test]
fn sizes_that_the_kernel_does_not_take_are_refused_by_name() {
    for (count, bytes, rings, name) in
        [(100, 2048, 64, "frame_count"), (64, 1024, 64, "frame_bytes"), (64, 2048, 3, "ring_entries")]
    {
        let error = Frames::umem(count, bytes, rings, false).unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
    }
}
