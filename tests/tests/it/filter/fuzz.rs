//! Mutated frames by the million: whatever the kernel's build of parser and rules decides (BPF_PROG_TEST_RUN), the
//! user-space build must decide too, under the same rules, which change from batch to batch, and both policies.
//!
//! Every batch has a seed of its own, which a failure prints. `FEEDHANDLER_FUZZ_SEED=N` begins with that batch;
//! `FEEDHANDLER_FUZZ_FRAMES=N` sets how many frames run (default two million, some seconds).
#![forbid(unsafe_code)]

use std::time::Instant;

use feedhandler::net::Rules;
use feedhandler::steering::XDP_REDIRECT;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const FRAMES: u64 = 2_000_000;
/// Frames between two looks at the verdict counters, which take a system call each.
const BATCH: u64 = 4096;
/// What the kernel's test run takes in one piece.
const MOST_BYTES: usize = 3000;

/// The program under one policy, and the same rules in user space.
struct Twin {
    filter: Filter,
    _socket: Socket,
    /// Which of [`candidates`] are in force.
    held: Vec<bool>,
    rules: Rules,
    drops: bool,
}

/// Rules to choose from: those of the table, and more sources and VLANs of the same groups, each with a line of its own.
fn candidates() -> Vec<(GroupKey, GroupRule)> {
    let (base, any) = RULES[0];
    let key = |port, vlan| GroupKey { dst_port: base.dst_port + port, vlan, ..base };
    let sources = [[0; 4], [10, 1, 2, 3], [10, 1, 2, 9], [10, 1, 2, 4]];
    let keys = [key(0, 0), key(0, 100), key(0, 5), key(1, 0), key(2, 0), key(3, 0), key(2, 100)];
    let keys = keys.into_iter().chain([GroupKey { dst_ip: [239, 10, 0, 2], ..base }]);
    let pairs = keys.flat_map(|key| sources.map(|source_ip| (key, source_ip)));
    pairs.zip(0..).map(|((key, source_ip), line)| (key, GroupRule { source_ip, line, ..any })).collect()
}

impl Twin {
    fn new(unsubscribed: Unsubscribed, multi_buffer: bool) -> Self {
        let settings = FilterSettings { cookie: COOKIE, unsubscribed, multi_buffer };
        let mut filter = Filter::load(settings).expect("loading the XDP program needs root");
        let _socket = occupy_queue_0(&mut filter);
        let held = vec![false; candidates().len()];
        Self { filter, _socket, held, rules: Rules::default(), drops: unsubscribed == Unsubscribed::Drop }
    }

    /// Goes over to other rules, one by one as an operator would.
    fn choose_rules(&mut self, rng: &mut ChaCha8Rng) {
        for (held, (key, rule)) in self.held.iter_mut().zip(candidates()) {
            match (std::mem::replace(held, rng.random()), *held) {
                (false, true) => self.filter.insert_rule(key, rule).unwrap(),
                (true, false) => assert!(self.filter.remove_rule(&key, rule.source_ip).unwrap()),
                _ => {}
            }
        }
        let held = candidates().into_iter().zip(&self.held).filter(|(_, held)| **held).map(|(rule, _)| rule);
        self.rules = Rules::new(&held.collect::<Vec<_>>());
    }

