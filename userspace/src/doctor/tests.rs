//! Bad hosts, made up: each one change away from a good one.
#![forbid(unsafe_code)]

mod hosts;
mod links;
mod nics;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::thread::CapabilitySet;
use tempfile::TempDir;

use super::link::{Driver, Offloads, XdpAbilities};
use super::*;
use crate::config::{Config, Host as Cores};
use crate::limits::OpenFiles;
use crate::net::interface::Interface;
use crate::privilege::KEEPER;
use crate::steering::IgmpVersion;

/// Files of a good host with four CPUs in two cores, of which 2 is a worker's.
const GOOD_FILES: &[(&str, &str)] = &[
    ("proc/cmdline", "quiet isolcpus=managed_irq,domain,2 nohz_full=2 rcu_nocbs=2\n"),
    (
        "proc/meminfo",
        "MemTotal: 1 kB\nHugePages_Total:      64\nHugePages_Free:       32\nHugepagesize:       2048 kB\n",
    ),
    ("proc/sys/net/core/bpf_jit_enable", "1\n"),
    ("proc/sys/net/core/rmem_max", "16777216\n"),
    ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
    ("proc/1/comm", "systemd\n"),
    ("sys/kernel/btf/vmlinux", "x"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/isolated", "2\n"),
    ("sys/devices/system/cpu/nohz_full", "2\n"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2\n"),
    ("sys/devices/system/cpu/cpu2/node1/cpulist", "2-3\n"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
    ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm\n"),
];

const PLAN: &str = r#"
[handler]
name = "test"
grpc = "unix:/tmp/control.sock"
[[interface]]
name = "fh-in"
mode = "native"
[[interface]]
name = "fh-out"
mode = "native"
[[worker]]
name = "w0"
core = 2
[[feed]]
name = "itch"
transport = "moldudp64"
decoder = "itch50"
publisher_id = 2
time_zone = "UTC"
[[feed.channel]]
name = "one"
[[feed.channel.line]]
name = "A"
interface = "fh-in"
group = "239.10.0.1:26400"
[[destination]]
name = "out"
channel = "itch/one"
interface = "fh-out"
group = "239.20.0.1:30001"
"#;

fn plan(change: impl FnOnce(String) -> String) -> Plan {
    Config::parse(&change(PLAN.to_owned()), "test.toml", &Cores { cores: vec![0, 1, 2, 3] }).unwrap()
}

/// A folder with these files, in which `proc` and `sys` stand for the host's.
fn site(files: &[(&str, &str)]) -> (TempDir, Files) {
    let folder = TempDir::new().unwrap();
    for (path, text) in files {
        write(folder.path(), path, text);
    }
    let files = Files { proc: folder.path().join("proc"), sys: folder.path().join("sys") };
    (folder, files)
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The host that the files describe, in a process that may do what the keeper may.
fn host(files: &Files) -> Host {
    Host {
        release: "6.8.0-45-generic".into(),
        has_af_xdp: true,
        capabilities: KEEPER,
        memlock: Some(8 << 20),
        open_files: OpenFiles { soft: Some(1024), hard: Some(4096) },
        uid: 0,
        has_ethtool: true,
        ..Host::read(files)
    }
}

/// These are on, and all that anybody asks for can be switched.
fn offloads(on: &[&str]) -> Offloads {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Offloads { on: list(on), changeable: list(&["rx-lro", "rx-gro", "rx-vlan-hw-parse", "rx-ntuple-filter"]) }
}

/// A NIC in good order.
fn nic(name: &str) -> Link {
    Link {
        interface: Interface {
            name: name.into(),
            index: 7,
            mac: [2, 0, 0, 0, 0, 1],
            ipv4: Some([10, 0, 0, 1].into()),
            is_up: true,
            has_carrier: true,
            carrier_changes: None,
            mtu: Some(1500),
            rx_queues: Some(1),
            tx_queues: Some(1),
        },
        address_count: 1,
        is_in_sysfs: true,
        mtu: Ok(1500),
        speed_mbps: Some(25_000),
        driver: Some(Driver { name: "ice".into(), version: None, bus: Some("pci".into()) }),
        node: Some(1),
        interrupts: vec![(40, vec![0])],
        most_queues: Some(8),
        abilities: Some(XdpAbilities {
            native: true,
            redirect: true,
            zero_copy: true,
            multi_buffer: true,
            receive_time: true,
        }),
        offloads: Some(offloads(&["rx-checksum"])),
        attached: None,
        igmp: Some(IgmpVersion::V3),
        forced_igmp: None,
        rp_filter: 0,
        bridge: None,
    }
}

fn facts(files: &Files) -> Facts {
    let links = ["fh-in", "fh-out"].map(|name| (name.to_owned(), Ok(nic(name))));
    Facts { host: host(files), links: links.into() }
}

/// The lines that are not ok, as `subject/check level`.
fn complaints(findings: &[Finding]) -> Vec<String> {
    let bad = findings.iter().filter(|finding| finding.level != Level::Ok);
    bad.map(|finding| format!("{}/{} {}", finding.subject, finding.check, finding.level.label())).collect()
}

/// Asserts that there is exactly this complaint, and that it and its remedy say these words.
fn assert_only(what: &str, findings: &[Finding], complaint: &str, words: &[&str]) {
    assert_eq!(complaints(findings), [complaint], "{what}: {findings:#?}");
    let finding = findings.iter().find(|finding| finding.level != Level::Ok).unwrap();
    let text = format!("{} → {}", finding.found, finding.remedy.as_deref().expect("a remedy"));
    for word in words {
        assert!(text.contains(word), "{what}: `{word}` in: {text}");
    }
}

#[test]
fn a_good_host_has_no_complaint_and_status_0() {
    let (_folder, files) = site(GOOD_FILES);
    let mut facts = facts(&files);
    facts.host.capabilities |= CapabilitySet::IPC_LOCK;
    for plan in [None, Some(&plan(|text| text))] {
        let report = Report::new(judge(plan, &facts, &files));
        assert_eq!(complaints(&report.findings), [""; 0], "{:#?}", report.findings);
        assert_eq!((report.verdict, report.exit_status()), (Level::Ok, 0));
        assert_eq!(report.ok, report.findings.len());
        // Subjects are not scattered: the text has each once.
        let subjects: Vec<&str> =
            report.findings.chunk_by(|a, b| a.subject == b.subject).map(|chunk| chunk[0].subject.as_str()).collect();
        assert_eq!(subjects.len(), subjects.iter().collect::<BTreeSet<_>>().len(), "{subjects:?}");
    }
}

#[test]
fn a_refused_configuration_comes_first_and_the_host_is_looked_at_all_the_same() {
    let error = Config::parse(&PLAN.replace("core = 2", "core = 77"), "test.toml", &Cores { cores: vec![2] });
    let (_folder, files) = site(GOOD_FILES);
    let report = examine(Some(error.as_ref()), &files);
    let first = &report.findings[0];
    assert_eq!((first.subject.as_str(), first.check, first.level), ("configuration", "refused", Level::Problem));
    assert!(first.found.contains("test.toml:13: worker[0].core = 77"), "{}", first.found);
    assert_eq!(report.exit_status(), 2);
    assert!(report.findings.iter().any(|finding| finding.subject == "host"));
}

#[test]
fn odd_and_missing_files_are_never_fatal_and_every_complaint_has_a_remedy() {
    let plan = plan(|text| text.replace("core = 2", "core = 2\nhuge_pages = true").replace("native", "socket"));
    let odd = ["", "\0\0", "-1", "99999999999999999999999", "[", "a-b,,7-", "0-999999", "é"];
    let check = |files: &Files| {
        for plan in [None, Some(&plan)] {
            for finding in judge(plan, &facts(files), files) {
                assert!(finding.level == Level::Ok || finding.remedy.is_some(), "{finding:?}");
                assert!(!finding.found.is_empty());
            }
        }
        let _ = examine(None, files).text(Style::default());
    };
    for (path, _) in GOOD_FILES {
        for text in odd {
            let (folder, files) = site(GOOD_FILES);
            write(folder.path(), path, text);
            check(&files);
        }
        // Not there, and a folder in its place.
        let (folder, files) = site(GOOD_FILES);
        fs::remove_file(folder.path().join(path)).unwrap();
        check(&files);
        fs::create_dir(folder.path().join(path)).unwrap();
        check(&files);
    }
    check(&Files { proc: "/nonexistent".into(), sys: "/nonexistent".into() });
}

#[test]
fn the_text_is_aligned_fits_and_sums_up() {
    let (_folder, files) = site(&[]);
    let report = Report::new(judge(Some(&plan(|text| text)), &facts(&files), &files));
    for width in [70, 120] {
        let text = report.text(Style { colours: false, width });
        assert!(!text.contains('\u{1b}'), "no colours: {text}");
        for line in text.lines().filter(|line| line.starts_with(' ')) {
            assert!(line.chars().count() <= usize::from(width), "{width}: {line}");
            // Level, check and text each begin in their own column, or the line goes on with the text.
            let column = line.chars().position(|c| c != ' ').unwrap();
            assert!(column == 1 || column == text_column(&report), "{line:?}");
        }
        assert!(text.lines().last().unwrap().contains(&format!("{} warnings", report.warnings)), "{text}");
    }
    assert!(report.text(Style { colours: true, width: 100 }).contains('\u{1b}'));
}

fn text_column(report: &Report) -> usize {
    let longest = report.findings.iter().map(|finding| finding.check.len()).max().unwrap();
    1 + "warning".len() + 2 + longest + 2
}

#[test]
fn the_worst_line_decides() {
    let finding = |level| Finding { subject: "host".into(), check: "x", level, found: "y".into(), remedy: None };
    for (levels, status) in [
        (vec![], 0),
        (vec![Level::Ok], 0),
        (vec![Level::Ok, Level::Warning, Level::Ok], 1),
        (vec![Level::Problem, Level::Warning], 2),
    ] {
        assert_eq!(Report::new(levels.into_iter().map(finding).collect()).exit_status(), status);
    }
    let json = serde_json::to_value(Report::new(vec![finding(Level::Problem)])).unwrap();
    assert_eq!((&json["verdict"], &json["findings"][0]["level"]), (&"problem".into(), &"problem".into()));
}
