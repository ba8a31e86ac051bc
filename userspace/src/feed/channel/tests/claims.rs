//! One packet alone neither jumps far nor changes the session; two do, and nothing is lost by waiting for the second.
#![forbid(unsafe_code)]

use super::*;

fn unconfirmed(rig: &Rig, role: LineRole) -> u64 {
    rig.channel.line_drops(role).get(DropReason::Unconfirmed)
}

/// A channel in which messages 1 to 4 were delivered.
fn begun() -> Rig {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 4).unwrap();
    assert_eq!(rig.take(), "1-5");
    rig
}

#[test]
fn one_stray_packet_changes_nothing_and_is_counted_when_the_lines_went_on_without_it() {
    let far = 1 << 60;
    for stray in [
        packet(&SESSION, far, 0),
        packet(&SESSION, far, moldudp64::END_OF_SESSION),
        packet(&SESSION, far, 3),
        packet(&NEXT_SESSION, 1, 3),
        packet(&NEXT_SESSION, far, 0),
    ] {
        let mut rig = begun();
        assert_eq!(rig.send(A, &stray), Ok(()));
        assert_eq!((rig.channel.state(), rig.channel.gap()), (ChannelState::Live, None));
        for sequence in 5..10 {
            rig.data(B, sequence, 1).unwrap();
            rig.poll(rig.now_ns + 300);
        }
        assert_eq!(rig.take(), "5-10");
        assert_eq!(unconfirmed(&rig, A), 1);
        let counts = rig.channel.counts();
        assert_eq!((counts.sessions, counts.gaps_opened, counts.messages_lost), (1, 0, 0));
        // What comes so much later is a stray of its own.
        let _ = rig.send(B, &stray);
        rig.data(A, 10, 1).unwrap();
        assert_eq!(rig.take(), "10-11");
    }
}

#[test]
fn strays_that_disagree_confirm_nothing() {
    let mut rig = begun();
    for i in 0..50u8 {
        let stray =
            if i % 2 == 0 { packet(&[b'a' + i / 2; 10], 7, 1) } else { packet(&SESSION, u64::from(i) << 50, 1) };
        rig.send([A, B][usize::from(i / 2 % 2)], &stray).unwrap();
        rig.data(A, 5 + u64::from(i), 1).unwrap();
        rig.now_ns += 10;
    }
    assert_eq!((rig.take().as_str(), rig.channel.session()), ("5-55", Some(SESSION)));
    // The last one still waits.
    assert_eq!(unconfirmed(&rig, A) + unconfirmed(&rig, B), 49);
}

#[test]
fn a_line_that_doubles_a_stray_packet_is_one_witness() {
    let mut rig = begun();
    let stray = packet(&NEXT_SESSION, 1, 1);
    rig.send(A, &stray).unwrap();
    assert_eq!(rig.send(A, &stray), Err(DropReason::Unconfirmed));
    rig.data(A, 5, 1).unwrap();
    assert_eq!(rig.take(), "5-6");
}

#[test]
fn a_session_change_on_both_lines_loses_nothing() {
    for (first, second) in [((A, 1), (B, 1)), ((A, 1), (A, 3)), ((B, 3), (A, 1)), ((A, 3), (A, 1))] {
        let mut rig = begun();
        rig.send(first.0, &packet(&NEXT_SESSION, first.1, 2)).unwrap();
        // The slower line still brings the end of the old session.
        rig.data(B, 5, 2).unwrap();
        rig.now_ns = 2_000;
        let _ = rig.send(second.0, &packet(&NEXT_SESSION, second.1, 2));
        for role in [A, B] {
            let _ = rig.send(role, &packet(&NEXT_SESSION, 1, 4));
            let _ = rig.send(role, &packet(&NEXT_SESSION, 5, 1));
        }
        assert_eq!(rig.take(), "5-7 end 7 / 1-6", "{first:?}, then {second:?}");
        assert_eq!(rig.channel.counts().messages_lost, 0);
        assert_eq!(unconfirmed(&rig, A) + unconfirmed(&rig, B), 0);
    }
}

