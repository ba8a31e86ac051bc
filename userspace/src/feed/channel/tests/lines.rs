//! Lines that are out of step: one that repeats another session or this one, one that lags by seconds, a sender that restarts.
#![forbid(unsafe_code)]

use super::*;

const YESTERDAY: Session = *b"SESSION000";

/// A channel whose lines both brought messages 1 to 2000, a message every 10 ns; the time is then 20,000.
fn begun() -> Rig {
    let mut rig = Rig::new(ChannelSettings { hold_packets: 400, ..settings() });
    for sequence in 1..=2_000 {
        rig.now_ns += 10;
        rig.data(A, sequence, 1).unwrap();
        rig.data(B, sequence, 1).unwrap_err();
    }
    assert_eq!(rig.take(), "1-2001");
    rig
}

fn restarts(rig: &Rig) -> (u64, u64) {
    let counts = rig.channel.counts();
    (counts.restarts, counts.sessions)
}

#[test]
fn a_line_that_repeats_yesterday_s_session_changes_nothing_while_the_other_goes_on() {
    let mut rig = begun();
    let mut yesterday = 1;
    for sequence in 2_001..2_500 {
        rig.poll(rig.now_ns + 10);
        let _ = rig.send(A, &packet(&YESTERDAY, yesterday, 3));
        yesterday += 3;
        rig.data(B, sequence, 1).unwrap();
    }
    assert_eq!((rig.take().as_str(), rig.channel.session()), ("2001-2500", Some(SESSION)));
    // When the market is quiet, and all that the other line says is a heartbeat now and then.
    for i in 0..200 {
        rig.poll(rig.now_ns + 100);
        let _ = rig.send(A, &packet(&YESTERDAY, yesterday, 3));
        yesterday += 3;
        if i % 40 == 0 {
            rig.data(B, 2_500, 0).unwrap();
        }
    }
    assert_eq!((rig.take().as_str(), restarts(&rig)), ("", (0, 1)));
    assert!(rig.channel.line_drops(A).get(DropReason::Unconfirmed) > 600);
    // And when the other is silent, too, there is nobody to say that it is not the next one.
    for _ in 0..60 {
        rig.poll(rig.now_ns + 100);
        let _ = rig.send(A, &packet(&YESTERDAY, yesterday, 3));
        yesterday += 3;
    }
    assert_eq!((rig.channel.session(), restarts(&rig)), (Some(YESTERDAY), (0, 2)));
    assert!(rig.take().starts_with("end 2500 / "));
    // A repetition of what was left is none that goes on.
    assert_eq!(rig.data(B, 1, 400), Err(DropReason::OldSession));
    assert_eq!(rig.data(B, 2_500, 0), Err(DropReason::OldSession));
    // But when the good line is back, it is: from where it was, though the other one goes on as it did.
    rig.now_ns += 100;
    let _ = rig.send(A, &packet(&YESTERDAY, yesterday, 3));
    rig.data(B, 2_500, 1).unwrap();
    let _ = rig.send(A, &packet(&YESTERDAY, yesterday + 3, 3));
    rig.data(B, 2_501, 1).unwrap();
    assert_eq!(rig.channel.session(), Some(SESSION));
    assert!(rig.take().ends_with("2500-2502"));
    assert_eq!(rig.send(A, &packet(&YESTERDAY, yesterday + 6, 3)), Err(DropReason::OldSession));
}

#[test]
fn a_line_behind_by_many_times_every_deadline_loses_nothing_and_takes_over_where_the_other_stopped() {
    let mut rig = Rig::new(settings());
    let lag = 2_000;
    for i in 1..=7_000_u64 {
        rig.now_ns += 10;
        if i <= 4_000 {
            rig.data(A, i, 1).unwrap();
        }
        if i > lag {
            let _ = rig.data(B, i - lag, 1);
        }
        rig.poll(rig.now_ns);
        assert_eq!(rig.channel.state(), ChannelState::Live);
    }
    assert_eq!((rig.take().as_str(), restarts(&rig)), ("1-5001", (0, 1)));
    assert_eq!((rig.line(B).late, rig.line(B).duplicate, rig.line(B).first), (4_000, 4_000, 1_000));
    assert_eq!(rig.channel.line_skew(B).sum_ns, 4_000 * 10 * lag);
}

