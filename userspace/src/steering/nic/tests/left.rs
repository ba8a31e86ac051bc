//! What a doctor is told of a crash.
#![forbid(unsafe_code)]

use super::*;
use crate::steering::nic::left::Left;

#[test]
fn what_a_crash_left_is_told_and_not_touched() {
    let host = Fixture::new();
    // The kernel's own table: this process holds the lock, or does not.
    let look = || {
        host.set("proc/locks", &fs::read_to_string("/proc/locks").unwrap());
        left_behind(&host.at("state"), &host.at("proc"))
    };
    assert_eq!(look(), []);
    let applied = host.apply(NicPlan { gro: Some(false), rx_ring: Some(1024), ..NicPlan::default() }).unwrap();
    let path = host.state_file().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(look(), [], "a running handler's are nobody's business");
    crash(applied);
    let changes = Some(("nic0".to_owned(), vec!["rx_ring".to_owned(), "gro".to_owned()]));
    assert_eq!(look(), [Left { path: path.clone(), changes }]);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    fs::write(&path, "{").unwrap();
    assert_eq!(look(), [Left { path: path.clone(), changes: None }]);
    fs::write(&path, text).unwrap();
    host.set("proc/sys/kernel/random/boot_id", "boot-2");
    assert_eq!(look(), [], "settings do not survive a reboot");
    assert!(path.exists());
}