#[test]
fn a_session_change_on_one_line_loses_nothing_however_slow_it_is() {
    let mut rig = begun();
    // A heartbeat and the first data have the same sequence and are two packets all the same.
    for (count, now_ns) in [(0, 10), (2, 4_000)] {
        rig.poll(now_ns);
        rig.send(A, &packet(&NEXT_SESSION, 1, count)).unwrap();
    }
    assert_eq!(rig.take(), "end 5 / 1-3");
    let mut rig = begun();
    for (i, sequence) in [1, 3, 5].into_iter().enumerate() {
        rig.poll(10 + 4_000 * i as u64);
        rig.send(A, &packet(&NEXT_SESSION, sequence, 2)).unwrap();
    }
    assert_eq!((rig.take().as_str(), rig.channel.counts().messages_lost), ("end 5 / 1-7", 0));
}

#[test]
fn a_session_that_is_over_or_silent_is_left_at_once() {
    let mut rig = begun();
    rig.send(A, &packet(&NEXT_SESSION, 1, 2)).unwrap();
    rig.data(B, 5, moldudp64::END_OF_SESSION).unwrap();
    assert_eq!(rig.take(), "end 5");
    // One line lost the beginning: it was kept.
    rig.send(A, &packet(&NEXT_SESSION, 3, 2)).unwrap();
    assert_eq!(rig.take(), "1-5");
    rig.poll(10_000);
    assert_eq!(rig.channel.state(), ChannelState::Stale);
    rig.send(A, &packet(b"SESSION003", 1, 1)).unwrap();
    assert_eq!(rig.take(), "end 5 / 1-2");
    // A stray one is dropped when another session is begun.
    rig.send(A, &packet(b"A STRAY   ", 1, 1)).unwrap();
    rig.data(B, 1, 1).unwrap_err();
    rig.poll(20_000);
    rig.send(B, &packet(b"SESSION004", 1, 1)).unwrap();
    assert_eq!((rig.take().as_str(), unconfirmed(&rig, A)), ("end 2 / 1-2", 1));
}

#[test]
fn a_far_jump_that_both_lines_make_is_a_gap_like_any_other() {
    let mut rig = begun();
    let far = 1 << 30;
    rig.data(A, far, 2).unwrap();
    rig.data(A, far + 2, 2).unwrap();
    assert_eq!(rig.channel.gap().map(|gap| (gap.from, gap.to)), Some((5, far)));
    assert_eq!(rig.data(B, far, 4), Err(DropReason::Duplicate));
    rig.poll(1_000);
    assert_eq!(rig.take(), format!("lost 5-{far} {far}-{}", far + 4));
}

/// Sessions that change with every packet of line A, all confirmed by line B, in one batch.
#[test]
fn claims_confirmed_within_one_batch_keep_their_payloads_apart() {
    let mut channel = Channel::new(ChannelSettings { hold_packets: 1, ..settings() }).unwrap();
    let packets: Vec<_> = (0..ADMIT_LIMIT as u32 / 2)
        .map(|i| packet(format!("{i:10}").as_bytes().first_chunk().unwrap(), 1, 1 + (i % 5) as u16))
        .collect();
    for (slot, payload) in packets.iter().enumerate() {
        let _ = channel.admit(slot as u16, A, payload, 0);
        let _ = channel.admit(slot as u16, B, payload, 0);
    }
    let mut out = Collect::default();
    channel.deliver(|slot| &packets[usize::from(slot)], 0, &mut out);
    let mut expected = Vec::new();
    for i in 0..packets.len() as u64 {
        let session = *format!("{i:10}").as_bytes().first_chunk().unwrap();
        expected.extend((1..=1 + i % 5).map(|sequence| Out::Message(session, sequence, message(sequence))));
        expected.push(Out::End(session, 2 + i % 5));
    }
    expected.pop();
    assert_eq!(out.0, expected);
}
