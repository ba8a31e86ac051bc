//! `[interface.nic]`: what it becomes, and what is refused.
#![forbid(unsafe_code)]

use super::*;
use crate::config::plan::{FlowRulePlan, NicPlan};

/// The good file with these lines in the first interface's `[interface.nic]`, and with the first line on queue 1.
fn with(lines: &str) -> Result<Plan, ConfigError> {
    let nic = format!("name = \"fh-a\"\n[interface.nic]\n{lines}\n");
    let line = "group = \"239.10.0.1:26400\"";
    parse(&GOOD.replacen("name = \"fh-a\"\n", &nic, 1).replacen(line, &format!("{line}\nqueue = 1"), 1))
}

#[test]
fn what_is_not_given_is_not_touched() {
    assert_eq!(parse(GOOD).unwrap().interfaces[0].nic, NicPlan::default());
    assert_eq!(with("").unwrap().interfaces[0].nic, NicPlan::default());
    assert_eq!(parse(GOOD).unwrap().state_dir, std::path::Path::new("/run/feedhandler"));
}

#[test]
fn every_key_arrives() {
    let plan = with(
        "rx_ring = 4096\ntx_ring = 512\nchannels = 2\nrx_usecs = 8\nadaptive_rx = false\nnapi_defer_hard_irqs = 2\n\
         gro_flush_timeout_ns = 200_000\nnapi_threaded = true\nrx_vlan_strip = false\ngro = true\nlro = false\n\
         irq_cores = [2, 0, 2]\nsteer = \"ntuple\"",
    );
    let expected = NicPlan {
        rx_ring: Some(4096),
        tx_ring: Some(512),
        channels: Some(2),
        rx_usecs: Some(8),
        adaptive_rx: Some(false),
        napi_defer_hard_irqs: Some(2),
        gro_flush_timeout_ns: Some(200_000),
        napi_threaded: Some(true),
        rx_vlan_strip: Some(false),
        gro: Some(true),
        lro: Some(false),
        irq_cores: vec![0, 2],
        flow_rules: vec![FlowRulePlan { group: "239.10.0.1:26400".parse().unwrap(), vlan: 0, queue: 1 }],
    };
    assert_eq!(plan.unwrap().interfaces[0].nic, expected);
}

