//! The demo itself, small: three hosts, the real handler as a process, every record compared. In every mode, and with
//! something broken on purpose, so that the check is known to be able to fail.
#![forbid(unsafe_code)]

use clap::Parser;
use feedhandler_testkit::consumer::Fault;
use feedhandler_testkit::demo::{self, Options, Summary};

use crate::binaries::program;
use crate::golden::{WIRE, captures};
use crate::turn::turn;

fn run(arguments: &[&str]) -> Summary {
    let handler = program("feedhandler");
    let handler = handler.to_str().expect("a UTF-8 path");
    // Patient, and slow enough for two busy cores: a sender that has to wait must not pass for loss.
    let seconds = if arguments.contains(&"--trouble") { "6" } else { "4" };
    let rate: &[&str] = if arguments.contains(&"--rate") { &[] } else { &["--rate", "8000"] };
    let fixed = [&["demo", "--handler", handler, "--seconds", seconds, "--patient"], rate].concat();
    let _turn = turn();
    let options = Options::parse_from(fixed.iter().chain(arguments));
    demo::run(&options).expect("the demo runs to its end")
}

fn assert_right(summary: &Summary) {
    assert!(summary.ok, "{summary}\n{}\n{}", summary.complaints().join("\n"), summary.handler_log);
}

#[test]
fn native_mode_delivers_everything_once_in_order_and_right() {
    assert_right(&run(&["--mode", "native", "--loss", "0.05", "--seed", "11"]));
}

#[test]
fn skb_mode_delivers_everything_once_in_order_and_right() {
    assert_right(&run(&["--mode", "skb", "--loss", "0.05", "--seed", "12"]));
}

#[test]
fn socket_mode_delivers_everything_once_in_order_and_right() {
    assert_right(&run(&["--mode", "socket", "--loss", "0.05", "--seed", "13"]));
}

/// Packets of one message to 8,900 bytes over links with an MTU of 9000. Most that are ahead of a gap are longer than a frame,
/// and all are held: behind what both lines lost. At the end every frame is back (the handler counts, or panics), and the link may be a new one.
#[test]
fn jumbo_packets_are_delivered_once_in_order_and_right_in_every_mode() {
    for (mode, seed, further) in [
        ("native", "51", &["--mtu", "9000"][..]),
        ("native", "52", &["--mtu", "9000", "--trouble", "link-deleted"]),
        ("skb", "53", &["--mtu", "9000"]),
        ("socket", "54", &["--mtu", "9000"]),
    ] {
        let fixed = ["--mode", mode, "--loss", "0.2", "--seed", seed, "--rate", "40000"];
        let summary = run(&[&fixed, further].concat());
        assert_right(&summary);
        let held: u64 = summary.lines.iter().map(|line| line.ahead).sum();
        assert!(held > 20, "{mode}: nothing was held\n{summary}");
        let sent = summary.lines[0].sent;
        assert!(sent.messages / sent.packets > 80, "{mode}: packets are small\n{summary}");
        assert!(!summary.handler_log.contains("panicked"), "{}", summary.handler_log);
    }
}

/// A twentieth of the packets of each line is lost, and more on both: the real handler asks the exchange's retransmission
/// servers for it over the real network, and nothing is missing in the end.
#[test]
fn what_both_lines_lose_is_recovered() {
    for (mode, seed) in [("native", "41"), ("socket", "42")] {
        let lossy = ["--loss", "0.05", "--common-loss", "0.002"];
        let summary = run(&[&["--mode", mode, "--recovery", "--seed", seed], &lossy[..]].concat());
        assert_right(&summary);
        let channels = &summary.channels;
        assert_eq!((channels.messages_lost, channels.gaps_lost), (0, 0), "{summary}");
        assert!(channels.gaps_opened > 20, "{summary}");
    }
}

#[test]
fn a_server_that_floods_is_left_for_the_other_and_costs_nothing() {
    let summary = run(&["--recovery", "--hostile-server", "--loss", "0.05", "--common-loss", "0.002", "--seed", "44"]);
    assert_right(&summary);
    assert_eq!(summary.channels.messages_lost, 0, "{summary}");
}

