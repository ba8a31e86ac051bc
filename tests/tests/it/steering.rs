//! Attaching to real interfaces, in network namespaces of their own. Needs root and iproute2.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use feedhandler::config::plan::Mode;
use feedhandler::steering::{MembershipCounts, Memberships, Steering, driver_features};
use socket2::{Domain, Socket, Type};
use xdp_ebpf::Verdict;
use xdp_ebpf::frames::RULES;

use crate::inside::{self, Pair};

/// One pair, both ends in one network.
const PAIR: Pair = [("fh0", [10, 9, 0, 1]), ("fh1", [10, 9, 0, 2])];

fn in_namespace(test: &str, body: impl FnOnce()) {
    inside::in_namespace(&format!("steering::{test}"), &[PAIR], body);
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Sends one datagram to a group out of `fh1`, so that `fh0` receives it.
fn send(group: Ipv4Addr, port: u16) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_multicast_if_v4(&Ipv4Addr::new(10, 9, 0, 2)).unwrap();
    socket.send_to(&[0x55; 100], &SocketAddrV4::new(group, port).into()).unwrap();
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < deadline, "waited 5 s for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn steers(mode: Mode, in_force: Mode) {
    let mut steering = Steering::attach("fh0", mode, 1).unwrap();
    assert_eq!(steering.mode(), in_force);
    assert_eq!(attached_program(), Some(steering.program_id().unwrap()));
    let (key, rule) = RULES[0];
    let count = |steering: &Steering, verdict: Verdict| steering.verdicts().unwrap()[verdict as usize];

    send(key.dst_ip.into(), key.dst_port);
    wait_for("a frame without a rule", || count(&steering, Verdict::PassNoRule) > 0);
    steering.insert_rule(key, rule).unwrap();
    send(key.dst_ip.into(), key.dst_port);
    wait_for("a frame without a socket", || count(&steering, Verdict::PassNoSocket) == 1);
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None).unwrap();
    steering.set_socket(0, socket.as_raw_fd()).unwrap();
    send(key.dst_ip.into(), key.dst_port);
    wait_for("a redirected frame", || count(&steering, Verdict::Redirected) == 1);
    let stats = steering.line_stats(rule.line).unwrap();
    assert_eq!((stats.packets, stats.bytes), (1, 14 + 20 + 8 + 100));

    drop(steering);
    assert_eq!(attached_program(), None, "dropping detaches");
}

