//! Frames over several buffers through the multi-buffer build of the program, and what the other build does about them.
#![forbid(unsafe_code)]

use feedhandler::net::Rules;

use super::*;

/// The table's first frame with another payload, so long that the whole frame has `len` bytes.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = table().swap_remove(0).frame;
    frame.truncate(42);
    frame.extend((42..len).map(|at| at as u8));
    frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    frame[38..40].copy_from_slice(&((len - 34) as u16).to_be_bytes());
    frame
}

#[test]
fn frames_over_several_buffers_are_stamped_with_their_whole_length() {
    let mut probe = Probe::new(Unsubscribed::Drop, true);
    let _socket = occupy_queue_0(&mut probe.filter);
    let rules = Rules::new(&RULES);
    let mut bytes = 0;
    // From one buffer to three: the last of a page, the first of another.
    for len in [64, 1500, 3000, 3500, 3584, 3585, 4000, 4096, 4097, 7000, 8192, 9000, 9014, 9100] {
        let whole = frame(len);
        let (verdict, run) = probe.run(&whole);
        assert_eq!((verdict, run.action), (Verdict::Redirected, XDP_REDIRECT), "{len} bytes");
        let meta = run.meta.expect("a stamp");
        let found = (meta.line, usize::from(meta.payload_offset), usize::from(meta.payload_len));
        assert_eq!(found, (RULES[0].1.line, 42, len - 42), "{len} bytes");
        bytes += len as u64;
        // Padding behind the datagram, and a byte that is missing: the frame's end counts, wherever it lies.
        let padded = [&whole[..], &[0; 18]].concat();
        let (verdict, run) = probe.run(&padded);
        assert_eq!(
            (verdict, run.meta.map(|meta| usize::from(meta.payload_len))),
            (Verdict::Redirected, Some(len - 42))
        );
        bytes += padded.len() as u64;
        let cut = &whole[..len - 1];
        assert_eq!(probe.run(cut).0, Verdict::PassTruncated, "{len} bytes but one");
        assert_eq!(rules.decide(cut, true).unwrap_err(), Verdict::PassTruncated);
    }
    assert_eq!(probe.filter.line_stats(RULES[0].1.line).unwrap().bytes, bytes, "bytes of all buffers are counted");
}

/// A driver never gives it any (the kernel lets it onto no such interface), a test run does.
#[test]
fn what_goes_on_behind_the_one_buffer_is_truncated_to_the_other_build() {
    let mut probe = Probe::new(Unsubscribed::Drop, false);
    let _socket = occupy_queue_0(&mut probe.filter);
    assert_eq!(probe.run(&frame(1500)).0, Verdict::Redirected);
    assert_eq!(probe.run(&frame(9000)).0, Verdict::PassTruncated);
}
