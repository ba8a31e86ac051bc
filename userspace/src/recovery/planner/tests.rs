//! The planner against servers of every kind, in simulated time.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::feed::transport::moldudp64;

const SESSION: Session = *b"SESSION001";
const MS: u64 = 1_000_000;

fn settings() -> PlannerSettings {
    PlannerSettings {
        transport: TransportKind::MoldUdp64,
        servers: 2,
        timeout_ns: 10 * MS,
        requests_per_second: 1000,
        outstanding: 4,
    }
}

fn packet(session: &Session, sequence: u64, count: u16) -> Vec<u8> {
    let mut header = [0; moldudp64::HEADER_BYTES];
    moldudp64::write_header(&mut header, session, sequence, count);
    let blocks = if count == moldudp64::END_OF_SESSION { 0 } else { usize::from(count) };
    [&header[..], &[0, 1, b'x'].repeat(blocks)].concat()
}

fn asks(planner: &mut Planner, now_ns: u64) -> Vec<(usize, u64, u16)> {
    std::iter::from_fn(|| planner.next(now_ns)).map(|ask| (ask.server, ask.sequence, ask.count)).collect()
}

#[test]
fn holes_are_asked_for_once_nearest_first_in_pieces() {
    let mut planner = Planner::new(settings());
    assert!(asks(&mut planner, 0).is_empty());
    planner.want(SESSION, [(10, 12), (20, 100)], 0);
    assert_eq!(asks(&mut planner, 0), [(0, 10, 2), (0, 20, 32), (0, 52, 32), (0, 84, 16)]);
    assert!(asks(&mut planner, 9 * MS).is_empty(), "all is asked for");
}

#[test]
fn an_answer_that_was_cut_is_asked_on_and_the_next_pieces_are_as_large() {
    let mut planner = Planner::new(PlannerSettings { outstanding: 1, ..settings() });
    planner.want(SESSION, [(1, 1000)], 0);
    assert_eq!(asks(&mut planner, 0), [(0, 1, 32)]);
    planner.answer(0, &packet(&SESSION, 1, 20), MS).unwrap();
    assert_eq!(asks(&mut planner, MS), [(0, 21, 20)]);
    planner.answer(0, &packet(&SESSION, 21, 20), 2 * MS).unwrap();
    assert_eq!(asks(&mut planner, 2 * MS), [(0, 41, 26)], "whole answers: it may hold more");
    assert_eq!((planner.counts().cut_answers, planner.counts().recovered_messages), (1, 40));
}

#[test]
fn what_is_answered_and_still_missing_is_asked_for_again_after_a_timeout() {
    let mut planner = Planner::new(settings());
    planner.want(SESSION, [(5, 8)], 0);
    assert_eq!(asks(&mut planner, 0), [(0, 5, 3)]);
    planner.answer(0, &packet(&SESSION, 5, 3), MS).unwrap();
    // The worker has not got it yet, or had no room for it.
    planner.want(SESSION, [(5, 8), (9, 10)], 2 * MS);
    assert_eq!(asks(&mut planner, 2 * MS), [(0, 9, 1)]);
    assert_eq!(asks(&mut planner, 11 * MS), [(0, 5, 3)]);
}

#[test]
fn a_server_that_does_not_answer_is_left_for_the_next_and_its_late_answer_is_used() {
    let mut planner = Planner::new(settings());
    planner.want(SESSION, [(5, 8)], 0);
    assert_eq!(asks(&mut planner, 0), [(0, 5, 3)]);
    assert_eq!(asks(&mut planner, 10 * MS), [(1, 5, 3)]);
    let counts = *planner.counts();
    assert_eq!((counts.timeouts, counts.retries, counts.failovers, counts.requests), (1, 1, 1, 2));
    assert_eq!(planner.answer(0, &packet(&SESSION, 5, 3), 11 * MS), Ok(()));
    assert_eq!(planner.answer(1, &packet(&SESSION, 5, 3), 12 * MS), Err(Rejected::Superfluous));
    assert_eq!(planner.counts().recovered_messages, 3);
    // Both answered in the end.
    planner.refused(0, 20 * MS);
    planner.want(SESSION, [(9, 10)], 20 * MS);
    assert_eq!(asks(&mut planner, 20 * MS), [(1, 9, 1)]);
}

#[test]
fn a_server_that_refuses_so_many_at_a_time_is_asked_for_fewer() {
    let mut planner = Planner::new(PlannerSettings { servers: 1, outstanding: 1, ..settings() });
    planner.want(SESSION, [(1, 1000)], 0);
    let (mut now, mut missing) = (0, 1..1000);
    while !missing.is_empty() {
        now += 5 * MS;
        assert!(now < 20_000 * MS, "{missing:?} left");
        let Some(ask) = planner.next(now) else { continue };
        if ask.count <= 10 {
            planner.answer(0, &packet(&SESSION, ask.sequence, ask.count), now).unwrap();
            missing.start += u64::from(ask.count);
            planner.want(SESSION, [(missing.start, missing.end)], now);
        }
    }
    assert!(planner.counts().timeouts > 3);
}

