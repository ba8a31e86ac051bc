//! Hosts with one thing wrong each, by their files or by what the process may do.
#![forbid(unsafe_code)]

use super::*;
use crate::privilege;

/// A file that is different, the complaint, and its words; without a plan.
const WITHOUT_PLAN: &[(&str, &str, &str, &[&str])] = &[
    ("proc/sys/net/core/bpf_jit_enable", "0", "host/BPF JIT warning", &["interpreted", "bpf_jit_enable=1"]),
    ("proc/sys/net/core/bpf_jit_enable", "2", "host/BPF JIT warning", &["log", "bpf_jit_enable=1"]),
    ("proc/7/comm", "irqbalance", "host/irqbalance warning", &["BANNED"]),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "[always] madvise never",
        "host/transparent huge pages warning",
        &["khugepaged", "echo madvise"],
    ),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "hpet",
        "host/clock source warning",
        &["hpet: every reading is a system call", "echo tsc"],
    ),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "kvm-clock",
        "host/clock source warning",
        &["virtual machine"],
    ),
    ("sys/devices/system/cpu/isolated", "", "host/isolated CPUs warning", &["none of 4", "isolcpus"]),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "schedutil",
        "host/frequency governor warning",
        &["not `performance` on CPUs 0", "cpupower"],
    ),
];

#[test]
fn each_bad_file_is_the_only_complaint() {
    for (path, text, complaint, words) in WITHOUT_PLAN {
        let (folder, files) = site(GOOD_FILES);
        write(folder.path(), path, text);
        let mut facts = facts(&files);
        facts.host.capabilities |= CapabilitySet::IPC_LOCK;
        assert_only(path, &judge(None, &facts, &files), complaint, words);
    }
}

#[test]
fn the_kernel_is_judged_by_its_version() {
    let (_folder, files) = site(GOOD_FILES);
    let plan = plan(|text| text);
    let sockets = super::plan(|text| text.replace("native", "socket"));
    let cases: [(&str, &str, &[&str]); 4] = [
        ("5.4.0", "host/kernel problem", &["5.9 or newer", "bpf_link"]),
        ("5.15.0-101-generic", "host/kernel warning", &["5.19", "CAP_BPF"]),
        ("6.1.0-18-amd64", "host/kernel warning", &["6.3"]),
        ("unheard-of", "host/kernel warning", &["has no version"]),
    ];
    for (release, complaint, words) in cases {
        let mut facts = facts(&files);
        facts.host.release = release.into();
        assert_only(release, &judge(Some(&plan), &facts, &files), complaint, words);
        assert_eq!(complaints(&judge(Some(&sockets), &facts, &files)), [""; 0], "sockets need no XDP: {release}");
    }
}

#[test]
fn the_process_is_judged_by_what_the_plan_needs() {
    let (_folder, files) = site(GOOD_FILES);
    let plan = plan(|text| text);
    let judged = |change: &dyn Fn(&mut Host)| {
        let mut facts = facts(&files);
        change(&mut facts.host);
        judge(Some(&plan), &facts, &files)
    };
    let findings = judged(&|host| host.capabilities.remove(CapabilitySet::NET_RAW | CapabilitySet::PERFMON));
    let words =
        ["lacks CAP_NET_RAW (opens AF_XDP sockets), CAP_PERFMON", "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW"];
    assert_only("capabilities", &findings, "host/capabilities problem", &words);
    let findings = judged(&|host| host.capabilities.remove(CapabilitySet::IPC_LOCK));
    // As much as the start refuses to do without.
    let needed = privilege::umem_bytes(&plan, 0);
    assert!(needed >= 32 << 20, "two ports");
    let frames = format!("frames take {} MiB, and the limit is 8 MiB", needed >> 20);
    let words = [frames.as_str(), "CAP_IPC_LOCK", "LimitMEMLOCK"];
    assert_only("memlock", &findings, "host/locked memory problem", &words);
    for limit in [None, Some(needed)] {
        let findings = judged(&|host| {
            host.capabilities.remove(CapabilitySet::IPC_LOCK);
            host.memlock = limit;
        });
        assert_eq!(complaints(&findings), [""; 0], "{limit:?} is enough");
    }
    let findings = judged(&|host| host.has_af_xdp = false);
    assert_only("AF_XDP", &findings, "host/AF_XDP problem", &["CONFIG_XDP_SOCKETS"]);
    // Without a plan nothing is known to fail.
    let mut facts = facts(&files);
    facts.host.capabilities = CapabilitySet::empty();
    let complaints = complaints(&judge(None, &facts, &files));
    assert_eq!(complaints, ["host/capabilities warning", "host/locked memory warning"]);
}

