#![forbid(unsafe_code)]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const BID: Order = Order { side: Side::Bid, price: 1_000_000, shares: 100 };

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, Order),
    Reduce(u64, u32),
    Remove(u64),
    Clear,
}

fn steps(references: u64, count: usize) -> impl Strategy<Value = Vec<Step>> {
    let order = (any::<bool>(), any::<u32>(), 0..2000u32).prop_map(|(bid, price, shares)| Order {
        side: if bid { Side::Bid } else { Side::Ask },
        price,
        shares,
    });
    let reference = 0..references;
    let step = prop_oneof![
        40 => (reference.clone(), order).prop_map(|(reference, order)| Step::Insert(reference, order)),
        20 => (reference.clone(), 0..2500u32).prop_map(|(reference, shares)| Step::Reduce(reference, shares)),
        20 => reference.prop_map(Step::Remove),
        1 => Just(Step::Clear),
    ];
    prop::collection::vec(step, 1..count)
}

/// Runs the steps on the store and on a map, and compares every answer.
fn compare(store: &mut OrderStore, capacity: usize, steps: Vec<Step>, spread: impl Fn(u64) -> u64) {
    let mut oracle: HashMap<u64, Order> = HashMap::new();
    for step in steps {
        match step {
            Step::Insert(reference, order) => {
                let reference = spread(reference);
                let live = oracle.contains_key(&reference);
                let outcome = store.insert(reference, order);
                let expected = match (live, order.shares) {
                    (true, _) => Insert::Replaced,
                    (false, 0) => Insert::New,
                    (false, _) if oracle.len() >= capacity => Insert::Full,
                    (false, _) => Insert::New,
                };
                // A tiny store may refuse earlier, when the few buckets that it searches are full.
                assert!(outcome == expected || (outcome == Insert::Full && expected == Insert::New));
                oracle.remove(&reference);
                if outcome != Insert::Full && order.shares > 0 {
                    oracle.insert(reference, order);
                }
            }
            Step::Reduce(reference, shares) => {
                let reference = spread(reference);
                let expected = oracle.get_mut(&reference).map(|order| {
                    let removed = shares.min(order.shares);
                    order.shares -= removed;
                    Reduction { side: order.side, price: order.price, removed, excess: shares > removed }
                });
                oracle.retain(|_, order| order.shares > 0);
                assert_eq!(store.reduce(reference, shares), expected);
            }
            Step::Remove(reference) => {
                let reference = spread(reference);
                assert_eq!(store.remove(reference), oracle.remove(&reference));
            }
            Step::Clear => {
                store.clear();
                oracle.clear();
            }
        }
        assert_eq!(store.len(), oracle.len());
    }
    for (reference, order) in &oracle {
        assert_eq!(store.get(*reference), Some(*order));
    }
    for reference in oracle.into_keys() {
        store.remove(reference);
    }
    // Whatever happened, an empty store is as new, but for counts that had reached their limit.
    assert!(store.is_empty());
    assert_eq!(store.stale_count, store.stale.iter().filter(|stale| **stale).count());
    let mut fresh = (0..store.buckets.len()).filter(|at| !store.is_stale(*at)).map(|at| &store.buckets[at]);
    assert!(fresh.all(|bucket| bucket.is_empty() && [0, MANY_PASSED].contains(&bucket.passed())));
}

proptest! {
    #[test]
    fn agrees_with_a_map_when_roomy(steps in steps(400, 600)) {
        compare(&mut OrderStore::new(256), 256, steps, |reference| reference);
    }

    #[test]
    fn agrees_with_a_map_when_crowded(steps in steps(60, 600)) {
        compare(&mut OrderStore::new(40), 40, steps, |reference| reference.wrapping_mul(0x0123_4567_89AB_CDEF));
    }

    #[test]
    fn agrees_with_a_map_when_all_orders_share_a_bucket(steps in steps(80, 600)) {
        let mut store = OrderStore::new(128);
        let home = store.home(0);
        let colliding: Vec<u64> = (0u64..).filter(|reference| store.home(*reference) == home).take(80).collect();
        compare(&mut store, 128, steps, |reference| colliding[reference as usize]);
    }
}

#[test]
fn a_full_store_refuses_and_has_room_again_after_a_removal() {
    let mut store = OrderStore::new(10);
    for reference in 0..10 {
        assert_eq!(store.insert(reference, BID), Insert::New);
    }
    assert_eq!(store.insert(10, BID), Insert::Full);
    assert_eq!(store.get(10), None);
    assert_eq!(store.insert(3, BID), Insert::Replaced);
    assert_eq!(store.remove(7), Some(BID));
    assert_eq!(store.insert(10, BID), Insert::New);
    assert_eq!(store.len(), 10);
}

#[test]
fn a_cleared_store_knows_none_of_its_orders_and_fills_up_again() {
    let mut store = OrderStore::new(10_000);
    for session in 1..4 {
        for reference in 0..10_000 {
            assert_eq!(store.get(reference), None);
            assert_eq!(store.insert(reference, Order { shares: session, ..BID }), Insert::New);
        }
        assert_eq!((store.stale_count, store.insert(10_000, BID)), (0, Insert::Full));
        store.clear();
        assert_eq!((store.len(), store.stale_count), (0, store.stale.len()));
        assert_eq!((store.remove(7), store.reduce(8, 1)), (None, None));
    }
}

#[test]
fn reaches_its_capacity_with_consecutive_and_with_thinned_out_references() {
    for step in [1, 4, 7, 1 << 20] {
        let mut store = OrderStore::new(100_000);
        for i in 0..100_000u64 {
            assert_eq!(store.insert(5 + i * step, BID), Insert::New, "order {i}, step {step}");
        }
    }
}

#[test]
fn extreme_references_and_sizes_are_kept() {
    let mut store = OrderStore::new(8);
    for reference in [0, 1, u64::MAX] {
        assert_eq!(store.get(reference), None);
        store.insert(reference, Order { side: Side::Ask, price: u32::MAX, shares: u32::MAX });
        assert_eq!(store.get(reference), Some(Order { side: Side::Ask, price: u32::MAX, shares: MAX_SHARES }));
    }
    assert_eq!(store.reduce(0, MAX_SHARES).map(|reduction| reduction.excess), Some(false));
    assert_eq!(store.get(0), None);
}
