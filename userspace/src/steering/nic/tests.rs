//! Settings are changed, kept and put back: on a directory that looks like sysfs and proc, and a script that answers like
//! ethtool. (On veth, with the real program: tests/tests/it/nic.rs.)
#![forbid(unsafe_code)]

mod left;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::config::plan::FlowRulePlan;
use crate::config::{Config, Host};

/// Settings kept by the script, as they are at first.
const FIRST: [(&str, &str); 10] = [
    ("rx", "512"),
    ("tx", "512"),
    ("combined", "8"),
    ("adaptive-rx", "on"),
    ("rx-usecs", "50"),
    ("rxvlan", "on"),
    ("gro", "on"),
    ("lro", "off"),
    ("ntuple", "off"),
    ("rules", "7 239.1.1.1 5000 0 6"),
];
const FILES: [(&str, &str); 6] = [
    ("sys/class/net/nic0/napi_defer_hard_irqs", "0"),
    ("sys/class/net/nic0/gro_flush_timeout", "0"),
    ("sys/class/net/nic0/threaded", "0"),
    ("proc/irq/40/smp_affinity_list", "0-3"),
    ("proc/irq/41/smp_affinity_list", "3"),
    ("proc/irq/42/smp_affinity_list", "0-3"),
];

struct Fixture {
    folder: TempDir,
    kernel: Kernel,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let at = |path: &str| folder.path().join(path);
        let write = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), format!("{text}\n")).unwrap();
        };
        for (path, value) in FILES {
            write(path, value);
        }
        for (name, value) in FIRST {
            write(&format!("ethtool/{name}"), value);
        }
        write("sys/class/net/nic0/ifindex", "5");
        write("sys/class/net/nic0/carrier", "1");
        // Three vectors, of which the driver has taken two.
        for number in [40, 41, 42] {
            write(&format!("sys/devices/0000:3b:00.0/msi_irqs/{number}"), "msix");
        }
        symlink("../../../devices/0000:3b:00.0", at("sys/class/net/nic0/device")).unwrap();
        let table = "      CPU0\n 40:  1  PCI-MSIX-0000:3b:00.0  0-edge  nic0-TxRx-0\n 41:  1  PCI-MSIX-0000:3b:00.0  1-edge  nic0-TxRx-1\n";
        write("proc/interrupts", table);
        write("proc/thread-self/ns/net", "");
        write("proc/sys/kernel/random/boot_id", "boot-1");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/steering/nic/tests/ethtool.sh");
        let kernel = Kernel {
            sysfs: at("sys"),
            proc: at("proc"),
            // By the shell, so that no test can find the script open for writing.
            ethtool: vec!["sh".into(), script.into(), at("ethtool").into()],
            index_of: |sysfs, name| {
                fs::read_to_string(sysfs.join("class/net").join(name).join("ifindex")).ok()?.trim().parse().ok()
            },
        };
        Self { folder, kernel }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn set(&self, path: &str, text: &str) {
        fs::write(self.at(path), format!("{text}\n")).unwrap();
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap().trim().to_owned()
    }

    fn apply(&self, nic: NicPlan) -> Result<Applied, NicError> {
        let text = include_str!("../../../../config/demo.toml");
        let mut plan = Config::parse(text, "demo.toml", &Host { cores: Vec::new() }).unwrap().interfaces.remove(0);
        (plan.name, plan.nic) = ("nic0".to_owned(), nic);
        apply_on(&self.kernel, &plan, &self.at("state"))
    }

    fn leftovers(&self) -> Vec<String> {
        restore::leftovers(&self.kernel, &self.at("state")).iter().map(ToString::to_string).collect()
    }

    /// Every setting that differs from its first value.
    fn changed(&self) -> Vec<(String, String)> {
        let script = FIRST.iter().map(|(name, value)| (format!("ethtool/{name}"), *value));
        let files = FILES.iter().map(|(path, value)| ((*path).to_owned(), *value));
        let all = script.chain(files).map(|(path, first)| (self.get(&path), path, first));
        all.filter(|(now, _, first)| now != first).map(|(now, path, _)| (path, now)).collect()
    }

    fn state_file(&self) -> Option<PathBuf> {
        let files = fs::read_dir(self.at("state")).into_iter().flatten().flatten().map(|entry| entry.path());
        files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "json"))
    }
}

