//! The table "Edge cases that must have a test" of the MoldUDP64 sheet, and the arbitration around it.
#![forbid(unsafe_code)]

use super::*;

#[test]
fn either_line_delivers_and_the_other_is_a_duplicate() {
    let mut rig = Rig::new(settings());
    assert_eq!(rig.data(A, 1, 3), Ok(()));
    assert_eq!(rig.data(B, 1, 3), Err(DropReason::Duplicate));
    assert_eq!(rig.data(B, 4, 2), Ok(()));
    assert_eq!(rig.data(A, 4, 2), Err(DropReason::Duplicate));
    assert_eq!(rig.take(), "1-6");
    assert_eq!((rig.line(A).first, rig.line(A).duplicate), (1, 1));
    assert_eq!((rig.line(B).first, rig.line(B).duplicate), (1, 1));
    let counts = rig.channel.counts();
    assert_eq!((counts.packets, counts.messages, counts.duplicate_messages, counts.next_sequence), (2, 5, 5, 6));
    assert_eq!(rig.channel.state(), ChannelState::Live);
    assert_eq!(rig.channel.line_drops(A).get(DropReason::Duplicate), 1);
}

#[test]
fn lines_that_cut_packets_differently_overlap_message_by_message() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 5).unwrap();
    rig.data(B, 3, 6).unwrap();
    assert_eq!(rig.data(A, 6, 3), Err(DropReason::Duplicate));
    rig.data(A, 8, 2).unwrap();
    assert_eq!(rig.take(), "1-10");
    assert_eq!((rig.line(B).overlap, rig.line(A).overlap), (1, 1));
    assert_eq!(rig.channel.counts().duplicate_messages, 3 + 3 + 1);
}

#[test]
fn the_other_line_fills_a_gap_and_overlaps_two_held_packets() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    rig.data(A, 8, 4).unwrap();
    rig.data(A, 4, 2).unwrap();
    assert_eq!(rig.take(), "1-3");
    assert_eq!(rig.channel.state(), ChannelState::Gap);
    assert_eq!(rig.channel.gap().map(|gap| (gap.session, gap.from, gap.to)), Some((SESSION, 3, 4)));
    // Overlaps 4-6 wholly and the front of 8-12.
    rig.data(B, 3, 6).unwrap();
    assert_eq!(rig.take(), "3-12");
    assert_eq!(rig.channel.gap(), None);
    let counts = rig.channel.counts();
    assert_eq!((counts.gaps_opened, counts.gaps_closed, counts.gaps_lost, counts.held_packets), (1, 1, 0, 2));
    assert_eq!((rig.line(A).ahead, rig.line(A).first, rig.line(A).duplicate), (2, 2, 1));
}

#[test]
fn a_heartbeat_ahead_opens_the_gap_at_once() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    rig.data(B, 3, 0).unwrap();
    assert_eq!(rig.channel.state(), ChannelState::Live);
    rig.data(B, 5, 0).unwrap();
    assert_eq!(rig.channel.gap().map(|gap| (gap.from, gap.to)), Some((3, 5)));
    rig.data(A, 2, 0).unwrap();
    rig.data(Recovery, 3, 1).unwrap();
    assert_eq!(rig.channel.gap().map(|gap| (gap.from, gap.to)), Some((4, 5)));
    rig.data(Recovery, 4, 1).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("1-5", ChannelState::Live));
    assert_eq!((rig.line(B).heartbeats, rig.line(A).heartbeats, rig.line(Recovery).first), (2, 1, 2));
}

#[test]
fn a_gap_asks_for_recovery_and_is_then_declared_lost_before_what_follows() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    rig.data(A, 5, 2).unwrap();
    rig.poll(99);
    assert!(!rig.channel.gap().unwrap().wants_recovery);
    rig.poll(100);
    assert!(rig.channel.gap().unwrap().wants_recovery);
    rig.poll(999);
    assert_eq!(rig.take(), "1-3");
    rig.poll(1000);
    assert_eq!(rig.take(), "lost 3-5 5-7");
    assert_eq!(rig.data(B, 3, 2), Err(DropReason::Late));
    let counts = rig.channel.counts();
    assert_eq!((counts.gaps_lost, counts.messages_lost, counts.messages), (1, 2, 4));
    assert_eq!(rig.channel.state(), ChannelState::Live);
}