    /// Runs one batch and returns how often each verdict occurred.
    fn run(&mut self, seed: u64, count: u64, originals: &[Vec<u8>]) -> [u64; Verdict::COUNT] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        self.choose_rules(&mut rng);
        let mut trials = self.filter.trials().unwrap();
        let before = self.filter.verdicts().unwrap();
        let mut expected = [0_u64; Verdict::COUNT];
        let mut frame = Vec::with_capacity(MOST_BYTES);
        for number in 0..count {
            mutate(&mut frame, originals, &mut rng);
            let decided = self.rules.decide(&frame, self.drops);
            let verdict = decided.map_or_else(|verdict| verdict, |_| Verdict::Redirected);
            expected[verdict as usize] += 1;
            let wanted_action = if decided.is_ok() { XDP_REDIRECT } else { action(verdict) };
            let wanted = decided.ok().map(|(parsed, rule)| (rule.line, parsed.payload_offset, parsed.payload_len));
            let ran = trials.run(&frame).unwrap();
            let stamp = ran.meta.map(|meta| (meta.line, meta.payload_offset, meta.payload_len));
            let same = ran.action == wanted_action && stamp == wanted && ran.frame == frame;
            assert!(
                same,
                "FEEDHANDLER_FUZZ_SEED={seed}, frame {number}, dropping: {}: the kernel says action {}, stamp {stamp:?}; \
                 user space {}, {wanted:?}; {frame:02x?} became {:02x?}",
                self.drops,
                ran.action,
                verdict.label(),
                ran.frame
            );
        }
        let after = self.filter.verdicts().unwrap();
        for verdict in Verdict::ALL {
            let counted = after[verdict as usize] - before[verdict as usize];
            let wanted = expected[verdict as usize];
            assert_eq!(counted, wanted, "FEEDHANDLER_FUZZ_SEED={seed}, dropping: {}: {}", self.drops, verdict.label());
        }
        expected
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: must be a number")))
}

#[test]
fn kernel_and_user_space_agree_on_mutated_frames() {
    let frames = from_environment("FEEDHANDLER_FUZZ_FRAMES").unwrap_or(FRAMES);
    // Other frames in every run, unless one is to be repeated.
    let first = from_environment("FEEDHANDLER_FUZZ_SEED").unwrap_or_else(feedhandler::clock::utc_ns);
    let mut twins = BUILDS.map(|(policy, multi_buffer)| Twin::new(policy, multi_buffer));
    let originals: Vec<Vec<u8>> = table().into_iter().map(|case| case.frame).collect();
    let mut by_verdict = [0_u64; Verdict::COUNT];
    let mut ran = 0;
    let started = Instant::now();
    for seed in (0..).map(|batch| first.wrapping_add(batch)) {
        if ran >= frames {
            break;
        }
        // Policy and build go by the seed, so that the seed alone repeats a batch.
        let twin = &mut twins[(seed % BUILDS.len() as u64) as usize];
        for (sum, count) in by_verdict.iter_mut().zip(twin.run(seed, BATCH, &originals)) {
            *sum += count;
        }
        ran += BATCH;
    }
    let names = Verdict::ALL.map(Verdict::label);
    println!(
        "{ran} frames in {:.1?}, from seed {first}: {:?}",
        started.elapsed(),
        names.iter().zip(by_verdict).collect::<Vec<_>>()
    );
    // The mutations are worth something only if they reach everything.
    for verdict in Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::PassNoSocket) {
        let count = by_verdict[verdict as usize];
        assert!(frames < FRAMES || count > 1000, "only {count} of {ran} frames are {}", verdict.label());
    }
}

/// Makes the next frame: one of the originals, changed where a parser looks.
fn mutate(frame: &mut Vec<u8>, originals: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    frame.clear();
    frame.extend_from_slice(&originals[rng.random_range(0..originals.len())]);
    for _ in 0..rng.random_range(0..=3) {
        match rng.random_range(0..10) {
            0 | 1 => change_byte(frame, rng),
            2 | 3 => change_tags(frame, rng),
            4..=7 => change_field(frame, rng),
            8 => change_length(frame, rng),
            _ => splice(frame, &originals[rng.random_range(0..originals.len())], rng),
        }
    }
    frame.truncate(MOST_BYTES);
    if frame.len() < KERNEL_MIN_BYTES {
        frame.resize(KERNEL_MIN_BYTES, rng.random());
    }
}

