//! A console stays the same whatever happens to its node: mode, owner and times are not its identity.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

use rustix::process::Signal;

use crate::harness::{Guest, Locks, Terminal, Vconsole};

fn touch(guest: &Guest) {
    fs::set_permissions(guest.path(), Permissions::from_mode(0o660)).unwrap();
    let node = File::open(guest.path()).unwrap();
    node.set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

#[test]
fn a_waiter_gets_a_console_whose_mode_and_time_were_changed() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let waiter = || {
        let waiter = Vconsole::attach(&guest).arg("--wait").locks(&locks).piped();
        waiter.stderr().receives("waiting for");
        waiter
    };
    let first = waiter();
    touch(&guest);
    let second = waiter();
    second.stderr().receives("1 ahead of you");
    operator.signal(Signal::TERM);
    assert_eq!(operator.wait(), 143);
    first.stderr().receives("connected to");
    first.signal(Signal::TERM);
    second.stderr().receives("connected to");
}

#[test]
fn a_viewer_follows_and_takes_control_after_such_a_change() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let [first, second] = [(); 2].map(|()| {
        let viewer = Vconsole::attach(&guest).arg("--read-only").locks(&locks).piped();
        viewer.stderr().receives("watching");
        viewer
    });
    let session = Vconsole::attach(&guest).arg("--read-only").locks(&locks).on(&desk);
    desk.shows("watching");
    touch(&guest);
    desk.types("\x1df");
    desk.shows("connected to");
    assert_eq!(operator.wait(), 4);
    desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
    for viewer in [&first, &second] {
        guest.say("still here");
        viewer.stdout().receives("still here");
        assert!(!viewer.has_ended());
    }
}

#[test]
fn a_terminal_that_got_the_number_of_a_console_is_another_one() {
    let (mut guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let waiter = Vconsole::attach(&guest).arg("--wait").locks(&locks).piped();
    waiter.stderr().receives("waiting for");
    waiter.signal(Signal::STOP);
    waiter.is_stopped();
    guest.hang_up();
    assert_eq!(operator.wait(), 5);
    // The kernel gives the lowest number that is free; other tests take numbers as well.
    let path = guest.path().to_owned();
    let mut others = Vec::new();
    while !path.exists() {
        others.push(Guest::new());
    }
    waiter.signal(Signal::CONT);
    assert_eq!(waiter.wait(), 6);
}
