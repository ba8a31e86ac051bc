//! The control service as its users see it: over a Unix socket and HTTP, with the kernel doing the joins.
//!
//! The interface is the loopback with kernel sockets: groups can be joined there by anybody. In the worker's place a
//! thread takes the commands, notes them and confirms them.
#![forbid(unsafe_code)]

mod access;
mod canary;
mod change;
mod metrics;
mod recover;
mod routes;
mod service;
mod sockets;
mod state;
mod stream;
mod undo;
mod watch;

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use feedhandler_proto::v1::control_client::ControlClient;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::config::Config;
use crate::worker::shared::{COMMAND_QUEUE, Event, Wanted, WorkerShared};

/// Takes commands like a worker, and notes them.
#[derive(Default)]
struct WorkerStub {
    /// Takes nothing while set.
    is_stuck: AtomicBool,
    /// Its sockets are refused every group while set.
    is_refused: AtomicBool,
    /// The same of single lines.
    refused: Mutex<Vec<usize>>,
    switched: Mutex<Vec<(usize, bool)>>,
    /// Destinations that got a route, with what says which.
    routed: Mutex<Vec<(usize, String)>>,
    /// What edits had it do: streams, lines and channels out, channels, lines and streams in.
    edited: Mutex<Vec<[Vec<usize>; 6]>>,
    /// What it misses, and the way to the recovery thread.
    missing: Mutex<Option<(Wanted, rtrb::Producer<Wanted>)>>,
}

impl WorkerStub {
    /// Runs until the desk is dropped.
    fn start(mut commands: rtrb::Consumer<Command>, shared: Arc<WorkerShared>) -> Arc<Self> {
        let stub = Arc::new(Self::default());
        let worker = Arc::clone(&stub);
        std::thread::spawn(move || {
            while !commands.is_abandoned() {
                std::thread::sleep(std::time::Duration::from_micros(100));
                while !worker.is_stuck.load(Relaxed)
                    && let Ok(command) = commands.pop()
                {
                    if let (Command::Hurry { .. }, Some((wanted, wants))) = (&command, &mut *locked(&worker.missing)) {
                        let _ = wants.push(wanted.clone());
                    }
                    if let Command::SetRoute { destination, route } = &command {
                        locked(&worker.routed).push((*destination, format!("{route:?}")));
                    }
                    if let Command::Edit(edit) = &command {
                        locked(&worker.edited).push([
                            edit.remove_streams.clone(),
                            edit.remove_lines.iter().map(|line| usize::from(*line)).collect(),
                            edit.remove_channels.clone(),
                            edit.add_channels.iter().map(|new| new.index).collect(),
                            edit.add_lines.iter().map(|new| usize::from(new.line)).collect(),
                            edit.add_streams.iter().map(|new| new.stream.destination()).collect(),
                        ]);
                    }
                    if let Command::SetLine { line, enabled } = command {
                        locked(&worker.switched).push((line, enabled));
                        let is_refused = worker.is_refused.load(Relaxed) || locked(&worker.refused).contains(&line);
                        if is_refused && enabled {
                            shared.count_refused(&std::io::Error::from_raw_os_error(libc::ENODEV));
                        }
                    }
                    shared.count_applied();
                }
            }
        });
        stub
    }
}

