#![forbid(unsafe_code)]

use std::net::UdpSocket;

use super::*;

#[test]
fn owners_are_read_from_names_and_foreign_names_are_not_ours() {
    assert_eq!(owner("fh-exchange-123-0"), Some(123));
    assert_eq!(owner("fh-two-words-77-4"), Some(77));
    for foreign in ["fh-1-2", "other-exchange-123-0", "fh-exchange", "fh-x-y-z"] {
        assert_eq!(owner(foreign), None, "{foreign}");
    }
}

#[test]
fn groups_are_read_from_the_kernel_table() {
    let table = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                 1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
                 2\tfh-a      :     2      V3\n\t\t\t\t01000AEF     1 0:00000000\t\t1\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
    assert_eq!(groups_of(table, "fh-a"), [Ipv4Addr::new(239, 10, 0, 1), Ipv4Addr::new(224, 0, 0, 1)]);
    assert_eq!(groups_of(table, "lo").len(), 1);
    assert!(groups_of(table, "fh").is_empty());
}

#[test]
fn namespaces_carry_packets_and_are_removed() {
    let (left, right) = (Namespace::new("left").unwrap(), Namespace::new("right").unwrap());
    let names = [left.name().to_owned(), right.name().to_owned()];
    let (a, b) = (Ipv4Addr::new(10, 9, 9, 1), Ipv4Addr::new(10, 9, 9, 2));
    connect([End { namespace: &left, name: "va", address: a }, End { namespace: &right, name: "vb", address: b }])
        .unwrap();
    let receiver = right.enter(|| UdpSocket::bind((b, 4000)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sender = left.enter(|| UdpSocket::bind((a, 0)).unwrap()).unwrap();
    sender.send_to(b"hello", (b, 4000)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
    let group = Ipv4Addr::new(239, 1, 2, 3);
    receiver.join_multicast_v4(&group, &b).unwrap();
    assert!(right.joined_groups("vb").unwrap().contains(&group));
    assert!(!left.joined_groups("va").unwrap().contains(&group));
    drop((left, right));
    for name in names {
        assert!(!Path::new(NAMESPACES).join(name).exists());
    }
}

#[test]
fn the_sweep_takes_the_namespaces_of_the_dead_only() {
    let alive = Namespace::new("alive").unwrap();
    // No process can have this number: it is beyond the kernel's limit of 2^22.
    let dead = format!("{PREFIX}dead-4194305-{}", COUNTER.fetch_add(1, Relaxed));
    run("ip", &["netns", "add", &dead]).unwrap();
    // Another test process may sweep at the same moment, so only the outcome counts.
    sweep();
    assert!(!Path::new(NAMESPACES).join(&dead).exists());
    assert!(Path::new(NAMESPACES).join(alive.name()).exists());
}
