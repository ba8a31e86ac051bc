//! Interfaces with one thing wrong each, and reading one from files.
#![forbid(unsafe_code)]

use std::os::unix::fs::symlink;

use super::*;
use crate::doctor::link::{Attached, Bridge};

type Change = fn(&mut Link);
type Case = (&'static str, Change, &'static str, &'static [&'static str]);

/// What is different about `fh-in`, the complaint about it, and its words.
const RECEIVING: &[Case] = &[
    ("down", |link| link.interface.is_up = false, "link problem", &["down", "`ip link set dev fh-in up`"]),
    ("no carrier", |link| link.interface.has_carrier = false, "link problem", &["no carrier", "cable"]),
    (
        "foreign",
        |link| link.attached = program(9, Some("xdp_lb")),
        "XDP program problem",
        &["`xdp_lb` (id 9, native)", "xdp off"],
    ),
    ("unnamed", |link| link.attached = program(9, None), "XDP program problem", &["only root", "prog show id 9"]),
    ("ours", |link| link.attached = program(9, Some("feed_filter")), "XDP program warning", &["a feed handler runs"]),
    (
        "jumbo's",
        |link| link.attached = program(9, Some("feed_filter_sg")),
        "XDP program warning",
        &["`feed_filter_sg`"],
    ),
    (
        "no native",
        |link| link.abilities = Some(XdpAbilities::default()),
        "XDP of the driver problem",
        &["no native", "skb"],
    ),
    ("unknown", |link| link.abilities = None, "XDP of the driver warning", &["cannot tell"]),
    ("LRO", |link| link.offloads = on("rx-lro"), "offloads warning", &["lro merges", "`ethtool -K fh-in lro off`"]),
    ("GRO", |link| link.offloads = on("rx-gro-hw"), "offloads warning", &["`ethtool -K fh-in rx-gro-hw off`"]),
    ("no offloads", |link| link.offloads = None, "offloads warning", &["cannot tell"]),
    (
        "jumbo",
        |link| (link.mtu, link.abilities) = (Ok(9000), single_buffer()),
        "MTU problem",
        &["9000, and a frame of 2048 bytes has room for 1706", "cannot spread", "mtu 1500"],
    ),
    (
        "longer",
        |link| (link.mtu, link.abilities) = (Ok(3000), single_buffer()),
        "MTU problem",
        &["frame_bytes = 4096, or"],
    ),
    ("huge", |link| link.mtu = Ok(9899), "MTU problem", &["9899, and AF_XDP receives up to 9898", "mtu 9898"]),
    (
        "queues",
        |link| link.interface.rx_queues = Some(4),
        "queues warning",
        &["1 of the receive queues are polled", "-L"],
    ),
    ("no address", |link| link.interface.ipv4 = None, "IPv4 address warning", &["0.0.0.0", "ip addr add"]),
    (
        "forced",
        |link| link.forced_igmp = Some(IgmpVersion::V2),
        "IGMP warning",
        &["version 2, forced", "force_igmp_version=0"],
    ),
    ("no IGMP", |link| link.igmp = None, "IGMP warning", &["cannot tell"]),
    ("snooping", |link| link.bridge = bridge(true, false), "IGMP snooping warning", &["bridge br0", "mcast_querier 1"]),
    ("namespace", |link| link.is_in_sysfs = false, "sysfs warning", &["ip netns exec"]),
];

/// A driver that has everything but packets over several buffers.
#[allow(clippy::unnecessary_wraps, reason = "as the field wants it")]
fn single_buffer() -> Option<XdpAbilities> {
    Some(XdpAbilities { native: true, redirect: true, zero_copy: true, multi_buffer: false, receive_time: true })
}

