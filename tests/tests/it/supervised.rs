//! What the handler tells its service manager, read from the socket that a manager would have.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::site::Site;
use crate::turn::turn;

/// Messages until one satisfies; all of them.
fn until(manager: &UnixDatagram, is_it: impl Fn(&str) -> bool) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut all = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        if let Ok(length) = manager.recv(&mut bytes) {
            all.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            if is_it(all.last().expect("one")) {
                return all;
            }
        }
        assert!(Instant::now() < deadline, "{all:?}");
    }
}

#[test]
fn the_service_manager_hears_ready_watchdog_faults_and_the_end() {
    let _turn = turn();
    let site = Site::new();
    let path = site.files.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let config = site.config("told", |text| text);
    let mut command = site.command(&config);
    // systemd gives the watchdog's pid, too; through `ip netns exec` it is not known.
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let running = site.launch("told", command);

    let first = until(&manager, |message| message.contains("STATUS=ready"));
    assert_eq!(first[0].trim(), "READY=1", "{first:?}");
    let start = Instant::now();
    for _ in 0..5 {
        until(&manager, |message| message.trim() == "WATCHDOG=1");
    }
    assert!(start.elapsed() < Duration::from_millis(300 * 5), "in time: {:?}", start.elapsed());
    site.far.ip(&["link", "set", "far-in", "down"]).expect("ip link");
    let status = until(&manager, |message| message.contains("STATUS=not ready"));
    assert!(status.last().is_some_and(|status| status.contains("fh-in")), "{status:?}");
    // A link without a carrier is no reason to start the handler again.
    until(&manager, |message| message.trim() == "WATCHDOG=1");
    let pid = Pid::from_raw(running.child.id().cast_signed()).expect("a child");
    kill_process(pid, Signal::TERM).expect("SIGTERM");
    until(&manager, |message| message.contains("STOPPING=1"));
}

#[test]
fn feedctl_ready_says_why_not_by_text_and_exit_status() {
    let _turn = turn();
    let site = Site::new();
    let running = site.start("asked");
    let ready = running.feedctl(&["ready", "--wait", "10"]);
    assert_eq!((ready.status.code(), ready.stdout.as_slice()), (Some(0), b"ready\n".as_slice()));
    let json: serde_json::Value =
        serde_json::from_slice(&running.feedctl(&["--output", "json", "ready"]).stdout).unwrap();
    assert_eq!(json["ready"], true);
    site.far.ip(&["link", "set", "far-in", "down"]).expect("ip link");
    let deadline = Instant::now() + Duration::from_secs(10);
    let refused = loop {
        let answer = running.feedctl(&["ready"]);
        if answer.status.code() != Some(0) {
            break answer;
        }
        assert!(Instant::now() < deadline, "still ready");
    };
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && text.contains("not ready") && text.contains("fh-in"), "{text}");
    drop(running);
    let mut nobody = std::process::Command::new(crate::binaries::program("feedctl"));
    let start = Instant::now();
    let status =
        nobody.args(["--endpoint", "unix:/nonexistent/x.sock", "ready", "--wait", "1"]).output().unwrap().status;
    assert!(status.code() == Some(3) && start.elapsed() >= Duration::from_secs(1), "{status}");
    for (shell, word) in [("bash", "complete"), ("zsh", "#compdef feedctl"), ("fish", "complete -c feedctl")] {
        let mut feedctl = std::process::Command::new(crate::binaries::program("feedctl"));
        let output = feedctl.args(["completion", shell]).output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(word), "{shell}");
    }
}
