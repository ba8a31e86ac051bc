//! Dropping is tried on threads of the test's own: it is for good, but only for the thread.
#![forbid(unsafe_code)]

use rustix::thread::{capability_is_in_ambient_set, capability_is_in_bounding_set, no_new_privs};

use super::*;
use crate::config::{Config, Host};

/// What the thread holds after `drop_here(keep)`, and whether it is locked; and what it held before.
fn dropped(keep: CapabilitySet) -> (CapabilitySet, CapabilitySets) {
    let thread = std::thread::spawn(move || {
        let had = capabilities(None).unwrap().permitted;
        drop_here(keep).unwrap();
        assert!(no_new_privs().unwrap());
        for bit in [CapabilitySet::NET_ADMIN, CapabilitySet::BPF] {
            assert!(!capability_is_in_ambient_set(bit).unwrap());
            if had.contains(CapabilitySet::SETPCAP) {
                assert!(!capability_is_in_bounding_set(bit).unwrap());
                assert!(capabilities_secure_bits().unwrap().contains(CapabilitiesSecureBits::NO_ROOT_LOCKED));
            }
        }
        let sets = capabilities(None).unwrap();
        // Nothing comes back.
        let all = CapabilitySets { permitted: had, ..sets };
        assert!(had == sets.permitted || set_capabilities(None, all).is_err());
        // A second time is no error.
        drop_here(keep).unwrap();
        (had, sets)
    });
    thread.join().unwrap()
}

#[test]
fn a_thread_keeps_what_it_is_told_and_no_more() {
    let before = capabilities(None).unwrap();
    let (_, nothing) = dropped(CapabilitySet::empty());
    let none = CapabilitySet::empty();
    assert_eq!(nothing, CapabilitySets { effective: none, permitted: none, inheritable: none });
    let (had, keeper) = dropped(KEEPER);
    assert_eq!(keeper, CapabilitySets { effective: had & KEEPER, permitted: had & KEEPER, inheritable: none });
    assert_eq!(capabilities(None).unwrap(), before, "other threads keep theirs");
}

#[test]
fn map_access_decides_what_is_kept() {
    let seen = |works: bool| {
        for_maps(|| {
            assert!(capabilities(None).unwrap().permitted.is_empty(), "tried without capabilities");
            works
        })
    };
    assert_eq!(seen(true), CapabilitySet::empty());
    assert_eq!(seen(false), CapabilitySet::BPF);
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
    assert_eq!(umem_bytes(&native, 0), 16384 * 2048);
    let socket = plan("socket", "");
    assert!(needs(&socket).is_empty());
    assert_eq!(umem_bytes(&socket, 0), 0);
    assert_eq!(named(&plan("socket", "\nbusy_poll_us = 50"), CapabilitySet::empty()), ["CAP_NET_ADMIN"]);

    let error = PrivilegeError::Missing { missing: needs(&native)[..2].to_vec() }.to_string();
    assert!(error.contains("missing CAP_NET_ADMIN (attaches the XDP program), CAP_NET_RAW (opens"), "{error}");
    assert!(error.contains("AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW in its unit"), "{error}");
}
