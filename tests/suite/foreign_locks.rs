//! Locks of programs that do not have the console: written inside a container, or left behind.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::harness::{
    Bystander, Guest, Locks, Program, SOMEBODY, Vconsole, missing, not_root, silence, until,
};
use crate::locks::path_name;

/// `pid` as a lock file holds it.
fn naming(pid: u32) -> String {
    format!("{pid:>10}\n")
}

/// As a lock written in a container may, they name the first process and a kernel thread.
#[test]
fn root_breaks_a_lock_whose_process_does_not_have_the_console_and_says_whose_it_was() {
    if not_root() {
        return;
    }
    let bystander = Bystander::new();
    for pid in [1, 2, bystander.pid()] {
        let (guest, locks) = (Guest::new(), Locks::new());
        locks.write(&path_name(&guest), naming(pid));
        let refused = Vconsole::attach(&guest).locks(&locks).output();
        assert_eq!(refused.status, 3, "{refused:?}");
        let session = Vconsole::attach(&guest).arg("--force").locks(&locks).attached_to_pipes();
        session.stderr().receives(format!("(pid {pid}, root) does not have the console open"));
        guest.say("mine");
        session.stdout().receives("mine");
        drop(session);
        locks.become_empty();
        assert!(std::fs::metadata(format!("/proc/{}", bystander.pid())).is_ok());
    }
}

#[test]
fn a_user_does_not_break_such_a_lock() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new().mode(0o1777));
    guest.chown(SOMEBODY);
    std::fs::set_permissions(locks.path(), Permissions::from_mode(0o1777)).unwrap();
    let daemon = Bystander::daemon_of(SOMEBODY, "/dev/null");
    for (pid, why) in [(1, "is held by"), (daemon.pid(), "--force evicts who has the console open")]
    {
        locks.write(&path_name(&guest), naming(pid));
        let forced = Vconsole::attach(&guest).arg("--force").locks(&locks);
        let refused = forced.as_user(SOMEBODY, SOMEBODY).output();
        assert_eq!(refused.status, 3, "{refused:?}");
        assert!(refused.stderr().contains(why), "{refused:?}");
        assert_eq!(locks.names().len(), 1, "{:?}", locks.names());
    }
}

/// The usual way to emulate a port: socat keeps the slave open, and its child inherits it.
#[test]
fn the_child_of_the_program_at_the_other_end_is_not_a_holder() {
    if missing("socat") {
        return;
    }
    for address in ["EXEC:cat", "SYSTEM:cat; true"] {
        let (locks, directory) = (Locks::new(), tempfile::tempdir().unwrap());
        let port = directory.path().join("port");
        let pty = format!("PTY,link={},raw,echo=0", port.display());
        let socat = Program::new("socat").arg(pty).arg(address).piped();
        until("socat offers it", || port.exists());
        let session = Vconsole::attach(&port).locks(&locks).attached_to_pipes();
        session.types("and back");
        session.stdout().receives("and back");
        silence(session.stderr(), Duration::from_millis(600));
        let status = Vconsole::status().arg(&port).locks(&locks).output();
        assert!(!status.stdout().contains(" cat "), "{status:?}");
        drop((session, socat));
    }
}
