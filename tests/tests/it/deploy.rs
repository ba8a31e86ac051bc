//! `cargo xtask deploy`, over a real sshd, to hosts with and without systemd.
#![forbid(unsafe_code)]

mod rig;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::binaries::program;
use crate::tools::workspace;
use crate::turn::turn;
use rig::{Init, Rig, outcome};

/// Who may read the configuration.
const MODE: &str = "stat -L -c '%a %U:%G' /opt/feedhandler/current/feedhandler.toml";
const READY: &str = "/opt/feedhandler/current/bin/feedctl ready";

/// The doctor sees a port in use and warns, since it could be the handler that runs; but it is sshd's.
fn taken_port(text: String) -> String {
    text.replace("[handler]", "[handler]\nmetrics = \"127.0.0.1:2222\"")
}

#[test]
fn a_release_is_deployed_updated_and_rolled_back_on_a_host_without_systemd() {
    let _turn = turn();
    let rig = Rig::new(Init::Sshd);
    let good = rig.config("good", |text| text);
    let bad = rig.config("bad", taken_port);

    let (status, text) = outcome(rig.release(&good, &["--dry-run"]));
    assert!(status == 0 && text.contains("no problem on this host") && text.contains("service: process"), "{text}");
    assert_eq!(rig.ssh("ls -A /opt /etc/systemd/system | grep feedhandler || true"), "", "left behind");
    // A host that has not what the plan wants: the loopback has no native XDP.
    let unfit = rig.config("unfit", |text| text.replace("\"fh-in\"", "\"lo\""));
    let (status, text) = outcome(rig.release(&unfit, &[]));
    assert!(status == 2 && text.contains("refused") && text.contains("native XDP is asked"), "{text}");
    let (status, text) = outcome(rig.release(&bad, &[]));
    assert!(status == 1 && text.contains("no release before it") && text.contains("in use"), "{text}");
    assert!(!rig.try_ssh("ls /opt/feedhandler/current || pgrep -x feedhandler").status.success(), "nothing is current");

    let (status, text) = outcome(rig.release(&good, &[]));
    assert!(status == 0 && text.contains("\nready: "), "{text}");
    let first = rig.current();
    assert_eq!(rig.ssh(MODE), "600 root:root", "it may hold passwords");
    let group = [239, 10, 0, 1].into();
    assert!(rig.site.namespace.joined_groups("fh-in").expect("the table").contains(&group), "it runs");
    // The host by itself, and fewer cores.
    let here = rig.release_here(&good);
    let text = rig.ssh(&format!("{here} --cpus 0"));
    assert!(text.contains("to this host") && text.contains("\nready: "), "{text}");
    let second = rig.current();
    assert!(second > first, "{second} {first}");
    let cores = || rig.ssh("grep Cpus_allowed_list: /proc/$(pgrep -x feedhandler)/status");
    assert!(cores().ends_with("\t0"), "{}", cores());
    // Cores that are not there: said while the old release still runs.
    let before = rig.ssh("pgrep -x feedhandler");
    let (status, text) = outcome(rig.release(&good, &["--cpus", "8000"]));
    assert!(status == 2 && text.contains("refused: cores 8000"), "{text}");
    assert_eq!(rig.ssh("pgrep -x feedhandler"), before);

    let (status, text) = outcome(rig.release(&bad, &[]));
    assert!(status == 1 && text.contains(&format!("rolled back to {second}, which is ready")), "{text}");
    assert!(text.contains("127.0.0.1:2222 is in use"), "the cause is shown: {text}");
    assert_eq!(rig.current(), second);
    assert_eq!(rig.ssh(READY), "ready");
    assert!(cores().ends_with("\t0"), "the cores are the release's: {}", cores());
    // One that ends before anybody looks (as it does where there is one core) is started again, and given up soon.
    let (status, text) = outcome(rig.release_of(&rig.doomed(), &good, &["--wait", "60", "--cpus", "0"]));
    assert!(status == 1 && text.contains(&format!("rolled back to {second}, which is ready")), "{text}");
    assert!(text.contains("ended with status 7; starting it again"), "{text}");
    // It comes up, but never becomes ready: one interface is down.
    let pair = ["link", "add", "fh-idle", "type", "veth", "peer", "name", "far-idle"];
    rig.site.namespace.ip(&pair).expect("ip link");
    let idle = rig.config("idle", |text| text.replace("\"fh-in\"", "\"fh-idle\"").replace("\"native\"", "\"socket\""));
    let (status, text) = outcome(rig.release(&idle, &["--wait", "3", "--accept-problems"]));
    assert!(status == 1 && text.contains("problems, which are accepted") && text.contains("fh-idle"), "{text}");
    assert!(text.contains(&format!("rolled back to {second}, which is ready")), "{text}");

    let (status, text) = outcome(rig.command(&["rollback"]));
    assert!(status == 0 && rig.current() == first, "{text}");
    let (status, text) = outcome(rig.command(&["status"]));
    assert!(status == 0 && text.contains(&format!("current:  {first}\nprevious: {second}\n")), "{text}");
    assert!(text.ends_with("ready\n"), "{text}");
    // Supervised: what dies is started again.
    rig.ssh("pkill -KILL -x feedhandler");
    rig.wait_for(READY);
}