/// Id of the program on `fh0`, as iproute2 sees it.
fn attached_program() -> Option<u32> {
    let output = Command::new("ip").args(["-d", "link", "show", "dev", "fh0"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, behind) = text.split_once("prog/xdp id ")?;
    behind.split_whitespace().next()?.parse().ok()
}

#[test]
fn steers_natively() {
    in_namespace("steers_natively", || steers(Mode::Native, Mode::Native));
}

#[test]
fn steers_in_skb_mode() {
    in_namespace("steers_in_skb_mode", || steers(Mode::Skb, Mode::Skb));
}

#[test]
fn auto_takes_native_where_it_works_and_skb_elsewhere() {
    in_namespace("auto_takes_native_where_it_works_and_skb_elsewhere", || {
        assert_eq!(Steering::attach("fh0", Mode::Auto, 1).unwrap().mode(), Mode::Native);
        assert!(driver_features("fh0").unwrap().unwrap().native);
        // The loopback driver has no XDP at all.
        assert!(!driver_features("lo").unwrap().unwrap().native);
        assert_eq!(Steering::attach("lo", Mode::Auto, 1).unwrap().mode(), Mode::Skb);
        let error = Steering::attach("lo", Mode::Native, 1).unwrap_err().to_string();
        assert!(error.starts_with("the driver of `lo` refuses native XDP"), "{error}");
    });
}

#[test]
fn an_interface_that_cannot_receive_is_refused() {
    in_namespace("an_interface_that_cannot_receive_is_refused", || {
        let error = |interface| Steering::attach(interface, Mode::Auto, 1).unwrap_err().to_string();
        assert!(error("fh9").starts_with("interface `fh9` does not exist"), "{}", error("fh9"));
        ip(&["link", "set", "fh1", "down"]);
        wait_for("the carrier to go", || Steering::attach("fh0", Mode::Auto, 1).is_err());
        assert!(error("fh0").contains("no carrier (state: lowerlayerdown)"), "{}", error("fh0"));
        ip(&["link", "set", "fh0", "down"]);
        assert!(error("fh0").contains("no carrier (state: down)"), "{}", error("fh0"));
        let error = Steering::attach("fh0", Mode::Socket, 1).unwrap_err().to_string();
        assert!(error.starts_with("mode `socket` does not steer"), "{error}");
    });
}

#[test]
fn a_second_program_is_refused_and_a_killed_process_leaves_none() {
    const HOLD: &str = "FEEDHANDLER_TEST_HOLD";
    const TEST: &str = "a_second_program_is_refused_and_a_killed_process_leaves_none";
    if std::env::var_os(HOLD).is_some() {
        let _steering = Steering::attach("fh0", Mode::Native, 1).unwrap();
        std::thread::sleep(Duration::from_secs(30));
        return;
    }
    in_namespace(TEST, || {
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("steering::{TEST}")])
            .env(HOLD, "1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the other process to attach", || attached_program().is_some());
        let id = attached_program().unwrap();
        for mode in [Mode::Native, Mode::Skb, Mode::Auto] {
            let error = Steering::attach("fh0", mode, 2).unwrap_err().to_string();
            assert!(error.contains(&format!("attached to `fh0` already: id {id} (`feed_filter`)")), "{error}");
            assert!(error.contains("ip link set dev fh0 xdp off"), "{error}");
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        wait_for("the killed process's program to go", || attached_program().is_none());
        Steering::attach("fh0", Mode::Native, 3).unwrap();
    });
}

#[test]
fn memberships_are_the_kernels_and_end_with_their_owner() {
    in_namespace("memberships_are_the_kernels_and_end_with_their_owner", || {
        let group = Ipv4Addr::new(239, 10, 0, 1);
        // /proc/net/igmp prints the address as a little-endian number.
        let joined = || std::fs::read_to_string("/proc/net/igmp").unwrap().contains("01000AEF");
        let sources = || std::fs::read_to_string("/proc/net/mcfilter").unwrap();
        assert!(!joined());
        let memberships = Memberships::default();
        let join = |group, interface, source| memberships.join(group, interface, source);
        let lease = join(group, "fh0", None).unwrap();
        assert_eq!((lease.key().group, lease.key().source), (group, None));
        assert!(joined());
        let second = join(group, "fh0", None).unwrap();
        drop(lease);
        assert!(joined(), "the other lease holds it");
        drop(second);
        assert!(!joined());

        let source = Some(Ipv4Addr::new(10, 1, 2, 3));
        let specific = join(group, "fh0", source).unwrap();
        assert!(joined() && sources().contains("0xef0a0001 0x0a010203"), "{}", sources());
        drop(specific);
        assert!(!joined());

        let error = join(Ipv4Addr::new(10, 0, 0, 1), "fh0", None).unwrap_err().to_string();
        assert!(error.contains("not a multicast address"), "{error}");
        let error = join(group, "fh9", None).unwrap_err().to_string();
        assert!(error.contains("`fh9` does not exist"), "{error}");
        assert_eq!(memberships.counts(), MembershipCounts::default(), "what was refused is not kept");
        ip(&["addr", "flush", "dev", "fh0"]);
        let _specific = join(group, "fh0", source).expect("a source-specific join by index needs no address");
        join(group, "fh0", None).unwrap();
    });
}

#[test]
fn without_capabilities_the_error_names_them() {
    const DROPPED: &str = "FEEDHANDLER_TEST_DROPPED";
    if std::env::var_os(DROPPED).is_some() {
        let error = Steering::attach("lo", Mode::Skb, 1).unwrap_err().to_string();
        assert!(error.contains("missing CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON"), "{error}");
        return;
    }
    // setpriv (util-linux, essential in Debian) drops the capabilities and stays root, so the binary remains readable.
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "steering::without_capabilities_the_error_names_them"])
        .env(DROPPED, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
