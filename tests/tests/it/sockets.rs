//! Kernel sockets as ports, between network namespaces: who gets what, what a process without privileges can do, and what
//! is seen of a group that the kernel refuses.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use feedhandler::clock;
use feedhandler::net::busy_poll::BusyPoll;
use feedhandler::net::socket::{SocketLine, SocketOptions, SocketRx};
use feedhandler::net::{Batch, Frames, RxPort};
use feedhandler::worker::shared::Command as WorkerCommand;
use feedhandler_testkit::consumer::Receiver;
use feedhandler_testkit::lab::{End, Namespace, connect};
use feedhandler_testkit::mold::{self, Packet};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::binaries::program;
use crate::turn::turn;
use feedhandler_testkit::bench_worker::{BenchWorker, plan};

const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 10, 0, 1), 26_400);
const OUT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 20, 0, 1), 30_001);

/// The handler's interfaces `fh-a` and `fh-b`, 10.9.1.1 and 10.9.2.1, and the far ends of them, 10.9.1.2 and 10.9.2.2.
struct Hosts {
    handler: Namespace,
    far: Namespace,
}

impl Hosts {
    fn new() -> Self {
        let (handler, far) = (Namespace::new("handler").expect("root"), Namespace::new("far").expect("root"));
        for (number, (near, away)) in (1..).zip([("fh-a", "far-a"), ("fh-b", "far-b")]) {
            connect([
                End { namespace: &handler, name: near, address: [10, 9, number, 1].into() },
                End { namespace: &far, name: away, address: [10, 9, number, 2].into() },
            ])
            .expect("a veth pair");
        }
        Self { handler, far }
    }

    /// A kernel socket that sends to the group from one of the far ends.
    fn sender(&self, number: u8) -> UdpSocket {
        let address = Ipv4Addr::new(10, 9, number, 2);
        let make = || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.bind(&SocketAddrV4::new(address, 0).into()).unwrap();
            socket.set_multicast_if_v4(&address).unwrap();
            socket.connect(&GROUP.into()).unwrap();
            UdpSocket::from(socket)
        };
        self.far.enter(make).expect("the namespace")
    }

    fn port(&self, lines: &[SocketLine]) -> SocketRx {
        let open = || SocketRx::new(lines, &SocketOptions::default());
        self.handler.enter(open).expect("the namespace").expect("sockets")
    }
}

fn line(line: u16, interface: &str, source: Option<Ipv4Addr>) -> SocketLine {
    SocketLine { line, group: GROUP, interface: interface.to_owned(), source, subscribed: true }
}

/// What has come within a short while: line and payload.
fn receive(frames: &Frames, port: &mut SocketRx) -> Vec<(u16, Vec<u8>)> {
    let mut got = vec![];
    let mut batch = Batch::new();
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        port.refill(frames);
        port.receive(frames, &mut batch);
        for received in batch.drain(..) {
            got.push((received.line, frames.payload(&received).to_vec()));
            frames.free(received.frame);
        }
    }
    got.sort();
    got
}

#[test]
fn two_lines_of_one_group_on_two_interfaces_do_not_hear_each_other() {
    let hosts = Hosts::new();
    let frames = Frames::heap(256, 2048);
    let (on_a, on_b) = (hosts.sender(1), hosts.sender(2));
    let mut port = hosts.port(&[line(0, "fh-a", None), line(1, "fh-b", None)]);
    on_a.send(b"on a").unwrap();
    on_b.send(b"on b").unwrap();
    assert_eq!(receive(&frames, &mut port), [(0, b"on a".to_vec()), (1, b"on b".to_vec())]);
    // With the one switched off, the other gets no more than before.
    port.set_line(0, false).unwrap();
    on_a.send(b"to nobody").unwrap();
    on_b.send(b"on b again").unwrap();
    assert_eq!(receive(&frames, &mut port), [(1, b"on b again".to_vec())]);
}