#[test]
fn with_on_gap_pass_what_follows_a_gap_leaves_when_the_other_line_had_its_time() {
    let mut rig = Rig::new(ChannelSettings { on_gap: OnGap::Pass, ..settings() });
    rig.data(A, 1, 2).unwrap();
    rig.data(A, 5, 2).unwrap();
    rig.poll(99);
    assert_eq!(rig.take(), "1-3");
    rig.poll(100);
    assert_eq!(rig.take(), "lost 3-5 5-7");
    // The other line may still fill a gap within its time.
    rig.data(A, 9, 1).unwrap();
    rig.poll(199);
    rig.data(B, 7, 2).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.counts().gaps_lost), ("7-10", 1));
    // A session change is waited for as long as ever.
    rig.send(A, &packet(&NEXT_SESSION, 1, 1)).unwrap();
    rig.data(B, 10, 1).unwrap();
    rig.poll(1_000);
    rig.data(B, 11, 1).unwrap();
    rig.send(B, &packet(&NEXT_SESSION, 1, 1)).unwrap_err();
    assert_eq!(rig.take(), "10-12 end 12 / 1-2");
}

#[test]
fn what_is_held_within_a_given_up_gap_is_delivered() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 1).unwrap();
    rig.data(A, 10, 0).unwrap();
    rig.data(B, 3, 2).unwrap();
    rig.data(B, 7, 1).unwrap();
    rig.poll(1000);
    assert_eq!(rig.take(), "1-2 lost 2-3 3-5 lost 5-7 7-8 lost 8-10");
    let counts = rig.channel.counts();
    assert_eq!((counts.gaps_opened, counts.gaps_lost, counts.messages_lost), (1, 1, 5));
}

#[test]
fn the_end_of_session_waits_for_what_is_missing_and_is_told_once() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    rig.data(A, 5, moldudp64::END_OF_SESSION).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("1-3", ChannelState::Gap));
    rig.data(B, 3, 2).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("3-5 end 5", ChannelState::Ended));
    rig.data(A, 5, moldudp64::END_OF_SESSION).unwrap();
    rig.data(B, 5, moldudp64::END_OF_SESSION).unwrap();
    rig.poll(1_000_000);
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("", ChannelState::Ended));
}

#[test]
fn the_end_of_session_comes_also_when_recovery_gives_up() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    rig.data(A, 5, moldudp64::END_OF_SESSION).unwrap();
    rig.poll(1000);
    assert_eq!(rig.take(), "1-3 lost 3-5 end 5");
}

#[test]
fn malformed_packets_change_nothing() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    let good = packet(&SESSION, 3, 2);
    for length in 0..good.len() {
        let reason = if length < 20 { DropReason::TruncatedHeader } else { DropReason::TruncatedBlocks };
        assert_eq!(rig.send(A, &good[..length]), Err(reason), "{length} bytes");
    }
    let mut lying = packet(&SESSION, 9, 1);
    lying[18..20].copy_from_slice(&0xFFFEu16.to_be_bytes());
    assert_eq!(rig.send(A, &lying), Err(DropReason::TruncatedBlocks));
    lying = packet(&NEXT_SESSION, 1, 1);
    lying.pop();
    assert_eq!(rig.send(A, &lying), Err(DropReason::TruncatedBlocks));
    let mut zero = packet(&SESSION, 9, 1);
    zero[10..18].fill(0);
    assert_eq!(rig.send(A, &zero), Err(DropReason::BadSequence));
    zero[10..18].fill(0xFF);
    assert_eq!(rig.send(A, &zero), Err(DropReason::BadSequence));
    assert_eq!((rig.channel.state(), rig.channel.counts().next_sequence), (ChannelState::Live, 3));
    assert_eq!(rig.line(A).malformed, good.len() as u64 + 4);
    rig.data(B, 3, 2).unwrap();
    assert_eq!(rig.take(), "1-5");
}

#[test]
fn a_hostile_sequence_near_the_end_of_u64_neither_panics_nor_wraps() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 1).unwrap();
    let mut far = packet(&SESSION, 2, 1);
    far[10..18].copy_from_slice(&(u64::MAX - 1).to_be_bytes());
    assert_eq!(rig.send(A, &far), Ok(()));
    assert_eq!(rig.send(B, &far), Err(DropReason::Duplicate));
    rig.data(A, 2, 3).unwrap();
    assert_eq!(rig.take(), "1-5");
    rig.poll(1000);
    assert_eq!(rig.channel.counts().next_sequence, u64::MAX);
    assert_eq!(rig.channel.counts().messages_lost, u64::MAX - 1 - 5);
}