#[test]
fn what_no_server_has_keeps_nothing_else_waiting() {
    let mut planner = Planner::new(PlannerSettings { outstanding: 1, ..settings() });
    let mut missing: Vec<(u64, u64)> = vec![(7, 8), (20, 29), (50, 53)];
    for ms in 0..200 {
        planner.want(SESSION, missing.clone(), ms * MS);
        let Some(ask) = planner.next(ms * MS) else { continue };
        if ask.sequence != 7 {
            planner.answer(ask.server, &packet(&SESSION, ask.sequence, ask.count), ms * MS).unwrap();
            missing.retain(|(from, _)| *from != ask.sequence);
        }
    }
    assert_eq!(missing, [(7, 8)], "and it is still asked for");
    assert!(asks(&mut planner, 5000 * MS).contains(&(0, 7, 1)) || asks(&mut planner, 9000 * MS).contains(&(1, 7, 1)));
}

#[test]
fn what_came_otherwise_is_cancelled_and_its_answer_superfluous() {
    let mut planner = Planner::new(PlannerSettings { outstanding: 1, ..settings() });
    planner.want(SESSION, [(5, 8), (20, 21)], 0);
    assert_eq!(asks(&mut planner, 0), [(0, 5, 3)]);
    planner.want(SESSION, [(20, 21)], MS);
    assert_eq!(asks(&mut planner, MS), [(0, 20, 1)], "its place is free");
    assert_eq!(planner.answer(0, &packet(&SESSION, 5, 3), 2 * MS), Err(Rejected::Superfluous));
    assert_eq!((planner.counts().cancelled, planner.counts().timeouts), (1, 0));
    planner.want(SESSION, [], 3 * MS);
    assert!(asks(&mut planner, 100 * MS).is_empty() && !planner.is_busy());
}

#[test]
fn nothing_is_believed_that_was_not_asked_for() {
    let mut planner = Planner::new(settings());
    planner.want(SESSION, [(5, 8)], 0);
    assert_eq!(planner.answer(0, &packet(&SESSION, 5, 3), 0), Err(Rejected::Unasked), "not asked yet");
    assert_eq!(asks(&mut planner, 0), [(0, 5, 3)]);
    let wrong = [
        (packet(b"SESSION002", 5, 3), Rejected::Session),
        (packet(&SESSION, 6, 2), Rejected::Unasked),
        (packet(&SESSION, 5, 4), Rejected::Unasked),
        (packet(&SESSION, 1 << 40, 3), Rejected::Unasked),
        (packet(&SESSION, 8, 0), Rejected::Empty),
        (packet(&SESSION, 1 << 40, moldudp64::END_OF_SESSION), Rejected::Empty),
        (packet(&SESSION, 5, 3)[..28].to_vec(), Rejected::Malformed),
        (b"garbage".to_vec(), Rejected::Malformed),
        (Vec::new(), Rejected::Malformed),
    ];
    for (payload, why) in &wrong {
        assert_eq!(planner.answer(0, payload, MS), Err(*why), "{payload:?}");
    }
    assert_eq!(planner.answer(1, &packet(&SESSION, 5, 3), MS), Err(Rejected::Unasked), "the other server");
    assert_eq!(planner.answer(0, &packet(&SESSION, 5, 3), MS), Ok(()));
    assert_eq!(planner.answer(0, &packet(&SESSION, 5, 3), MS), Err(Rejected::Unasked), "doubled");
    let counts = planner.counts();
    let rejected = (counts.rejected_malformed, counts.rejected_session, counts.rejected_empty, counts.rejected_unasked);
    assert_eq!((rejected, counts.answers), ((3, 1, 2, 6), 1));
}

#[test]
fn another_session_forgets_what_was_asked() {
    let mut planner = Planner::new(settings());
    planner.want(SESSION, [(5, 8)], 0);
    assert_eq!(asks(&mut planner, 0), [(0, 5, 3)]);
    planner.want(*b"SESSION002", [(5, 8)], MS);
    assert_eq!(planner.answer(0, &packet(&SESSION, 5, 3), MS), Err(Rejected::Session));
    assert_eq!(asks(&mut planner, MS), [(0, 5, 3)]);
}

#[test]
fn the_budget_is_kept_and_a_pause_saves_no_more_than_a_burst() {
    let mut planner = Planner::new(PlannerSettings { requests_per_second: 100, ..settings() });
    let mut sent = Vec::new();
    for ms in 0..1000 {
        // A new hole each time, as if all were answered at once.
        planner.want(SESSION, [(ms * 10 + 1, ms * 10 + 2)], ms * MS);
        sent.push(asks(&mut planner, ms * MS).len());
    }
    let total: usize = sent.iter().sum();
    assert!((100..=104).contains(&total), "{total} in a second");
    assert_eq!(sent[..5], [1, 1, 1, 1, 0], "a burst of four");
}