/// The handler hears nothing of the first part of the day, and has `start = "first"`: it asks for all of it, while the day goes
/// on, and catches up.
#[test]
fn a_late_start_is_recovered_from_the_first_message_on() {
    let summary = run(&["--recovery", "--late-start", "--loss", "0.02", "--seed", "43"]);
    assert_right(&summary);
    assert_eq!(summary.channels.messages_lost, 0, "{summary}");
    let carried: u64 = summary.lines.iter().map(|line| line.received_packets).min().unwrap_or_default();
    let sent: u64 = summary.lines.iter().map(|line| line.sent.packets).max().unwrap_or_default();
    assert!(carried < sent * 3 / 4, "{carried} packets heard of {sent}: it was no late start\n{summary}");
}

#[test]
fn without_its_rules_in_the_filter_the_check_fails() {
    let summary = run(&["--fault", "remove-rule"]);
    assert!(!summary.ok, "{summary}");
    assert!(!summary.complaints().is_empty(), "it says what and where");
}

/// Something breaks midway, with traffic running. Nothing that a line carried is lost, the trouble is seen and named, what
/// was lost comes back without a restart, and the other interfaces do not notice.
fn trouble(mode: &str, kind: &str, seed: &str) {
    assert_right(&run(&["--mode", mode, "--trouble", kind, "--loss", "0.02", "--seed", seed]));
}

#[test]
fn a_link_that_goes_down_and_up_is_survived() {
    trouble("native", "link-down", "21");
    trouble("skb", "link-down", "22");
    trouble("socket", "link-down", "23");
}

#[test]
fn a_link_that_is_deleted_and_made_again_is_taken_into_use() {
    trouble("native", "link-deleted", "24");
    trouble("skb", "link-deleted", "25");
    trouble("socket", "link-deleted", "26");
}

#[test]
fn a_program_that_somebody_detached_is_attached_again() {
    trouble("native", "detached", "27");
    trouble("skb", "detached", "28");
}

#[test]
fn a_program_that_somebody_put_in_our_place_is_named_and_outlived() {
    trouble("native", "replaced", "29");
}

#[test]
fn a_starved_ring_is_told_and_costs_only_what_it_lost() {
    trouble("native", "starved", "30");
    trouble("skb", "starved", "31");
}

/// A packet that the driver has just taken when its link goes down is lost, and counted as `tx_error`: that, and no more.
fn output_trouble(mode: &str, seed: &str) {
    let summary = run(&["--mode", mode, "--trouble", "output-down", "--loss", "0.02", "--seed", seed]);
    let unsent = summary.drops.get("fh-out 0 tx: tx_error").copied().unwrap_or(0);
    if unsent == 0 {
        return assert_right(&summary);
    }
    let (lost, wrong) = (summary.findings.count(Fault::Lost), summary.findings.count(Fault::Wrong));
    // What a lost message said of an order the consumer does not know: it finds later messages of that order wrong, and has
    // another book in the end. And no system record names a loss behind the handler.
    let may_follow = |fault: &Fault| matches!(fault, Fault::Lost | Fault::Wrong | Fault::Book);
    let follows = wrong <= 5 * lost && summary.findings.counts.keys().all(may_follow);
    let only_lost = follows && (1..=unsent * MOST_MESSAGES).contains(&lost);
    let only_missing = summary.faults.iter().all(|fault| fault.starts_with("the handler delivered"));
    assert!(only_lost && only_missing, "{unsent} packets unsent\n{summary}\n{}", summary.complaints().join("\n"));
}

/// Messages of one output packet at this rate, and plenty.
const MOST_MESSAGES: u64 = 20;

#[test]
fn an_output_that_goes_down_and_up_loses_nothing_that_its_ring_holds() {
    output_trouble("native", "32");
    output_trouble("skb", "33");
}

#[test]
fn a_real_capture_goes_through_the_real_handler() {
    let Some(folder) = captures("a_real_capture_goes_through_the_real_handler") else { return };
    let file = folder.join(WIRE);
    assert_right(&run(&["--capture", file.to_str().expect("a UTF-8 path"), "--speed", "1e9"]));
}