#[test]
fn huge_pages_are_counted_against_what_workers_want() {
    let (folder, files) = site(GOOD_FILES);
    // 8192 frames of 2048 bytes for each of two ports are 16 pages of 2 MiB, of 32 that are free.
    let plan = plan(|text| text.replace("core = 2", "core = 2\nhuge_pages = true"));
    let pages = privilege::umem_bytes(&plan, 0) >> 21;
    assert!(pages >= 16);
    assert_eq!(complaints(&judge(Some(&plan), &facts(&files), &files)), [""; 0]);
    write(folder.path(), "proc/meminfo", "HugePages_Total: 10\nHugePages_Free: 3\nHugepagesize: 2048 kB\n");
    let found = format!("3 of 10 reserved pages of 2 MiB are free; this plan needs {pages}");
    let words = [found.as_str(), &format!("vm.nr_hugepages={}", 10 + pages - 3)];
    assert_only("few", &judge(Some(&plan), &facts(&files), &files), "host/huge pages problem", &words);
    write(folder.path(), "proc/meminfo", "MemTotal: 1 kB\n");
    assert_only(
        "none",
        &judge(Some(&plan), &facts(&files), &files),
        "host/huge pages problem",
        &["huge_pages = false"],
    );
}

#[test]
fn socket_buffers_are_those_of_the_plan_where_there_may_be_sockets() {
    let (folder, files) = site(GOOD_FILES);
    write(folder.path(), "proc/sys/net/core/rmem_max", "212992");
    let mut facts = facts(&files);
    let judged = |facts: &Facts, mode: &str| {
        let plan = plan(|text| text.replace("native", mode));
        let mut findings = judge(Some(&plan), facts, &files);
        findings.retain(|finding| finding.check == "socket buffers");
        findings
    };
    assert_eq!(judged(&facts, "native"), [], "there are none");
    assert_eq!(complaints(&judged(&facts, "socket")), [""; 0], "SO_RCVBUFFORCE");
    facts.host.capabilities = CapabilitySet::empty();
    for mode in ["socket", "auto"] {
        let words = ["0.2 MiB, less than the 8 MiB", "rmem_max=8388608"];
        assert_only(mode, &judged(&facts, mode), "host/socket buffers warning", &words);
        let words = ["0.2 MiB, less than the 64 MiB", "rmem_max=67108864"];
        let larger = judged(&facts, &format!("{mode}\"\nreceive_buffer_bytes = 67_108_864\n#\""));
        assert_only(mode, &larger, "host/socket buffers warning", &words);
        let smaller = judged(&facts, &format!("{mode}\"\nreceive_buffer_bytes = 65_536\n#\""));
        assert_eq!(complaints(&smaller), [""; 0], "{mode}");
    }
}

#[test]
fn open_files_are_counted_against_the_hard_limit() {
    let (_folder, files) = site(GOOD_FILES);
    let plan = plan(|text| text);
    let judged = |hard| {
        let mut facts = facts(&files);
        facts.host.open_files = OpenFiles { soft: Some(10), hard };
        judge(Some(&plan), &facts, &files)
    };
    // One line, two ports.
    let words = ["opens up to 1422, and the hard limit is 1421", "LimitNOFILE=1422"];
    assert_only("few", &judged(Some(1421)), "host/open files problem", &words);
    for hard in [Some(1422), None] {
        assert_eq!(complaints(&judged(hard)), [""; 0], "{hard:?}");
    }
}

#[test]
fn the_frames_of_all_ports_are_told() {
    let (_folder, files) = site(GOOD_FILES);
    let frames = |plan: &Plan| {
        let findings = judge(Some(plan), &facts(&files), &files);
        findings.into_iter().find(|finding| finding.check == "frames").unwrap().found
    };
    let all = "8192 of 2048 bytes for each of 2 ports, 32768 KiB, ";
    assert_eq!(frames(&plan(|text| text)), format!("{all}locked, normal pages"));
    let one = plan(|text| text.replacen("native", "socket", 1));
    assert_eq!(frames(&one), format!("{all}those of 1 locked, normal pages"));
    let none = plan(|text| text.replace("native", "socket"));
    assert_eq!(frames(&none), format!("{all}not locked: kernel sockets"));
}

