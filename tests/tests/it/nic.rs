//! `[interface.nic]` on a real veth pair: what the handler changes is in force while it runs, and what was there before is
//! there again however it ends.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use feedhandler_testkit::lab::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries::program;

const PATIENCE: Duration = Duration::from_secs(20);

/// What veth has of it, each unlike its first value.
const SETTINGS: &str =
    "channels = 2\ngro = true\nrx_vlan_strip = false\nnapi_defer_hard_irqs = 2\ngro_flush_timeout_ns = 200_000";
/// The same as [`Site::values`] shows them: channels, gro, rxvlan, deferred polls, timer.
const IN_FORCE: [&str; 5] = ["2 2", "on", "off", "2", "200000"];
const FIRST: [&str; 5] = ["4 4", "off", "on", "0", "0"];

/// A namespace with `fh-in`, which has four queues, and files of its own.
struct Site {
    namespace: Namespace,
    files: TempDir,
}

impl Site {
    fn new() -> Self {
        let namespace = Namespace::new("nic").expect("root");
        let ip = |words: &str| namespace.ip(&words.split(' ').collect::<Vec<_>>()).expect("ip");
        // One queue at the far end: native XDP wants no fewer receive queues than the peer has transmit queues.
        ip("link add fh-in numrxqueues 4 numtxqueues 4 type veth peer name far numrxqueues 1 numtxqueues 1");
        ip("addr add 10.9.1.1/24 dev fh-in");
        ip("link set fh-in up");
        ip("link set far up");
        let site = Self { namespace, files: TempDir::new().expect("a folder") };
        assert_eq!(site.values(), FIRST, "the base that all is compared with");
        site
    }

    /// Runs a program inside; what it printed.
    fn inside(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.namespace.command(Path::new(program)).args(arguments).output().expect("starts");
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The settings, read by other means than the handler's.
    fn values(&self) -> [String; 5] {
        let channels = self.inside("ethtool", &["-l", "fh-in"]);
        let current = channels.split("Current hardware settings:").nth(1).expect("both parts");
        let count = |label| {
            let line = current.lines().find_map(|line| line.strip_prefix(label)).expect(label);
            line.trim().to_owned()
        };
        let features = self.inside("ethtool", &["-k", "fh-in"]);
        let feature = |label: &str| {
            let line = features.lines().find_map(|line| line.strip_prefix(label)).expect(label);
            line.trim_start_matches(':').split_whitespace().next().expect("on or off").to_owned()
        };
        let file = |name| self.inside("cat", &[&format!("/sys/class/net/fh-in/{name}")]).trim().to_owned();
        [
            format!("{} {}", count("RX:"), count("TX:")),
            feature("generic-receive-offload"),
            feature("rx-vlan-offload"),
            file("napi_defer_hard_irqs"),
            file("gro_flush_timeout"),
        ]
    }

    fn write(&self, file: &str, value: &str) {
        self.inside("sh", &["-c", &format!("echo {value} >/sys/class/net/fh-in/{file}")]);
    }

    fn config(&self, nic: &str) -> PathBuf {
        let folder = self.files.path().display();
        let text = format!(
            r#"
            [handler]
            name = "nic"
            grpc = "unix:{folder}/control.sock"
            state_dir = "{folder}/state"
            [[interface]]
            name = "fh-in"
            mode = "native"
            [interface.nic]
            {nic}
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
            interface = "fh-in"
            group = "239.20.0.1:30001"
            "#
        );
        let path = self.files.path().join("handler.toml");
        fs::write(&path, text).expect("a file");
        path
    }

    fn spawn(&self, nic: &str) -> Handler {
        let config = self.config(nic);
        let log = self.files.path().join("handler.log");
        let mut command = self.namespace.command(&program("feedhandler"));
        command.args(["run", "--config"]).arg(config).stdin(Stdio::null());
        let child = command.stderr(fs::File::create(&log).expect("a file")).spawn().expect("starts");
        Handler { child, log }
    }

    /// Starts the handler and waits until it runs.
    fn start(&self, nic: &str) -> Handler {
        let mut handler = self.spawn(nic);
        let deadline = Instant::now() + PATIENCE;
        while !handler.log().contains(" running ") {
            let ended = handler.child.try_wait().expect("a child").is_some();
            assert!(!ended && Instant::now() < deadline, "it does not run: {}", handler.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        handler
    }

    /// Starts the handler, which must refuse; its complaint.
    fn refusal(&self, nic: &str) -> String {
        let mut handler = self.spawn(nic);
        let status = handler.wait();
        let log = handler.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let complaints: Vec<&str> = log.lines().filter(|line| line.starts_with("feedhandler: ")).collect();
        assert_eq!(complaints.len(), 1, "one line: {log}");
        complaints[0].to_owned()
    }

    /// The state file: which setting had which value before.
    fn kept(&self) -> Option<Vec<(Value, String)>> {
        let files = fs::read_dir(self.files.path().join("state")).ok()?;
        let file =
            files.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "json"))?;
        let record: Value = serde_json::from_slice(&fs::read(file).expect("readable")).expect("JSON");
        let changes = record["changes"].as_array().expect("a list").iter();
        Some(changes.map(|change| (change["setting"].clone(), change["old"].as_str().unwrap().to_owned())).collect())
    }
}

/// A handler; killed when dropped.
struct Handler {
    child: Child,
    log: PathBuf,
}

impl Handler {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM; the whole log.
    fn stop(mut self) -> String {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("SIGTERM");
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }

    fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("gone");
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn settings_hold_while_it_runs_and_are_put_back_on_sigterm() {
    let site = Site::new();
    let handler = site.start(SETTINGS);
    assert_eq!(site.values(), IN_FORCE);
    let kept = site.kept().expect("a state file");
    let old: Vec<&str> = kept.iter().map(|(_, old)| old.as_str()).collect();
    assert_eq!(old, ["4", "4", "off", "on", "0", "0"], "{kept:?}");
    let log = handler.stop();
    assert_eq!(site.values(), FIRST, "{log}");
    assert_eq!(site.kept(), None, "nothing is left to put back");
    let changed: Vec<&str> = log.lines().filter(|line| line.contains("NIC setting changed")).collect();
    assert_eq!(changed.len(), 6, "each once: {log}");
    let timer = changed.iter().find(|line| line.contains("gro_flush_timeout_ns")).expect("the timer");
    assert!(timer.contains("old=\"0\"") && timer.contains("new=\"200000\"") && timer.contains("fh-in"), "{timer}");
    assert_eq!(log.lines().filter(|line| line.contains(": restored from")).count(), 6, "{log}");
}

#[test]
fn a_killed_handlers_settings_are_put_back_by_the_next_start_before_it_changes_any() {
    let site = Site::new();
    site.start(SETTINGS).kill();
    assert_eq!(site.values(), IN_FORCE, "nobody was there to put them back");
    assert!(site.kept().is_some());
    // The next one wants something else, and less. Nothing waits for the dead one's locks to be gone.
    let handler = site.start("napi_defer_hard_irqs = 5\ngro_flush_timeout_ns = 50_000");
    assert_eq!(site.values(), ["4 4", "off", "on", "5", "50000"], "what it does not name is as it first was");
    let kept = site.kept().expect("a state file");
    assert!(kept.len() == 2 && kept.iter().all(|(_, old)| old == "0"), "not the killed one's: {kept:?}");
    handler.kill();
    // Without any settings of its own it still puts right what it finds.
    let handler = site.start("");
    assert_eq!(site.values(), FIRST);
    assert_eq!(site.kept(), None);
    let log = handler.stop();
    assert!(log.contains("fh-in: nic.napi_defer_hard_irqs: restored from 5 to 0"), "{log}");
    assert_eq!(site.values(), FIRST);
}

#[test]
fn what_the_driver_refuses_ends_the_start_and_is_undone() {
    let site = Site::new();
    let link = || site.namespace.ip(&["link", "show", "fh-in"]).expect("ip");
    for (refused, says) in [
        ("rx_ring = 512", &["fh-in", "nic.rx_ring", "not supported", "leave the key out"][..]),
        ("rx_usecs = 0", &["fh-in", "nic.rx_usecs", "not supported"]),
        ("lro = true", &["fh-in", "nic.lro", "`large-receive-offload` is fixed"]),
        ("irq_cores = [0]", &["fh-in", "nic.irq_cores", "no interrupts of its own"]),
        (
            "steer = \"ntuple\"",
            &["fh-in", "nic.steer = \"ntuple\"", "ntuple-filters", "set channels = 1 and queue = 0"],
        ),
    ] {
        let complaint = site.refusal(&format!("{SETTINGS}\n{refused}"));
        for part in says {
            assert!(complaint.contains(part), "`{part}` in: {complaint}");
        }
        assert_eq!(site.values(), FIRST, "after {complaint}");
        assert_eq!(site.kept(), None);
        assert!(!link().contains("xdp"), "{}", link());
    }
    let complaint = site.refusal("channels = 9");
    assert!(complaint.contains("channels") && complaint.contains("at most 4"), "{complaint}");
    assert_eq!(site.values(), FIRST);
}

#[test]
fn a_start_that_fails_later_puts_everything_back_too() {
    let site = Site::new();
    // The far end goes down: the filter is not attached to a link without carrier, and by then the settings are made. (All but
    // the channels: veth switches the carrier on when they change, whatever the far end does.)
    site.namespace.ip(&["link", "set", "far", "down"]).expect("ip");
    let settings = SETTINGS.replace("channels = 2\n", "");
    let complaint = site.refusal(&settings);
    assert!(complaint.contains("carrier"), "{complaint}");
    assert_eq!(site.values(), FIRST);
    assert_eq!(site.kept(), None);
}

#[test]
fn what_an_operator_changed_meanwhile_is_left_alone() {
    let site = Site::new();
    let handler = site.start(SETTINGS);
    site.write("gro_flush_timeout", "777");
    let log = handler.stop();
    assert!(log.contains("nic.gro_flush_timeout_ns: is 777 and not the 200000 that we set"), "{log}");
    let [channels, gro, rxvlan, polls, timer] = site.values();
    assert_eq!([channels, gro, rxvlan, polls], FIRST[..4]);
    assert_eq!(timer, "777");
    assert_eq!(site.kept(), None);
}

#[test]
fn a_second_handler_does_not_touch_a_running_ones_settings() {
    let site = Site::new();
    let first = site.start(SETTINGS);
    // Its own control socket, but the same interface and state directory.
    let config = site.config("gro = false");
    let text = fs::read_to_string(&config).expect("readable").replace("control.sock", "second.sock");
    let other = site.files.path().join("second.toml");
    fs::write(&other, text).expect("a file");
    let mut command = site.namespace.command(&program("feedhandler"));
    let output = command.args(["run", "--config"]).arg(other).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("held by another handler (process {})", first.child.id())), "{said}");
    assert_eq!(site.values(), IN_FORCE, "{said}");
    first.stop();
    assert_eq!(site.values(), FIRST);
}