/// Whether packets may be longer than a frame depends on mode, driver and kernel.
#[test]
fn an_mtu_beyond_a_frame_is_judged_by_mode_driver_and_kernel() {
    let (_folder, files) = site(GOOD_FILES);
    let judged = |mode: &str, abilities, release: &str| {
        let plan = plan(|text| text.replace("native", mode));
        let mut facts = facts(&files);
        facts.host.release = release.into();
        let link = facts.links[0].1.as_mut().unwrap();
        (link.mtu, link.abilities) = (Ok(9000), abilities);
        let findings = judge(Some(&plan), &facts, &files);
        let finding = findings.into_iter().find(|finding| finding.check == "MTU").unwrap();
        (format!("{:?}", finding.level), finding.found)
    };
    let able = nic("fh-in").abilities;
    for (mode, abilities, release, level, words) in [
        ("native", able, "6.6.0", "Ok", "several, and are copied into one piece"),
        ("native", None, "6.6.0", "Ok", "several"),
        ("native", able, "6.5.0", "Problem", "need Linux 6.6"),
        ("native", single_buffer(), "6.6.0", "Problem", "cannot spread"),
        ("auto", single_buffer(), "6.6.0", "Warning", "mode skb can"),
        ("skb", single_buffer(), "6.6.0", "Ok", "several"),
        ("socket", None, "5.10.0", "Ok", "9000"),
    ] {
        let (got, found) = judged(mode, abilities, release);
        assert!(got == level && found.contains(words), "{mode} on {release}: {got}, {found}");
    }
}

#[allow(clippy::unnecessary_wraps, reason = "as the field wants it")]
fn program(id: u32, name: Option<&str>) -> Option<Attached> {
    Some(Attached { id, mode: "native", name: name.map(str::to_owned) })
}

#[allow(clippy::unnecessary_wraps, reason = "as the field wants it")]
fn bridge(snoops: bool, is_querier: bool) -> Option<Bridge> {
    Some(Bridge { name: "br0".into(), snoops, is_querier })
}

#[allow(clippy::unnecessary_wraps, reason = "as the field wants it")]
fn on(offload: &str) -> Option<Offloads> {
    Some(offloads(&[offload]))
}

/// The report with `fh-in` (0) or `fh-out` (1) changed.
fn judged(plan: &Plan, which: usize, change: impl FnOnce(&mut Link)) -> Vec<Finding> {
    let (_folder, files) = site(GOOD_FILES);
    let mut facts = facts(&files);
    facts.links[which].1.as_mut().map(change).unwrap();
    judge(Some(plan), &facts, &files)
}

#[test]
fn each_fault_of_a_receiving_interface_is_the_only_complaint() {
    let plan = plan(|text| text);
    for (what, change, complaint, words) in RECEIVING {
        assert_only(what, &judged(&plan, 0, change), &format!("interface fh-in/{complaint}"), words);
    }
    let fine = [bridge(true, true), bridge(false, false), None];
    for bridge in fine {
        assert_eq!(complaints(&judged(&plan, 0, |link| link.bridge = bridge)), [""; 0]);
    }
}

#[test]
fn each_fault_of_a_sending_interface_is_the_only_complaint() {
    let plan = plan(|text| text);
    let cases: [(Change, &str, &[&str]); 2] = [
        (
            |link| link.interface.ipv4 = None,
            "IPv4 address problem",
            &["destination `out` has no `source`", "set `source`"],
        ),
        (|link| link.mtu = Ok(1400), "MTU problem", &["up to 1500 bytes", "payload_bytes = 1372"]),
    ];
    for (change, complaint, words) in cases {
        assert_only(complaint, &judged(&plan, 1, change), &format!("interface fh-out/{complaint}"), words);
    }
    assert_eq!(
        complaints(&judged(&plan, 1, |link| link.igmp = Some(IgmpVersion::V1))),
        [""; 0],
        "nothing is joined there"
    );
}