#[test]
fn what_is_illegal_or_does_not_go_together_is_refused_with_the_remedy() {
    for (lines, says) in [
        ("rx_rings = 512", &["unknown field `rx_rings`", "`rx_ring`"][..]),
        ("rx_ring = 8", &["test.toml:7: interface[0].nic.rx_ring = 8: must be 16 to 65536", "ethtool -g"]),
        ("tx_ring = 100_000", &["tx_ring = 100000: must be 16 to 65536"]),
        ("channels = 129", &["channels = 129: must be 1 to 128"]),
        ("channels = 1", &["nic.channels = 1: line A of `itch/equities` is on queue 1", "at least 2"]),
        ("rx_usecs = -1", &["rx_usecs = -1: must be 0 to 10000 microseconds"]),
        ("rx_usecs = 5\nadaptive_rx = true", &["rx_usecs = 5: adaptive_rx = true", "leave one"]),
        ("gro_flush_timeout_ns = 2_000_000_000", &["must be 0 to 1000000000 nanoseconds"]),
        ("napi_defer_hard_irqs = 2", &["napi_defer_hard_irqs = 2: does nothing without gro_flush_timeout_ns"]),
        ("irq_cores = []", &["irq_cores = []: interrupts need a core"]),
        ("irq_cores = [9000]", &["irq_cores = 9000: must be 0 to 8191"]),
        ("irq_cores = [0, 1]", &["irq_cores = [0, 1]: worker `w0` is pinned to core 1", "name other cores"]),
        ("steer = \"rss\"", &["steer = \"rss\": must be one of `none`, `ntuple`"]),
        ("gro = 1", &["invalid type: integer `1`, expected a boolean"]),
    ] {
        let error = with(lines).expect_err(lines).to_string();
        for part in says {
            assert!(error.contains(part), "`{lines}` gives\n{error}\nwhich does not say\n{part}");
        }
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn steering_needs_queues_and_lines() {
    let on = |interface: &str| {
        let name = format!("name = \"{interface}\"\n");
        parse(&GOOD.replacen(&name, &format!("{name}nic.steer = \"ntuple\"\n"), 1)).unwrap_err().to_string()
    };
    let socket = on("fh-b");
    assert!(socket.contains("interface[1].nic.steer = \"ntuple\": mode `socket` knows no queues"), "{socket}");
    let output = on("fh-out");
    assert!(output.contains("interface[2].nic.steer = \"ntuple\": no line comes in"), "{output}");
}

#[test]
fn one_group_tagged_and_untagged_cannot_be_steered_apart() {
    let both = GOOD
        .replacen("name = \"fh-a\"\n", "name = \"fh-a\"\nnic.steer = \"ntuple\"\n", 1)
        .replacen("[[interface]]\nname = \"fh-b\"\nmode = \"socket\"\n", "", 1)
        .replacen(
            "interface = \"fh-b\"\ngroup = \"239.10.0.2:26400\"",
            "interface = \"fh-a\"\ngroup = \"239.10.0.1:26400\"\nvlan = 7",
            1,
        );
    assert_eq!(parse(&both).unwrap().interfaces[0].nic.flow_rules.len(), 2);
    let apart = parse(&both.replacen("vlan = 7", "vlan = 7\nqueue = 1", 1)).unwrap_err().to_string();
    assert!(apart.contains("give them the same queue"), "{apart}");
}

#[test]
fn sources_of_one_group_cannot_be_steered_apart() {
    let two = |more: &str| {
        let text = GOOD
            .replacen("name = \"fh-a\"\n", "name = \"fh-a\"\nnic.steer = \"ntuple\"\n", 1)
            .replacen("[[interface]]\nname = \"fh-b\"\nmode = \"socket\"\n", "", 1)
            .replacen("group = \"239.10.0.1:26400\"", "group = \"239.10.0.1:26400\"\nsource = \"10.0.0.1\"", 1)
            .replacen(
                "interface = \"fh-b\"\ngroup = \"239.10.0.2:26400\"",
                &format!("interface = \"fh-a\"\ngroup = \"239.10.0.1:26400\"\nsource = \"10.0.0.2\"\n{more}"),
                1,
            );
        parse(&text)
    };
    let error = two("queue = 1").unwrap_err().to_string();
    assert!(error.contains("interface[0].nic.steer = \"ntuple\": two lines take one group, port and VLAN"), "{error}");
    assert!(error.contains("does not look at the source: give them the same queue"), "{error}");
    assert!(two("").is_ok(), "the same queue");
    assert!(two("queue = 1\nvlan = 7").unwrap_err().to_string().contains("tagged and untagged"));
}

#[test]
fn the_filter_and_the_nic_must_agree_about_tags() {
    let with = |interface: &str, vlan: &str| {
        let line = "group = \"239.10.0.1:26400\"";
        parse(&GOOD.replacen("name = \"fh-a\"\n", &format!("name = \"fh-a\"\n{interface}\n"), 1).replacen(
            line,
            &format!("{line}\n{vlan}"),
            1,
        ))
    };
    let error = with("vlan_stripped = true\nnic.rx_vlan_strip = false", "vlan = 7").unwrap_err().to_string();
    for part in [
        "test.toml:6: interface[0].vlan_stripped = true: nic.rx_vlan_strip = false leaves the tags in",
        "set vlan_stripped = false, or",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let error = with("nic.rx_vlan_strip = true", "vlan = 7").unwrap_err().to_string();
    for part in [
        "interface[0].nic.rx_vlan_strip = true: takes the tags out",
        "line A of `itch/equities` has vlan = 7",
        "vlan_stripped = true on",
    ] {
        assert!(error.contains(part), "{error}");
    }
    for (interface, vlan) in [
        ("vlan_stripped = true\nnic.rx_vlan_strip = true", "vlan = 7"),
        ("vlan_stripped = false\nnic.rx_vlan_strip = false", "vlan = 7"),
        ("nic.rx_vlan_strip = true", ""),
        ("vlan_stripped = true", "vlan = 7"),
    ] {
        with(interface, vlan).expect(interface);
    }
}

#[test]
fn the_subscriptions_file_is_an_absolute_path() {
    assert_eq!(parse(GOOD).unwrap().subscriptions_file, None);
    for wrong in ["subscriptions.json", "/var/lib/feedhandler/", ""] {
        let text = GOOD.replacen("name = \"test\"", &format!("name = \"test\"\nsubscriptions_file = \"{wrong}\""), 1);
        let error = parse(&text).unwrap_err().to_string();
        assert!(
            error.contains("handler.subscriptions_file = ") && error.contains("must be an absolute path"),
            "{error}"
        );
    }
}

#[test]
fn the_state_directory_is_absolute() {
    let relative = GOOD.replacen("name = \"test\"", "name = \"test\"\nstate_dir = \"run\"", 1);
    let error = parse(&relative).unwrap_err().to_string();
    assert!(error.contains("handler.state_dir = \"run\": must be an absolute path"), "{error}");
}

#[test]
fn the_log_of_latencies_has_its_limits() {
    use crate::config::plan::LatencyLogPlan;
    let with = |keys: &str| parse(&GOOD.replacen("name = \"test\"", &format!("name = \"test\"\n{keys}"), 1));
    assert_eq!(parse(GOOD).unwrap().latency_log, None);
    let log = with("latency_log = \"/var/log/x.hlog\"").unwrap().latency_log;
    assert_eq!(log, Some(LatencyLogPlan { path: "/var/log/x.hlog".into(), interval_s: 10, bytes: 64 << 20 }));
    for (keys, says) in [
        ("latency_log = \"x.hlog\"", "handler.latency_log = \"x.hlog\": must be an absolute path of a file"),
        ("latency_log = \"/var/log/\"", "must be an absolute path of a file"),
        ("latency_log = \"/x\"\nlatency_log_interval_s = 0", "handler.latency_log_interval_s = 0: must be 1 to 3600"),
        ("latency_log = \"/x\"\nlatency_log_interval_s = 3601", "must be 1 to 3600"),
        ("latency_log = \"/x\"\nlatency_log_bytes = 1048575", "handler.latency_log_bytes = 1048575: must be 1048576"),
        ("latency_log_bytes = 2000000", "handler.latency_log_bytes = 2000000: needs latency_log"),
    ] {
        let error = with(keys).unwrap_err().to_string();
        assert!(error.contains(says), "{keys}: {error}");
    }
}
