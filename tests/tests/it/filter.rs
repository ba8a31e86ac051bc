//! The XDP program in the running kernel (BPF_PROG_TEST_RUN) against the expected verdicts and against the user-space
//! build of the same parser. Needs root.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;

use feedhandler::steering::{Filter, TestRun, XDP_PASS, XDP_REDIRECT};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use socket2::{Domain, Socket, Type};
use xdp_ebpf::Verdict;
use xdp_ebpf::frames::{RULES, decide, table};

const COOKIE: u16 = 0xbeef;

/// What a test run takes at least: an Ethernet header.
const KERNEL_MIN_BYTES: usize = 14;

/// A loaded filter with the table's rules, and its verdict counters as last read.
struct Probe {
    filter: Filter,
    seen: [u64; Verdict::COUNT],
}

impl Probe {
    fn new() -> Self {
        let mut filter = Filter::load(COOKIE).expect("loading the XDP program needs root");
        for (key, rule) in RULES {
            filter.insert_rule(key, rule).unwrap();
        }
        let seen = filter.verdicts().unwrap();
        Self { filter, seen }
    }

    /// Runs one frame; the verdict is the one counter that moved.
    fn run(&mut self, frame: &[u8]) -> (Verdict, TestRun) {
        let run = self.filter.test_run(frame).unwrap();
        let now = self.filter.verdicts().unwrap();
        let moved: Vec<Verdict> =
            Verdict::ALL.into_iter().filter(|verdict| now[*verdict as usize] != self.seen[*verdict as usize]).collect();
        assert_eq!(moved.len(), 1, "counters that moved for {frame:02x?}: {moved:?}");
        assert_eq!(now.iter().sum::<u64>(), self.seen.iter().sum::<u64>() + 1, "{frame:02x?}");
        self.seen = now;
        assert_eq!(run.frame, frame, "the program must not change the frame");
        (moved[0], run)
    }
}

/// An AF_XDP socket in the slot of queue 0, where test runs arrive. It need not be bound to be a target.
fn occupy_queue_0(probe: &mut Probe) -> Socket {
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None).unwrap();
    probe.filter.set_socket(0, socket.as_raw_fd()).unwrap();
    socket
}

#[test]
fn without_a_socket_every_frame_passes_under_its_verdict() {
    let mut probe = Probe::new();
    let mut ran = 0;
    for case in table().iter().filter(|case| case.frame.len() >= KERNEL_MIN_BYTES) {
        let (verdict, run) = probe.run(&case.frame);
        let expected = match case.verdict {
            Verdict::Redirected => Verdict::PassNoSocket,
            other => other,
        };
        assert_eq!(verdict, expected, "{}", case.name);
        assert_eq!(run.action, XDP_PASS, "{}", case.name);
        assert_eq!(run.meta, None, "{}: a frame that passes carries no stamp", case.name);
        ran += 1;
    }
    assert!(ran >= 60, "only {ran} frames ran");
}

#[test]
fn with_a_socket_matching_frames_are_stamped_and_redirected() {
    let mut probe = Probe::new();
    let _socket = occupy_queue_0(&mut probe);
    let before_ns = feedhandler::clock::monotonic_ns();
    let mut expected_lines = std::collections::BTreeMap::<u16, (u64, u64)>::new();
    for case in table().iter().filter(|case| case.frame.len() >= KERNEL_MIN_BYTES) {
        let (verdict, run) = probe.run(&case.frame);
        assert_eq!(verdict, case.verdict, "{}", case.name);
        let Some((line, payload_offset, payload_len)) = case.stamp else {
            assert_eq!((run.action, run.meta), (XDP_PASS, None), "{}", case.name);
            continue;
        };
        assert_eq!(run.action, XDP_REDIRECT, "{}", case.name);
        let meta = run.meta.unwrap_or_else(|| panic!("{}: no stamp", case.name));
        assert_eq!(
            (meta.line, meta.payload_offset, meta.payload_len, meta.cookie),
            (line, payload_offset, payload_len, COOKIE),
            "{}",
            case.name
        );
        assert!((before_ns..=feedhandler::clock::monotonic_ns()).contains(&meta.received_ns), "{}", case.name);
        let sums = expected_lines.entry(line).or_default();
        *sums = (sums.0 + 1, sums.1 + case.frame.len() as u64);
        let stats = probe.filter.line_stats(line).unwrap();
        assert_eq!(
            (stats.packets, stats.bytes, stats.last_seen_ns),
            (sums.0, sums.1, meta.received_ns),
            "{}",
            case.name
        );
    }
    assert_eq!(expected_lines.keys().copied().collect::<Vec<_>>(), [7, 8, 1023]);
}