fn everything() -> NicPlan {
    let rule = |group: &str, vlan, queue| FlowRulePlan { group: group.parse().unwrap(), vlan, queue };
    NicPlan {
        rx_ring: Some(1000),
        tx_ring: Some(2048),
        channels: Some(4),
        rx_usecs: Some(0),
        adaptive_rx: Some(false),
        napi_defer_hard_irqs: Some(2),
        gro_flush_timeout_ns: Some(200_000),
        napi_threaded: Some(true),
        rx_vlan_strip: Some(false),
        gro: Some(false),
        lro: Some(false),
        irq_cores: vec![0, 1, 3],
        flow_rules: vec![rule("239.10.0.1:26400", 0, 2), rule("239.10.0.2:26401", 7, 3)],
    }
}

/// As `kill -9` does: the lock goes, the file stays.
fn crash(mut applied: Applied) {
    drop(applied.held.take());
}

#[test]
fn everything_is_set_and_put_back_in_reverse() {
    let host = Fixture::new();
    let applied = host.apply(everything()).unwrap();
    let changed = host.changed();
    let expected = [
        ("ethtool/rx", "1024"),
        ("ethtool/tx", "2048"),
        ("ethtool/combined", "4"),
        ("ethtool/adaptive-rx", "off"),
        ("ethtool/rx-usecs", "0"),
        ("ethtool/rxvlan", "off"),
        ("ethtool/gro", "off"),
        ("ethtool/ntuple", "on"),
        ("ethtool/rules", "7 239.1.1.1 5000 0 6\n1022 239.10.0.1 26400 0 2\n1021 239.10.0.2 26401 7 3"),
        ("sys/class/net/nic0/napi_defer_hard_irqs", "2"),
        ("sys/class/net/nic0/gro_flush_timeout", "200000"),
        ("sys/class/net/nic0/threaded", "1"),
        ("proc/irq/40/smp_affinity_list", "0-1,3"),
        ("proc/irq/41/smp_affinity_list", "0-1,3"),
    ];
    let changed: Vec<(&str, &str)> = changed.iter().map(|(path, now)| (path.as_str(), now.as_str())).collect();
    assert_eq!(changed, expected, "lro was off before; interrupt 42 is nobody's");
    assert!(host.state_file().is_some());

    let reports = applied.restore();
    assert!(reports.iter().all(|report| matches!(report.outcome, Outcome::Restored { .. })), "{reports:?}");
    // All of `expected`, where the rules are two.
    assert_eq!(reports.len(), 15, "{reports:?}");
    assert_eq!(host.changed(), []);
    assert_eq!(host.state_file(), None);
    let first = reports.first().unwrap().setting.clone().unwrap();
    assert!(matches!(first, Setting::Flow { vlan: 7, .. }), "the newest first: {first}");
}

#[test]
fn nothing_given_is_nothing_touched() {
    let host = Fixture::new();
    assert!(host.apply(NicPlan::default()).unwrap().restore().is_empty());
    assert!(!host.at("state").exists() && !host.at("ethtool/log").exists());
}

#[test]
fn a_refusal_names_the_key_and_undoes_what_went_before() {
    let host = Fixture::new();
    host.set("ethtool/refuse", "-C rx-usecs");
    let error = host.apply(everything()).unwrap_err().to_string();
    assert_eq!(
        error,
        "interface `nic0`: nic.rx_usecs = 0 is refused: Invalid argument; change it or leave the key out"
    );
    assert!(host.get("ethtool/log").contains("-G rx 1000"), "something went before");
    assert_eq!((host.changed(), host.state_file()), (vec![], None));
}

#[test]
fn limits_are_those_of_the_driver() {
    let host = Fixture::new();
    let error = host.apply(NicPlan { rx_ring: Some(8192), ..NicPlan::default() }).unwrap_err().to_string();
    assert!(error.contains("rx_ring = 8192") && error.contains("at most 4096"), "{error}");
    let error = host.apply(NicPlan { channels: Some(9), ..NicPlan::default() }).unwrap_err().to_string();
    assert!(error.contains("channels = 9") && error.contains("at most 8"), "{error}");
    host.set("ethtool/ntuple", "fixed");
    let flow_rules = everything().flow_rules;
    let error = host.apply(NicPlan { flow_rules, ..NicPlan::default() }).unwrap_err().to_string();
    assert!(
        error.contains("steer = \"ntuple\"") && error.contains("fixed") && error.contains("channels = 1"),
        "{error}"
    );
    fs::remove_file(host.at("sys/class/net/nic0/threaded")).unwrap();
    let error = host.apply(NicPlan { napi_threaded: Some(true), ..NicPlan::default() }).unwrap_err().to_string();
    assert!(error.contains("nic.napi_threaded") && error.contains("no such setting"), "{error}");
}

