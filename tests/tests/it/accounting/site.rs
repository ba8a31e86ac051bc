//! A handler between a generator of raw frames and its own kernel, and every counter on the way.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, MapInfo};
use feedhandler_testkit::lab::{End, Namespace, connect};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use socket2::Socket;
use tempfile::TempDir;
use xdp_ebpf::Verdict;

use super::generator::{datagram, raw_socket, send_live};
use super::metrics::Metrics;
use crate::binaries::program;

/// The handler's receiving interfaces: on the first, unsubscribed multicast is dropped.
pub const INTERFACES: [&str; 2] = ["fh-in", "fh-pass"];
const FAR: [&str; 2] = ["far-in", "far-pass"];

/// Room in each receive ring: small, so that a stopped handler soon overflows.
const RING: u32 = 64;

/// How long a starved machine may take to start the handler.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long what was sent may be on its way.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Groups of line A and line B of channel one, and of channels two and three together.
pub const LINES: [SocketAddrV4; 3] = [group(1), group(2), group(3)];

pub const fn group(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(239, 77, 0, number), 26_400)
}

/// A link's counters, of one end and one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub packets: u64,
    pub dropped: u64,
}

pub struct Site {
    pub near: Namespace,
    pub far: Namespace,
    files: TempDir,
    generators: [Socket; 2],
    child: Child,
    /// Frames handed to the far interfaces, by the verdict that each must get.
    pub sent: [BTreeMap<&'static str, u64>; 2],
    before: [(Link, Link); 2],
}

impl Site {
    /// Starts the handler, with everything in place.
    pub fn new(mode: &str) -> Self {
        let (near, far) = (Namespace::new("site").expect("root"), Namespace::new("far").expect("root"));
        for (number, (ours, theirs)) in (1..).zip([("fh-in", "far-in"), ("fh-pass", "far-pass"), ("fh-out", "far-out")])
        {
            let near = End { namespace: &near, name: ours, address: [10, 9, number, 1].into() };
            let far = End { namespace: &far, name: theirs, address: [10, 9, number, 2].into() };
            connect([near, far]).expect("a veth pair");
        }
        // Nobody needs to ask, so that no request and no answer is among what is counted.
        for (number, interface) in (1_u8..).zip(INTERFACES) {
            let mac = |namespace: &Namespace, interface: &str| {
                let json: Value =
                    serde_json::from_str(&namespace.ip(&["-j", "link", "show", "dev", interface]).unwrap()).unwrap();
                json[0]["address"].as_str().unwrap().to_owned()
            };
            let neighbour = |namespace: &Namespace, host: u8, mac: &str, interface: &str| {
                let address = format!("10.9.{number}.{host}");
                let arguments = ["neigh", "replace", &address, "lladdr", mac, "dev", interface, "nud", "permanent"];
                namespace.ip(&arguments).unwrap();
            };
            let far_interface = FAR[usize::from(number) - 1];
            neighbour(&far, 1, &mac(&near, interface), far_interface);
            neighbour(&near, 2, &mac(&far, far_interface), interface);
        }
        let generators = FAR.map(|interface| far.enter(|| raw_socket(interface)).unwrap());
        let files = TempDir::new().expect("a folder");
        fs::write(files.path().join("c.toml"), config(mode, &files)).expect("a file");
        let child = near
            .command(&program("feedhandler"))
            .args(["run", "--config"])
            .arg(files.path().join("c.toml"))
            .stdin(Stdio::null())
            .stderr(File::create(files.path().join("log")).expect("a file"))
            .spawn()
            .expect("starts");
        let mut site =
            Self { near, far, files, generators, child, sent: Default::default(), before: Default::default() };
        let deadline = Instant::now() + START_TIMEOUT;
        while !site.feedctl(&["status"]).status.success() {
            assert!(Instant::now() < deadline, "no answer: {}", site.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(site.metrics().sum("xdp_verdicts_total", &[]), 0, "somebody else sends: {}", site.metrics().text());
        site.before = [site.links(0), site.links(1)];
        site
    }

    /// Sends a frame towards an interface of the handler, which must give it this verdict.
    pub fn send(&mut self, interface: usize, frame: &[u8], verdict: Verdict) {
        let sent = self.generators[interface].send(frame).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
        assert_eq!(sent, frame.len());
        self.count(interface, verdict, 1);
    }

    /// Counts frames that somebody else sent.
    pub fn count(&mut self, interface: usize, verdict: Verdict, frames: u64) {
        *self.sent[interface].entry(verdict.label()).or_default() += frames;
    }

    /// Sends a datagram.
    pub fn datagram(&mut self, interface: usize, source: [u8; 4], to: SocketAddrV4, payload: &[u8], verdict: Verdict) {
        self.send(interface, &datagram(source, to, payload), verdict);
    }

    /// Lets the kernel send one frame as often and as fast as it can, on two threads: live frames of BPF_PROG_TEST_RUN.
    pub fn flood(&mut self, interface: usize, frame: &[u8], verdict: Verdict) {
        const EACH: u32 = 50_000;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| self.far.enter(|| send_live(FAR[interface], frame, EACH)).unwrap());
            }
        });
        self.count(interface, verdict, 2 * u64::from(EACH));
    }

    pub fn sent(&self, interface: usize) -> u64 {
        self.sent[interface].values().sum()
    }

    /// Waits until all that was sent has come as far as it can, or ten seconds; the sums say then which it was.
    pub fn settle(&self) -> Metrics {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let metrics = self.metrics();
            let lost_on_the_way: u64 = [0, 1].iter().map(|interface| self.links(*interface).0.dropped).sum();
            let sent = self.sent(0) + self.sent(1) - lost_on_the_way;
            let redirected = metrics.sum("xdp_verdicts_total", &[("verdict", "redirected")]);
            let is_settled = metrics.sum("xdp_verdicts_total", &[]) == sent
                && redirected == metrics.received_or_dropped(&[])
                && metrics.is_taken_by_lines();
            if is_settled || Instant::now() > deadline {
                return metrics;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn metrics(&self) -> Metrics {
        let text = self.near.enter(|| -> std::io::Result<String> {
            let mut stream = TcpStream::connect("127.0.0.1:9184")?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        Metrics::parse(text.unwrap().unwrap_or_else(|error| panic!("{error}: {}", self.log())))
    }

    /// What the sender's and the receiver's interface count, since everything was in place.
    pub fn link_counts(&self, interface: usize) -> (Link, Link) {
        let (now, before) = (self.links(interface), self.before[interface]);
        let since = |now: Link, before: Link| Link {
            packets: now.packets - before.packets,
            dropped: now.dropped - before.dropped,
        };
        (since(now.0, before.0), since(now.1, before.1))
    }

    fn links(&self, interface: usize) -> (Link, Link) {
        let read = |namespace: &Namespace, interface: &str, direction: &str| {
            let json = namespace.ip(&["-s", "-j", "link", "show", "dev", interface]).expect("ip link");
            let json: Value = serde_json::from_str(&json).expect("JSON");
            let count = |name: &str| json[0]["stats64"][direction][name].as_u64().expect("a number");
            Link { packets: count("packets"), dropped: count("dropped") }
        };
        (read(&self.far, FAR[interface], "tx"), read(&self.near, INTERFACES[interface], "rx"))
    }

    /// What the receiving driver counts for its queue (`ethtool -S`), by name: `xdp_packets`, `xdp_redirect`, ...
    pub fn driver_counts(&self, interface: usize) -> BTreeMap<String, u64> {
        let mut ethtool = self.near.command(Path::new("ethtool"));
        let output = ethtool.args(["-S", INTERFACES[interface]]).output().expect("ethtool is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let of_queue = text.lines().filter_map(|line| line.trim().strip_prefix("rx_queue_0_")?.split_once(": "));
        of_queue.map(|(name, count)| (name.to_owned(), count.parse().expect("a number"))).collect()
    }

    pub fn feedctl(&self, arguments: &[&str]) -> Output {
        let endpoint = format!("unix:{}/c.sock", self.files.path().display());
        let mut command = Command::new(program("feedctl"));
        command.args(["--endpoint", &endpoint]).args(arguments).output().expect("starts")
    }

    /// Stops the handler in its tracks, and returns when all its threads stand.
    pub fn stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("a signal");
        let (_, status) =
            waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED).expect("a child").expect("it");
        assert!(status.stopped(), "{status:?}: {}", self.log());
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("a signal");
    }

    /// A map of the program that is attached to an interface, as `bpftool map` reaches it.
    pub fn map(&self, interface: usize, name: &str) -> MapData {
        let json = self.near.ip(&["-d", "-j", "link", "show", "dev", INTERFACES[interface]]).expect("ip link");
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let id = json[0]["xdp"]["prog"]["id"].as_u64().expect("a program is attached");
        let program = aya::programs::loaded_programs().filter_map(Result::ok).find(|p| u64::from(p.id()) == id);
        let ids = program.expect("the program").map_ids().expect("its maps").unwrap_or_default();
        let named = |id: &u32| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(name));
        MapData::from_id(ids.into_iter().find(named).expect("the map")).expect("the map")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts a map into the hands of aya.
pub fn typed<M: TryFrom<Map, Error = aya::maps::MapError>>(map: Map) -> M {
    M::try_from(map).expect("a map of that kind")
}

fn config(mode: &str, files: &TempDir) -> String {
    let [one_a, one_b, shared] = LINES;
    format!(
        r#"
        [handler]
        name = "accounting"
        grpc = "unix:{}/c.sock"
        metrics = "127.0.0.1:9184"
        [[interface]]
        name = "fh-in"
        mode = "{mode}"
        unsubscribed = "drop"
        [[interface]]
        name = "fh-pass"
        mode = "{mode}"
        [[interface]]
        name = "fh-out"
        mode = "{mode}"
        [[worker]]
        name = "w0"
        idle = "yield"
        ring_entries = {RING}
        frame_count = 512
        [[feed]]
        name = "itch"
        transport = "moldudp64"
        decoder = "itch50"
        publisher_id = 2
        time_zone = "America/New_York"
        [[feed.channel]]
        name = "one"
        give_up_ms = {GIVE_UP_MS}
        stale_ms = 86_400_000
        hold_packets = 4
        max_orders = 1000
        [[feed.channel.line]]
        name = "A"
        interface = "fh-in"
        group = "{one_a}"
        [[feed.channel.line]]
        name = "B"
        interface = "fh-pass"
        group = "{one_b}"
        source = "10.9.2.2"
        [[feed.channel]]
        name = "two"
        max_orders = 1000
        [[feed.channel.line]]
        name = "A"
        interface = "fh-in"
        group = "{shared}"
        source = "10.9.1.21"
        [[feed.channel]]
        name = "three"
        max_orders = 1000
        [[feed.channel.line]]
        name = "A"
        interface = "fh-in"
        group = "{shared}"
        source = "10.9.1.22"
        [[destination]]
        name = "out"
        channel = "itch/one"
        interface = "fh-out"
        group = "239.20.0.1:30001"
        "#,
        files.path().display()
    )
}

/// How long channel `one` waits for what is missing.
pub const GIVE_UP_MS: u64 = 400;
