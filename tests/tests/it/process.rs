//! The handler as a process: bad input ends it with one clear line and leaves nothing behind; a killed one can be
//! started again at once.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::binaries::program;
use crate::site::{Running, Site};

#[test]
fn refusals_name_what_is_wrong_and_leave_nothing_attached() {
    let site = Site::new();
    let cases: [(&str, &str, &str, &[&str]); 6] = [
        ("unknown-key", "max_orders = 1000", "max_order = 1000", &["max_order", "unknown"]),
        ("not-multicast", "239.10.0.1:26400", "10.0.0.1:26400", &["group", "10.0.0.1", "multicast"]),
        ("no-interface", "\"fh-in\"", "\"fh-none\"", &["fh-none", "not there", "fh-out"]),
        (
            "no-line",
            "[[feed.channel.line]]\n            name = \"A\"\n            interface = \"fh-in\"\n            group = \"239.10.0.1:26400\"",
            "",
            &["line"],
        ),
        ("bad-queue", "interface = \"fh-out\"", "interface = \"fh-out\"\nqueue = 77", &["fh-out", "77"]),
        (
            "vlan",
            "group = \"239.10.0.1:26400\"",
            "group = \"239.10.0.1:26400\"\nvlan = 4095",
            &["vlan", "4095", "4094"],
        ),
    ];
    for (name, from, to, parts) in cases {
        let config = site.config(name, |text| {
            assert!(text.contains(from), "{name}");
            text.replace(from, to)
        });
        let complaint = site.refusal(&config);
        for part in parts {
            assert!(complaint.contains(part), "{name}: `{part}` in: {complaint}");
        }
        assert!(!site.attached(), "{name} left a program attached");
    }
    // No carrier: the far end is down.
    site.far.ip(&["link", "set", "far-in", "down"]).expect("ip link");
    let complaint = site.refusal(&site.config("no-carrier", |text| text));
    assert!(complaint.contains("carrier") && complaint.contains("fh-in"), "{complaint}");
    assert!(!site.attached());
}

#[test]
fn without_privileges_it_says_so() {
    let site = Site::new();
    // The default control socket: its directory is not for this user either, but that is not the cause.
    let config = site.config("nobody", |text| {
        text.lines().filter(|line| !line.contains("grpc =")).map(|line| format!("{line}\n")).collect()
    });
    let mut command = site.namespace.command(Path::new("setpriv"));
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all"]);
    let copy = site.files.path().join("feedhandler");
    fs::copy(program("feedhandler"), &copy).expect("a copy that anybody may run");
    let open = |path: &Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("chmod");
    };
    open(&copy, 0o755);
    open(site.files.path(), 0o777);
    open(&config, 0o644);
    command.arg(&copy).args(["run", "--config"]).arg(&config);
    let complaint = site.refused(command);
    assert!(complaint.contains("not permitted") && complaint.contains("root"), "{complaint}");
    assert!(!site.attached());
}

#[test]
fn a_second_handler_is_refused_and_a_killed_one_can_be_started_again_at_once() {
    let site = Site::new();
    let mut first = site.start("first");
    assert!(site.attached());
    let same_socket = site.refusal(&site.config("first", |text| text));
    assert!(same_socket.contains("in use"), "{same_socket}");
    let same_interface = site.refusal(&site.config("second", |text| text));
    assert!(same_interface.contains("fh-in") && same_interface.contains("xdp off"), "{same_interface}");
    assert!(first.feedctl(&["list"]).status.success(), "the first one did not notice");
    // Nothing waits here, not even for the process to be gone: what it still has is waited for by the new one.
    first.child.kill().expect("SIGKILL");
    let mut again = site.start("first");
    first.child.wait().expect("gone");
    let list = again.feedctl(&["list"]);
    let table = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.status.success() && table.contains("239.10.0.1:26400"), "{table}");
    again.kill();
    assert!(!site.attached());
}

#[test]
fn feedctl_switches_a_line_and_the_group_is_left_and_joined_in_every_mode() {
    let site = Site::new();
    for mode in ["native", "skb", "socket"] {
        let running = site.start_in(&format!("switch-{mode}"), mode);
        assert_eq!(site.attached(), mode != "socket");
        switches(&site, &running);
        let list = running.feedctl(&["--output", "json", "status"]).stdout;
        let status: serde_json::Value = serde_json::from_slice(&list).expect("JSON for scripts");
        assert_eq!(status["interfaces"][0]["mode_in_force"], mode);
    }
}

fn switches(site: &Site, running: &Running) {
    let group = [239, 10, 0, 1].into();
    let joined = || site.namespace.joined_groups("fh-in").expect("the table").contains(&group);
    assert!(joined(), "subscribed from the start");
    let off = running.feedctl(&["unsubscribe", "--channel", "itch/one", "--line", "A"]);
    assert!(off.status.success(), "{}", String::from_utf8_lossy(&off.stderr));
    assert!(!joined(), "left");
    let on = running.feedctl(&["subscribe", "--group", "239.10.0.1:26400"]);
    assert!(on.status.success() && joined(), "joined again");
    let unknown = running.feedctl(&["subscribe", "--channel", "itch/none"]);
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && text.contains("itch/none") && text.contains("itch/one"), "{text}");
}

#[test]
fn a_file_that_is_no_capture_is_refused_by_name() {
    let files = TempDir::new().expect("a folder");
    let site_config = files.path().join("c.toml");
    fs::write(&site_config, include_str!("../../../config/demo.toml")).expect("a file");
    let file = files.path().join("noise.pcap");
    for bytes in [&b""[..], b"not a capture at all", &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0]] {
        fs::write(&file, bytes).expect("a file");
        let mut command = Command::new(program("feedhandler"));
        let output = command.args(["replay", "--config"]).arg(&site_config).arg(&file).output().expect("starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("noise.pcap") && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn a_cause_is_said_once() {
    let mut command = Command::new(program("feedhandler"));
    let output = command.args(["check", "--config", "/nonexistent/feedhandler.toml"]).output().expect("starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.matches("No such file").count(), 1, "{text}");
}
