//! The handler as a process, as these tests need it.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use feedhandler_testkit::lab::Namespace;
use serde_json::Value;
use tempfile::TempDir;

use super::switch::wait_for;
use crate::binaries::program;

/// A running handler with one channel; killed when dropped.
pub struct Handler {
    child: Child,
    files: TempDir,
}

impl Handler {
    /// Starts it in `namespace`: lines A (and more) as TOML, its output on `output`.
    pub fn start(namespace: &Namespace, mode: &str, lines: &str, output: &str) -> Self {
        let files = TempDir::new().expect("a folder");
        let socket = files.path().join("control.sock");
        let text = format!(
            r#"
            [handler]
            name = "membership"
            grpc = "unix:{}"
            metrics = "127.0.0.1:9184"
            [[interface]]
            name = "fh-in"
            mode = "{mode}"
            [[interface]]
            name = "{output}"
            mode = "{mode}"
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
            {lines}
            [[destination]]
            name = "out"
            channel = "itch/one"
            interface = "{output}"
            group = "239.20.0.1:30001"
            "#,
            socket.display()
        );
        let config = files.path().join("handler.toml");
        fs::write(&config, text).expect("a file");
        let log = fs::File::create(files.path().join("log")).expect("a file");
        let mut command = namespace.command(&program("feedhandler"));
        let child = command.args(["run", "--config"]).arg(&config).stderr(log).spawn().expect("starts");
        let handler = Self { child, files };
        let deadline = Instant::now() + Duration::from_secs(10);
        while handler.try_status().is_none_or(|status| status["ready"] != true) {
            assert!(Instant::now() < deadline, "not ready: {}", handler.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        handler
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Runs `feedctl`; `None` if it fails.
    pub fn feedctl(&self, arguments: &[&str]) -> Option<String> {
        let endpoint = format!("unix:{}", self.path("control.sock").display());
        let output = Command::new(program("feedctl"))
            .args(["--endpoint", &endpoint])
            .args(arguments)
            .output()
            .expect("feedctl starts");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn try_status(&self) -> Option<Value> {
        serde_json::from_str(&self.feedctl(&["--output", "json", "status"])?).ok()
    }

    pub fn status(&self) -> Value {
        self.try_status().unwrap_or_else(|| panic!("no answer: {}", self.log()))
    }

    /// A number of the first line's status, or of its group's; absent is `None`.
    pub fn line(&self, name: &str) -> Option<u64> {
        let line = &self.status()["channels"][0]["lines"][0];
        line[name].as_u64().or_else(|| line["group"][name].as_u64())
    }

    /// The lines of /metrics that begin so; of a handler in `namespace`.
    pub fn metrics(namespace: &Namespace, prefix: &str) -> Vec<String> {
        let get = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect("127.0.0.1:9184")?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = namespace.enter(get).expect("inside").expect("an answer");
        text.lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect()
    }

    /// Switches all lines. A refusal (a worker that got no time for a second) is taken back by the handler, and asked
    /// again here.
    pub fn switch(&self, verb: &str) {
        wait_for(verb, || self.feedctl(&[verb, "--all"]).is_some());
    }

    /// Ends it as an operator would; its log.
    pub fn stop(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