#[test]
fn the_mode_decides_what_the_driver_must_do() {
    let with = |mode: &str| plan(|text| text.replacen("native", mode, 1));
    let copy_only = |link: &mut Link| {
        let abilities = link.abilities.as_mut().unwrap();
        (abilities.zero_copy, abilities.receive_time) = (false, false);
    };
    let nothing = |link: &mut Link| link.abilities = Some(XdpAbilities::default());
    let findings = judged(&with("zero-copy"), 0, copy_only);
    let words = ["native, redirect, multi-buffer; no zero-copy, receive timestamps", "mode = \"native\" or \"auto\""];
    assert_only("zero-copy", &findings, "interface fh-in/XDP of the driver problem", &words);
    assert_eq!(complaints(&judged(&with("native"), 0, copy_only)), [""; 0]);
    let words = ["\"auto\" will take mode \"skb\""];
    assert_only("auto", &judged(&with("auto"), 0, nothing), "interface fh-in/XDP of the driver warning", &words);
    assert_eq!(complaints(&judged(&with("skb"), 0, nothing)), [""; 0]);
    let words = ["mode \"skb\" leaves them unused"];
    assert_only("skb", &judged(&with("skb"), 0, |_| ()), "interface fh-in/XDP of the driver warning", &words);
    // Kernel sockets: neither the driver nor programs nor long packets matter; the reverse path does.
    let sockets = with("socket");
    let indifferent = |link: &mut Link| {
        nothing(link);
        (link.mtu, link.attached, link.offloads) = (Ok(9000), program(1, Some("x")), on("rx-lro"));
    };
    assert_eq!(complaints(&judged(&sockets, 0, indifferent)), [""; 0]);
    let words = ["strict", "net.ipv4.conf.fh-in.rp_filter=2"];
    let strict = judged(&sockets, 0, |link| link.rp_filter = 1);
    assert_only("strict", &strict, "interface fh-in/reverse path filter warning", &words);
}

#[test]
fn source_specific_and_tagged_lines_ask_for_more() {
    let line = "group = \"239.10.0.1:26400\"";
    let with = |more: &str| plan(|text| text.replace(line, &format!("{line}\n{more}")));
    let specific = with("source = \"10.1.1.1\"");
    let words = ["line A (239.10.0.1:26400) is source-specific", "IGMPv3"];
    let old = judged(&specific, 0, |link| link.igmp = Some(IgmpVersion::V2));
    assert_only("V2", &old, "interface fh-in/IGMP problem", &words);
    let forced = judged(&specific, 0, |link| link.forced_igmp = Some(IgmpVersion::V2));
    assert_only("forced", &forced, "interface fh-in/IGMP problem", &["force_igmp_version=0"]);
    let none = judged(&specific, 0, |link| link.interface.ipv4 = None);
    assert_only("address", &none, "interface fh-in/IPv4 address warning", &["IGMP reports leave from 0.0.0.0"]);
    let newest = judged(&specific, 0, |link| link.forced_igmp = Some(IgmpVersion::V3));
    assert_eq!(complaints(&newest), [""; 0], "forcing what is wanted");
    let stripped = |link: &mut Link| link.offloads = on("rx-vlan-hw-parse");
    let words = ["takes VLAN tags off", "`ethtool -K fh-in rxvlan off`"];
    assert_only("tag", &judged(&with("vlan = 7"), 0, stripped), "interface fh-in/offloads warning", &words);
    assert_eq!(complaints(&judged(&plan(|text| text), 0, stripped)), [""; 0]);
}

#[test]
fn queues_of_the_plan_must_be_there() {
    let plan = plan(|text| text.replace("interface = \"fh-in\"", "interface = \"fh-in\"\nqueue = 3"));
    let words = ["1 receive, 1 transmit; this plan uses queue 3", "queue = 0 to 0", "combined 4"];
    assert_only("queue", &judged(&plan, 0, |_| ()), "interface fh-in/queues problem", &words);
    assert_eq!(complaints(&judged(&plan, 0, |link| link.interface.rx_queues = None)), [""; 0], "unknown is not absent");
}

