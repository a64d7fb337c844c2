//! A newcomer asks again before a session is ended by a signal.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::hostile::comes_to;
use super::{Runtime, forced, is_as_new, operates};
use crate::faults::syscalls::failing;
use crate::guard::awaited_guard_of;
use crate::harness::{Guest, Locks, Pause, Piped, Program, Terminal, Vconsole, missing, until};

/// Longer than a session waits for anybody.
const LONG: Duration = Duration::from_millis(2500);

/// The old operator has read `text` and could not show it: the new one shows it, and no signal was
/// needed.
#[track_caller]
fn hands_over(new: &Piped, text: &str) {
    new.stdout().receives(text);
    let said = String::from_utf8_lossy(&new.stderr().so_far()).into_owned();
    assert!(!said.contains("SIG"), "{said}");
}

fn numbers() -> String {
    (0..9000).fold(String::new(), |text, number| text + &format!("{number} "))
}

/// An operator whose terminal takes nothing, and that has read [`numbers`].
fn stuck(guest: &Guest, desk: &Terminal, attach: &Program) -> crate::harness::Session {
    let old = attach.attached_on(desk);
    desk.freezes();
    guest.say(numbers());
    until("the old operator has read it", || old.bytes_read() >= numbers().len() as u64);
    old
}

#[test]
fn a_newcomer_that_sleeps_before_it_asks_ends_nobody() {
    for again in [false, true] {
        let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
        let old = stuck(&guest, &desk, &Vconsole::attach(&guest).locks(&locks));
        let pause = Pause::held_at("connected");
        let new = pause.of(forced(&guest, &locks)).piped();
        pause.reached();
        thread::sleep(LONG);
        if again {
            // It is continued by the newcomer.
            old.signal(Signal::STOP);
        }
        pause.is_over(&[&new]);
        hands_over(&new, &numbers());
        desk.thaws();
        assert_eq!(old.wait(), 4);
        operates(&new, &guest, &locks);
    }
}

/// The operator looks at its sockets for another reason, and has looked at its input before.
#[test]
fn what_is_typed_just_before_a_newcomer_asks_reaches_the_guest() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let listening = Pause::held_at("listening");
    let old = runtime.of(listening.of(Vconsole::attach(&guest).locks(&locks)));
    let old = old.attached_to_pipes();
    let _silent = comes_to(&runtime.sockets_of(&old)[0]).unwrap();
    listening.reached();
    old.types("typed");
    let asked = Pause::held_at("asked");
    let new = asked.of(runtime.of(forced(&guest, &locks))).piped();
    asked.reached();
    listening.is_over(&[&old]);
    asked.is_over(&[&new]);
    guest.receives_exactly("typed");
    assert_eq!(old.wait(), 4);
    operates(&new, &guest, &locks);
}

/// More than a socket holds: the session cannot even say that it keeps the console.
#[test]
fn a_newcomer_that_sleeps_while_much_is_handed_over_ends_nobody() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let viewer = Vconsole::attach(&guest).arg("--read-only").locks(&locks).piped();
    viewer.stderr().receives("watching");
    let much = "much ".repeat(120_000);
    guest.say(&much);
    old.stdout().receives_at_least(much.len());
    let pause = Pause::held_at("asked");
    let new = pause.of(forced(&guest, &locks)).piped();
    pause.reached();
    old.stderr().receives("did not take it");
    pause.is_over(&[&new]);
    let told = new.output();
    assert_eq!(told.status, 3, "{told:?}");
    assert!(told.stderr().contains("it waited too long"), "{told:?}");
    guest.say("still mine");
    old.stdout().receives("still mine");
    let next = forced(&guest, &locks).attached_to_pipes();
    assert_eq!(old.wait(), 4);
    drop((next, viewer));
}

#[test]
fn a_session_that_may_write_no_file_hands_everything_over() {
    if missing("prlimit") {
        return;
    }
    for limit in ["--fsize=0", "--fsize=100"] {
        let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
        let old = stuck(&guest, &desk, &Vconsole::attach(&guest).locks(&locks));
        let pid = old.pid().to_string();
        assert_eq!(Program::new("prlimit").args(["--pid", &pid, limit]).output().status, 0);
        let new = forced(&guest, &locks).piped();
        hands_over(&new, &numbers());
        desk.thaws();
        assert_eq!(old.wait(), 4);
    }
}

