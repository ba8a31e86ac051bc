//! The handler gives up its privileges once it is set up, and everything that it does afterwards works without them.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use feedhandler::config::plan::Mode;
use feedhandler::net::{Frames, xsk};
use feedhandler::privilege::{Keep, drop_here};
use feedhandler::steering::Steering;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CapabilitySet;

use crate::binaries::program;
use crate::inside;
use crate::site::{Running, Site};

/// A thread's name, and its sets as `/proc/PID/task/TID/status` has them.
#[derive(Debug)]
struct Thread {
    name: String,
    /// Inheritable, permitted, effective, bounding, ambient.
    sets: [u64; 5],
    no_new_privs: bool,
}

fn threads(running: &Running) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{}/task", running.child.id())).expect("it runs");
    let texts = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let thread = |text: String| {
        let value = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).expect(key);
            line.split_once(':').expect("key: value").1.trim().to_owned()
        };
        let set = |key| u64::from_str_radix(&value(key), 16).expect("hexadecimal");
        Thread {
            name: value("Name"),
            sets: ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(set),
            no_new_privs: value("NoNewPrivs") == "1",
        }
    };
    let threads: Vec<Thread> = texts.map(thread).collect();
    // Main, the worker, and tokio's.
    assert!(threads.len() >= 4 && threads.iter().any(|thread| thread.name == "w0"), "{threads:?}");
    threads
}

/// Asserts that no thread has, or can get back, any capability. The bounding set is out of reach for who was never root.
fn assert_none(running: &Running, with_bounding_set: bool) {
    for thread in threads(running) {
        let [inheritable, permitted, effective, bounding, ambient] = thread.sets;
        assert_eq!([inheritable, permitted, effective, ambient], [0; 4], "{thread:?}");
        assert!(thread.no_new_privs, "{thread:?}");
        assert!(!with_bounding_set || bounding == 0, "{thread:?}");
    }
}