#[test]
fn rules_and_sockets_take_effect_at_once_and_can_be_taken_back() {
    let mut probe = Probe::new();
    let good = table().swap_remove(0).frame;
    let (key, rule) = RULES[0];
    assert_eq!(probe.run(&good).0, Verdict::PassNoSocket);
    let socket = occupy_queue_0(&mut probe);
    assert_eq!(probe.run(&good).0, Verdict::Redirected);
    assert!(probe.filter.remove_rule(&key).unwrap());
    assert!(!probe.filter.remove_rule(&key).unwrap(), "it is gone already");
    assert_eq!(probe.run(&good).0, Verdict::PassNoRule);
    probe.filter.insert_rule(key, rule).unwrap();
    assert_eq!(probe.run(&good).0, Verdict::Redirected);
    probe.filter.clear_socket(0).unwrap();
    probe.filter.clear_socket(0).unwrap();
    assert_eq!(probe.run(&good).0, Verdict::PassNoSocket);
    // The kernel takes a closed socket out of the map by itself.
    probe.filter.set_socket(0, socket.as_raw_fd()).unwrap();
    drop(socket);
    assert_eq!(probe.run(&good).0, Verdict::PassNoSocket);
}

#[test]
fn the_maps_say_where_their_limits_are() {
    let mut filter = Filter::load(COOKIE).expect("loading the XDP program needs root");
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None).unwrap();
    let error = filter.set_socket(xdp_ebpf::MAX_QUEUES, socket.as_raw_fd()).unwrap_err().to_string();
    assert_eq!(error, "queue 128 is beyond the last that can be steered, 127");
    let (key, rule) = RULES[0];
    let error = filter.insert_rule(key, xdp_ebpf::GroupRule { line: 1024, ..rule }).unwrap_err().to_string();
    assert_eq!(error, "line 1024 is beyond the last that can be counted, 1023");
    for port in 0..xdp_ebpf::MAX_RULES as u16 {
        filter.insert_rule(xdp_ebpf::GroupKey { dst_port: port, ..key }, rule).unwrap();
    }
    let error = filter.insert_rule(xdp_ebpf::GroupKey { dst_port: u16::MAX, ..key }, rule).unwrap_err().to_string();
    assert_eq!(error, "all 1024 rules of the program are in use; unsubscribe a group first");
}

/// Mutated frames: whatever the kernel build decides, the user-space build must decide too.
#[test]
fn kernel_and_user_space_agree_on_mutated_frames() {
    const SEED: u64 = 0x5eed_f117;
    const FRAMES: usize = 30_000;
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let originals = table();
    let mut probe = Probe::new();
    let _socket = occupy_queue_0(&mut probe);
    let mut by_verdict = [0_u64; Verdict::COUNT];
    for number in 0..FRAMES {
        let mut frame = originals[rng.random_range(0..originals.len())].frame.clone();
        mutate(&mut frame, &mut rng);
        let expected = decide(&frame);
        let (verdict, run) = probe.run(&frame);
        let wanted = expected.map_or_else(|verdict| verdict, |_| Verdict::Redirected);
        assert_eq!(verdict, wanted, "seed {SEED:#x}, frame {number}: {frame:02x?}");
        let stamp = run.meta.map(|meta| (meta.line, meta.payload_offset, meta.payload_len));
        let wanted = expected.ok().map(|(parsed, rule)| (rule.line, parsed.payload_offset, parsed.payload_len));
        assert_eq!(stamp, wanted, "seed {SEED:#x}, frame {number}: {frame:02x?}");
        by_verdict[verdict as usize] += 1;
    }
    // The mutations are worth something only if they reach everything.
    for verdict in Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::PassNoSocket) {
        assert!(by_verdict[verdict as usize] > 20, "{}: {by_verdict:?}", verdict.label());
    }
}

/// Changes up to three header bytes and perhaps the length; keeps what the kernel's test run takes.
fn mutate(frame: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    const INTERESTING: [u8; 12] = [0, 1, 4, 6, 7, 8, 17, 0x45, 0x46, 0x81, 0xef, 0xff];
    for _ in 0..rng.random_range(0..=3) {
        // Beyond the Ethernet addresses, within the longest headers.
        let end = frame.len().min(90);
        if end <= 12 {
            break;
        }
        let at = rng.random_range(12..end);
        frame[at] = match rng.random_range(0..3) {
            0 => INTERESTING[rng.random_range(0..INTERESTING.len())],
            1 => frame[at] ^ (1 << rng.random_range(0..8)),
            _ => rng.random(),
        };
    }
    if rng.random_range(0..4) == 0 {
        let len = rng.random_range(KERNEL_MIN_BYTES..frame.len().max(KERNEL_MIN_BYTES) + 8);
        frame.resize(len, 0);
    }
    if frame.len() < KERNEL_MIN_BYTES {
        frame.resize(KERNEL_MIN_BYTES, 0);
    }
}
