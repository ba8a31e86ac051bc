//! `[interface.nic]`: judged is what will be, not what is.
#![forbid(unsafe_code)]

use super::*;

const LINE: &str = "group = \"239.10.0.1:26400\"";

/// The plan with these lines in the interface table of `fh-in`, and these in its line.
fn with(interface: &str, line: &str) -> Plan {
    plan(|text| {
        let text = text.replacen("mode = \"native\"", &format!("mode = \"native\"\n{interface}"), 1);
        text.replace(LINE, &format!("{LINE}\n{line}"))
    })
}

/// The report about a host and `fh-in` that are changed so.
fn judged(plan: &Plan, change: impl FnOnce(&mut Host, &mut Link)) -> Vec<Finding> {
    let (_folder, files) = site(GOOD_FILES);
    let mut facts = facts(&files);
    let Facts { host, links } = &mut facts;
    change(host, links[0].1.as_mut().unwrap());
    // Where the settings are kept is another test's.
    let mut findings = judge(Some(plan), &facts, &files);
    findings.retain(|finding| finding.check != "state_dir");
    findings
}

#[test]
fn what_the_start_will_set_is_not_asked_for_now() {
    let queue_3 = with("nic.channels = 4\nnic.steer = \"ntuple\"", "queue = 3");
    let findings = judged(&queue_3, |_, _| ());
    assert_eq!(complaints(&findings), [""; 0]);
    let found = |check: &str| {
        let it = |finding: &&Finding| finding.subject == "interface fh-in" && finding.check == check;
        findings.iter().find(it).unwrap().found.clone()
    };
    assert_eq!(found("queues"), "1 receive, 1 transmit; 4 of each once the handler starts");
    assert_eq!(found("NIC settings"), "set at start and put back at the end: channels 4, steer ntuple");
    let many = |_: &mut Host, link: &mut Link| link.interface.rx_queues = Some(8);
    assert_eq!(complaints(&judged(&with("nic.channels = 1", ""), many)), [""; 0]);
    assert_eq!(complaints(&judged(&with("nic.steer = \"ntuple\"", ""), many)), [""; 0], "the groups are steered");
    let words = ["8 receive, 1 transmit; 4 of each once the handler starts; 1 of the receive queues are polled"];
    assert_only("RSS", &judged(&with("nic.channels = 4", ""), many), "interface fh-in/queues warning", &words);

    let lro = |_: &mut Host, link: &mut Link| link.offloads = Some(offloads(&["rx-lro"]));
    assert_eq!(complaints(&judged(&with("nic.lro = false", ""), lro)), [""; 0]);
    let findings = judged(&with("nic.lro = true", ""), |_, _| ());
    assert_only("on", &findings, "interface fh-in/offloads warning", &["lro merges", "lro = false in [interface.nic]"]);

    let here = |_: &mut Host, link: &mut Link| link.interrupts = vec![(40, vec![2])];
    assert_eq!(complaints(&judged(&with("", ""), here)), ["worker w0/interrupts warning"]);
    assert_eq!(complaints(&judged(&with("nic.irq_cores = [0, 1]", ""), here)), [""; 0]);
}

#[test]
fn tags_are_where_the_filter_looks_for_them() {
    let stripped = |_: &mut Host, link: &mut Link| link.offloads = Some(offloads(&["rx-vlan-hw-parse"]));
    let left_in = |_: &mut Host, _: &mut Link| ();
    for interface in
        ["nic.rx_vlan_strip = false", "vlan_stripped = true", "vlan_stripped = true\nnic.rx_vlan_strip = true"]
    {
        assert_eq!(complaints(&judged(&with(interface, "vlan = 7"), stripped)), [""; 0], "{interface}");
    }
    for interface in ["", "vlan_stripped = true\nnic.rx_vlan_strip = true"] {
        assert_eq!(complaints(&judged(&with(interface, "vlan = 7"), left_in)), [""; 0], "{interface}");
    }
    let findings = judged(&with("", "vlan = 7"), stripped);
    let words = ["takes VLAN tags off", "`ethtool -K fh-in rxvlan off`", "vlan_stripped = true"];
    assert_only("stripped", &findings, "interface fh-in/offloads warning", &words);
    let findings = judged(&with("vlan_stripped = true", "vlan = 7"), left_in);
    let words = ["leaves VLAN tags in", "lines with a vlan are silent", "vlan_stripped = false"];
    assert_only("left in", &findings, "interface fh-in/offloads problem", &words);
    assert_eq!(complaints(&judged(&with("vlan_stripped = true", ""), left_in)), [""; 0], "no line has a tag");
}

