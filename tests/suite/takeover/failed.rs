//! A takeover that comes to nothing: the old operator goes on as if nothing had been.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{forced, is_as_new, operates};
use crate::harness::{
    Guest, Locks, Pause, Piped, Terminal, Vconsole, in_time, missing, silence, took_less_than,
    until,
};
use crate::locks::all_names;

/// The operator goes on, with what it has not delivered, and can be taken over again.
#[track_caller]
fn goes_on(old: &Piped, guest: &Guest, locks: &Locks) {
    old.stderr().receives("asked for the console, and did not take it");
    until("the names are its own", || {
        all_names(guest).iter().all(|name| {
            let holder = locks.read(name).unwrap_or_default();
            String::from_utf8_lossy(&holder).trim().parse() == Ok(old.pid())
        })
    });
    operates(old, guest, locks);
    guest.say("still mine");
    old.stdout().receives("still mine");
    old.types("yours?");
    guest.receives("yours?");
    let new = forced(guest, locks).attached_to_pipes();
    assert_eq!(old.wait(), 4);
    operates(&new, guest, locks);
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 143);
    is_as_new(guest, locks);
}

#[test]
fn a_newcomer_that_is_killed_before_it_has_signed_changes_nothing() {
    for point in ["asked", "given-to-us", "taken", "signing"] {
        let (guest, locks) = (Guest::new(), Locks::new());
        let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        guest.stops_reading();
        let paste = "p".repeat(60_000);
        old.types(&paste);
        old.reads_no_more();
        let pause = Pause::held_at(point);
        let new = pause.of(forced(&guest, &locks)).piped();
        pause.reached();
        new.kill();
        if point == "asked" {
            // Who asked and left has not asked.
            guest.say("undisturbed");
            old.stdout().receives("undisturbed");
            guest.reads_on();
            guest.receives_exactly(&paste);
            continue;
        }
        old.stderr().receives("did not take it");
        guest.reads_on();
        guest.receives_exactly(&paste);
        goes_on(&old, &guest, &locks);
    }
}

#[test]
fn a_newcomer_that_sleeps_too_long_is_told_that_it_was_too_late() {
    for point in ["given-to-us", "taken", "signing"] {
        let (guest, locks) = (Guest::new(), Locks::new());
        let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let pause = Pause::held_at(point);
        let new = pause.of(forced(&guest, &locks)).piped();
        pause.reached();
        old.stderr().receives("did not take it");
        operates(&old, &guest, &locks);
        pause.is_over(&[&new]);
        let told = new.output();
        assert_eq!(told.status, 3, "{told:?}");
        assert!(told.stderr().contains("it waited too long"), "{told:?}");
        goes_on(&old, &guest, &locks);
    }
}

#[test]
fn a_newcomer_that_takes_the_names_after_another_failed_too_loses_them_again() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let (accepting, taken) = (Pause::held_at("accepting"), Pause::held_too_at("taken"));
    let first = taken.of(accepting.of(forced(&guest, &locks))).piped();
    accepting.reached();
    old.stderr().receives("did not take it");
    let given = Pause::held_at("given-to-us");
    let second = given.of(forced(&guest, &locks)).piped();
    given.reached();
    second.kill();
    old.stderr().receives("did not take it");
    accepting.is_over(&[&first]);
    taken.reached();
    until("the names are its own again", || {
        let own = format!("{:>10}\n", old.pid());
        all_names(&guest).iter().all(|it| locks.read(it).unwrap_or_default() == own.as_bytes())
    });
    taken.is_over(&[&first]);
    assert_eq!(first.wait(), 3);
    assert_eq!(locks.names(), all_names(&guest));
    operates(&old, &guest, &locks);
}

#[test]
fn a_newcomer_that_signs_just_when_the_old_operator_gives_up_waiting_does_not_operate_beside_it() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let [late, giving_up] = ["signing", "keeping"].map(Pause::held_at);
    let old = giving_up.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let new = late.of(forced(&guest, &locks)).piped();
    late.reached();
    giving_up.reached();
    late.is_over(&[&new]);
    silence(new.stderr(), Duration::from_millis(100));
    giving_up.is_over(&[&old]);
    assert_eq!(new.wait(), 3);
    goes_on(&old, &guest, &locks);
}

