//! Dropping is tried on threads of the test's own: it is for good, but only for the thread.
#![forbid(unsafe_code)]

use std::process::Command;

use rustix::thread::{capability_is_in_bounding_set, no_new_privs};

use super::*;
use crate::config::{Config, Host};

const NONE: CapabilitySet = CapabilitySet::empty();

/// Runs `body` on a thread of its own.
fn on_a_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(body).join().unwrap()
}

fn permitted() -> CapabilitySet {
    capabilities(None).unwrap().permitted
}

/// What a program that this thread executes may do.
fn executed() -> CapabilitySet {
    let output = Command::new("cat").arg("/proc/self/status").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    CapabilitySet::from_bits_retain(u64::from_str_radix(line.trim(), 16).unwrap())
}

#[test]
fn a_thread_keeps_what_it_is_told_and_no_more() {
    let before = capabilities(None).unwrap();
    let had = before.permitted;
    for keep in [Keep::NOTHING, Keep::MAPS, Keep::KEEPER] {
        let (held, passed_on) = (had & keep.held, had & keep.passed_on);
        on_a_thread(move || {
            drop_here(keep).unwrap();
            let sets = CapabilitySets { effective: held, permitted: held, inheritable: passed_on };
            assert_eq!(capabilities(None).unwrap(), sets, "{keep:?}");
            assert!(no_new_privs().unwrap());
            if had.contains(CapabilitySet::SETPCAP) {
                assert!(!capability_is_in_bounding_set(CapabilitySet::NET_ADMIN).unwrap());
                assert!(capabilities_secure_bits().unwrap().contains(CapabilitiesSecureBits::NO_ROOT_LOCKED));
            }
            assert_eq!(executed(), passed_on, "{keep:?}");
            // Nothing comes back, and a second time is no error.
            assert!(had == held || set_capabilities(None, CapabilitySets { permitted: had, ..sets }).is_err());
            drop_here(keep).unwrap();
            assert_eq!(capabilities(None).unwrap(), sets, "{keep:?}");
        });
    }
    assert_eq!(capabilities(None).unwrap(), before, "other threads keep theirs");
}

#[test]
fn a_process_ends_up_with_the_keeper_alone() {
    let had = permitted();
    for (wanted, keeper, others) in
        [(Privileges::Keeper, had & KEEPER, NONE), (Privileges::None, NONE, NONE), (Privileges::Keep, had, had)]
    {
        on_a_thread(move || {
            let of_keeper = std::thread::spawn(move || {
                drop_keeper(wanted).unwrap();
                permitted()
            });
            drop_main(wanted, || true).unwrap();
            // A thread of tokio's, say: it inherits.
            let of_other = on_a_thread(permitted);
            let of_worker = on_a_thread(move || {
                drop_worker(wanted);
                permitted()
            });
            assert_eq!(of_keeper.join().unwrap(), keeper, "{wanted:?}");
            assert_eq!([permitted(), of_other, of_worker], [others; 3], "{wanted:?}");
        });
    }
}

#[test]
fn map_access_decides_what_is_kept() {
    let seen = |works: bool| {
        for_maps(|| {
            assert!(permitted().is_empty(), "tried without capabilities");
            works
        })
    };
    assert_eq!(seen(true), Keep::NOTHING);
    assert_eq!(seen(false), Keep::MAPS);
    // A kernel before 5.19: who changes rules keeps CAP_BPF, workers nothing.
    let had = permitted();
    on_a_thread(move || {
        drop_main(Privileges::Keeper, || false).unwrap();
        let of_worker = on_a_thread(|| {
            drop_worker(Privileges::Keeper);
            permitted()
        });
        assert_eq!([permitted(), of_worker], [had & CapabilitySet::BPF, NONE]);
    });
}

#[test]
fn a_plan_needs_what_its_modes_do() {
    let text = include_str!("../../../config/demo.toml");
    let plan = |mode: &str, busy: &str| {
        let text = text.replace("mode = \"native\"", &format!("mode = \"{mode}\"{busy}"));
        Config::parse(&text, "demo.toml", &Host { cores: Vec::new() }).unwrap()
    };
    let named = |plan, have| missing(&needs(plan), have).iter().map(Need::name).collect::<Vec<_>>();
    let native = plan("native", "");
    let all = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"];
    assert_eq!(named(&native, CapabilitySet::empty()), all);
    assert_eq!(named(&native, CapabilitySet::SYS_ADMIN | CapabilitySet::NET_RAW), ["CAP_NET_ADMIN"]);
    assert!(named(&native, KEEPER).is_empty());
    assert_eq!(umem_bytes(&native, 0), 3 * 8192 * 2048, "three ports");
    let socket = plan("socket", "");
    assert!(needs(&socket).is_empty());
    assert_eq!(umem_bytes(&socket, 0), 0);
    assert_eq!(named(&plan("socket", "\nbusy_poll_us = 50"), CapabilitySet::empty()), ["CAP_NET_ADMIN"]);

    let error = PrivilegeError::Missing { missing: needs(&native)[..2].to_vec() }.to_string();
    assert!(error.contains("missing CAP_NET_ADMIN (attaches the XDP program), CAP_NET_RAW (opens"), "{error}");
    assert!(error.contains("AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW in its unit"), "{error}");
}