#[test]
fn a_session_without_descriptors_to_spare_hands_everything_over() {
    if missing("prlimit") {
        return;
    }
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let old = stuck(&guest, &desk, &Vconsole::attach(&guest).locks(&locks));
    let pid = old.pid().to_string();
    let numbers_in_use = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let highest: u32 = numbers_in_use
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .max()
        .unwrap();
    let limit = format!("--nofile={}", highest + 1);
    assert_eq!(Program::new("prlimit").args(["--pid", &pid, &limit]).output().status, 0);
    let new = forced(&guest, &locks).piped();
    hands_over(&new, &numbers());
    desk.thaws();
    assert_eq!(old.wait(), 4);
}

#[test]
fn sockets_that_somebody_removes_are_made_again() {
    let (guest, locks, runtime) = (Guest::new(), Locks::new(), Runtime::new());
    let old = runtime.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let names = old.socket_names().map(|name| runtime.directory().join(name));
    // At once: it would make them again while the directory is being emptied.
    let removed = runtime.directory().with_extension("removed");
    fs::rename(runtime.directory(), &removed).unwrap();
    fs::remove_dir_all(removed).unwrap();
    until("they are there again", || names.iter().all(|name| name.exists()));
    for name in &names {
        fs::remove_file(name).unwrap();
        until("it is there again", || names.iter().all(|name| name.exists()));
    }
    let viewer = runtime.of(Vconsole::attach(&guest).arg("--read-only").locks(&locks)).piped();
    viewer.stderr().receives("watching");
    // The guard has the new ones too.
    old.signal(Signal::STOP);
    let new = runtime.of(forced(&guest, &locks)).attached_to_pipes();
    assert_eq!(old.wait(), 4);
    assert!(!String::from_utf8_lossy(&new.stderr().so_far()).contains("SIG"));
    guest.say("still here");
    viewer.stdout().receives("still here");
    new.signal(Signal::KILL);
    until("the guard has removed them", || fs::read_dir(runtime.directory()).unwrap().count() == 2);
    drop(viewer);
    locks.become_empty();
}

#[test]
fn sockets_move_to_another_directory_when_theirs_is_gone() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let places = tempfile::tempdir().unwrap();
    let [login, tmp] = ["login", "tmp"].map(|name| places.path().join(name));
    let joined = std::env::join_paths([&login, &tmp]).unwrap();
    let of = |program: Program| program.env("VCONSOLE_TEST_RUNTIME", &joined);
    for place in [&login, &tmp] {
        fs::create_dir(place).unwrap();
    }
    let old = of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let uid = rustix::process::geteuid().as_raw().to_string();
    // Its user logs out everywhere, and the session stays.
    let removed = places.path().join("removed");
    fs::rename(&login, &removed).unwrap();
    fs::remove_dir_all(removed).unwrap();
    let names = old.socket_names().map(|name| tmp.join(&uid).join(name));
    until("they are in the other place", || names.iter().all(|name| name.exists()));
    fs::create_dir(&login).unwrap();
    let new = of(forced(&guest, &locks)).attached_to_pipes();
    assert_eq!(old.wait(), 4);
    assert!(!String::from_utf8_lossy(&new.stderr().so_far()).contains("SIG"));
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 143);
    is_as_new(&guest, &locks);
}

/// The old session reads the acknowledgement among its other messages: each in turn fails.
#[test]
fn an_acknowledgement_that_cannot_be_read_leaves_one_operator() {
    if missing("strace") {
        return;
    }
    let mut taken = 0;
    for error in ["EIO", "ENOMEM"] {
        for call in ["1", "2", "3", "4", "2+", "3+"] {
            let (guest, locks) = (Guest::new(), Locks::new());
            let inject = format!("recvmsg:error={error}:when={call}");
            let old =
                failing(Vconsole::attach(&guest).locks(&locks), &inject, None).attached_to_pipes();
            awaited_guard_of(&old);
            let new = forced(&guest, &locks).piped();
            let mut connected = false;
            until("it is settled", || {
                let said = String::from_utf8_lossy(&new.stderr().so_far()).into_owned();
                connected = said.contains("connected to");
                connected || new.has_ended()
            });
            if connected {
                until("the old operator has ended", || old.has_ended());
                new.types("mine");
                guest.receives("mine");
                taken += 1;
            } else {
                assert!(!old.has_ended(), "nobody operates after {inject}");
            }
        }
    }
    assert!(taken > 6, "{taken} takeovers");
}