#[test]
fn what_cannot_be_set_is_a_problem() {
    type Change = fn(&mut Host, &mut Link);
    let judged = |plan: &Plan, change: Change| {
        let mut findings = judged(plan, change);
        findings.retain(|finding| finding.check == "NIC settings");
        findings
    };
    let cases: [(&str, Change, &[&str]); 8] = [
        (
            "nic.channels = 2\nnic.napi_threaded = true",
            |host, _| host.has_ethtool = false,
            &["no program `ethtool`, which sets channels 2", "apt-get install ethtool"],
        ),
        (
            "nic.irq_cores = [0, 1]\nnic.gro_flush_timeout_ns = 5\nnic.gro = true",
            |host, _| host.uid = 1000,
            &[
                "the files of gro_flush_timeout_ns 5, irq_cores 0-1, and this is uid 1000",
                "CAP_NET_ADMIN is not enough",
            ],
        ),
        ("nic.channels = 16", |_, _| (), &["channels = 16, and the NIC has at most 8 queues"]),
        ("nic.irq_cores = [0]", |_, link| link.interrupts.clear(), &["no interrupts", "leave irq_cores out"]),
        (
            "nic.steer = \"ntuple\"",
            |_, link| link.offloads.as_mut().unwrap().changeable.clear(),
            &["has rx-ntuple-filter off for good", "channels = 1"],
        ),
        (
            "nic.gro = true",
            |_, link| link.offloads.as_mut().unwrap().changeable.clear(),
            &["has rx-gro off for good, and gro would change it", "leave gro out"],
        ),
        (
            "mode = \"socket\"\nnic.gro = false",
            |host, _| host.capabilities = CapabilitySet::BPF | CapabilitySet::NET_RAW | CapabilitySet::PERFMON,
            &["lacks CAP_NET_ADMIN"],
        ),
        (
            "nic.lro = false",
            |_, link| link.offloads = Some(Offloads { on: vec!["rx-lro".into()], changeable: vec![] }),
            &["has rx-lro on for good"],
        ),
    ];
    for (interface, change, words) in cases {
        let plan = match interface.strip_prefix("mode = \"socket\"\n") {
            None => with(interface, ""),
            Some(rest) => plan(|text| {
                text.replace("mode = \"native\"", "mode = \"socket\"").replacen("mode", &format!("{rest}\nmode"), 1)
            }),
        };
        let findings = judged(&plan, change);
        assert_only(interface, &findings, "interface fh-in/NIC settings problem", words);
    }
    let files = with("nic.napi_threaded = true", "");
    assert_eq!(complaints(&judged(&files, |host, _| host.has_ethtool = false)), [""; 0], "files need none");
    let tool = with("nic.channels = 2", "");
    assert_eq!(complaints(&judged(&tool, |host, _| host.uid = 1000)), [""; 0], "a capability is enough");
}

#[test]
fn the_state_directory_must_be_writable_and_leftovers_are_told() {
    let (folder, files) = site(GOOD_FILES);
    write(folder.path(), "file", "");
    let state = |path: &str, nic: &str| {
        let shown = folder.path().join(path).display().to_string();
        let plan = with(nic, "");
        Plan { state_dir: shown.into(), ..plan }
    };
    let judged = |plan: &Plan| judge(Some(plan), &facts(&files), &files);
    let gro = "nic.gro = true";
    assert_eq!(complaints(&judged(&state("not/there/yet", gro))), [""; 0]);
    let words = ["file is not a folder"];
    assert_only("file", &judged(&state("file/below", gro)), "configuration/state_dir problem", &words);
    assert_eq!(complaints(&judged(&state("file/below", ""))), [""; 0], "nothing is kept there");
    write(folder.path(), "proc/thread-self/ns/net", "");
    write(folder.path(), "proc/sys/kernel/random/boot_id", "boot-1");
    let namespace =
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(folder.path().join("proc/thread-self/ns/net")).unwrap());
    let name = format!("state/nic-{namespace}-fh-in.json");
    write(folder.path(), &name, "{");
    let plain = state("state", "");
    assert_only("damaged", &judged(&plain), "configuration/NIC settings left warning", &["cannot be read"]);
    let record = serde_json::json!({
        "version": 1, "boot_id": "boot-1", "namespace": namespace, "interface": "fh-in", "index": 7, "bus": null,
        "process": 1, "changes": [{"setting": {"channels": "combined"}, "old": "1", "new": "4"}],
    });
    write(folder.path(), &name, &record.to_string());
    let words = ["has left channels changed on fh-in", "the next start puts the old values back"];
    assert_only("left", &judged(&plain), "configuration/NIC settings left warning", &words);
    let lock = folder.path().join(&name).with_extension("lock");
    fs::write(&lock, "").unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&lock).unwrap());
    write(folder.path(), "proc/locks", &format!("1: FLOCK  ADVISORY  WRITE 17 fe:00:{inode} 0 EOF\n"));
    assert_eq!(complaints(&judged(&plain)), [""; 0], "a handler runs");
}
