//! The hold buffer against a plain list of packets and a plain set of messages.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Held packets, by first message, with the message after their last.
#[derive(Default)]
struct Plain(BTreeMap<u64, u64>);

impl Plain {
    fn messages(&self) -> BTreeSet<u64> {
        self.0.iter().flat_map(|(sequence, end)| *sequence..*end).collect()
    }

    /// What becomes of a packet: `held`, `duplicate`, `full`, or `evicted` with the first message of which.
    fn insert(&mut self, sequence: u64, end: u64, capacity: usize) -> (&'static str, u64) {
        let messages = self.messages();
        if (sequence..end).all(|message| messages.contains(&message)) {
            return ("duplicate", 0);
        }
        self.0.retain(|held, held_end| *held < sequence || *held_end > end);
        let mut outcome = ("held", 0);
        if self.0.len() >= capacity {
            match self.0.last_key_value().map(|(last, _)| *last) {
                Some(last) if last > sequence => {
                    self.0.remove(&last);
                    outcome = ("evicted", last);
                }
                _ => return ("full", 0),
            }
        }
        self.0.insert(sequence, end);
        outcome
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, u64),
    Take(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..80_u64, 1..9_u64).prop_map(|(sequence, count)| Step::Insert(sequence, sequence + count)),
        1 => (1..80_u64).prop_map(Step::Take),
    ]
}

proptest! {
    /// Whatever is put in and taken out: the same packets are held, none covers another, and no slot is lost or doubled.
    #[test]
    fn holds_what_a_plain_list_holds(steps in prop::collection::vec(step(), 1..120), capacity in 1..12_usize) {
        let mut hold = Hold::new(capacity, 1, SLOT_BYTES);
        let mut plain = Plain::default();
        for step in steps {
            match step {
                Step::Insert(sequence, end) => {
                    let packet = Held { sequence, end, received_ns: sequence ^ end, role: LineRole::A, slot: 0 };
                    let mut covered = Vec::new();
                    let before = plain.0.clone();
                    let payload = [sequence.to_be_bytes(), end.to_be_bytes()].concat();
                    let outcome = match hold.insert(packet, &payload, |held| covered.push((held.sequence, held.end))) {
                        Insert::Held => ("held", 0),
                        Insert::Duplicate => ("duplicate", 0),
                        Insert::Full => ("full", 0),
                        Insert::Evicted(held) => ("evicted", held.sequence),
                    };
                    prop_assert_eq!(outcome, plain.insert(sequence, end, capacity));
                    let gone = before.into_iter().filter(|(held, _)| !plain.0.contains_key(held) && *held != outcome.1);
                    let kept_at = covered.iter().filter(|(held, _)| *held != sequence || !plain.0.contains_key(held));
                    prop_assert!(gone.eq(kept_at.copied()), "covered {:?}", covered);
                }
                Step::Take(expected) => {
                    let taken = hold.take(expected);
                    let first = plain.0.first_key_value().map(|(sequence, end)| (*sequence, *end));
                    let first = first.filter(|(sequence, _)| *sequence <= expected);
                    prop_assert_eq!(taken.map(|held| (held.sequence, held.end)), first);
                    if let Some(held) = taken {
                        let payload = [held.sequence.to_be_bytes(), held.end.to_be_bytes()].concat();
                        prop_assert_eq!(hold.payload(held.slot), &payload[..]);
                        prop_assert_eq!(held.received_ns, held.sequence ^ held.end);
                        hold.release(held.slot);
                        plain.0.remove(&held.sequence);
                    }
                }
            }
            prop_assert!(hold.ranges().eq(plain.0.iter().map(|(sequence, end)| (*sequence, *end))));
            prop_assert_eq!((hold.len(), hold.nearest()), (plain.0.len(), plain.0.first_key_value().map(|(s, _)| *s)));
            prop_assert_eq!(hold.free.len() + hold.len(), capacity + 1);
        }
    }
}
