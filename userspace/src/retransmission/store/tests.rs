//! The store against a naive one, which keeps every message and forgets nothing.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn packet(session: &Session, sequence: u64, blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    let count = u16::try_from(blocks.len()).unwrap();
    moldudp64::write_header(bytes.first_chunk_mut().unwrap(), session, sequence, count);
    for block in blocks {
        bytes.extend_from_slice(&u16::try_from(block.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(block);
    }
    bytes
}

fn name(number: u8) -> Session {
    let mut session = *b"SESSION000";
    session[9] = b'0' + number;
    session
}

/// Many small messages under their own numbers.
fn fill(store: &mut Store, session: &Session, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert!(store.insert(&packet(session, number, &[number.to_be_bytes().to_vec()])), "{number}");
    }
}

fn ask(store: &Store, session: u8, sequence: u64, count: u16, most: usize) -> Result<(u16, Vec<u8>), Missing> {
    let mut answer = Vec::new();
    store.answer(&name(session), sequence, count, most, &mut answer).map(|got| (got, answer))
}

#[test]
fn an_answer_is_one_packet_over_the_borders_of_the_sent_ones() {
    let mut store = Store::new(4096);
    let blocks: Vec<Vec<u8>> = (0..6_u8).map(|i| vec![i; usize::from(i)]).collect();
    assert!(store.insert(&packet(&name(1), 5, &blocks[..2])) && store.insert(&packet(&name(1), 7, &blocks[2..])));
    assert_eq!(ask(&store, 1, 6, 4, 1472), Ok((4, packet(&name(1), 6, &blocks[1..5]))));
    assert_eq!(ask(&store, 1, 5, 100, 1472), Ok((6, packet(&name(1), 5, &blocks))));
    // Two bytes short of the last block.
    let whole = packet(&name(1), 5, &blocks).len();
    assert_eq!(ask(&store, 1, 5, 100, whole - 1), Ok((5, packet(&name(1), 5, &blocks[..5]))));
    assert_eq!(ask(&store, 1, 4, 1, 1472), Err(Missing::Gone));
    assert_eq!(ask(&store, 1, 11, 1, 1472), Err(Missing::Ahead));
    assert_eq!(ask(&store, 2, 5, 1, 1472), Err(Missing::Session));
    assert_eq!(store.extent(), Extent { messages: 6, bytes: 6 * 2 + 15, first: 5, next: 11 });
}

#[test]
fn holes_sessions_and_numbers_that_begin_again() {
    let mut store = Store::new(1 << 16);
    fill(&mut store, &name(1), 1..10);
    fill(&mut store, &name(1), 12..20);
    assert_eq!(ask(&store, 1, 8, 10, 1472).unwrap().0, 2, "up to the hole");
    assert_eq!(ask(&store, 1, 10, 10, 1472), Err(Missing::Gone), "never retained");
    fill(&mut store, &name(2), 1..5);
    assert_eq!(ask(&store, 1, 19, 10, 1472).unwrap().0, 1, "not into the next session");
    assert_eq!(ask(&store, 1, 20, 1, 1472), Err(Missing::Ahead));
    assert_eq!(ask(&store, 2, 1, 10, 1472).unwrap().0, 4);
    // A name that comes again, and numbers that do: the newer one counts alone, for its numbers are other messages.
    fill(&mut store, &name(1), 3..4);
    assert_eq!(ask(&store, 1, 3, 10, 1472).unwrap().0, 1);
    assert_eq!((ask(&store, 1, 2, 10, 1472), ask(&store, 1, 5, 10, 1472)), (Err(Missing::Gone), Err(Missing::Ahead)));
    assert!(store.insert(&packet(&name(1), 2, &[b"other".to_vec(), vec![]])));
    assert_eq!(ask(&store, 1, 3, 10, 1472), Ok((1, packet(&name(1), 3, &[vec![]]))));
    assert_eq!(store.extent().first, 2);
    for malformed in [&b"short"[..], &packet(&name(1), 0, &[vec![]]), &packet(&name(1), 50, &[vec![1; 9]])[..25]] {
        assert!(!store.insert(malformed));
    }
    assert!(store.insert(&packet(&name(1), 50, &[])), "a heartbeat is nothing to retain");
    assert_eq!(store.extent().next, 4);
}