#[test]
fn a_line_that_repeats_this_session_changes_nothing_while_the_other_says_where_it_is() {
    let mut rig = begun();
    for i in 0..3 * 2_000 {
        rig.poll(rig.now_ns + 10);
        let _ = rig.data(A, i % 2_000 + 1, 1);
        if i % 400 == 0 {
            rig.data(B, 2_001, 0).unwrap();
        }
    }
    assert_eq!((rig.take().as_str(), restarts(&rig)), ("", (0, 1)));
    rig.data(B, 2_001, 1).unwrap();
    assert_eq!((rig.take().as_str(), rig.line(A).duplicate), ("2001-2002", 6_000));
}

#[test]
fn numbers_that_begin_again_on_both_lines_are_followed_after_the_time_of_a_doubt() {
    let mut rig = begun();
    for sequence in 1..=200 {
        rig.poll(rig.now_ns + 10);
        let _ = rig.data(A, sequence, 1);
        let _ = rig.data(B, sequence, 1);
    }
    assert_eq!(restarts(&rig), (1, 1));
    // What came during the doubt is missing, and can be recovered.
    assert_eq!(rig.channel.gap().map(|gap| (gap.from, gap.to)), Some((1, 101)));
    rig.data(Recovery, 1, 60).unwrap();
    rig.poll(rig.now_ns + 1_000);
    assert_eq!(rig.take(), "1-61 lost 61-101 101-201");
    assert_eq!(rig.data(A, 201, 1), Ok(()));
}

#[test]
fn what_was_missing_before_the_numbers_began_again_is_lost_first() {
    let mut rig = begun();
    rig.data(A, 2_003, 1).unwrap();
    rig.data(B, 2_003, 1).unwrap_err();
    for sequence in 1..=150 {
        rig.now_ns += 10;
        let _ = rig.data(A, sequence, 1);
        let _ = rig.data(B, sequence, 1);
    }
    assert_eq!((restarts(&rig), rig.take().as_str()), ((1, 1), "lost 2001-2003 2003-2004"));
}

#[test]
fn numbers_that_begin_again_after_a_silence_are_followed_at_once() {
    for lines in [[A, B], [A, A], [B, A]] {
        let mut rig = begun();
        rig.poll(30_000);
        assert_eq!(rig.channel.state(), ChannelState::Stale);
        let first = rig.data(lines[0], 1, 2);
        assert_eq!((first, rig.take().as_str()), (Ok(()), ""), "one packet alone proves nothing");
        rig.data(lines[1], 3, 2).unwrap();
        assert_eq!((rig.take().as_str(), restarts(&rig), rig.channel.state()), ("1-5", (1, 1), ChannelState::Live));
    }
}

#[test]
fn numbers_that_begin_again_on_the_only_line_are_followed_when_the_channel_would_be_stale() {
    let mut rig = begun();
    for sequence in 1..=700 {
        rig.poll(rig.now_ns + 10);
        let _ = rig.data(A, sequence, 1);
        assert_eq!(restarts(&rig).0, u64::from(sequence > 500), "{sequence}");
    }
    rig.poll(rig.now_ns + 1_000);
    assert_eq!(rig.take(), "lost 1-500 500-701");
}

#[test]
fn a_heartbeat_of_the_beginning_is_a_witness_and_numbers_may_begin_again_more_than_once() {
    let mut rig = begun();
    for round in 1..4 {
        rig.poll(rig.now_ns + 6_000);
        rig.data(A, 1, 0).unwrap();
        rig.data(B, 1, 400).unwrap();
        assert_eq!((rig.take().as_str(), restarts(&rig)), ("1-401", (round, 1)));
        rig.data(A, 401, 600).unwrap();
        rig.data(B, 401, 600).unwrap_err();
        assert_eq!(rig.take(), "401-1001");
    }
}

#[test]
fn a_late_copy_of_the_beginning_is_a_duplicate_and_no_more() {
    let mut rig = begun();
    for _ in 0..5 {
        rig.poll(rig.now_ns + 4_000);
        assert_eq!(rig.data(A, 1, 2), Err(DropReason::Duplicate));
        assert_eq!(rig.data(B, 1, 2), Err(DropReason::Duplicate), "{}", rig.now_ns);
        rig.data(A, 2_001, 0).unwrap();
        rig.data(B, 2_001, 0).unwrap();
    }
    assert_eq!((rig.take().as_str(), restarts(&rig)), ("", (0, 1)));
}
