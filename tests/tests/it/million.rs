//! A million messages over veth, through the real handler: 5 % of the packets of each line are lost by themselves, and about
//! 1 % of the messages on both. With a re-request server nothing is missing in the end; without one just what no line carried
//! is declared lost, each message once.
//!
//! `FEEDHANDLER_MESSAGES=50000` makes it short.
#![forbid(unsafe_code)]

use clap::Parser;
use feedhandler_testkit::demo::{self, Options, Summary};

use crate::binaries::program;
use crate::turn::turn;

/// Full packets at a moderate rate: two cores have the exchange, its servers, the handler and a consumer that checks every
/// record, all of them unoptimised.
const RATE: u64 = 50_000;

fn run(more: &[&str]) -> (u64, Summary) {
    let messages = std::env::var("FEEDHANDLER_MESSAGES").ok().and_then(|number| number.parse().ok());
    let messages = messages.unwrap_or(1_000_000_u64);
    let (rate, seconds) = (RATE.to_string(), (messages as f64 / RATE as f64).to_string());
    let handler = program("feedhandler");
    let handler = handler.to_str().expect("a UTF-8 path");
    let fixed = ["demo", "--handler", handler, "--patient", "--undisturbed", "--rate", &rate, "--seconds", &seconds];
    let losses = ["--packet-messages", "120", "--loss", "0.05", "--common-loss", "0.0004"];
    let options = Options::parse_from([&fixed[..], &losses, more].concat());
    (messages, demo::run(&options).expect("it runs to its end"))
}

fn check(messages: u64, summary: &Summary) {
    assert!(summary.ok, "{summary}\n{}\n{}", summary.complaints().join("\n"), summary.handler_log);
    let channels = &summary.channels;
    let share = (channels.messages_on_no_line + channels.messages_recovered) as f64 / messages as f64;
    assert!((0.006..0.016).contains(&share), "{share} of the messages were on no line");
    for line in &summary.lines {
        let lost = line.sent.lost as f64 / (line.sent.lost + line.sent.packets) as f64;
        assert!((0.04..0.08).contains(&lost), "{lost} of the packets of {} were lost", line.name);
    }
    // Each message is delivered or left out: none twice, none in another place. That is what `ok` says of the records.
    assert_eq!(channels.messages + channels.messages_lost, messages);
    assert_eq!(summary.output.blocks + summary.output.gap_messages, messages);
}

#[test]
fn a_million_messages_without_a_server_lack_just_what_no_line_carried() {
    let _turn = turn();
    let (messages, summary) = run(&["--seed", "51"]);
    check(messages, &summary);
    let (channels, output) = (&summary.channels, &summary.output);
    assert_eq!(channels.messages_lost, channels.messages_on_no_line, "{summary}");
    assert_eq!(output.gap_messages, channels.messages_on_no_line, "{summary}");
    println!("{messages} messages, {} on no line, all declared", channels.messages_on_no_line);
}

#[test]
fn a_million_messages_with_a_server_lack_nothing() {
    let _turn = turn();
    let (messages, summary) = run(&["--seed", "52", "--recovery"]);
    check(messages, &summary);
    assert_eq!((summary.channels.messages_lost, summary.output.gap_messages), (0, 0), "{summary}");
    println!("{messages} messages, {} on no line, all recovered", summary.channels.messages_recovered);
}