#[test]
fn bytes_after_the_last_block_are_counted_and_the_packet_delivered() {
    let mut rig = Rig::new(settings());
    let mut padded = packet(&SESSION, 1, 2);
    padded.extend_from_slice(&[0; 4]);
    rig.send(A, &padded).unwrap();
    assert_eq!((rig.take().as_str(), rig.line(A).trailing), ("1-3", 1));
}

#[test]
fn the_first_packet_decides_where_a_late_start_begins() {
    let mut rig = Rig::new(settings());
    rig.data(B, 500, 0).unwrap();
    assert_eq!((rig.channel.state(), rig.channel.first_sequence()), (ChannelState::Live, 500));
    rig.data(A, 500, 2).unwrap();
    assert_eq!(rig.take(), "500-502");

    let mut rig = Rig::new(ChannelSettings { start: StartAt::First, ..settings() });
    rig.data(A, 4, 2).unwrap();
    assert_eq!((rig.channel.state(), rig.channel.first_sequence()), (ChannelState::Backfill, 1));
    rig.data(Recovery, 1, 2).unwrap();
    assert_eq!(rig.channel.state(), ChannelState::Gap);
    rig.data(Recovery, 3, 1).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("1-6", ChannelState::Live));
}

#[test]
fn a_new_session_declares_the_rest_of_the_old_one_lost_and_starts_at_one() {
    let mut rig = Rig::new(settings());
    rig.data(A, 5, 2).unwrap();
    rig.data(A, 9, 2).unwrap();
    rig.data(B, 14, 0).unwrap();
    rig.send(A, &packet(&NEXT_SESSION, 2, 2)).unwrap();
    assert_eq!(rig.take(), "5-7");
    assert_eq!(rig.send(B, &packet(&NEXT_SESSION, 2, 2)), Err(DropReason::Duplicate));
    assert_eq!(rig.take(), "lost 7-9 9-11 lost 11-14 end 14");
    assert_eq!(rig.channel.gap().map(|gap| (gap.session, gap.from, gap.to)), Some((NEXT_SESSION, 1, 2)));
    assert_eq!(rig.data(B, 7, 2), Err(DropReason::OldSession));
    assert_eq!(rig.send(Recovery, &packet(b"SESSION003", 1, 1)), Err(DropReason::OldSession));
    rig.send(B, &packet(&NEXT_SESSION, 1, 1)).unwrap();
    assert_eq!(rig.take(), "1-4");
    let counts = rig.channel.counts();
    assert_eq!((counts.sessions, counts.gaps_opened, counts.gaps_lost, counts.gaps_closed), (2, 3, 2, 1));
}

#[test]
fn a_session_that_ended_is_not_ended_again_by_the_next_one() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    rig.data(A, 3, moldudp64::END_OF_SESSION).unwrap();
    rig.send(A, &packet(&NEXT_SESSION, 1, 2)).unwrap();
    assert_eq!(rig.take(), "1-3 end 3 / 1-3");
}

#[test]
fn a_full_hold_buffer_keeps_the_nearest_and_the_rest_is_missing_again() {
    let mut rig = Rig::new(ChannelSettings { hold_packets: 2, ..settings() });
    rig.data(A, 1, 1).unwrap();
    rig.data(A, 9, 1).unwrap();
    rig.now_ns = 4;
    rig.data(A, 5, 1).unwrap();
    assert_eq!(rig.data(A, 12, 1), Err(DropReason::HoldFull));
    rig.data(B, 3, 1).unwrap();
    let counts = rig.channel.counts();
    assert_eq!((counts.hold_evicted, counts.held_packets), (2, 3));
    assert_eq!(rig.channel.line_drops(A).get(DropReason::HoldFull), 2);
    rig.now_ns = 10;
    rig.data(B, 2, 1).unwrap();
    rig.data(B, 4, 1).unwrap();
    rig.data(B, 6, 3).unwrap();
    assert_eq!(rig.take(), "1-9");
    // 9 was evicted at 4: it is a gap once more, as old as that.
    assert_eq!(rig.channel.gap().map(|gap| (gap.from, gap.opened_ns)), Some((9, 4)));
    rig.data(Recovery, 9, 4).unwrap();
    assert_eq!((rig.take().as_str(), rig.channel.state()), ("9-13", ChannelState::Live));
    let counts = rig.channel.counts();
    assert_eq!(counts.gaps_opened, counts.gaps_closed);
}