/// A handler without a data path.
struct Bench {
    desk: Arc<Desk>,
    worker: Arc<WorkerStub>,
    events: rtrb::Producer<Event>,
    shared: Arc<WorkerShared>,
    /// Groups of lines A and B.
    groups: [Ipv4Addr; 2],
    directory: tempfile::TempDir,
    /// Where its configuration file is.
    etc: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with_mode(Mode::Socket)
    }

    /// With this mode in force, though there is no filter in any.
    fn with_mode(mode_in_force: Mode) -> Self {
        Self::with_handler(mode_in_force, "")
    }

    /// With these keys at the end of `[handler]`.
    fn with_handler(mode_in_force: Mode, keys: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let groups = unused_groups();
        let text = format!(
            r#"
            [handler]
            name = "bench"
            grpc = "unix:{0}/control.sock"
            subscriptions_file = "{0}/kept/subscriptions.json"
            metrics = "127.0.0.1:0"
            {keys}
            [[interface]]
            name = "lo"
            mode = "socket"
            [[worker]]
            name = "w0"
            [[feed]]
            name = "itch"
            transport = "moldudp64"
            decoder = "itch50"
            publisher_id = 2
            time_zone = "America/New_York"
            [[feed.channel]]
            name = "equities"
            [feed.channel.recovery]
            servers = ["127.0.0.1:18000"]
            [[feed.channel.line]]
            name = "A"
            interface = "lo"
            group = "{1}:26400"
            [[feed.channel.line]]
            name = "B"
            interface = "lo"
            group = "{2}:26400"
            [[destination]]
            name = "out"
            channel = "itch/equities"
            interface = "lo"
            group = "239.255.1.1:30001"
            "#,
            directory.path().display(),
            groups[0],
            groups[1]
        );
        let etc = tempfile::tempdir().unwrap();
        let file = etc.path().join("handler.toml");
        std::fs::write(&file, text).unwrap();
        let loaded = Config::load_whole(&file).unwrap();
        let (plan, written) = (Arc::new(loaded.plan.clone()), loaded.config.clone());
        let (command_in, commands) = rtrb::RingBuffer::new(COMMAND_QUEUE);
        let (events, event_out) = rtrb::RingBuffer::new(64);
        let shared = WorkerShared::new(plan.line_count(), plan.channels.room(), plan.destinations.room(), 1);
        let link = WorkerLink {
            index: 0,
            commands: command_in.into(),
            events: event_out.into(),
            shared: Arc::clone(&shared),
            payload_bytes: vec![],
        };
        let interface = InterfaceLink { mode_in_force, jumbo: false, steering: None, refused: vec![] };
        let desk = Desk::new(plan, vec![interface], vec![link], Threads::new(Vec::new()));
        desk.set_config(loaded, written);
        Self { desk, worker: WorkerStub::start(commands, Arc::clone(&shared)), events, shared, groups, directory, etc }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// What a living worker does all the time.
    fn beat(&self) {
        self.shared.running.store(true, Relaxed);
        self.shared.heartbeat_ns.store(monotonic_ns(), Relaxed);
    }

    /// The `SetLine` commands since the last call.
    fn switched(&mut self) -> Vec<(usize, bool)> {
        std::mem::take(&mut locked(&self.worker.switched))
    }

    /// Which of the two groups the kernel has joined.
    fn joined(&self) -> [bool; 2] {
        self.groups.map(|group| {
            // One group a line, in hexadecimal, as the machine's integer (little-endian here and on every target).
            let hex = format!("{:08X}", u32::from_ne_bytes(group.octets()));
            std::fs::read_to_string("/proc/net/igmp").unwrap().contains(&hex)
        })
    }

    /// Serves while `work` runs, then shuts down and returns what `work` did.
    async fn served<T, F: Future<Output = T>>(&mut self, work: impl FnOnce(Served) -> F) -> T {
        let listeners = Listeners::bind(&self.desk.plan()).unwrap();
        let served = Served {
            socket: self.socket(),
            metrics: listeners.metrics_address().unwrap(),
            tls: listeners.grpc_tls_address(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(Arc::clone(&self.desk), listeners, async {
            let _ = stopped.await;
        }));
        let result = work(served).await;
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        result
    }
}

/// Where the bench is served.
#[derive(Clone)]
struct Served {
    socket: PathBuf,
    metrics: std::net::SocketAddr,
    tls: Option<std::net::SocketAddr>,
}

impl Served {
    async fn channel(&self) -> Channel {
        channel(&self.socket).await.unwrap()
    }

    async fn client(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel().await)
    }
}

async fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap().connect().await
}

/// Two groups that no other test and no other process of these tests uses: memberships are seen by the whole namespace.
fn unused_groups() -> [Ipv4Addr; 2] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = (std::process::id() % 0x1_0000) * 64 + NEXT.fetch_add(1, Relaxed) * 2;
    [0, 1].map(|line| Ipv4Addr::from(0xEF00_0000 | 0x0010_0000 | ((number + line) & 0x003F_FFFF) | 0x0080_0000))
}