#[test]
fn a_signal_ends_a_newcomer_at_once_and_the_old_operator_goes_on() {
    in_time(|| {
        for signal in [Signal::INT, Signal::TERM] {
            let (guest, locks) = (Guest::new(), Locks::new());
            let pause = Pause::held_at("handing-over");
            let old = pause.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
            let new = forced(&guest, &locks).piped();
            pause.reached();
            let start = Instant::now();
            new.signal(signal);
            assert_eq!(new.wait(), 128 + signal.as_raw());
            took_less_than(Duration::from_secs(1), start);
            pause.is_over(&[&old]);
            goes_on(&old, &guest, &locks);
        }
    });
}

#[test]
fn a_terminal_stays_raw_when_nobody_takes_the_console() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let before = desk.settings();
    let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    let pause = Pause::held_at("taken");
    let new = pause.of(forced(&guest, &locks)).piped();
    pause.reached();
    guest.say("for the operator");
    silence(new.stdout(), Duration::from_millis(50));
    new.kill();
    desk.shows("did not take it");
    desk.shows("for the operator");
    assert!(desk.is_raw());
    desk.types("\x1d.");
    assert_eq!(old.wait(), 0);
    assert_eq!(desk.settings(), before);
    is_as_new(&guest, &locks);
}

#[test]
fn without_a_guard_the_newcomer_clears_the_flag() {
    if crate::harness::missing("strace") {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let no_process =
        ["strace", "-DDD", "-o", "/dev/null", "-e", "inject=clone,clone3:error=EAGAIN"];
    let new = forced(&guest, &locks).under(no_process).piped();
    new.stderr().receives("no guard can be started");
    new.stderr().receives("connected");
    assert_eq!(old.wait(), 4);
    assert!(!is_flagged(&guest));
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 143);
    is_as_new(&guest, &locks);
}

fn is_flagged(guest: &Guest) -> bool {
    let line = crate::harness::Client::asleep(guest.path());
    vconsole::sys::is_exclusive(line.line()).unwrap()
}

#[test]
fn a_newcomer_that_loses_its_guard_sets_the_flag_again_with_another() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let pause = Pause::held_at("taken");
    let new = pause.of(forced(&guest, &locks)).piped();
    pause.reached();
    let guard = crate::guard::awaited_guard_of(&new);
    crate::guard::kill(guard);
    until("it has no guard", || !crate::harness::is_alive(guard));
    pause.is_over(&[&new]);
    new.stderr().receives("connected");
    assert_eq!(old.wait(), 4);
    new.stderr().receives("there is a new one");
    assert!(is_flagged(&guest));
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 143);
    is_as_new(&guest, &locks);
}

#[test]
fn the_session_is_found_where_it_made_its_sockets() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let runtime = tempfile::tempdir().unwrap();
    let [first, second] = ["login", "tmp"].map(|name| runtime.path().join(name));
    let places = std::env::join_paths([&first, &second]).unwrap();
    let of = |program: crate::harness::Program| program.env("VCONSOLE_TEST_RUNTIME", &places);
    std::fs::create_dir(&second).unwrap();
    let old = of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    // Its user logs in.
    std::fs::create_dir(&first).unwrap();
    let new = of(forced(&guest, &locks)).attached_to_pipes();
    assert_eq!(old.wait(), 4);
    // And the other way round: what was made there once is still used by nobody.
    let newest = of(forced(&guest, &locks)).attached_to_pipes();
    assert_eq!(new.wait(), 4);
    newest.signal(Signal::TERM);
    assert_eq!(newest.wait(), 143);
}

#[test]
fn a_newcomer_that_has_no_room_for_the_console_ends_nobody() {
    if missing("prlimit") {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let attach = || Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let (mut old, mut failed, mut for_want_of_room) = (attach(), 0, 0);
    for limit in 5..24 {
        let new = forced(&guest, &locks).args(["--linger", "0"]);
        let output = new.under(["prlimit", &format!("--nofile={limit}:{limit}")]).output();
        if output.stderr().contains("took ") {
            assert_eq!(old.wait(), 4, "{limit}: {output:?}");
            old = attach();
        } else {
            failed += 1;
            for_want_of_room += usize::from(output.stderr().contains("cannot be used: Too many"));
            assert!(!output.stderr().contains("kill "), "{limit}: {output:?}");
            guest.say("mine");
            old.stdout().receives("mine");
            old.stdout().forget();
            assert!(!old.has_ended(), "{limit}: {output:?}");
        }
    }
    assert!(failed > 3 && for_want_of_room > 0, "{failed}, {for_want_of_room}");
}