/// One packet lost by both lines at a rate at which the buffer is full long before the gap is given up; then the rate
/// doubles.
#[test]
fn one_loss_at_a_rate_beyond_the_hold_buffer_costs_one_give_up_and_no_more() {
    for (hold_packets, polled_every) in [(1, 1), (8, 1), (8, 7), (33, 4), (90, 1), (99, 13)] {
        let mut rig = Rig::new(ChannelSettings { hold_packets, ..settings() });
        for sequence in 1..4_000 {
            rig.now_ns += if sequence < 50 { 10 } else { 5 };
            if sequence != 5 {
                let _ = rig.data(A, sequence, 1);
            }
            if sequence % polled_every == 0 {
                rig.poll(rig.now_ns);
            }
        }
        let counts = rig.channel.counts();
        assert_eq!(rig.channel.state(), ChannelState::Live, "{hold_packets} packets: {counts:?}");
        assert_eq!(counts.next_sequence, 4_000);
        // What came within give_up, and until what was dropped first was given up, too; and a poll or two.
        let most = settings().give_up_ns / 5 + 2 * hold_packets as u64 + 2 * polled_every + 2;
        assert!(counts.messages_lost <= most, "{hold_packets} packets: {counts:?}");
        assert_eq!(counts.messages + counts.messages_lost, 3_999);
    }
}

#[test]
fn silence_on_both_lines_is_stale_and_a_retransmission_is_no_sign_of_life() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 1).unwrap();
    rig.poll(4999);
    assert_eq!(rig.channel.state(), ChannelState::Live);
    assert_eq!(rig.data(Recovery, 1, 1), Err(DropReason::Duplicate));
    rig.poll(5000);
    assert_eq!(rig.channel.state(), ChannelState::Stale);
    assert_eq!(rig.data(B, 1, 1), Err(DropReason::Duplicate));
    assert_eq!(rig.channel.state(), ChannelState::Live);
    rig.poll(9999);
    assert_eq!(rig.channel.state(), ChannelState::Live);
}

#[test]
fn a_batch_is_delivered_in_order_over_the_look_ahead_window() {
    let mut channel = Channel::new(settings()).unwrap();
    let packets: Vec<_> = [(1, 40), (60, 5), (41, 1), (42, 18), (65, 1)]
        .map(|(sequence, count)| packet(&SESSION, sequence, count))
        .into();
    for (slot, payload) in packets.iter().enumerate() {
        channel.admit(slot as u16, A, payload, 0).unwrap();
    }
    assert!(channel.has_deliveries());
    let mut out = Collect::default();
    channel.deliver(|slot| &packets[usize::from(slot)], 0, &mut out);
    let sequences = out.0.iter().map(|out| if let Out::Message(_, sequence, _) = out { *sequence } else { 0 });
    assert!(sequences.eq(1..66));
    assert!(!channel.has_deliveries());
}

#[test]
fn sizes_out_of_range_are_refused_with_the_legal_range() {
    let error = |settings| Channel::new(settings).unwrap_err().to_string();
    assert_eq!(error(ChannelSettings { hold_packets: 0, ..settings() }), "hold_packets = 0: must be 1 to 262144");
    assert_eq!(
        error(ChannelSettings { max_orders: 1 << 29, ..settings() }),
        "max_orders = 536870912: must be 1 to 268435456"
    );
}

#[test]
fn a_channel_that_goes_counts_what_it_holds() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    rig.data(A, 5, 2).unwrap();
    rig.data(B, 9, 1).unwrap();
    // Of another session, while this one lives: kept until a second witness agrees.
    let _ = rig.send(B, &packet(&NEXT_SESSION, 1, 1));
    rig.take();
    rig.channel.close();
    let removed = |rig: &Rig| [A, B].map(|role| rig.channel.line_drops(role).get(DropReason::Removed));
    assert_eq!(removed(&rig), [1, 2]);
    rig.channel.close();
    assert_eq!(removed(&rig), [1, 2], "once");
    assert_eq!((rig.take(), rig.channel.counts().next_sequence), (String::new(), 3));
}

#[test]
fn another_line_in_the_place_of_one_begins_at_zero_and_the_channel_goes_on() {
    let mut rig = Rig::new(settings());
    rig.data(A, 1, 2).unwrap();
    rig.data(B, 5, 2).unwrap();
    assert_eq!(rig.line(B).packets, 1);
    rig.channel.renew_line(B);
    assert_eq!((rig.line(B), rig.line(A).packets), (LineCounts::default(), 1));
    rig.data(B, 3, 2).unwrap();
    assert_eq!((rig.take().as_str(), rig.line(B).packets), ("1-7", 1));
}
