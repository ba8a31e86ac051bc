//! The XDP program in the running kernel (BPF_PROG_TEST_RUN) against the expected verdicts and against the user-space
//! build of the same parser. Needs root.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;

use feedhandler::config::plan::Unsubscribed;
use feedhandler::steering::{Filter, FilterSettings, TestRun, XDP_DROP, XDP_PASS, XDP_REDIRECT};
use socket2::{Domain, Socket, Type};
use xdp_ebpf::frames::{Case, RULES, table};
use xdp_ebpf::{GroupKey, GroupRule, Verdict};

mod fuzz;
mod jumbo;

const COOKIE: u16 = 0xbeef;

/// What a test run takes at least: an Ethernet header.
const KERNEL_MIN_BYTES: usize = 14;

/// A loaded filter with the table's rules, and its verdict counters as last read.
struct Probe {
    filter: Filter,
    seen: [u64; Verdict::COUNT],
}

impl Probe {
    fn new(unsubscribed: Unsubscribed, multi_buffer: bool) -> Self {
        let settings = FilterSettings { cookie: COOKIE, unsubscribed, multi_buffer };
        let mut filter = Filter::load(settings).expect("loading the XDP program needs root");
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

/// Each policy with each build of the program.
const BUILDS: [(Unsubscribed, bool); 4] =
    [(Unsubscribed::Pass, false), (Unsubscribed::Drop, false), (Unsubscribed::Pass, true), (Unsubscribed::Drop, true)];

/// An AF_XDP socket in the slot of queue 0, where test runs arrive. It need not be bound to be a target.
fn occupy_queue_0(filter: &mut Filter) -> Socket {
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None).unwrap();
    filter.set_socket(0, socket.as_raw_fd()).unwrap();
    socket
}

/// The frames that the kernel's test run takes, each with the verdict that a policy demands.
fn cases(unsubscribed: Unsubscribed) -> Vec<(Case, Verdict)> {
    let cases = table().into_iter().filter(|case| case.frame.len() >= KERNEL_MIN_BYTES);
    let drops = unsubscribed == Unsubscribed::Drop;
    cases.map(|case| (case.clone(), if drops { case.verdict_dropping } else { case.verdict })).collect()
}

/// What must become of a frame that is not redirected.
fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::DropNoRule | Verdict::DropWrongSource => XDP_DROP,
        _ => XDP_PASS,
    }
}

#[test]
fn without_a_socket_no_frame_is_redirected_and_none_with_a_rule_is_dropped() {
    for (policy, multi_buffer) in BUILDS {
        let mut probe = Probe::new(policy, multi_buffer);
        let cases = cases(policy);
        for (case, verdict) in &cases {
            let (got, run) = probe.run(&case.frame);
            let expected = match *verdict {
                Verdict::Redirected => Verdict::PassNoSocket,
                other => other,
            };
            assert_eq!(got, expected, "{}, {policy:?}", case.name);
            assert_eq!(run.action, action(expected), "{}, {policy:?}", case.name);
            assert_eq!(run.meta, None, "{}: only a redirected frame carries a stamp", case.name);
        }
        assert!(cases.len() >= 70, "only {} frames ran", cases.len());
    }
}