#[test]
fn a_source_is_joined_by_interface_even_without_an_address() {
    let hosts = Hosts::new();
    let frames = Frames::heap(256, 2048);
    hosts.handler.ip(&["addr", "flush", "dev", "fh-b"]).unwrap();
    // Without an address the reverse path is unknown; that is the kernel's own filter, not ours.
    hosts.handler.ip(&["route", "add", "10.9.2.0/24", "dev", "fh-b", "src", "10.9.1.1"]).unwrap();
    let (wanted, other) = (Ipv4Addr::new(10, 9, 2, 2), Ipv4Addr::new(10, 9, 2, 9));
    let mut port = hosts.port(&[line(0, "fh-b", Some(wanted)), line(1, "fh-a", Some(other))]);
    let igmp = hosts.handler.joined_groups("fh-b").unwrap();
    assert!(igmp.contains(GROUP.ip()), "{igmp:?}");
    hosts.sender(2).send(b"from the source").unwrap();
    hosts.sender(1).send(b"from somebody else").unwrap();
    assert_eq!(receive(&frames, &mut port), [(0, b"from the source".to_vec())]);
    port.set_line(0, false).unwrap();
    assert!(!hosts.handler.joined_groups("fh-b").unwrap().contains(GROUP.ip()));
    hosts.sender(2).send(b"left").unwrap();
    assert_eq!(receive(&frames, &mut port), []);
}

#[test]
fn a_group_that_a_worker_s_socket_is_refused_is_counted_and_told() {
    let hosts = Hosts::new();
    let off = SocketLine { subscribed: false, ..line(0, "fh-a", None) };
    let port = hosts.port(&[off]);
    let limit = |groups: &str| {
        hosts.handler.enter(|| fs::write("/proc/sys/net/ipv4/igmp_max_memberships", groups)).unwrap().unwrap();
    };
    limit("0");
    let mut bench = BenchWorker::new(&plan(50, 64));
    *bench.worker.rx_mut(0).expect("a port") = RxPort::Socket(port);
    let mut told = |enabled| {
        let number = bench.link.send(WorkerCommand::SetLine { line: 0, enabled }).unwrap();
        bench.worker.cycle(clock::monotonic_ns);
        bench.link.shared.refusal(number).map(|error| error.raw_os_error())
    };
    assert_eq!(told(true), Some(Some(libc::ENOBUFS)));
    assert_eq!(told(false), None);
    limit("20");
    assert_eq!(told(true), None);
    assert_eq!(bench.link.shared.commands_refused.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(hosts.handler.joined_groups("fh-a").unwrap().contains(GROUP.ip()));
}

/// How long the driver leaves packets lying when nobody fetches them.
const DEFERRED: Duration = Duration::from_secs(1);

/// Sends packets one by one, each once the one before was received; the time that all took.
fn ping(hosts: &Hosts, frames: &Frames, port: &mut SocketRx, count: u8) -> Duration {
    let sender = hosts.sender(1);
    let mut batch = Batch::new();
    let start = Instant::now();
    for i in 0..count {
        sender.send(&[i]).unwrap();
        while batch.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(60), "packet {i} did not come");
            port.refill(frames);
            port.receive(frames, &mut batch);
        }
        for received in batch.drain(..) {
            assert_eq!(frames.payload(&received), [i]);
            frames.free(received.frame);
        }
    }
    start.elapsed()
}

/// Packets that busy polling fetched in the handler's namespace.
fn polled(hosts: &Hosts) -> u64 {
    let table = hosts.handler.enter(|| fs::read_to_string("/proc/thread-self/net/netstat")).unwrap().unwrap();
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let column = names.split(' ').position(|column| column == "BusyPollRxPackets").unwrap();
    values.split(' ').nth(column).unwrap().parse().unwrap()
}

/// With interrupts deferred (as with a NIC and prefer_busy_poll) it is the receiving thread that fetches, and nobody else
/// but a timer.
#[test]
fn a_busy_polling_thread_drives_the_driver() {
    const COUNT: u8 = 20;
    let _turn = turn();
    let hosts = Hosts::new();
    let frames = Frames::heap(256, 2048);
    let busy_poll = BusyPoll { duration_us: 50, budget: 64, prefer: true };
    let options = SocketOptions { busy_poll, ..SocketOptions::default() };
    let open = || SocketRx::new(&[line(0, "fh-a", None)], &options);
    let mut port = hosts.handler.enter(open).unwrap().unwrap();
    // The first packet tells the socket which NAPI is its own.
    ping(&hosts, &frames, &mut port, 1);
    let defer = format!(
        "echo {} > /sys/class/net/fh-a/gro_flush_timeout && echo 1000 > /sys/class/net/fh-a/napi_defer_hard_irqs",
        DEFERRED.as_nanos()
    );
    assert!(hosts.handler.command(Path::new("sh")).args(["-c", &defer]).status().unwrap().success());
    ping(&hosts, &frames, &mut port, 1);
    let before = polled(&hosts);
    let took = ping(&hosts, &frames, &mut port, COUNT);
    let fetched = polled(&hosts) - before;
    println!("{COUNT} packets in {took:?}, {fetched} of them fetched by polling");
    assert!(took < DEFERRED, "the driver's timer brought them: {took:?}");
    assert_eq!(fetched, u64::from(COUNT));
}