#[test]
fn a_connection_that_breaks_does_not_keep_the_host_from_rolling_back() {
    let _turn = turn();
    let rig = Rig::new(Init::Sshd);
    let (status, text) = outcome(rig.release(&rig.config("good", |text| text), &[]));
    assert_eq!(status, 0, "{text}");
    let first = rig.current();
    let mut deploying =
        rig.release(&rig.config("bad", taken_port), &[]).stdout(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(deploying.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("switched to ")), "it goes so far");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", deploying.id())).expect("its children");
    assert!(!children.trim().is_empty(), "ssh");
    // The deploying machine is gone, its ssh client with it.
    deploying.kill().expect("SIGKILL");
    deploying.wait().expect("gone");
    for ssh in children.split_whitespace() {
        assert!(Command::new("kill").args(["-KILL", ssh]).status().expect("kill").success());
    }
    drop(lines);
    rig.wait_for(&format!("! pgrep -f '[h]ost.sh deploy' && readlink /opt/feedhandler/current | grep {first}"));
    rig.wait_for(READY);
}

#[test]
fn under_systemd_the_unit_runs_hardened_is_watched_and_a_bad_release_is_rolled_back() {
    let _turn = turn();
    let rig = Rig::new(Init::Systemd);
    let bad = rig.config("bad", taken_port);
    let (status, text) = outcome(rig.release(&bad, &[]));
    assert!(status == 1 && text.contains("no release before it"), "{text}");
    assert!(!rig.try_ssh("systemctl is-enabled feedhandler").status.success(), "the next boot has nothing to start");
    let good = rig.config("good", |text| text);
    let (status, text) = outcome(rig.release(&good, &["--cpus", "0-1"]));
    assert!(status == 0 && text.contains("(systemd)") && text.contains("\nready: "), "{text}");
    let first = rig.current();
    assert_eq!(
        (rig.ssh(MODE), rig.ssh("systemctl is-enabled feedhandler")),
        ("640 root:feedhandler".into(), "enabled".into())
    );
    let unit =
        rig.ssh("systemctl show feedhandler -p ActiveState -p StatusText -p User -p CPUAffinity -p LimitMEMLOCK");
    for property in
        ["ActiveState=active", "StatusText=ready", "User=feedhandler", "CPUAffinity=0-1", "LimitMEMLOCK=infinity"]
    {
        assert!(unit.lines().any(|line| line == property), "{property}: {unit}");
    }
    // A user of its own, no privileges left, system calls filtered; and an XDP program attached all the same.
    let process = rig.ssh("P=$(systemctl show -P MainPID feedhandler); ps -o user= -p $P; cat /proc/$P/status");
    assert!(process.starts_with("feedhan"), "{process}");
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(process.contains(line), "{line}: {process}");
    }
    assert!(rig.site.attached());

    let (status, text) = outcome(rig.release(&bad, &[]));
    assert!(status == 1 && text.contains(&format!("rolled back to {first}, which is ready")), "{text}");
    assert_eq!(rig.ssh("systemctl is-active feedhandler"), "active");

    // A handler that stands still is started again by the watchdog.
    rig.ssh("kill -STOP $(systemctl show -P MainPID feedhandler)");
    rig.wait_for(&format!("[ $(systemctl show -P NRestarts feedhandler) -ge 1 ] && {READY}"));
}

#[test]
fn systemd_has_no_complaint_about_the_unit() {
    let files = tempfile::tempdir().expect("a folder");
    let bin = program("feedhandler");
    let unit = fs::read_to_string(workspace("config/feedhandler.service")).expect("the unit");
    // Where the programs are, for it looks.
    let unit = unit.replace("/usr/bin/feedhandler", bin.to_str().expect("UTF-8"));
    let path = files.path().join("feedhandler.service");
    fs::write(&path, unit).expect("a file");
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(&path);
        outcome(command)
    };
    // It also reads what the unit is wanted by and ordered after: those are this machine's, as are their faults.
    let (_, text) = analyze(&["verify", "--man=no"]);
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("feedhandler.service")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    // Exposure in tenths of 10: 9.6 is a unit without any hardening.
    let (status, text) = analyze(&["security", "--offline=true", "--no-pager", "--threshold=25"]);
    assert_eq!(status, 0, "{text}");
}