/// Any byte behind the Ethernet addresses, within the longest headers.
fn change_byte(frame: &mut [u8], rng: &mut ChaCha8Rng) {
    const INTERESTING: [u8; 12] = [0, 1, 4, 6, 7, 8, 17, 0x45, 0x46, 0x81, 0xef, 0xff];
    let end = frame.len().min(90);
    if end <= 12 {
        return;
    }
    let at = rng.random_range(12..end);
    frame[at] = match rng.random_range(0..3) {
        0 => INTERESTING[rng.random_range(0..INTERESTING.len())],
        1 => frame[at] ^ (1 << rng.random_range(0..8)),
        _ => rng.random(),
    };
}

/// A tag more, a tag less, or another id in the outermost.
fn change_tags(frame: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    const TPIDS: [u16; 4] = [0x8100, 0x8100, 0x88a8, 0x9100];
    const IDS: [u16; 8] = [0, 0, 100, 100, 101, 5, 4095, 0xffff];
    if frame.len() < 18 {
        return;
    }
    let id = if rng.random() { IDS[rng.random_range(0..IDS.len())] } else { rng.random() };
    match rng.random_range(0..4) {
        0 | 1 => {
            let [a, b] = TPIDS[rng.random_range(0..TPIDS.len())].to_be_bytes();
            let [c, d] = id.to_be_bytes();
            frame.splice(12..12, [a, b, c, d]);
        }
        2 => drop(frame.drain(12..16)),
        _ => frame[14..16].copy_from_slice(&id.to_be_bytes()),
    }
}

/// Where the IPv4 header should be: behind as many tags as there are.
fn ip_offset(frame: &[u8]) -> usize {
    let mut at = 14;
    while matches!(frame.get(at - 2..at), Some([0x81, 0x00] | [0x88, 0xa8])) && at < 40 {
        at += 4;
    }
    at
}

/// A field of the IPv4 or UDP header, set to what some rule or some check looks for.
fn change_field(frame: &mut [u8], rng: &mut ChaCha8Rng) {
    let ip = ip_offset(frame);
    let udp = ip + frame.get(ip).map_or(20, |byte| usize::from(byte & 0x0f) * 4);
    let (ip_len, udp_len) = (frame.len().saturating_sub(ip) as u16, frame.len().saturating_sub(udp) as u16);
    let nearly =
        |len: u16, rng: &mut ChaCha8Rng| len.wrapping_add(rng.random_range(0..8)).wrapping_sub(4).to_be_bytes();
    let (key, rule) = RULES[rng.random_range(0..RULES.len())];
    let (at, bytes): (usize, Vec<u8>) = match rng.random_range(0..9) {
        0 => (ip, vec![0x40 | rng.random_range(0..16)]),
        1 => (ip + 2, nearly(ip_len, rng).to_vec()),
        2 => (ip + 6, (1_u16 << rng.random_range(0..16)).to_be_bytes().to_vec()),
        3 => (ip + 9, vec![[17, 17, 2, 6, rng.random()][rng.random_range(0..5)]]),
        4 => (ip + 12, vec![10, 1, 2, rng.random_range(0..12)]),
        5 => (ip + 12, rule.source_ip.to_vec()),
        6 => {
            let groups = [key.dst_ip, [224, 0, 0, rng.random()], [224, 0, 1, 0], [239, 10, 0, rng.random_range(0..4)]];
            (ip + 16, groups[rng.random_range(0..groups.len())].to_vec())
        }
        7 => (udp + 2, key.dst_port.wrapping_add(rng.random_range(0..2)).to_be_bytes().to_vec()),
        _ => (udp + 4, nearly(udp_len, rng).to_vec()),
    };
    if let Some(field) = frame.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(&bytes);
    }
}

/// Cut anywhere, or padded.
fn change_length(frame: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let len = rng.random_range(KERNEL_MIN_BYTES..frame.len().max(KERNEL_MIN_BYTES) + 24);
    frame.resize(len, 0xee);
}

/// The beginning of this frame and the end of another.
fn splice(frame: &mut Vec<u8>, other: &[u8], rng: &mut ChaCha8Rng) {
    let most = frame.len().min(other.len()).min(90);
    let at = rng.random_range(0..=most);
    frame.truncate(at);
    frame.extend_from_slice(&other[at..]);
}