#[test]
fn a_crash_is_put_right_by_the_next_start_and_only_once() {
    let host = Fixture::new();
    crash(host.apply(everything()).unwrap());
    assert!(!host.changed().is_empty() && host.state_file().is_some());
    let reports = host.leftovers();
    assert!(reports.contains(&"nic0: nic.rx_ring: restored from 1024 to 512".to_owned()), "{reports:?}");
    assert_eq!((host.changed(), host.state_file()), (vec![], None));
    assert_eq!(host.leftovers(), [] as [&str; 0]);
}

#[test]
fn the_first_values_survive_a_start_that_could_not_put_them_back() {
    let host = Fixture::new();
    let rings = |rx_ring| NicPlan { rx_ring: Some(rx_ring), ..NicPlan::default() };
    crash(host.apply(rings(1024)).unwrap());
    host.set("ethtool/refuse", "-G rx");
    let reports = host.leftovers();
    assert!(reports[0].contains("rx_ring: cannot be restored now"), "{reports:?}");
    assert!(host.state_file().is_some(), "for the next time");
    fs::remove_file(host.at("ethtool/refuse")).unwrap();
    let applied = host.apply(rings(2048)).unwrap();
    assert_eq!(host.get("ethtool/rx"), "2048");
    applied.restore();
    assert_eq!(host.get("ethtool/rx"), "512", "not the crashed handler's 1024");
}

#[test]
fn a_queue_that_is_still_in_use_is_tried_again() {
    let host = Fixture::new();
    crash(host.apply(everything()).unwrap());
    host.set("ethtool/refuse", "-L combined");
    let reports = std::thread::scope(|scope| {
        scope.spawn(|| {
            // By then the first attempt was refused: it asks the script in the order of the changes, channels last.
            let give_up = Instant::now() + Duration::from_secs(10);
            while !host.get("ethtool/log").ends_with("-L combined 8") && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(5));
            }
            fs::remove_file(host.at("ethtool/refuse")).unwrap();
        });
        host.leftovers()
    });
    assert_eq!(reports.last().unwrap(), "nic0: nic.channels: restored from 4 to 8");
    assert!(reports.iter().all(|report| report.contains(": restored ")), "{reports:?}");
    assert_eq!((host.changed(), host.state_file()), (vec![], None));
}

#[test]
fn an_interrupted_change_is_put_back_whatever_it_became() {
    let host = Fixture::new();
    let mut applied = host.apply(NicPlan { rx_ring: Some(1024), ..NicPlan::default() }).unwrap();
    let (_, journal) = applied.held.as_mut().unwrap();
    // Killed between the change and the note of its outcome.
    journal.note(&Setting::Ring(Direction::Rx), "1024").unwrap();
    crash(applied);
    assert_eq!(host.leftovers(), ["nic0: nic.rx_ring: restored to 512"]);
    assert_eq!(host.changed(), []);
}

#[test]
fn what_others_changed_meanwhile_is_left_alone() {
    let host = Fixture::new();
    let applied = host.apply(everything()).unwrap();
    host.set("ethtool/rx", "4096");
    host.set("proc/irq/40/smp_affinity_list", "2");
    let reports = applied.restore();
    let texts: Vec<String> = reports.iter().map(ToString::to_string).filter(|text| text.contains("else")).collect();
    assert_eq!(
        texts,
        [
            "nic0: nic.irq_cores (irq 40 nic0-TxRx-0): is 2 and not the 0-1,3 that we set: somebody else changed it, left alone",
            "nic0: nic.rx_ring: is 4096 and not the 1024 that we set: somebody else changed it, left alone",
        ]
    );
    let changed = [("ethtool/rx", "4096"), ("proc/irq/40/smp_affinity_list", "2")];
    assert_eq!(host.changed(), changed.map(|(path, now)| (path.to_owned(), now.to_owned())));
}

