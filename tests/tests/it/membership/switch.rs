//! A switch that snoops, with its own querier, and three hosts on it.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use feedhandler::config::plan::Mode;
use feedhandler::steering::Steering;
use feedhandler_testkit::lab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};
use xdp_ebpf::{GroupKey, GroupRule, Verdict};

/// Two addresses of the source host.
pub const SOURCES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 60, 0, 1), Ipv4Addr::new(10, 60, 0, 2)];
/// The handler's interface.
pub const INTERFACE: &str = "fh-in";
/// The bystander's.
pub const BYSTANDER: &str = "by-in";

/// After so long without a report the switch forgets a port; its queries come every second.
pub const MEMBERSHIP_INTERVAL: Duration = Duration::from_millis(2500);

/// A bridge as switch, and the hosts. All goes when dropped.
pub struct Switch {
    switch: Namespace,
    pub source: Namespace,
    pub handler: Namespace,
    pub bystander: Namespace,
}

impl Switch {
    /// With a querier of this IGMP version. Returns once it is in force: before, the switch floods.
    pub fn new(igmp_version: u8) -> Self {
        let new = |role| Namespace::new(role).expect("root");
        let switch =
            Self { switch: new("switch"), source: new("source"), handler: new("handler"), bystander: new("bystander") };
        // Hundredths of a second; a second is the shortest query interval that the kernel takes.
        let bridge = "link add br0 type bridge mcast_snooping 1 mcast_query_interval 100 mcast_query_response_interval 30 \
                      mcast_membership_interval 250 mcast_last_member_interval 10 mcast_startup_query_interval 100 \
                      mcast_igmp_version";
        ip(&switch.switch, &format!("{bridge} {igmp_version}"));
        ip(&switch.switch, "link set br0 up");
        // After the response interval, which is how long it then floods.
        ip(&switch.switch, "link set br0 type bridge mcast_querier 1");
        switch.plug(&switch.source, "src");
        for address in SOURCES {
            ip(&switch.source, &format!("addr add {address}/24 dev src"));
        }
        switch.plug(&switch.bystander, BYSTANDER);
        switch.plug_handler();
        ip(&switch.handler, &format!("addr add 10.60.0.3/24 dev {INTERFACE}"));
        std::thread::sleep(Duration::from_millis(400));
        switch
    }

    /// Connects the handler's interface, which is new or was deleted.
    pub fn plug_handler(&self) {
        self.plug(&self.handler, INTERFACE);
    }

    fn plug(&self, host: &Namespace, name: &str) {
        let (inside, port) = (host.name(), self.switch.name());
        let veth = format!("link add {name} netns {inside} type veth peer name p-{name} netns {port}");
        ip(host, &veth);
        ip(&self.switch, &format!("link set p-{name} master br0"));
        ip(&self.switch, &format!("link set p-{name} up"));
        ip(host, &format!("link set {name} up"));
        wait_for("a carrier", || host.ip(&["link", "show", "dev", name]).is_ok_and(|text| text.contains("LOWER_UP")));
    }

    /// Whether the switch forwards a group to a host's port.
    pub fn forwards(&self, group: Ipv4Addr, name: &str) -> bool {
        let mut bridge = std::process::Command::new("bridge");
        let output = bridge.args(["-n", self.switch.name(), "mdb", "show"]).output().expect("iproute2");
        let (port, group) = (format!("port p-{name} "), format!("grp {group} "));
        String::from_utf8_lossy(&output.stdout).lines().any(|row| row.contains(&port) && row.contains(&group))
    }

    /// The handler as seen from inside: closures run on a thread there.
    pub fn inside<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> T {
        self.handler.enter(closure).expect("the namespace")
    }
}

pub fn ip(namespace: &Namespace, arguments: &str) {
    let words: Vec<&str> = arguments.split_ascii_whitespace().collect();
    namespace.ip(&words).unwrap_or_else(|error| panic!("{error:#}"));
}

/// Counts a group's frames at an interface, as XDP sees them before anything else does.
pub struct Counter(Steering);

impl Counter {
    /// Frames from `SOURCES[0]` are told from all others.
    pub fn new(namespace: &Namespace, interface: &str, group: SocketAddrV4) -> Self {
        namespace
            .enter(|| {
                let mut steering = Steering::attach(interface, Mode::Native, 1).expect("an XDP program");
                let key = GroupKey { dst_ip: group.ip().octets(), dst_port: group.port(), vlan: 0 };
                steering
                    .insert_rule(key, GroupRule { source_ip: SOURCES[0].octets(), line: 0, flags: 0 })
                    .expect("a rule");
                Self(steering)
            })
            .expect("the namespace")
    }

    /// Frames so far, by index into [`SOURCES`].
    pub fn frames(&self) -> [u64; 2] {
        let verdicts = self.0.verdicts().expect("counters");
        // There is a rule and no socket: what would be redirected is counted and passes.
        [Verdict::PassNoSocket, Verdict::PassWrongSource].map(|verdict| verdicts[verdict as usize])
    }

    /// Frames within `time`.
    pub fn within(&self, time: Duration) -> [u64; 2] {
        let before = self.frames();
        std::thread::sleep(time);
        let after = self.frames();
        [after[0] - before[0], after[1] - before[1]]
    }

    /// Waits until exactly these sources arrive: a quarter of a second long without the others.
    pub fn wait_for(&self, what: &str, sources: [bool; 2]) {
        wait_for(what, || self.within(Duration::from_millis(250)).map(|frames| frames > 0) == sources);
    }

    /// Watches for `time`: each quarter of a second must have frames of exactly these sources.
    pub fn keeps(&self, what: &str, time: Duration, sources: [bool; 2]) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let frames = self.within(Duration::from_millis(250));
            assert_eq!(frames.map(|frames| frames > 0), sources, "{what}: {frames:?} in a quarter of a second");
        }
    }
}

/// Sends a small datagram to a group every so often, until dropped.
pub struct Sender {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    /// Every two milliseconds.
    pub fn start(namespace: &Namespace, from: Ipv4Addr, group: SocketAddrV4) -> Self {
        Self::start_every(Duration::from_millis(2), namespace, from, group)
    }

    pub fn start_every(interval: Duration, namespace: &Namespace, from: Ipv4Addr, group: SocketAddrV4) -> Self {
        let socket: UdpSocket = namespace
            .enter(|| {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
                socket.bind(&SocketAddrV4::new(from, 0).into()).expect("its own address");
                socket.set_multicast_if_v4(&from).expect("its own interface");
                socket.set_multicast_loop_v4(false).expect("an option");
                socket.into()
            })
            .expect("the namespace");
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !is_over.load(Relaxed) {
                // While the link is down there is no route.
                let _ = socket.send_to(HEARTBEAT, group);
                std::thread::sleep(interval);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// MoldUDP64: session, next sequence number 1, no message.
const HEARTBEAT: &[u8] = b"0000000042\0\0\0\0\0\0\0\x01\0\0";

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(8);
    while !done() {
        assert!(Instant::now() < deadline, "waited 8 s for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
