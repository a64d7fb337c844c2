//! Watching where no lock file says who operates.

use super::super::harness::{Guest, Locks, Vconsole};

/// The kernel goes on naming who took `flock` first.
#[test]
fn who_stays_without_lock_files_is_not_taken_for_who_operates() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let without =
        |option: &str| Vconsole::attach(&guest).args([option, "--locks", "off"]).locks(&locks);
    let old = without("--stay").attached_to_pipes();
    let new = without("--force").attached_to_pipes();
    old.stderr().receives("watching");
    let viewer = without("--read-only").piped();
    viewer.stderr().receives(format!("watching {}", guest.path().display()));
    let limited = without("--wait=1ms").output();
    assert_eq!(limited.status, 124, "{limited:?}");
    assert!(limited.stderr().contains(&format!("vconsole (pid {}", new.pid())), "{limited:?}");
    let next = without("--force").arg("--wait").attached_to_pipes();
    assert_eq!(new.wait(), 4);
    guest.say("for all");
    for session in [&old, &viewer, &next] {
        session.stdout().receives("for all");
    }
}
