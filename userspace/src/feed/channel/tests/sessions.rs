//! Sessions one after another on two lines, with loss, doubles and skew, against a plain set of what arrived.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What one line does with each packet: lost (0), doubled (1), or once.
#[derive(Clone, Debug)]
struct Line {
    cut: u16,
    fates: Vec<u8>,
    skew: u64,
}

fn line() -> impl Strategy<Value = Line> {
    (1..6u16, prop::collection::vec(0..10u8, 30), 0..20_u64).prop_map(|(cut, mut fates, skew)| {
        // At most two in a row are lost: the other line's are kept until this one says the same.
        fates.iter_mut().step_by(3).for_each(|fate| *fate = 9);
        Line { cut, fates, skew }
    })
}

/// Arrivals on a line: (time, session, sequence, count). A message takes one unit of time.
fn arrivals(line: &Line, sessions: u8, messages: u64) -> Vec<(u64, u8, u64, u16)> {
    // That both lines speak for the first session is known from the start.
    let mut arrivals = vec![(0, 0, 1, 0)];
    let mut fates = line.fates.iter().cycle();
    let mut time = line.skew;
    for session in 0..sessions {
        let mut sequence = 1;
        while sequence <= messages {
            let count = u64::from(line.cut).min(messages + 1 - sequence) as u16;
            let times = [0, 2].get(usize::from(*fates.next().expect("endless"))).copied().unwrap_or(1);
            arrivals.extend((0..times).map(|_| (time, session, sequence, count)));
            sequence += u64::from(count);
            time += u64::from(count);
        }
    }
    arrivals
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Each session's messages come out once and in order, all that any line carried; the rest is lost, by name. Lines change
    /// the session within less than what is kept while it is in doubt.
    #[test]
    fn sessions_in_turn_lose_only_what_no_line_carried(a in line(), b in line(), sessions in 2..5u8, messages in 40..80_u64) {
        let settings = ChannelSettings { start: StartAt::First, hold_packets: 200, give_up_ns: 1 << 40, ..settings() };
        let mut rig = Rig::new(ChannelSettings { stale_ns: 1 << 50, ..settings });
        let name = |session: u8| *format!("SESSION{session:03}").as_bytes().first_chunk().unwrap();
        let mut all: Vec<_> = arrivals(&a, sessions, messages).into_iter().map(|packet| (packet, A)).collect();
        all.extend(arrivals(&b, sessions, messages).into_iter().map(|packet| (packet, B)));
        all.sort_by_key(|((time, ..), _)| *time);
        let mut arrived: BTreeMap<Session, BTreeSet<u64>> = BTreeMap::new();
        for ((time, session, sequence, count), role) in all {
            rig.now_ns = time + 1;
            let _ = rig.send(role, &packet(&name(session), sequence, count));
            arrived.entry(name(session)).or_default().extend(sequence..sequence + u64::from(count));
        }
        rig.poll(1 << 42);
        let mut out: BTreeMap<Session, (BTreeSet<u64>, u64)> = BTreeMap::new();
        for told in std::mem::take(&mut rig.out.0) {
            let (session, from, to, is_lost) = match told {
                Out::Message(session, sequence, _) => (session, sequence, sequence + 1, false),
                Out::Lost(session, from, to) => (session, from, to, true),
                Out::End(..) => continue,
            };
            let (delivered, next) = out.entry(session).or_insert((BTreeSet::new(), 1));
            prop_assert_eq!(*next, from);
            *next = to;
            if !is_lost {
                delivered.insert(from);
            }
        }
        for (session, arrived) in &arrived {
            let (delivered, next) = &out[session];
            prop_assert_eq!((delivered, *next), (arrived, arrived.last().unwrap() + 1), "{}", session.escape_ascii());
        }
        prop_assert_eq!(rig.channel.counts().sessions, u64::from(sessions));
    }
}
