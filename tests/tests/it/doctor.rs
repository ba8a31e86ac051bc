//! `feedhandler doctor` on real interfaces, as an operator runs it. Every bad host that can only be made up is in the unit
//! tests of `userspace/src/doctor`.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::binaries::program;
use crate::foreign;
use crate::site::Site;

/// A report in JSON, and the exit status.
struct Report {
    status: i32,
    json: Value,
}

impl Report {
    /// The lines that are not ok, as `subject/check`, with level and text.
    fn complaints(&self) -> Vec<(String, String, String)> {
        let findings = self.json["findings"].as_array().expect("a list");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        findings
            .iter()
            .filter(|finding| finding["level"] != "ok")
            .map(|finding| {
                let check = format!("{}/{}", text(&finding["subject"]), text(&finding["check"]));
                let words = format!("{} → {}", text(&finding["found"]), text(&finding["remedy"]));
                (check, text(&finding["level"]), words)
            })
            .collect()
    }

    /// Those about interfaces and the configuration: what this test's namespace decides, and not the machine.
    fn of_the_site(&self) -> Vec<(String, String, String)> {
        let is_sites = |check: &str| !check.starts_with("host/") && !check.starts_with("worker ");
        self.complaints().into_iter().filter(|(check, ..)| is_sites(check)).collect()
    }

    /// Asserts one such complaint, its level, and words in it.
    fn assert_only(&self, check: &str, level: &str, words: &[&str]) {
        let found = self.of_the_site();
        assert!(found.len() == 1 && found[0].0 == check && found[0].1 == level, "{found:#?}");
        for word in words {
            assert!(found[0].2.contains(word), "`{word}` in: {}", found[0].2);
        }
        let worst = if self.complaints().iter().any(|(_, level, _)| level == "problem") { 2 } else { 1 };
        assert_eq!(self.status, worst, "{}", self.json);
    }
}

fn doctor(site: &Site, config: &Path) -> Command {
    let mut command = site.namespace.command(&program("feedhandler"));
    command.args(["doctor", "--config"]).arg(config);
    command
}

fn report(mut command: Command) -> Report {
    let output = command.arg("--json").output().expect("starts");
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    Report { status: output.status.code().expect("an exit status"), json }
}