/// What a simulated server does with a request.
#[derive(Clone, Copy, Debug)]
enum Reply {
    Whole,
    Cut(u16),
    Nothing,
    Twice,
    Wrong,
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        4 => Just(Reply::Whole),
        3 => (1..20_u16).prop_map(Reply::Cut),
        1 => Just(Reply::Nothing),
        1 => Just(Reply::Twice),
        1 => Just(Reply::Wrong),
    ]
}

proptest! {
    /// Against a plain set of numbers: nothing is asked for that is not missing, nothing that was not asked for is accepted,
    /// the limits hold, and in the end everything is there, whatever servers and lines do.
    #[test]
    fn everything_missing_is_recovered_and_nothing_else_accepted(
        holes in prop::collection::vec((1..300_u64, 1..90_u64), 1..6),
        replies in prop::collection::vec(reply(), 1..30),
        filled in prop::collection::vec(1..600_u64, 0..20),
    ) {
        let mut missing = BTreeSet::new();
        let mut from = 1;
        for (gap, len) in holes {
            missing.extend(from + gap..from + gap + len);
            from += gap + len;
        }
        let mut planner = Planner::new(settings());
        let mut filled = filled.into_iter();
        let mut replies = replies.iter().cycle().copied().chain(std::iter::repeat(Reply::Whole));
        let (mut now, mut round) = (0, 0);
        while !missing.is_empty() {
            round += 1;
            prop_assert!(round < 3000, "{:?} left after {} requests", missing, planner.counts().requests);
            let mut set = GapSet::default();
            missing.iter().for_each(|number| set.insert(*number..number + 1));
            let told: Vec<_> = std::iter::from_fn(|| {
                let first = set.first()?;
                set.remove(&first);
                Some((first.start, first.end))
            }).collect();
            planner.want(SESSION, told, now);
            let asked: Vec<Ask> = std::iter::from_fn(|| planner.next(now)).collect();
            prop_assert!(asked.len() <= 4);
            for ask in asked {
                let wanted = ask.sequence..ask.sequence + u64::from(ask.count);
                prop_assert!(wanted.clone().all(|number| missing.contains(&number)), "{:?}", ask);
                // From round 500 on the servers are honest, or it need not end.
                let reply = if round > 500 { Reply::Whole } else { replies.next().unwrap() };
                let (sequence, count, copies) = match reply {
                    Reply::Whole => (ask.sequence, ask.count, 1),
                    Reply::Cut(most) => (ask.sequence, ask.count.min(most), 1),
                    Reply::Nothing => continue,
                    Reply::Twice => (ask.sequence, ask.count, 2),
                    Reply::Wrong => (ask.sequence + 1000, ask.count, 1),
                };
                for copy in 0..copies {
                    let accepted = planner.answer(ask.server, &packet(&SESSION, sequence, count), now).is_ok();
                    let is_right = copy == 0 && !matches!(reply, Reply::Wrong);
                    prop_assert_eq!(accepted, is_right, "{:?}", reply);
                    if accepted {
                        (sequence..sequence + u64::from(count)).for_each(|number| { missing.remove(&number); });
                    }
                }
            }
            // A line fills something meanwhile.
            filled.next().into_iter().for_each(|number| { missing.remove(&number); });
            now += 3 * MS;
        }
    }
}

#[test]
fn who_will_not_wait_has_all_asked_for_anew_at_once_of_the_next_server() {
    let mut planner = Planner::new(settings());
    assert_eq!(planner.hurry(0), 0, "nothing is missing");
    planner.want(SESSION, [(5, 8), (20, 22), (30, 31)], MS);
    assert_eq!(asks(&mut planner, MS), [(0, 5, 3), (0, 20, 2), (0, 30, 1)]);
    planner.answer(0, &packet(&SESSION, 20, 2), 2 * MS).unwrap();
    assert!(asks(&mut planner, 4 * MS).is_empty(), "a timeout is 10 ms");
    assert_eq!(planner.hurry(4 * MS), 6);
    assert_eq!(asks(&mut planner, 4 * MS), [(1, 5, 3), (1, 20, 2), (1, 30, 1)], "also what was answered");
    assert_eq!(planner.answer(0, &packet(&SESSION, 5, 3), 5 * MS), Ok(()), "a late answer is used");
    // Around again, though the first one is to rest.
    planner.refused(0, 5 * MS);
    planner.want(SESSION, [(30, 31)], 6 * MS);
    assert_eq!(planner.hurry(6 * MS), 1);
    assert_eq!(asks(&mut planner, 6 * MS), [(0, 30, 1)]);
}

#[test]
fn who_will_not_wait_gets_no_more_requests_than_the_venue_allows() {
    let mut planner = Planner::new(settings());
    planner.want(SESSION, [(1, 1_000_000)], 0);
    let mut sent = 0;
    for now_ns in (0..1_000 * MS).step_by(100_000) {
        assert_eq!(planner.hurry(now_ns), 999_999);
        sent += asks(&mut planner, now_ns).len();
    }
    assert!((900..=1_004).contains(&sent), "{sent} in a second, of 1000");
}
