//! The exchange by hand: it starts, says what to do, publishes sessions with losses, and ends cleanly on Ctrl-C.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use feedhandler_testkit::venue::{Options, run};
use rustix::process::{Pid, Signal, kill_process};

use crate::inside::{in_namespace, is_inside};

/// One session after the other, on an interface that is there: a socket at its other end hears both sessions on both groups.
#[test]
fn sessions_follow_each_other_on_a_given_interface() {
    let test = "venue::sessions_follow_each_other_on_a_given_interface";
    in_namespace(test, &[[("fh-v0", [10, 9, 5, 1]), ("fh-v1", [10, 9, 5, 2])]], || {
        // Both ends are this host's.
        std::fs::write("/proc/sys/net/ipv4/conf/fh-v1/accept_local", "1").expect("sysctl");
        let heard = std::thread::spawn(|| {
            let socket = std::net::UdpSocket::bind("239.10.0.1:26400").expect("bind");
            socket.join_multicast_v4(&[239, 10, 0, 1].into(), &[10, 9, 5, 2].into()).expect("join");
            socket.set_read_timeout(Some(Duration::from_millis(700))).expect("timeout");
            let (mut heard, mut buffer) = (BTreeSet::<Vec<u8>>::new(), [0; 2048]);
            let deadline = Instant::now() + Duration::from_secs(20);
            // Until both sessions were heard and it is silent.
            while Instant::now() < deadline {
                match socket.recv(&mut buffer) {
                    Ok(20..) => drop(heard.insert(buffer[..10].to_vec())),
                    Err(_) if heard.len() == 2 => break,
                    _ => {}
                }
            }
            heard
        });
        let options =
            ["exchange", "--interface", "fh-v0", "--sessions", "2", "--session-seconds", "1", "--rate", "5000"];
        let more = ["--loss", "0.1", "--common-loss", "0.001", "--servers", "honest", "--abrupt"];
        let mut said = Vec::new();
        let options = Options::parse_from(options.iter().chain(&more));
        let summaries = run(&options, |text| said.push(text.to_owned())).expect("it runs");
        assert_eq!(summaries.len(), 2);
        for (number, summary) in (1..).zip(&summaries) {
            assert_eq!(summary.session, format!("LAB{number:07}"));
            assert!(summary.messages >= 4_500 && summary.on_no_line > 0, "{summary}");
            assert!(summary.lost_packets.iter().all(|lost| *lost > 5), "{summary}");
        }
        let said = said.join("\n");
        assert!(
            said.contains("239.10.0.2:26400 from 10.9.5.1") && said.contains("servers = [\"10.9.5.1:18000\"]"),
            "{said}"
        );
        let heard = heard.join().expect("a thread");
        assert_eq!(heard, BTreeSet::from([b"LAB0000001".to_vec(), b"LAB0000002".to_vec()]));
    });
}

/// A process that does not outlive a test that fails; its namespaces go with the next sweep.
struct Ended(Option<Child>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The same test binary, as a process of its own that is interrupted.
#[test]
fn an_interrupt_ends_it_and_removes_its_namespaces() {
    if is_inside() {
        feedhandler_testkit::testbed::clean_up_when_killed().expect("signals");
        let options = ["exchange", "--rate", "2000", "--session-seconds", "60"];
        let summaries = run(&Options::parse_from(options), |text| println!("{text}")).expect("it ends in order");
        assert_eq!(summaries.len(), 1);
        return;
    }
    let test = "venue::an_interrupt_ends_it_and_removes_its_namespaces";
    let mut command = Command::new(std::env::current_exe().expect("where this program is"));
    command.args(["--exact", test, "--nocapture"]).env("FEEDHANDLER_TEST_INSIDE", "1").stdout(Stdio::piped());
    let mut child = Ended(Some(command.spawn().expect("starts")));
    let pid = Pid::from_child(child.0.as_ref().expect("it runs"));
    let ours = || {
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mine = format!("-{}-", pid.as_raw_nonzero());
        names.filter(|name| name.to_string_lossy().contains(&mine)).count()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while ours() < 3 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ours(), 3, "exchange, handler and consumer");
    std::thread::sleep(Duration::from_secs(1));
    kill_process(pid, Signal::INT).expect("SIGINT");
    let output = child.0.take().expect("it runs").wait_with_output().expect("ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("session LAB0000001"), "{text}");
    assert!(text.contains("ip netns exec fh-handler-") && text.contains("run --config"), "{text}");
    assert_eq!(ours(), 0, "namespaces are left behind");
}
