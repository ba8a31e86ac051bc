//! Tests that run as a process of their own inside a network namespace, so that the whole process (sysfs too) sees it.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::path::Path;

use feedhandler_testkit::lab::{End, Namespace, connect};

/// Set in the copy of this test binary that runs inside the namespace.
const INSIDE: &str = "FEEDHANDLER_TEST_INSIDE";

/// A veth pair: both ends' names and addresses.
pub type Pair = [(&'static str, [u8; 4]); 2];

/// Whether this is the process inside.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs `body` in a namespace of its own with these veth pairs: this same binary is started again inside, for this one
/// test (`module::name`) only. The namespace goes in any case.
pub fn in_namespace(test: &str, pairs: &[Pair], body: impl FnOnce()) {
    if is_inside() {
        return body();
    }
    let namespace = Namespace::new("test").expect("root");
    for pair in pairs {
        let end = |(name, address): (&'static str, [u8; 4])| End {
            namespace: &namespace,
            name,
            address: Ipv4Addr::from(address),
        };
        connect(pair.map(end)).expect("a veth pair");
    }
    let mut command = namespace.command(Path::new(&std::env::current_exe().expect("where this program is")));
    let output = command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output().expect("starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
