//! A holder that hangs, and that nothing wakes: its guard ends it, and hands over.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{forced, is_as_new, operates};
use crate::audit::Log;
use crate::guard::awaited_guard_of;
use crate::harness::{
    Guest, Locks, Pause, Process, Program, Terminal, Vconsole, in_time, not_root, took_less_than,
    until,
};

/// A session that does nothing any more.
fn hanging(guest: &Guest, locks: &Locks) -> Program {
    Vconsole::attach(guest).locks(locks).env("VCONSOLE_TEST_HANG", "relay")
}

#[test]
fn a_hung_session_is_ended_by_its_guard_which_hands_over() {
    in_time(|| {
        for guard_stopped in [false, true] {
            let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
            let before = desk.settings();
            let old = hanging(&guest, &locks).attached_on(&desk);
            let guard = Process::find(Pid::from_raw(awaited_guard_of(&old)).unwrap()).unwrap();
            if guard_stopped {
                guard.signal(Signal::STOP);
                guard.is_stopped();
            }
            let start = Instant::now();
            let new = forced(&guest, &locks).attached_to_pipes();
            took_less_than(Duration::from_secs(4), start);
            desk.shows("this session did not answer, and was ended");
            until("the hung session has ended", || old.has_ended());
            assert_eq!(desk.settings(), before);
            operates(&new, &guest, &locks);
            guest.say("hello");
            new.stdout().receives("hello");
            new.signal(Signal::TERM);
            assert_eq!(new.wait(), 143);
            is_as_new(&guest, &locks);
        }
    });
}

#[test]
fn a_hung_session_that_ends_before_it_is_ended_is_in_nobody_s_way() {
    // The exclusive flag of a session that was killed with its guard stays.
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = hanging(&guest, &locks).attached_to_pipes();
    let guard = Process::find(Pid::from_raw(awaited_guard_of(&old)).unwrap()).unwrap();
    guard.signal(Signal::KILL);
    let pause = Pause::held_at("ending");
    let new = pause.of(forced(&guest, &locks)).piped();
    let stopped = pause.reached();
    old.kill();
    pause.is_over(&[&stopped]);
    new.stderr().receives("connected");
    operates(&new, &guest, &locks);
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 143);
    is_as_new(&guest, &locks);
}

#[test]
fn a_guard_does_not_give_away_what_its_session_gave_to_another() {
    // Without lock files nothing else keeps the second one out.
    let off = |program: Program| program.args(["--locks", "off"]);
    let (guest, locks) = (Guest::new(), Locks::new());
    let held = Pause::held_at("given");
    let old = held.of(off(Vconsole::attach(&guest).locks(&locks))).attached_to_pipes();
    let late = Pause::held_at("signed");
    let first = late.of(off(forced(&guest, &locks))).piped();
    held.reached();
    late.reached();
    // The first has everything, and the session that gave it does not come to know.
    let second = off(forced(&guest, &locks)).piped();
    assert_eq!(second.wait(), 3);
    second.stderr().receives("another took it over at the same moment");
    until("the session that hung has ended", || old.has_ended());
    late.is_over(&[&first]);
    first.stderr().receives("connected");
    guest.say("one operator");
    first.stdout().receives("one operator");
    first.signal(Signal::TERM);
    assert_eq!(first.wait(), 143);
    is_as_new(&guest, &locks);
}

#[test]
fn a_guard_gives_away_what_an_successor_has_not_taken_and_the_successor_is_told() {
    let off = |program: Program| program.args(["--locks", "off"]);
    let (guest, locks) = (Guest::new(), Locks::new());
    let held = Pause::held_at("given");
    let old = held.of(off(Vconsole::attach(&guest).locks(&locks))).attached_to_pipes();
    let late = Pause::held_at("taken");
    let first = late.of(off(forced(&guest, &locks))).piped();
    held.reached();
    late.reached();
    let second = off(forced(&guest, &locks)).attached_to_pipes();
    until("the session that hung has ended", || old.has_ended());
    late.is_over(&[&first]);
    assert_eq!(first.wait(), 3);
    first.stderr().receives("it waited too long");
    guest.say("one operator");
    second.stdout().receives("one operator");
    let line = crate::harness::Client::asleep(guest.path());
    assert_eq!(vconsole::sys::is_exclusive(line.line()).ok(), Some(true), "the flag is gone");
    drop(line);
    second.signal(Signal::TERM);
    assert_eq!(second.wait(), 143);
    is_as_new(&guest, &locks);
}

#[test]
fn what_a_guard_gives_away_is_recorded() {
    let (guest, locks, log) = (Guest::new(), Locks::new(), Log::new());
    let old = log.of(hanging(&guest, &locks)).attached_to_pipes();
    log.says("event=attached");
    let new = forced(&guest, &locks).attached_to_pipes();
    let line = log.says(&format!("event=taken-over by=\"vconsole (pid {}, ", new.pid()));
    assert!(line.contains(&format!(" ended={} ", old.pid())), "{line}");
    assert!(line.contains(guest.path().to_str().unwrap()), "{line}");
    log.is_silent();
}

#[test]
fn a_guard_does_not_give_away_what_its_session_has_given_back() {
    // Without lock files nothing else keeps two apart.
    let off = |program: Program| program.args(["--locks", "off"]);
    let (guest, locks) = (Guest::new(), Locks::new());
    let (late, held) = (Pause::held_too_at("guard-called"), Pause::held_at("relay"));
    let old = held.of(late.of(off(Vconsole::attach(&guest).locks(&locks)))).attached_to_pipes();
    let hung = held.reached();
    let new = off(forced(&guest, &locks)).piped();
    let guard = late.reached();
    // Just now it goes on, leaves, and waits for its guard; and somebody else comes.
    old.signal(Signal::TERM);
    held.is_over(&[&hung]);
    let third = off(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    assert!(!guard.has_ended(), "its session waited for it no longer");
    late.is_over(&[&guard]);
    assert_eq!(new.wait(), 3);
    guest.say("one operator");
    third.stdout().receives_exactly("one operator");
    third.signal(Signal::TERM);
    assert_eq!(third.wait(), 143);
    is_as_new(&guest, &locks);
}
