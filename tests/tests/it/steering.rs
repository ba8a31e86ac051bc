//! Attaching to real interfaces, in network namespaces of their own. Needs root and iproute2.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use feedhandler::config::plan::Mode;
use feedhandler::steering::{Membership, Steering, driver_features};
use socket2::{Domain, Socket, Type};
use xdp_ebpf::Verdict;
use xdp_ebpf::frames::{RULES, table};

/// Set in the copy of this test binary that runs inside the namespace.
const INSIDE: &str = "FEEDHANDLER_TEST_INSIDE";

/// A namespace with a veth pair `fh0` (10.9.0.1) and `fh1`, removed on drop: also when the test panics.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("fh-steer-{}-{}", std::process::id(), COUNTER.fetch_add(1, Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = Self(name);
        for arguments in [
            "link set lo up",
            "link add fh0 type veth peer name fh1",
            "addr add 10.9.0.1/24 dev fh0",
            "link set fh0 up",
            "link set fh1 up",
        ] {
            let mut all = vec!["-n", &namespace.0];
            all.extend(arguments.split(' '));
            ip(&all);
        }
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not asserted: a second panic would hide the first.
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `body` in a namespace of its own: this same binary is started again inside, for this one test only, so that the
/// whole process (sysfs too) sees the namespace.
fn in_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let namespace = Namespace::new();
    let output = inside(&namespace, test).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn inside(namespace: &Namespace, test: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace.0]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("steering::{test}"), "--nocapture"]).env(INSIDE, "1");
    command
}

/// Sends frames out of `fh1`, so that `fh0` receives them.
fn send(frames: &[Vec<u8>]) {
    // ETH_P_ALL only matters for receiving; 0 receives nothing.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
    let index: u32 = std::fs::read_to_string("/sys/class/net/fh1/ifindex").unwrap().trim().parse().unwrap();
    let index = i32::try_from(index).unwrap();
    let address = rustix_packet_address(index);
    for frame in frames {
        socket.send_to(frame, &address).unwrap();
    }
}
