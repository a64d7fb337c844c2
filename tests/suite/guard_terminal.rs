//! The terminal of a killed session, where a shell or another session goes on.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::guard::{awaited_guard, is_done, kill};
use super::harness::{
    Guest, Locks, Pause, Program, Terminal, Vconsole, is_alive, missing, not_root, rounds, until,
};
use super::locks::path_name;

/// Types the command into the shell on `terminal`, and gives the session's process number.
fn attached_by_a_shell(terminal: &Terminal, guest: &Guest, locks: &Locks) -> i32 {
    terminal.types(format!(
        "{} attach --lock-dir {} {}\n",
        env!("CARGO_BIN_EXE_vconsole"),
        locks.path().display(),
        guest.path().display()
    ));
    terminal.shows(format!("connected to {}", guest.path().display()));
    let lock = String::from_utf8(locks.read(&path_name(guest)).unwrap()).unwrap();
    lock.trim().parse().unwrap()
}

/// Of two sessions on one terminal the first is stopped, and the second operates there. Whatever `happens`
/// to the first, with this process number, the terminal is the second's.
#[track_caller]
fn leaves_it_alone(happens: impl FnOnce(i32, &Guest, &Locks)) {
    if missing("bash") {
        return;
    }
    let (first, second, locks) = (Guest::new(), Guest::new(), Locks::new());
    let terminal = Terminal::new();
    let bash = Program::new("bash").args(["--norc", "--noprofile", "-i"]).env("PS1", "prompt> ");
    let bash = bash.env("HOME", "/nonexistent").on(&terminal);
    terminal.shows("prompt> ");
    let stopped = attached_by_a_shell(&terminal, &first, &locks);
    let pidfd = pidfd_open(Pid::from_raw(stopped).unwrap(), PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&pidfd, Signal::STOP).unwrap();
    terminal.shows("Stopped");
    terminal.clear();
    attached_by_a_shell(&terminal, &second, &locks);
    terminal.becomes_raw();
    happens(stopped, &first, &locks);
    assert!(terminal.is_raw());
    terminal.types("still raw");
    second.receives("still raw");
    terminal.types("\x1d.");
    terminal.shows("detached");
    terminal.types("exit\r");
    bash.wait();
    locks.become_empty();
}

#[test]
fn a_guard_leaves_a_terminal_alone_that_another_session_uses_by_now() {
    leaves_it_alone(|stopped, _, _| {
        let guard = awaited_guard(stopped);
        kill(stopped);
        is_done(guard);
    });
}

#[test]
fn a_session_leaves_a_terminal_alone_that_another_session_uses_by_now() {
    leaves_it_alone(|stopped, guest, locks| {
        // It is continued, and hands over, in the background.
        let successor = Vconsole::attach(guest).locks(locks).arg("--force").attached_to_pipes();
        until("it has handed over", || !is_alive(stopped));
        successor.signal(Signal::TERM);
        assert_eq!(successor.wait(), 143);
    });
}

#[test]
fn shells_go_on_after_their_session_was_killed() {
    for shell in ["bash", "zsh", "dash"] {
        if super::harness::missing(shell) {
            continue;
        }
        for _ in 0..rounds(3) {
            let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
            let options: &[&str] = match shell {
                "bash" => &["--norc", "--noprofile", "-i"],
                "zsh" => &["-f", "-i"],
                _ => &["-i"],
            };
            let session = Program::new(shell)
                .args(options)
                .env("PS1", "prompt> ")
                .env("HOME", "/nonexistent")
                .env("TERM", "xterm")
                .on(&terminal);
            terminal.shows("prompt> ");
            let command = format!(
                "{} attach --lock-dir {} {}\n",
                env!("CARGO_BIN_EXE_vconsole"),
                locks.path().display(),
                guest.path().display()
            );
            terminal.types(command);
            terminal.shows("connected to");
            let lock = locks.read(&path_name(&guest)).unwrap();
            let pid: i32 = String::from_utf8(lock).unwrap().trim().parse().unwrap();
            let guard = awaited_guard(pid);
            terminal.clear();
            kill(pid);
            is_done(guard);
            terminal.shows("prompt> ");
            terminal.clear();
            // The line editor's own work: a character is taken back, and the line is run.
            terminal.types("echo ab\x7fc$((40+2))\r");
            terminal.shows("ac42");
            locks.become_empty();
            terminal.types("exit\r");
            session.wait();
        }
    }
}

#[test]
fn a_terminal_whose_leader_has_no_number_here_is_set_raw_and_back() {
    if not_root() || missing("unshare") {
        return;
    }
    // Of processes that a pid namespace does not know, the kernel gives the number 0.
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let before = terminal.settings();
    let vconsole = env!("CARGO_BIN_EXE_vconsole");
    let inside = Program::new("unshare").args(["--pid", "--fork", "--kill-child=KILL", vconsole]);
    let session = inside.arg("attach").arg(guest.path()).locks(&locks).on(&terminal);
    terminal.shows("connected to");
    guest.say("hello");
    terminal.shows("hello");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn the_terminal_of_a_viewer_who_takes_control_is_raw_all_the_time() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let pause = Pause::at("claimed");
    let successor = pause.of(Vconsole::attach(&guest).locks(&locks).arg("--read-only")).on(&desk);
    desk.shows("watching");
    desk.types("\x1dfls\r");
    pause.reached();
    assert!(desk.is_raw());
    // It would end a session on a terminal that is not.
    desk.types("\x03");
    successor.fg();
    guest.receives_exactly("ls\r\x03");
    assert_eq!(operator.wait(), 4);
    desk.types("\x1d.");
    assert_eq!(successor.wait(), 0);
}

#[test]
fn the_terminal_of_a_viewer_who_took_control_is_given_back() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let before = desk.settings();
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let successor = Vconsole::attach(&guest).locks(&locks).arg("--read-only").on(&desk);
    desk.shows("watching");
    desk.types("\x1dfls\r");
    guest.receives_exactly("ls\r");
    assert_eq!(operator.wait(), 4);
    desk.types("\x1d.");
    assert_eq!(successor.wait(), 0);
    assert_eq!(desk.settings(), before);
}