#[test]
fn a_good_site_has_no_complaint_and_is_left_as_it_was() {
    let site = Site::new();
    let config = site.config("good", |text| text);
    let state = || {
        let links = site.namespace.ip(&["-d", "addr"]).expect("ip addr");
        let mut ethtool = site.namespace.command(Path::new("ethtool"));
        let features = ethtool.args(["-k", "fh-in"]).output().expect("ethtool").stdout;
        let files: Vec<_> = fs::read_dir(site.files.path()).expect("a folder").flatten().map(|f| f.path()).collect();
        (links, features, files, site.namespace.joined_groups("fh-in").expect("the table"))
    };
    let before = state();
    let report = report(doctor(&site, &config));
    assert_eq!(report.of_the_site(), []);
    let jit = report.json["findings"].as_array().unwrap().iter().find(|f| f["check"] == "BPF JIT");
    let told = jit.and_then(|jit| jit["found"].as_str()).is_some_and(|found| !found.contains("cannot tell"));
    assert!(told, "only the host's own namespace tells, which root can enter: {jit:?}");
    // The worker of this plan is not pinned, which is worth a warning; the rest is the machine's.
    let complaints = report.complaints();
    assert!(
        complaints.iter().any(|(check, level, _)| check == "worker w0/core" && level == "warning"),
        "{complaints:?}"
    );
    assert!(complaints.iter().all(|(_, _, words)| !words.ends_with("→ ")), "each has a remedy: {complaints:?}");
    let count = |level| report.json["findings"].as_array().unwrap().iter().filter(|f| f["level"] == level).count();
    assert_eq!(report.json["ok"], count("ok"));
    assert_eq!(report.json["warnings"], count("warning"));
    assert_eq!(report.json["problems"], count("problem"));
    let verdicts = ["ok", "warning", "problem"];
    let verdict = report.json["verdict"].as_str().expect("a word");
    assert_eq!(verdicts.iter().position(|word| *word == verdict), usize::try_from(report.status).ok());

    let output = doctor(&site, &config).output().expect("starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(report.status));
    assert!(text.contains("\ninterface fh-in\n") && text.contains("\nworker w0\n"), "{text}");
    assert!(text.contains("native, redirect"), "what the driver of veth can do: {text}");
    assert!(!text.contains('\u{1b}'), "no colours into a pipe: {text}");
    let summary = format!("{} ok, {} warning", count("ok"), count("warning"));
    assert!(text.lines().last().unwrap().starts_with(&summary), "{summary}: {text}");
    assert_eq!(state(), before, "nothing was changed");
    assert!(!site.attached());
}

#[test]
fn a_foreign_program_is_named_and_so_is_a_handler_that_runs() {
    let site = Site::new();
    let config = site.config("one", |text| text);
    let foreign = foreign::attach(&site.namespace, "fh-in");
    let words = [&format!("`{}` (id ", foreign::NAME), "native", "ip link set dev fh-in xdp off"];
    report(doctor(&site, &config)).assert_only("interface fh-in/XDP program", "problem", &words);
    drop(foreign);
    assert_eq!(report(doctor(&site, &config)).of_the_site(), []);

    let _running = site.start("one");
    let found = report(doctor(&site, &config)).of_the_site();
    let checks: Vec<(&str, &str)> = found.iter().map(|(check, level, _)| (check.as_str(), level.as_str())).collect();
    let expected = [("configuration/control", "warning"), ("interface fh-in/XDP program", "warning")];
    assert_eq!(checks, expected, "{found:#?}");
    assert!(found[0].2.contains("runs already") && found[1].2.contains("feed_filter"), "{found:#?}");
}

#[test]
fn an_interface_that_cannot_be_used_is_a_problem() {
    let site = Site::new();
    let config = site.config("bad", |text| text);
    let ip = |arguments: &[&str]| drop(site.namespace.ip(arguments).expect("ip"));
    ip(&["link", "set", "fh-in", "down"]);
    let down = report(doctor(&site, &config));
    assert_eq!(down.status, 2);
    let found = down.of_the_site();
    assert!(found.iter().any(|(check, level, words)| {
        check == "interface fh-in/link" && level == "problem" && words.contains("`ip link set dev fh-in up`")
    }));
    // The driver takes packets over several frames, up to what a buffer for them holds.
    ip(&["link", "set", "fh-in", "up", "mtu", "9000"]);
    assert_eq!(report(doctor(&site, &config)).of_the_site(), []);
    ip(&["link", "set", "fh-in", "mtu", "9899"]);
    let words = ["9899, and AF_XDP receives up to 9898"];
    report(doctor(&site, &config)).assert_only("interface fh-in/MTU", "problem", &words);
    ip(&["link", "set", "fh-in", "mtu", "1500"]);
    ip(&["addr", "flush", "dev", "fh-out"]);
    let words = ["destination `out`", "ip addr add"];
    report(doctor(&site, &config)).assert_only("interface fh-out/IPv4 address", "problem", &words);

    let absent = site.config("absent", |text| text.replace("\"fh-out\"", "\"fh-none\""));
    let words = ["not there", "fh-in", "fh-out"];
    report(doctor(&site, &absent)).assert_only("interface fh-none/interface", "problem", &words);
    let refused = report(doctor(&site, &site.config("refused", |text| text.replace("itch50", "itch51"))));
    assert_eq!(refused.status, 2);
    let first = &refused.json["findings"][0];
    assert_eq!((&first["subject"], &first["check"]), (&"configuration".into(), &"refused".into()));
    assert!(first["found"].as_str().unwrap().contains("itch51"), "{first}");
}

#[test]
fn a_bridge_that_would_cut_a_group_off_is_named() {
    let site = Site::new();
    let config = site.config("bridge", |text| text.replacen("\"native\"", "\"skb\"", 1));
    let ip = |arguments: &[&str]| drop(site.namespace.ip(arguments).expect("ip"));
    ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "0"]);
    ip(&["link", "set", "fh-in", "master", "br0"]);
    let found = report(doctor(&site, &config)).of_the_site();
    let is_it = |(check, level, words): &&(String, String, String)| {
        check == "interface fh-in/IGMP snooping" && level == "warning" && words.contains("bridge br0 snoops")
    };
    assert!(found.iter().find(is_it).is_some(), "{found:#?}");
    ip(&["link", "set", "br0", "type", "bridge", "mcast_querier", "1"]);
    let found = report(doctor(&site, &config)).of_the_site();
    assert!(found.iter().find(is_it).is_none(), "{found:#?}");
}

#[test]
fn without_privileges_it_works_and_says_what_it_cannot_tell() {
    let site = Site::new();
    let nic = "mode = \"native\"\nnic.napi_threaded = true\nnic.gro = true";
    let config = site.config("nobody", |text| text.replacen("mode = \"native\"", nic, 1));
    let _foreign = foreign::attach(&site.namespace, "fh-out");
    let copy = site.files.path().join("feedhandler");
    fs::copy(program("feedhandler"), &copy).expect("a copy that anybody may run");
    for (path, mode) in [(&copy, 0o755), (&site.files.path().to_owned(), 0o755), (&config, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    let mut command = site.namespace.command(Path::new("setpriv"));
    command.args(["--reuid", "61010", "--regid", "61010", "--clear-groups", "--bounding-set", "-all"]);
    command.arg(&copy).args(["doctor", "--config"]).arg(&config);
    let report = report(command);
    assert_eq!(report.status, 2);
    let complaints = report.complaints();
    let said = |check: &str, level: &str, word: &str| {
        assert!(
            complaints.iter().any(|(c, l, words)| c == check && l == level && words.contains(word)),
            "{check} {level} {word}: {complaints:#?}"
        );
    };
    said("host/capabilities", "problem", "CAP_NET_ADMIN (attaches the XDP program)");
    said("configuration/control", "problem", "may not write");
    said("configuration/state_dir", "problem", "may not write");
    said("interface fh-in/NIC settings", "problem", "the files of napi_threaded 1, and this is uid 61010");
    said("interface fh-out/XDP program", "problem", "only root is told its name");
}
