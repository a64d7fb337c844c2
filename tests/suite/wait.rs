//! `attach --wait`: sleeps until the console is free, and comes in the order of coming.

use std::time::Duration;

use rustix::process::Signal;

use super::harness::{Bystander, Guest, Locks, Piped, Program, Vconsole, until};

fn waiting(guest: &Guest, locks: &Locks) -> Program {
    Vconsole::attach(guest).arg("--wait").locks(locks)
}

fn waits(guest: &Guest, locks: &Locks) -> Piped {
    let session = waiting(guest, locks).piped();
    session.stderr().hears("waiting for");
    session
}

#[track_caller]
fn leaves(session: &Piped) {
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
}

#[test]
fn a_free_console_is_attached_to_at_once() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let session = waiting(&guest, &locks).attached_to_pipes();
    assert!(!String::from_utf8_lossy(&session.stderr().so_far()).contains("waiting"));
}

#[test]
fn it_says_whom_it_waits_for_and_attaches_when_they_leave() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let holder = Bystander::new();
    let name = format!("LCK..{}", guest.path().file_name().unwrap().to_str().unwrap());
    locks.write(&name, holder.lock());
    let session = waits(&guest, &locks);
    session.stderr().hears(format!("held by sleep (pid {}", holder.pid()));
    drop(holder);
    session.stderr().hears("connected to");
    leaves(&session);

    let opener = Bystander::with_open(guest.path());
    let session = waits(&guest, &locks);
    session.stderr().hears(format!("open in sleep (pid {}", opener.pid()));
    drop(opener);
    session.stderr().hears("connected to");
    leaves(&session);
}

#[test]
fn three_are_served_in_the_order_of_coming_also_when_the_middle_one_is_killed() {
    for kill in [false, true] {
        let (guest, locks) = (Guest::new(), Locks::new());
        let driver = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let queue = [(); 3].map(|()| waits(&guest, &locks));
        if kill {
            queue[1].kill();
        }
        let mut before = &driver;
        for (number, next) in queue.iter().enumerate().filter(|(number, _)| !kill || *number != 1) {
            leaves(before);
            next.stderr().hears("connected to");
            for later in &queue[number + 1..] {
                let said = String::from_utf8_lossy(&later.stderr().so_far()).into_owned();
                assert!(!said.contains("connected"), "{said}");
            }
            before = next;
        }
    }
}

#[test]
fn one_who_is_stopped_is_passed_over() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let driver = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let (first, second) = (waits(&guest, &locks), waits(&guest, &locks));
    first.signal(Signal::STOP);
    first.is_stopped();
    leaves(&driver);
    second.stderr().hears("connected to");
}

#[test]
fn a_time_limit_ends_with_124_and_signals_at_once() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let _driver = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let limited = Vconsole::attach(&guest).arg("--wait=100ms").locks(&locks).output();
    assert_eq!(limited.status, 124, "{limited:?}");
    assert!(limited.stderr().contains("the time limit passed"), "{limited:?}");
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let session = waits(&guest, &locks);
        session.signal(signal);
        assert_eq!(session.wait(), status);
    }
}

#[test]
fn a_console_that_vanishes_ends_the_wait() {
    let (mut guest, locks) = (Guest::new(), Locks::new());
    let opener = Bystander::with_open(guest.path());
    let session = waits(&guest, &locks);
    guest.hang_up();
    drop(opener);
    assert_eq!(session.wait(), 6);
}

#[test]
fn waiting_is_sleeping() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let _driver = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let session = waits(&guest, &locks);
    let before = session.naps();
    // Only for proving that something does not come.
    std::thread::sleep(Duration::from_secs(3));
    let naps = session.naps() - before;
    assert!(naps <= 12, "woken {naps} times in 3 s");
    until("it used little", || session.cpu_time() < Duration::from_millis(500));
}
