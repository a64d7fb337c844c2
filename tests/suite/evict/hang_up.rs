//! What a hang-up does, and to whom.

use std::fs;

use rustix::process::{Pid, Signal};

use super::super::harness::{
    Bystander, Client, Guest, Locks, Pause, Piped, Process, Program, SOMEBODY, Terminal, Vconsole,
    missing, not_root, rounds, until,
};
use super::{console, daemon_with_flock, forced, open_to};

#[test]
fn what_the_guest_prints_during_a_hang_up_does_not_come_back_to_it() {
    if not_root() {
        return;
    }
    for _ in 0..rounds(10) {
        let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
        let _daemon = Bystander::daemon_with_open(guest.path());
        let flood = guest.floods();
        let session = forced(&guest, &locks).on(&terminal);
        terminal.shows("no play");
        drop(flood);
        terminal.types("typed");
        guest.hears("typed");
        let heard = guest.ear().so_far();
        assert_eq!(heard.len(), "typed".len(), "{:?}...", heard.get(..80));
        terminal.types("\x1d.");
        assert_eq!(session.wait(), 0);
    }
}

#[test]
fn a_line_whose_output_was_left_stopped_goes_on() {
    // As one leaves it that is killed in the middle of a hang-up.
    let (guest, locks) = (Guest::new(), Locks::new());
    let line = fs::File::options().read(true).write(true).open(guest.path()).unwrap();
    rustix::termios::tcflow(&line, rustix::termios::Action::OOff).unwrap();
    drop(line);
    let session = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    session.types("typed");
    guest.hears("typed");
}

/// A daemon that opens the console again whenever it was hung up, `times` times.
fn one_who_comes_back(guest: &Guest, times: usize) -> Piped {
    let script =
        "for i in $(seq \"$2\"); do cat \"$1\" >/dev/null; done; echo over; exec sleep 1000";
    let daemon = Program::new("sh").args(["-c", script, "sh"]).arg(guest);
    let daemon = daemon.arg(times.to_string()).piped();
    let census = || vconsole::process::Openers::of(device(guest)).processes;
    until("it has the console", || !census().is_empty());
    daemon
}

fn device(guest: &Guest) -> vconsole::console::Device {
    vconsole::console::Device::of(&fs::metadata(guest.path()).unwrap()).unwrap()
}

#[test]
fn who_comes_back_after_a_hang_up_is_hung_up_again() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let daemon = one_who_comes_back(&guest, 3);
    let session = forced(&guest, &locks).attached_on(&terminal);
    daemon.stdout().hears("over");
    assert_eq!(terminal.screen_so_far().matches("evicted cat (pid ").count(), 3);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn who_ends_while_it_is_seen_whether_it_has_let_go_is_named_all_the_same() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let daemon = Bystander::daemon_with_open(guest.path());
    let pause = Pause::at("victim-looked-at");
    let session = pause.of(forced(&guest, &locks)).piped();
    // Once before the hang-up, and once after it.
    pause.reached().signal(Signal::CONT);
    let stopped = pause.reached();
    drop(daemon);
    pause.is_over(&[&stopped]);
    session.stderr().hears("evicted sleep (pid ");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
}

#[test]
fn who_comes_back_in_no_time_and_ends_then_is_named_all_the_same() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    // No leader of a session, whose terminal the console would be.
    let script =
        "(exec 3<\"$1\"; echo open; read it <&3; exec 3<\"$1\"; echo again; exec sleep 1000); :";
    let daemon = Program::new("sh").args(["-c", script, "sh"]).arg(&guest).piped();
    daemon.stdout().hears("open");
    let opener = vconsole::process::Openers::of(device(&guest)).processes.remove(0).pid;
    let opener = Process::find(Pid::from_raw(opener).unwrap()).unwrap();
    let (seen, hung_up) = (Pause::at("victim-looked-at"), Pause::held_too_at("hung-up"));
    let session = hung_up.of(seen.of(forced(&guest, &locks))).piped();
    seen.reached().signal(Signal::CONT);
    let stopped = hung_up.reached();
    daemon.stdout().hears("again");
    hung_up.is_over(&[&stopped]);
    // It has it again, at the first look.
    seen.reached().signal(Signal::CONT);
    let stopped = seen.reached();
    opener.signal(Signal::KILL);
    until("it has ended", || opener.has_ended());
    seen.is_over(&[&stopped]);
    session.stderr().hears("evicted sh (pid ");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
}

#[test]
fn who_comes_back_again_and_again_is_refused() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let daemon = one_who_comes_back(&guest, 1000);
    let output = forced(&guest, &locks).output();
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("it came back each time"), "{output:?}");
    assert!(output.stderr().contains("cat (pid "), "{output:?}");
    assert!(!daemon.has_ended());
    locks.assert_empty();
}

#[test]
fn killed_in_the_middle_of_a_hang_up_it_leaves_a_line_that_goes_on() {
    if not_root() {
        return;
    }
    for point in ["hanging-up", "hung-up"] {
        let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
        let daemon = Bystander::daemon_with_open(guest.path());
        let pause = Pause::at(point);
        let session = pause.of(forced(&guest, &locks)).on(&terminal);
        pause.reached();
        session.kill();
        locks.become_empty();
        until("the flag is gone", || open_to(SOMEBODY, &guest));
        guest.say("no echo");
        let client = Client::of(guest.path());
        client.shows("no echo");
        client.types("answer");
        guest.hears_exactly("answer");
        drop(daemon);
    }
}

#[test]
fn who_goes_on_without_flock_leaves_no_flag_when_it_is_killed() {
    if not_root() || missing("flock") {
        return;
    }
    let (guest, locks) = (console(), Locks::new());
    let _daemon = daemon_with_flock(&guest);
    let session = Vconsole::attach(&guest).locks(&locks).arg("--force").attached_to_pipes();
    session.stderr().hears("going on without flock");
    assert!(!open_to(SOMEBODY, &guest));
    session.signal(Signal::KILL);
    locks.become_empty();
    until("the flag is gone", || open_to(SOMEBODY, &guest));
}
