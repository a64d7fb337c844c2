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
        guest.receives("typed");
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
    guest.receives("typed");
}

/// A daemon that opens the console again whenever it was hung up, `times` times.
fn one_who_comes_back(guest: &Guest, times: usize) -> Piped {
    let script =
        "for i in $(seq \"$2\"); do cat \"$1\" >/dev/null; done; echo over; exec sleep 1000";
    let daemon = Program::new("sh").args(["-c", script, "sh"]).arg(guest);
    let daemon = daemon.arg(times.to_string()).piped();
    until("it has the console", || !openers(guest).is_empty());
    daemon
}

/// The processes that have the console open, but ours.
fn openers(guest: &Guest) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_it = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut paths = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        *pid != std::process::id() && paths.any(|path| path == guest.path())
    };
    pids.filter(has_it).map(u32::cast_signed).collect()
}

/// The `cat` that has the console open.
fn cat(guest: &Guest) -> Option<i32> {
    let is_cat = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "cat\n")
    };
    openers(guest).into_iter().rfind(is_cat)
}

/// Lets a session that has hung the console up go on when another `cat` than `before` has it open, which
/// it returns.
fn goes_on_when_it_is_back(hung_up: &Pause, guest: &Guest, before: Option<i32>) -> Option<i32> {
    let stopped = hung_up.reached();
    let mut back = None;
    until("it is back", || {
        back = cat(guest).filter(|pid| Some(*pid) != before);
        back.is_some()
    });
    stopped.signal(Signal::CONT);
    back
}

#[test]
fn who_comes_back_after_a_hang_up_is_hung_up_again() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new());
    let daemon = one_who_comes_back(&guest, 3);
    let hung_up = Pause::at("hung-up");
    let first = cat(&guest);
    let session = hung_up.of(forced(&guest, &locks)).piped();
    let second = goes_on_when_it_is_back(&hung_up, &guest, first);
    goes_on_when_it_is_back(&hung_up, &guest, second);
    let stopped = hung_up.reached();
    daemon.stdout().receives("over");
    hung_up.is_over(&[&stopped]);
    session.stderr().receives("connected to");
    let told = String::from_utf8(session.stderr().so_far()).unwrap();
    assert_eq!(told.matches("evicted cat (pid ").count(), 3, "{told}");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
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
    session.stderr().receives("evicted sleep (pid ");
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
    daemon.stdout().receives("open");
    let opener = openers(&guest).remove(0);
    let opener = Process::find(Pid::from_raw(opener).unwrap()).unwrap();
    let (seen, hung_up) = (Pause::at("victim-looked-at"), Pause::held_too_at("hung-up"));
    let session = hung_up.of(seen.of(forced(&guest, &locks))).piped();
    seen.reached().signal(Signal::CONT);
    let stopped = hung_up.reached();
    daemon.stdout().receives("again");
    hung_up.is_over(&[&stopped]);
    // It has it again, at the first look.
    seen.reached().signal(Signal::CONT);
    let stopped = seen.reached();
    opener.signal(Signal::KILL);
    until("it has ended", || opener.has_ended());
    seen.is_over(&[&stopped]);
    session.stderr().receives("evicted sh (pid ");
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
    let hung_up = Pause::at("hung-up");
    let mut cat = cat(&guest);
    let session = hung_up.of(forced(&guest, &locks)).piped();
    for _ in 0..3 {
        cat = goes_on_when_it_is_back(&hung_up, &guest, cat);
    }
    assert_eq!(session.wait(), 3);
    session.stderr().receives("it came back each time");
    session.stderr().receives("cat (pid ");
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
        guest.receives_exactly("answer");
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
    session.stderr().receives("going on without flock");
    assert!(!open_to(SOMEBODY, &guest));
    session.signal(Signal::KILL);
    locks.become_empty();
    until("the flag is gone", || open_to(SOMEBODY, &guest));
}

/// A daemon that has the console open, and this as its standard input.
fn daemon_reading(input: fs::File, guest: &Guest) -> std::process::Child {
    let console = fs::File::options().read(true).write(true).open(guest.path()).unwrap();
    let mut command = std::process::Command::new("setsid");
    let daemon = command.args(["sleep", "1000"]).stdin(input).stdout(console).spawn().unwrap();
    until("the daemon runs", || {
        let name = fs::read_to_string(format!("/proc/{}/comm", daemon.id()));
        name.is_ok_and(|name| name == "sleep\n")
    });
    daemon
}

#[test]
fn a_daemon_with_a_terminal_at_which_nobody_sits_gets_no_signal() {
    if not_root() {
        return;
    }
    let (guest, locks, mut gone) = (console(), Locks::new(), Terminal::new());
    let input = fs::File::open(gone.path()).unwrap();
    let mut of_a_dead_window = daemon_reading(input, &guest);
    gone.vanishes();
    // As init starts one, where the machine has such a node.
    let input =
        fs::File::open("/dev/console").unwrap_or_else(|_| fs::File::open("/dev/null").unwrap());
    let mut of_init = daemon_reading(input, &guest);
    let output = forced(&guest, &locks).output();
    assert_eq!(output.status, 0, "{output:?}");
    for daemon in [&mut of_a_dead_window, &mut of_init] {
        assert!(daemon.try_wait().unwrap().is_none(), "it was ended: {output:?}");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
}