#[test]
fn memory_is_bounded_whatever_comes() {
    // Each packet a hole apart, so that none can share an entry of the index; and a new session each time.
    let mut store = Store::new(4096);
    let sizes = |store: &Store| (store.bytes.len(), store.runs.capacity(), store.sessions.capacity());
    let before = sizes(&store);
    (0..10_000).for_each(|i| fill(&mut store, &name(1), 3 * i + 1..3 * i + 2));
    assert_eq!((sizes(&store), store.runs.len()), (before, 4096 / BYTES_PER_RUN));
    for number in 0..1000_u64 {
        let session = *format!("{number:010}").as_bytes().first_chunk().unwrap();
        fill(&mut store, &session, 1..2);
    }
    assert_eq!((sizes(&store), store.sessions.len()), (before, MOST_SESSIONS));
    assert!(!store.insert(&packet(&name(1), 1 << 40, &[vec![0; 4095]])), "longer than everything");
}

/// A store of a few packets, each step a packet: whether the session changes, the hole before it, sizes of the messages.
fn steps() -> impl Strategy<Value = Vec<(bool, u64, Vec<usize>)>> {
    let sizes = prop::collection::vec(prop_oneof![4 => 0..70_usize, 1 => 70..700_usize], 1..12);
    let hole = prop_oneof![5 => Just(0_u64), 1 => 1..5_u64];
    prop::collection::vec((prop::bool::weighted(0.03), hole, sizes), 1..120)
}

proptest! {
    #[test]
    fn it_answers_as_a_store_that_forgets_nothing_would(steps in steps(), retain in 1_500..30_000_usize) {
        let mut store = Store::new(retain);
        let mut naive: BTreeMap<(u8, u64), Vec<u8>> = BTreeMap::new();
        let (mut session, mut next, mut longest) = (0_u8, 1_u64, RUN_BYTES);
        for (changes, hole, sizes) in steps {
            if changes && session < 9 {
                (session, next) = (session + 1, 1);
            }
            next += hole;
            let blocks: Vec<Vec<u8>> =
                sizes.iter().map(|size| (0..*size).map(|i| (i as u64 + 31 * next) as u8).collect()).collect();
            let sent = packet(&name(session), next, &blocks);
            longest = longest.max(sent.len());
            let fits = sent.len() - HEADER_BYTES <= retain;
            prop_assert_eq!(store.insert(&sent), fits);
            if fits {
                naive.extend((next..).zip(blocks).map(|(number, block)| ((session, number), block)));
            }
            next += sizes.len() as u64;
            // What the store has is the newest of what the naive one has: all of it from some message on.
            let kept = usize::try_from(store.extent().messages).unwrap();
            let is_kept: BTreeMap<_, _> = naive.iter().skip(naive.len() - kept).collect();
            let bytes: usize = is_kept.values().map(|block| block.len() + 2).sum();
            prop_assert_eq!(store.extent().bytes, bytes as u64);
            // Not less than what must fit: the wrap, an evicted run and the newest packet take their parts.
            prop_assert!(kept == naive.len() || bytes + 2 * longest > retain
                || store.runs.len() == store.most_runs, "{bytes} of {retain}");
        }
        let kept = usize::try_from(store.extent().messages).unwrap();
        for (at, (session, number)) in naive.keys().enumerate() {
            let is_kept = at + kept >= naive.len();
            for (count, most) in [(1, 1472), (7, 1472), (65_534, 1472), (65_534, 800)] {
                let answer = ask(&store, *session, *number, count, most);
                if !is_kept {
                    prop_assert!(matches!(answer, Err(Missing::Gone | Missing::Session)), "{:?}", answer);
                    continue;
                }
                let mut expected: Vec<Vec<u8>> = Vec::new();
                let mut bytes = HEADER_BYTES;
                while let Some(block) = naive.get(&(*session, number + expected.len() as u64))
                    && expected.len() < usize::from(count)
                    && bytes + 2 + block.len() <= most
                {
                    bytes += 2 + block.len();
                    expected.push(block.clone());
                }
                let got = u16::try_from(expected.len()).unwrap();
                prop_assert_eq!(answer, Ok((got, packet(&name(*session), *number, &expected))));
            }
        }
    }
}
