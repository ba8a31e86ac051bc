//! VLAN tags that travel beside the frame, as behind a NIC that strips them, and tags within it, under both settings of
//! `vlan_stripped`: the rules of a real configuration and the real program.
#![forbid(unsafe_code)]

use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType};
use feedhandler::config::plan::LinePlan;
use feedhandler::config::{Config, Host};
use feedhandler_testkit::bytecode;
use xdp_ebpf::Verdict;

use super::veth::COOKIE;
use super::*;

const VLAN: u16 = 5;

/// Line A of a configuration in which it comes in VLAN 5 on `fh0`.
fn line(vlan_stripped: bool) -> LinePlan {
    let text = format!(
        r#"
        [handler]
        name = "tags"
        [[interface]]
        name = "fh0"
        vlan_stripped = {vlan_stripped}
        [[worker]]
        name = "w0"
        [[feed]]
        name = "f"
        transport = "moldudp64"
        decoder = "itch50"
        publisher_id = 2
        time_zone = "UTC"
        [[feed.channel]]
        name = "c"
        [[feed.channel.line]]
        name = "A"
        interface = "fh0"
        group = "{GROUP}"
        vlan = {VLAN}
        [[destination]]
        name = "out"
        channel = "f/c"
        interface = "fh0"
        group = "{OUT}"
        "#
    );
    Config::parse(&text, "tags.toml", &Host { cores: vec![] })
        .expect("a legal configuration")
        .lines
        .take(0)
        .expect("a line")
}

/// Makes `fh1` tag all that leaves by it, as a VLAN interface does: the kernel keeps the tag beside the frame, and only
/// writes it into the frame for a driver that does not take it so. (A kernel for tests may have no VLAN interfaces.)
fn tag_what_leaves() -> Ebpf {
    // skb_vlan_push(skb, htons(0x8100), 5); return TC_ACT_OK
    let code = [
        [0xb7, 0x02, 0, 0, 0x81, 0, 0, 0],
        [0xb7, 0x03, 0, 0, VLAN as u8, 0, 0, 0],
        [0x85, 0, 0, 0, 18, 0, 0, 0],
        [0xb7, 0, 0, 0, 0, 0, 0, 0],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];
    let mut ebpf = Ebpf::load(&bytecode::object("classifier", "push_tag", &code).unwrap()).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut("push_tag").unwrap().try_into().unwrap();
    program.load().unwrap();
    program.attach("fh1", TcAttachType::Egress).unwrap();
    ebpf
}

/// Whether the sender's driver gets the tag beside the frame, and hands it on so.
fn keep_tags_beside(is_beside: bool) {
    let output = Command::new("ethtool")
        .args(["-K", "fh1", "txvlan", if is_beside { "on" } else { "off" }])
        .output()
        .expect("ethtool is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn takes_tagged_packets(mode: Mode) {
    let _tagging = tag_what_leaves();
    let exchange = exchange();
    let mut number = 0;
    for is_beside in [true, false] {
        keep_tags_beside(is_beside);
        for is_stripped in [true, false] {
            let case = format!("tag beside the frame: {is_beside}, vlan_stripped: {is_stripped}");
            let frames = pool();
            let mut steering = Steering::attach("fh0", mode, COOKIE).unwrap();
            let line = line(is_stripped);
            steering.insert_rule(line.key(), line.rule(LINE)).unwrap();
            let pair = open(&frames, "fh0", true, false, mode);
            let mut rx = pair.rx.unwrap();
            rx.refill(&frames);
            steering.set_socket(0, pair.fd).unwrap();
            number += 1;
            let sent = payload(number, 200);
            exchange.send_to(&sent, &GROUP.into()).unwrap();
            let count = |verdict: Verdict| steering.verdicts().unwrap()[verdict as usize];
            if is_beside == is_stripped {
                let got = receive(&frames, &mut rx, 1);
                assert_eq!(
                    got.iter().map(|(line, _, bytes)| (*line, bytes)).collect::<Vec<_>>(),
                    [(LINE, &sent)],
                    "{case}"
                );
                assert_eq!((count(Verdict::Redirected), count(Verdict::PassNoRule)), (1, 0), "{case}");
                let tag_bytes = if is_beside { 0 } else { 4 };
                assert_eq!(steering.line_stats(LINE).unwrap().bytes, 14 + tag_bytes + 28 + 200, "{case}");
            } else {
                let give_up = Instant::now() + Duration::from_secs(3);
                while count(Verdict::PassNoRule) == 0 && Instant::now() < give_up {
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert_eq!((count(Verdict::Redirected), count(Verdict::PassNoRule)), (0, 1), "{case}");
            }
            frames.assert_conserved(rx.frames_held(), 0, 0);
        }
    }
}

#[test]
fn a_stripped_tag_is_no_obstacle_natively() {
    in_namespace("tags::a_stripped_tag_is_no_obstacle_natively", || takes_tagged_packets(Mode::Native));
}

#[test]
fn a_stripped_tag_is_no_obstacle_in_skb_mode() {
    in_namespace("tags::a_stripped_tag_is_no_obstacle_in_skb_mode", || takes_tagged_packets(Mode::Skb));
}