/// Switches line A off and on again; the kernel's own table says that the group is left and joined.
fn assert_subscription_works(site: &Site, running: &Running) {
    let joined = || site.namespace.joined_groups("fh-in").expect("the table").contains(&[239, 10, 0, 1].into());
    let feedctl = |verb: &str| {
        let output = running.feedctl(&[verb, "--channel", "itch/one", "--line", "A"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !text.contains("WARN"), "{verb}: {text}");
    };
    assert!(joined(), "from the start");
    feedctl("unsubscribe");
    assert!(!joined(), "left");
    feedctl("subscribe");
    assert!(joined(), "joined again");
    // Reads the maps of the program, and describes what is attached.
    let status = running.feedctl(&["status"]);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    assert!(String::from_utf8_lossy(&status.stdout).contains("READY"));
}

/// SIGTERM; it must end well, detach, and take its socket with it.
fn assert_stops(site: &Site, running: &mut Running) {
    let pid = Pid::from_raw(running.child.id().cast_signed()).expect("a child");
    kill_process(pid, Signal::TERM).expect("SIGTERM");
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        if let Some(status) = running.child.try_wait().expect("a child") {
            break status;
        }
        assert!(Instant::now() < deadline, "runs on after SIGTERM: {}", log(running));
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{}", log(running));
    assert!(!site.attached(), "the program is still attached");
    let left = fs::read_dir(site.files.path()).expect("a folder").flatten();
    assert!(!left.into_iter().any(|file| file.file_name().to_string_lossy().ends_with(".sock")), "the socket is left");
}

fn log(running: &Running) -> String {
    fs::read_to_string(&running.log).unwrap_or_default()
}

/// A configuration with frames for the smallest locked-memory limit, and `change`.
fn config(site: &Site, name: &str, change: impl FnOnce(String) -> String) -> std::path::PathBuf {
    let path = site.config(name, |text| {
        change(text.replace("name = \"w0\"", "name = \"w0\"\nring_entries = 256\nframe_count = 1024"))
    });
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    path
}

fn with_privileges(word: &str) -> impl FnOnce(String) -> String {
    let handler = format!("[handler]\nprivileges = \"{word}\"");
    move |text| text.replace("[handler]", &handler)
}

/// Runs the handler as a user of its own (locked memory is counted by user), with these capabilities as a service manager
/// would give them.
fn as_user(site: &Site, uid: u32, capabilities: &[&str], config: &Path) -> Command {
    let copy = site.files.path().join("feedhandler");
    if !copy.exists() {
        fs::copy(program("feedhandler"), &copy).expect("a copy that anybody may run");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::set_permissions(site.files.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let set = ["-all".to_owned()].into_iter().chain(capabilities.iter().map(|name| format!("+{name}")));
    let set = set.collect::<Vec<_>>().join(",");
    let mut command = site.namespace.command(Path::new("prlimit"));
    // 4 MiB may be locked: twice what the frames of `config` take.
    let uid = uid.to_string();
    command.args(["--memlock=4194304:4194304", "setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"]);
    command.args(["--inh-caps", &set, "--ambient-caps", &set]);
    command.arg(&copy).args(["run", "--config"]).arg(config);
    command
}

/// What XDP takes.
const XDP: [&str; 4] = ["net_admin", "net_raw", "bpf", "perfmon"];

#[test]
fn root_gives_up_everything_and_subscription_still_works() {
    let site = Site::new();
    let mut running = site.launch("none", site.command(&config(&site, "none", with_privileges("none"))));
    assert_none(&running, true);
    assert!(site.attached());
    assert!(log(&running).contains("none, by any thread"), "{}", log(&running));
    assert_subscription_works(&site, &running);
    assert_stops(&site, &mut running);
}

#[test]
fn by_default_only_the_keeper_holds_any_and_keep_gives_up_nothing() {
    let site = Site::new();
    let running = site.launch("default", site.command(&config(&site, "default", |text| text)));
    for thread in threads(&running).into_iter().filter(|thread| thread.name != "keeper") {
        assert_eq!(thread.sets, [0; 5], "{thread:?}");
    }
    drop(running);
    let running = site.launch("keep", site.command(&config(&site, "keep", with_privileges("keep"))));
    for thread in threads(&running) {
        assert!(thread.sets[2] != 0 && !thread.no_new_privs, "{thread:?}");
    }
    assert!(log(&running).contains("capabilities"), "{}", log(&running));
}

#[test]
fn a_user_with_ambient_capabilities_is_enough_for_xdp() {
    let site = Site::new();
    let file = config(&site, "user", with_privileges("none"));
    let mut running = site.launch("user", as_user(&site, 61001, &XDP, &file));
    assert!(site.attached());
    assert_none(&running, false);
    assert_subscription_works(&site, &running);
    assert_stops(&site, &mut running);
}

#[test]
fn kernel_sockets_need_no_capability_at_all() {
    let site = Site::new();
    let file = config(&site, "socket", |text| text.replace("\"native\"", "\"socket\""));
    let mut running = site.launch("socket", as_user(&site, 61002, &[], &file));
    assert!(!site.attached());
    assert_none(&running, false);
    assert_subscription_works(&site, &running);
    assert_stops(&site, &mut running);
}

#[test]
fn what_is_missing_is_named() {
    let site = Site::new();
    let file = config(&site, "missing", |text| text);
    for missing in XDP {
        let given: Vec<&str> = XDP.into_iter().filter(|name| *name != missing).collect();
        let complaint = site.refused(as_user(&site, 61003, &given, &file));
        let name = format!("CAP_{}", missing.to_uppercase());
        assert!(complaint.contains(&format!("missing {name} (")), "{complaint}");
        assert!(complaint.contains(&format!("AmbientCapabilities={name} in")), "{complaint}");
        assert!(!site.attached());
    }
    // 8192 frames of 2048 bytes on each of two ports: 32 MiB.
    let file = config(&site, "big", |text| text.replace("frame_count = 1024", "frame_count = 8192"));
    let complaint = site.refused(as_user(&site, 61003, &XDP, &file));
    assert!(complaint.contains("32768 KiB") && complaint.contains("limit is 4096 KiB"), "{complaint}");
    assert!(complaint.contains("CAP_IPC_LOCK") && complaint.contains("LimitMEMLOCK"), "{complaint}");
    let locking = [&XDP[..], &["ipc_lock"]].concat();
    let running = site.launch("big", as_user(&site, 61003, &locking, &file));
    assert!(site.attached());
    drop(running);
}

#[test]
fn what_the_keeper_keeps_mends_an_interface_and_each_part_is_needed() {
    const PAIR: inside::Pair = [("fh0", [10, 9, 0, 1]), ("fh1", [10, 9, 0, 2])];
    const TEST: &str = "privileges::what_the_keeper_keeps_mends_an_interface_and_each_part_is_needed";
    inside::in_namespace(TEST, &[PAIR], || {
        // Attaches the program, opens a socket on more memory than may be locked, changes and restores a setting.
        let mends = |keep: Keep| {
            let mend = move || -> Result<(), String> {
                drop_here(keep).map_err(|error| error.to_string())?;
                let mut steering = Steering::attach("fh0", Mode::Native, 1).map_err(|error| error.to_string())?;
                let frames = Frames::umem(8192, 2048, 1024, false).map_err(|error| error.to_string())?;
                let pair = xsk::open(&frames, "fh0", 0, true, true, Mode::Native, 1024, 1);
                let pair = pair.map_err(|error| error.to_string())?;
                steering.set_socket(0, pair.fd).map_err(|error| error.to_string())?;
                let output = Command::new("ethtool").args(["-K", "fh0", "gro", "on"]).output().expect("ethtool");
                if output.status.success() { Ok(()) } else { Err("ethtool".to_owned()) }
            };
            std::thread::spawn(mend).join().expect("no panic")
        };
        rustix::process::setrlimit(
            rustix::process::Resource::Memlock,
            rustix::process::Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) },
        )
        .expect("lowering a limit");
        mends(Keep::KEEPER).expect("enough");
        for (part, words) in [
            (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
            (CapabilitySet::BPF, "CAP_BPF"),
            (CapabilitySet::PERFMON, "CAP_PERFMON"),
            (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
            (CapabilitySet::IPC_LOCK, "locked-memory"),
        ] {
            let without = Keep { held: Keep::KEEPER.held.difference(part), ..Keep::KEEPER };
            let error = mends(without).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
        let silent = Keep { passed_on: CapabilitySet::empty(), ..Keep::KEEPER };
        assert_eq!(mends(silent), Err("ethtool".to_owned()), "a program that is executed is not root for being uid 0");
    });
}