#[test]
fn with_a_socket_matching_frames_are_stamped_and_redirected() {
    for (policy, multi_buffer) in BUILDS {
        let mut probe = Probe::new(policy, multi_buffer);
        let _socket = occupy_queue_0(&mut probe.filter);
        let before_ns = feedhandler::clock::monotonic_ns();
        let mut expected_lines = std::collections::BTreeMap::<u16, (u64, u64)>::new();
        for (case, expected) in cases(policy) {
            let (verdict, run) = probe.run(&case.frame);
            assert_eq!(verdict, expected, "{}, {policy:?}", case.name);
            let Some((line, payload_offset, payload_len)) = case.stamp else {
                assert_eq!((run.action, run.meta), (action(expected), None), "{}", case.name);
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
        assert_eq!(expected_lines.keys().copied().collect::<Vec<_>>(), [7, 8, 20, 21, 30, 31, 1023]);
    }
}

#[test]
fn rules_and_sockets_take_effect_at_once_and_can_be_taken_back() {
    let mut probe = Probe::new(Unsubscribed::Pass, false);
    let good = table().swap_remove(0).frame;
    let (key, rule) = RULES[0];
    assert_eq!(probe.run(&good).0, Verdict::PassNoSocket);
    let socket = occupy_queue_0(&mut probe.filter);
    assert_eq!(probe.run(&good).0, Verdict::Redirected);
    assert!(probe.filter.remove_rule(&key, rule.source_ip).unwrap());
    assert!(!probe.filter.remove_rule(&key, rule.source_ip).unwrap(), "it is gone already");
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

/// Rules of one group come and go one by one, in every order, and each source always finds its own line.
#[test]
fn sources_of_one_group_are_told_apart_and_leave_the_others_alone() {
    let named = |name: &str| table().into_iter().find(|case| case.name == name).unwrap().frame;
    let frames =
        [named("the first of two sources"), named("the second of two sources"), named("neither of two sources")];
    let key = GroupKey { dst_port: 26_402, ..RULES[0].0 };
    let rule = |line, source_ip| GroupRule { source_ip, line, flags: 0 };
    let rules = [rule(1, [10, 1, 2, 3]), rule(2, [10, 1, 2, 9]), rule(3, [0; 4])];
    let mut filter = Filter::load(COOKIE).expect("loading the XDP program needs root");
    let _socket = occupy_queue_0(&mut filter);
    let check = |filter: &Filter, held: [bool; 3], done: &[usize]| {
        for (source, frame) in frames.iter().enumerate() {
            let own = rules.get(source).filter(|_| source < 2 && held[source]);
            let expected = own.or_else(|| held[2].then_some(&rules[2])).map(|rule| rule.line);
            let got = filter.test_run(frame).unwrap().meta.map(|meta| meta.line);
            assert_eq!(got, expected, "source {source} with rules {held:?} after {done:?}");
        }
    };
    let mut held = [false; 3];
    let mut done = vec![];
    // In every order: all come and all go, and once more so that the last to come goes first.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for turn in order.into_iter().chain(order).chain([order[1], order[0], order[2], order[2], order[0], order[1]]) {
            held[turn] = !held[turn];
            done.push(turn);
            if held[turn] {
                filter.insert_rule(key, rules[turn]).unwrap();
            } else {
                assert!(filter.remove_rule(&key, rules[turn].source_ip).unwrap(), "{done:?}");
            }
            check(&filter, held, &done);
        }
    }
    assert_eq!(held, [false; 3]);
    assert!(!filter.remove_rule(&key, [10, 1, 2, 3]).unwrap());
    // A rule of the same group and source replaces the one before.
    filter.insert_rule(key, rules[0]).unwrap();
    filter.insert_rule(key, rule(9, rules[0].source_ip)).unwrap();
    assert_eq!(filter.test_run(&frames[0]).unwrap().meta.unwrap().line, 9);
}

#[test]
fn the_maps_say_where_their_limits_are() {
    let mut filter = Filter::load(COOKIE).expect("loading the XDP program needs root");
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None).unwrap();
    let error = filter.set_socket(xdp_ebpf::MAX_QUEUES, socket.as_raw_fd()).unwrap_err().to_string();
    assert_eq!(error, "queue 128 is beyond the last that can be steered, 127");
    let (key, rule) = RULES[0];
    let error = filter.insert_rule(key, GroupRule { line: 1024, ..rule }).unwrap_err().to_string();
    assert_eq!(error, "line 1024 is beyond the last that can be counted, 1023");
    for port in 0..xdp_ebpf::MAX_RULES as u16 {
        filter.insert_rule(GroupKey { dst_port: port, ..key }, rule).unwrap();
    }
    let error = filter.insert_rule(GroupKey { dst_port: u16::MAX, ..key }, rule).unwrap_err().to_string();
    assert_eq!(error, "all 1024 rules of the program are in use; unsubscribe a group first");
    // Further sources have a map of their own, and a group that has no room for one more keeps those that it has.
    let group = GroupKey { dst_port: 0, ..key };
    for number in 1..=xdp_ebpf::MAX_RULES as u16 {
        let [high, low] = number.to_be_bytes();
        filter.insert_rule(group, GroupRule { source_ip: [10, 0, high, low], ..rule }).unwrap();
    }
    let error = filter.insert_rule(group, GroupRule { source_ip: [11, 0, 0, 0], ..rule }).unwrap_err().to_string();
    assert_eq!(error, "all 1024 rules of the program are in use; unsubscribe a group first");
    assert!(filter.remove_rule(&group, [10, 0, 0, 1]).unwrap());
    filter.insert_rule(group, GroupRule { source_ip: [11, 0, 0, 0], ..rule }).unwrap();
}