#[test]
fn an_interface_that_is_not_there_is_named_with_those_that_are() {
    let (_folder, files) = site(GOOD_FILES);
    let mut facts = facts(&files);
    facts.links[0].1 = Link::read(&files, "fh-in");
    let findings = judge(Some(&plan(|text| text)), &facts, &files);
    assert_only("absent", &findings, "interface fh-in/interface problem", &["not there", "lo", "namespace"]);
}

#[test]
fn files_of_an_interface_are_read() {
    // The loopback interface is everywhere; the files say that it is a NIC in a bridge.
    let (folder, files) = site(&[
        ("sys/class/net/lo/ifindex", "1\n"),
        ("sys/class/net/lo/mtu", "1500\n"),
        ("sys/class/net/lo/speed", "25000\n"),
        ("sys/devices/pci0/virtio2/numa_node", "1\n"),
        ("sys/devices/pci0/msi_irqs/41", "msix\n"),
        ("sys/devices/pci0/msi_irqs/42", "msix\n"),
        ("sys/bus/virtio/drivers/virtio_net/x", ""),
        ("sys/module/virtio_net/version", "1.0\n"),
        ("sys/class/net/br0/bridge/multicast_snooping", "1\n"),
        ("sys/class/net/br0/bridge/multicast_querier", "0\n"),
        ("sys/devices/pci0/msi_irqs/43", "msix\n"),
        (
            "proc/interrupts",
            "      CPU0\n 41: 0 PCI-MSIX 0-edge virtio2-input.0\n 42: 0 PCI-MSIX 1-edge virtio2-output.0\n",
        ),
        ("proc/irq/43/smp_affinity_list", "0\n"),
        ("proc/irq/41/smp_affinity_list", "0-3\n"),
        ("proc/irq/41/effective_affinity_list", "2\n"),
        ("proc/irq/42/smp_affinity_list", "0-1\n"),
        ("proc/irq/42/effective_affinity_list", "\n"),
        ("proc/sys/net/ipv4/conf/all/rp_filter", "1\n"),
        ("proc/sys/net/ipv4/conf/lo/rp_filter", "0\n"),
        ("proc/sys/net/ipv4/conf/lo/force_igmp_version", "2\n"),
        ("proc/net/igmp", "Idx\tDevice    : Count Querier\n1\tlo        :     1      V2\n"),
    ]);
    let sys = folder.path().join("sys");
    symlink(sys.join("devices/pci0/virtio2"), sys.join("class/net/lo/device")).unwrap();
    symlink(sys.join("bus/virtio/drivers/virtio_net"), sys.join("devices/pci0/virtio2/driver")).unwrap();
    symlink(sys.join("bus/virtio"), sys.join("devices/pci0/virtio2/subsystem")).unwrap();
    symlink(sys.join("class/net/br0"), sys.join("class/net/lo/master")).unwrap();
    assert_eq!(link::physical(&files), ["lo"]);
    let link = Link::read(&files, "lo").unwrap();
    assert!(link.is_in_sysfs && link.attached.is_none());
    assert_eq!((link.mtu, link.speed_mbps, link.node), (Ok(1500), Some(25_000), Some(1)));
    let driver = Driver { name: "virtio_net".into(), version: Some("1.0".into()), bus: Some("virtio".into()) };
    assert_eq!(link.driver, Some(driver));
    assert_eq!(link.interrupts, [(41, vec![2]), (42, vec![0, 1])], "no driver has taken 43");
    assert_eq!(link.bridge, bridge(true, false));
    assert_eq!((link.igmp, link.forced_igmp, link.rp_filter), (Some(IgmpVersion::V2), Some(IgmpVersion::V2), 1));
    // Above a device that is not virtio there is a bridge, whose interrupts are not its own.
    fs::create_dir(sys.join("devices/pci0/0000:01:00.0")).unwrap();
    fs::remove_file(sys.join("class/net/lo/device")).unwrap();
    symlink(sys.join("devices/pci0/0000:01:00.0"), sys.join("class/net/lo/device")).unwrap();
    assert_eq!(Link::read(&files, "lo").unwrap().interrupts, []);
}
