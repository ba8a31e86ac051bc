//! The demo itself, small: three hosts, the real handler as a process, every record compared. In every mode, and with
//! something broken on purpose, so that the check is known to be able to fail.
#![forbid(unsafe_code)]

use clap::Parser;
use feedhandler_testkit::demo::{self, Options, Summary};

use crate::binaries::program;
use crate::golden::{WIRE, captures};
use crate::turn::turn;

fn run(arguments: &[&str]) -> Summary {
    let handler = program("feedhandler");
    let handler = handler.to_str().expect("a UTF-8 path");
    // Patient, and slow enough for two busy cores: a sender that has to wait must not pass for loss.
    let fixed = ["demo", "--handler", handler, "--seconds", "4", "--rate", "8000", "--patient"];
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

#[test]
fn without_its_rules_in_the_filter_the_check_fails() {
    let summary = run(&["--fault", "remove-rule"]);
    assert!(!summary.ok, "{summary}");
    assert!(!summary.complaints().is_empty(), "it says what and where");
}

#[test]
fn a_real_capture_goes_through_the_real_handler() {
    let Some(folder) = captures("a_real_capture_goes_through_the_real_handler") else { return };
    let file = folder.join(WIRE);
    assert_right(&run(&["--capture", file.to_str().expect("a UTF-8 path"), "--speed", "1e9"]));
}
