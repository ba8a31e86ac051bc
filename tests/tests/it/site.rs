//! One handler with an interface in and one out, in a namespace of its own, started as an operator would.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use feedhandler_testkit::lab::{End, Namespace, connect};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::binaries::program;

/// A namespace for the handler with the two interfaces `fh-in` and `fh-out`, and files of its own.
pub struct Site {
    pub namespace: Namespace,
    pub far: Namespace,
    pub files: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let (namespace, far) = (Namespace::new("site").expect("root"), Namespace::new("far").expect("root"));
        for (number, (near, away)) in (1..).zip([("fh-in", "far-in"), ("fh-out", "far-out")]) {
            connect([
                End { namespace: &namespace, name: near, address: [10, 9, number, 1].into() },
                End { namespace: &far, name: away, address: [10, 9, number, 2].into() },
            ])
            .expect("a veth pair");
        }
        Self { namespace, far, files: TempDir::new().expect("a folder") }
    }

    /// Writes the configuration, changed by `change`.
    pub fn config(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        let socket = self.files.path().join(format!("{name}.sock"));
        let text = format!(
            r#"
            [handler]
            name = "{name}"
            grpc = "unix:{}"
            [[interface]]
            name = "fh-in"
            mode = "native"
            [[interface]]
            name = "fh-out"
            mode = "native"
            [[worker]]
            name = "w0"
            idle = "yield"
            [[feed]]
            name = "itch"
            transport = "moldudp64"
            decoder = "itch50"
            publisher_id = 2
            time_zone = "America/New_York"
            [[feed.channel]]
            name = "one"
            max_orders = 1000
            [[feed.channel.line]]
            name = "A"
            interface = "fh-in"
            group = "239.10.0.1:26400"
            [[destination]]
            name = "out"
            channel = "itch/one"
            interface = "fh-out"
            group = "239.20.0.1:30001"
            "#,
            socket.display()
        );
        let path = self.files.path().join(format!("{name}.toml"));
        fs::write(&path, change(text)).expect("a file");
        path
    }

    pub fn command(&self, config: &Path) -> Command {
        let mut command = self.namespace.command(&program("feedhandler"));
        command.args(["run", "--config"]).arg(config).stdin(Stdio::null());
        command
    }

    /// Starts the handler and waits until control answers.
    pub fn start(&self, name: &str) -> Running {
        self.start_in(name, "native")
    }

    /// The same with another mode on all interfaces.
    pub fn start_in(&self, name: &str, mode: &str) -> Running {
        let config = self.config(name, |text| text.replace("\"native\"", &format!("\"{mode}\"")));
        self.launch(name, self.command(&config))
    }

    /// Starts `command`, which runs the handler with the configuration `name`, and waits until control answers.
    pub fn launch(&self, name: &str, mut command: Command) -> Running {
        let log = self.files.path().join(format!("{name}.log"));
        let child = command.stderr(fs::File::create(&log).expect("a file")).spawn().expect("starts");
        let running = Running { child, socket: self.files.path().join(format!("{name}.sock")), log };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !running.feedctl(&["status"]).status.success() {
            assert!(Instant::now() < deadline, "no answer: {}", fs::read_to_string(&running.log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// Runs the handler, which must refuse; its one line of complaint (the log's lines aside).
    pub fn refusal(&self, config: &Path) -> String {
        self.refused(self.command(config))
    }

    pub fn refused(&self, mut command: Command) -> String {
        // Into a file: nobody reads a pipe while the process is waited for.
        let log = self.files.path().join("refusal.log");
        let mut child = command.stderr(fs::File::create(&log).expect("a file")).spawn().expect("starts");
        let text = || fs::read_to_string(&log).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(10);
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("runs on where it should refuse: {}", text());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = text();
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(!text.contains('\u{1b}'), "colours in a file: {text}");
        let complaints: Vec<&str> = text.lines().filter(|line| line.starts_with("feedhandler: ")).collect();
        assert_eq!(complaints.len(), 1, "one line: {text}");
        complaints[0].to_owned()
    }

    /// A socket on the far side that sends to the line's group.
    pub fn sender(&self) -> UdpSocket {
        let open = || -> std::io::Result<UdpSocket> {
            let own = Ipv4Addr::new(10, 9, 1, 2);
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.bind(&SocketAddrV4::new(own, 0).into())?;
            socket.set_multicast_if_v4(&own)?;
            socket.connect(&SocketAddrV4::new([239, 10, 0, 1].into(), 26400).into())?;
            Ok(socket.into())
        };
        self.far.enter(open).expect("inside").expect("a socket")
    }

    pub fn attached(&self) -> bool {
        self.namespace.ip(&["link", "show"]).expect("ip link").contains("xdp")
    }
}

/// A handler that runs; killed when dropped.
pub struct Running {
    pub child: Child,
    pub socket: PathBuf,
    pub log: PathBuf,
}

impl Running {
    pub fn feedctl(&self, arguments: &[&str]) -> Output {
        let endpoint = format!("unix:{}", self.socket.display());
        let mut command = Command::new(program("feedctl"));
        command.args(["--endpoint", &endpoint]).args(arguments).output().expect("starts")
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("gone");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