/// A file that is different, the complaint about worker w0 on core 2, and its words.
const WORKER: &[(&str, &str, &str, &[&str])] = &[
    ("sys/devices/system/cpu/isolated", "", "core", &["without a tick, RCU elsewhere; not isolated", "domain,2"]),
    ("sys/devices/system/cpu/isolated", "3", "core", &["isolcpus=managed_irq,domain,2"]),
    ("sys/devices/system/cpu/nohz_full", "", "core", &["not without a tick", "nohz_full=2"]),
    ("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2-3", "hyper-threads", &["CPU 3", "cpu3/online"]),
    ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave", "frequency governor", &["powersave", "-c 2"]),
];

#[test]
fn a_workers_core_is_judged_by_what_else_runs_there() {
    let plan = plan(|text| text);
    for (path, text, check, words) in WORKER {
        let (folder, files) = site(GOOD_FILES);
        write(folder.path(), path, text);
        let complaint = format!("worker w0/{check} warning");
        assert_only(path, &judge(Some(&plan), &facts(&files), &files), &complaint, words);
    }
    let (folder, files) = site(GOOD_FILES);
    write(folder.path(), "proc/cmdline", "quiet");
    write(folder.path(), "sys/devices/system/cpu/nohz_full", "(null)");
    let words = ["2: isolated; not without a tick, RCU callbacks run on it", "boot with nohz_full=2 rcu_nocbs=2"];
    assert_only("tick", &judge(Some(&plan), &facts(&files), &files), "worker w0/core warning", &words);
    write(folder.path(), "sys/devices/system/cpu/online", "0-1");
    let findings = judge(Some(&plan), &facts(&files), &files);
    assert_only("offline", &findings, "worker w0/core problem", &["no such CPU online", "one of 0-1"]);
}

#[test]
fn a_workers_nics_are_judged_by_where_they_are() {
    let (_folder, files) = site(GOOD_FILES);
    let plan = plan(|text| text);
    let judged = |change: &dyn Fn(&mut Link)| {
        let mut facts = facts(&files);
        facts.links[0].1.as_mut().map(change).unwrap();
        judge(Some(&plan), &facts, &files)
    };
    let far = judged(&|link| link.node = Some(0));
    assert_only("far", &far, "worker w0/NUMA warning", &["core is on node 1, fh-in on node 0", "local_cpulist"]);
    assert_eq!(complaints(&judged(&|link| link.node = None)), [""; 0], "unknown is not far");
    let interrupted = judged(&|link| link.interrupts = vec![(40, vec![0]), (41, vec![1, 2])]);
    let words = ["41 (fh-in) may go to core 2", "/proc/irq/41/smp_affinity_list"];
    assert_only("interrupts", &interrupted, "worker w0/interrupts warning", &words);

    let two = super::plan(|text| text.replace("core = 2\n", ""));
    let words = ["not pinned, and it spins", "isolated"];
    assert_only("unpinned", &judge(Some(&two), &facts(&files), &files), "worker w0/core warning", &words);
}

#[test]
fn addresses_that_are_taken_or_forbidden_are_named() {
    let (folder, files) = site(GOOD_FILES);
    let path = folder.path().join("control.sock");
    let plan = plan(|text| {
        let grpc = format!("unix:{}\"\nmetrics = \"127.0.0.1:9184", path.display());
        text.replace("unix:/tmp/control.sock", &grpc)
    });
    assert_eq!(complaints(&judge(Some(&plan), &facts(&files), &files)), [""; 0]);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let words = ["answers: this handler runs already"];
    assert_only("taken", &judge(Some(&plan), &facts(&files), &files), "configuration/control warning", &words);
    // The file that a killed process leaves is in nobody's way.
    drop(listener);
    assert_eq!(complaints(&judge(Some(&plan), &facts(&files), &files)), [""; 0]);
    write(folder.path(), "proc/net/tcp6", "sl\n 0: 00000000000000000000000000000000:23E0 0:0000 0A\n");
    let words = ["port 9184 is in use", "ss -ltnp sport = :9184"];
    assert_only("port", &judge(Some(&plan), &facts(&files), &files), "configuration/metrics warning", &words);
}
