//! `host --attach`.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Locks, Program, Terminal, Vconsole, in_time, not_root, took_less_than};

/// `host --attach`, which takes its locks in the test's own directory.
fn host(locks: &Locks) -> Program {
    Vconsole::host().arg("--attach").env("VCONSOLE_LOCK_DIR", locks.path())
}

#[test]
fn a_command_on_the_users_own_terminal_at_once() {
    let (terminal, locks) = (Terminal::new(), Locks::new());
    let before = terminal.settings();
    let host = host(&locks).running(["sh", "-c", "echo what is it; read -r it; exit $it"]);
    let host = host.on(&terminal);
    terminal.shows("what is it\r\n");
    terminal.types("7\r");
    assert_eq!(host.wait(), 7);
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}

#[test]
fn a_command_that_is_quick_is_shown_all_the_same() {
    let (terminal, locks) = (Terminal::new(), Locks::new());
    let host = host(&locks).running(["sh", "-c", "echo hi; exit 3"]).on(&terminal);
    terminal.shows("hi\r\n");
    assert_eq!(host.wait(), 3);
}

#[test]
fn leaving_hangs_the_command_up() {
    let (terminal, locks) = (Terminal::new(), Locks::new());
    let before = terminal.settings();
    let notes = super::Notes::new();
    let gone = notes.path("gone");
    let script =
        format!("trap ': >{gone}; exit' HUP; echo ready; while :; do sleep 9 & wait; done");
    let host = host(&locks).running(["sh", "-c", &script]).on(&terminal);
    terminal.shows("ready");
    terminal.types("\x1d.");
    assert_eq!(host.wait(), 0);
    notes.wait_for("gone");
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}

#[test]
fn the_path_is_not_printed() {
    let (terminal, locks) = (Terminal::new(), Locks::new());
    let notes = super::Notes::new();
    let host = host(&locks).running(["sh", "-c", "echo plain"]).stdout_to(notes.path("out"));
    assert_eq!(host.on(&terminal).wait(), 0);
    assert_eq!(notes.read("out"), b"plain\r\n");
}

#[test]
fn when_attach_is_refused_its_status_is_passed_on() {
    let (terminal, locks) = (Terminal::new(), Locks::new());
    let host = host(&locks).env("VCONSOLE_LOCKS", "no such mode").running(["sleep", "1000"]);
    assert_eq!(host.on(&terminal).wait(), 2);
}

#[test]
fn a_signal_ends_all_three_and_the_terminal_is_as_it_was() {
    let (terminal, locks) = (Terminal::new(), Locks::new());
    let before = terminal.settings();
    let host = host(&locks).running(["sh", "-c", "echo ready; sleep 1000"]).on(&terminal);
    terminal.shows("ready");
    host.signal(Signal::TERM);
    assert_eq!(host.wait(), 143);
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}

#[test]
fn an_ordinary_users_shell_ends_at_once_and_nothing_of_it_is_lost() {
    in_time(|| {
        if not_root() {
            return;
        }
        // The session has the console for itself alone, and nobody but root can open it then.
        let (terminal, locks) = (Terminal::new(), Locks::new());
        let script = "read -r go; seq 2000; exit 3";
        let host = host(&locks).as_user(65534, 65534).running(["sh", "-c", script]).on(&terminal);
        terminal.shows("connected");
        terminal.types("\r");
        let start = Instant::now();
        assert_eq!(host.wait(), 3);
        took_less_than(Duration::from_secs(1), start);
        let numbers: Vec<_> = (1..=2000).map(|number| number.to_string()).collect();
        terminal.shows(numbers.join("\r\n"));
    });
}