/// The handler as nobody, without any capability; killed when dropped.
struct Nobody {
    child: Child,
    files: TempDir,
}

impl Nobody {
    fn start(namespace: &Namespace, options: &str) -> Self {
        let files = TempDir::new().expect("a folder");
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        };
        open(files.path(), 0o777);
        let (binary, config) = (files.path().join("feedhandler"), files.path().join("handler.toml"));
        fs::copy(program("feedhandler"), &binary).expect("a copy that anybody may run");
        open(&binary, 0o755);
        let text = format!(
            r#"
            [handler]
            name = "nobody"
            grpc = "unix:{}/control.sock"
            [[interface]]
            name = "fh-a"
            mode = "socket"
            {options}
            [[interface]]
            name = "fh-b"
            mode = "socket"
            [[worker]]
            name = "w0"
            idle = "yield"
            [[feed]]
            name = "itch"
            transport = "moldudp64"
            decoder = "itch50"
            publisher_id = 2
            time_zone = "UTC"
            [[feed.channel]]
            name = "one"
            max_orders = 1000
            [[feed.channel.line]]
            name = "A"
            interface = "fh-a"
            group = "{GROUP}"
            [[destination]]
            name = "out"
            channel = "itch/one"
            interface = "fh-b"
            group = "{OUT}"
            format = "raw"
            "#,
            files.path().display()
        );
        fs::write(&config, text).expect("a file");
        open(&config, 0o644);
        let mut command = namespace.command(Path::new("setpriv"));
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all"]);
        command.arg("--no-new-privs").arg(&binary).args(["run", "--config"]).arg(&config).stdin(Stdio::null());
        let log = fs::File::create(files.path().join("log")).expect("a file");
        Self { child: command.stderr(log).spawn().expect("starts"), files }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }

    /// Whether it is ready; false once it has ended.
    fn is_ready(&mut self) -> bool {
        let endpoint = format!("unix:{}/control.sock", self.files.path().display());
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            let mut command = Command::new(program("feedctl"));
            let output = command.args(["--endpoint", &endpoint, "--output", "json", "status"]).output().unwrap();
            if output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"ready\": true") {
                return true;
            }
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            assert!(Instant::now() < give_up, "neither ready nor gone: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn kernel_sockets_need_no_privilege_at_all() {
    let hosts = Hosts::new();
    let mut nobody = Nobody::start(&hosts.handler, "receive_buffer_bytes = 1_000_000_000");
    assert!(nobody.is_ready(), "{}", nobody.log());
    let status = fs::read_to_string(format!("/proc/{}/status", nobody.child.id())).unwrap();
    for part in ["Uid:\t65534", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
        assert!(status.contains(part), "{part} in {status}");
    }
    // More buffer than the kernel grants without CAP_NET_ADMIN: it goes on with less, and says so.
    assert!(nobody.log().contains("receive buffer smaller than receive_buffer_bytes"), "{}", nobody.log());
    let join = || Receiver::join(OUT, Ipv4Addr::new(10, 9, 2, 2));
    let mut consumer = hosts.far.enter(join).unwrap().unwrap();
    let mut packet = Packet::new(b"0000000001", 1);
    packet.push(b"S\0\0\0\0\0\0\0\0\0\x01O");
    hosts.sender(1).send(&packet.into_payload()).unwrap();
    let give_up = Instant::now() + Duration::from_secs(5);
    let block = loop {
        assert!(Instant::now() < give_up, "nothing arrived: {}", nobody.log());
        let Some((payload, _)) = consumer.receive().unwrap() else { continue };
        let view = mold::parse(payload).unwrap();
        if let [block] = view.blocks[..] {
            break (view.sequence, block.to_vec());
        }
    };
    assert_eq!(block, (1, b"S\0\0\0\0\0\0\0\0\0\x01O".to_vec()));
}

#[test]
fn busy_polling_without_the_privilege_is_refused_with_the_remedy() {
    let hosts = Hosts::new();
    let mut nobody = Nobody::start(&hosts.handler, "busy_poll_us = 50");
    assert!(!nobody.is_ready());
    let log = nobody.log();
    let complaint = log.lines().find(|line| line.starts_with("feedhandler: ")).unwrap_or_default();
    for part in ["CAP_NET_ADMIN", "busy_poll_us with busy_poll_budget above 8", "AmbientCapabilities="] {
        assert!(complaint.contains(part), "{part} in {log}");
    }
}