#[test]
fn files_that_do_not_belong_here_are_not_used() {
    let host = Fixture::new();
    let crashed = || crash(host.apply(NicPlan { gro: Some(false), ..NicPlan::default() }).unwrap());
    crashed();
    host.set("proc/sys/kernel/random/boot_id", "boot-2");
    assert!(host.leftovers()[0].contains("before a reboot"));
    assert_eq!((host.get("ethtool/gro"), host.state_file()), ("off".to_owned(), None));

    host.set("ethtool/gro", "on");
    crashed();
    host.set("sys/class/net/nic0/ifindex", "6");
    assert_eq!(host.leftovers(), ["nic0: is not there any more, nothing to restore"]);
    assert_eq!((host.get("ethtool/gro"), host.state_file()), ("off".to_owned(), None));

    host.set("ethtool/gro", "on");
    crashed();
    let file = host.state_file().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    for damaged in [&text[..text.len() / 2], "", &text.replace("\"version\": 1", "\"version\": 2"), "{\"gro\": \"on\"}"]
    {
        fs::write(&file, damaged).unwrap();
        let reports = host.leftovers();
        assert!(reports.len() == 1 && reports[0].contains("damaged (") && reports[0].contains(".bad"), "{reports:?}");
        assert_eq!(fs::read_to_string(file.with_extension("bad")).unwrap(), damaged);
        assert_eq!((host.get("ethtool/gro"), host.state_file()), ("off".to_owned(), None));
    }
}

#[test]
fn a_running_handlers_settings_are_its_own() {
    let host = Fixture::new();
    let applied = host.apply(NicPlan { gro: Some(false), ..NicPlan::default() }).unwrap();
    let reports = host.leftovers();
    assert!(reports.len() == 1 && reports[0].contains("held by a running handler"), "{reports:?}");
    assert_eq!(host.get("ethtool/gro"), "off");
    let error = host.apply(NicPlan { lro: Some(true), ..NicPlan::default() }).unwrap_err().to_string();
    assert!(error.contains("another handler") && error.contains(&std::process::id().to_string()), "{error}");
    drop(applied);
    assert_eq!(host.changed(), [], "dropped is put back, too");
}

#[test]
fn ethtool_is_needed_only_for_what_it_does() {
    let mut host = Fixture::new();
    host.kernel.ethtool = vec!["/nonexistent/ethtool".into()];
    let files = NicPlan { napi_defer_hard_irqs: Some(1), irq_cores: vec![1], ..NicPlan::default() };
    host.apply(files).unwrap().restore();
    let error = host.apply(NicPlan { lro: Some(true), ..NicPlan::default() }).unwrap_err().to_string();
    assert!(error.contains("nic.lro needs the program") && error.contains("install"), "{error}");
}

#[test]
fn rules_of_others_stay_and_a_contradiction_is_refused() {
    let host = Fixture::new();
    host.set("ethtool/ntuple", "on");
    let rule = |queue| NicPlan {
        flow_rules: vec![FlowRulePlan { group: "239.1.1.1:5000".parse().unwrap(), vlan: 0, queue }],
        ..NicPlan::default()
    };
    host.apply(rule(6)).unwrap().restore();
    assert_eq!(host.get("ethtool/rules"), "7 239.1.1.1 5000 0 6", "it was there before us");
    let error = host.apply(rule(2)).unwrap_err().to_string();
    assert!(error.contains("239.1.1.1:5000") && error.contains("to 6 and not to queue 2"), "{error}");
}

#[test]
fn the_carrier_is_waited_for() {
    let host = Fixture::new();
    let carrier = host.at("sys/class/net/nic0/carrier");
    host.set("ethtool/flap", carrier.to_str().unwrap());
    let begun = Instant::now();
    let applied = host.apply(NicPlan { rx_ring: Some(1024), ..NicPlan::default() }).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(250), "it came back only then");
    assert_eq!(host.get("sys/class/net/nic0/carrier"), "1");
    drop(applied);
}

#[test]
fn an_interface_of_another_namespace_is_not_touched() {
    let mut host = Fixture::new();
    host.kernel.index_of = |_, _| Some(77);
    let error = host.apply(everything()).unwrap_err().to_string();
    assert!(error.contains("another network namespace"), "{error}");
    host.kernel.index_of = |_, _| None;
    assert!(matches!(host.apply(everything()), Err(NicError::NoInterface { .. })));
    assert_eq!(host.changed(), []);
}
