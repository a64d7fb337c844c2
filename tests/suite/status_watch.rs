//! `status --watch`: redraws in place, and ends as it is asked to.

use std::fs::File;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::harness::{Guest, Locks, Program, Terminal, Vconsole, until};

fn watch(guest: &Guest, locks: &Locks) -> Program {
    Vconsole::status().locks(locks).arg("--watch=100ms").arg(guest).env("NO_COLOR", "1")
}

#[test]
fn on_a_terminal_it_shows_in_place_what_changes_and_q_ends_it() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let before = terminal.settings();
    let session = watch(&guest, &locks).on(&terminal);
    terminal.shows("free");
    terminal.becomes_raw();
    let line = File::options().read(true).write(true).open(guest.path()).unwrap();
    let mut sleep = Command::new("sleep").arg("1000").stdin(line).spawn().unwrap();
    terminal.shows("held");
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    terminal.clear();
    terminal.shows("free");
    let screen = terminal.screen_so_far();
    assert!(screen.contains("\x1b[H") && !screen.contains("\x1b[2J"), "no flicker: {screen:?}");
    terminal.types("q");
    assert_eq!(session.wait(), 0);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_pause_beyond_every_clock_is_a_very_long_one() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let watch = Vconsole::status().locks(&locks).arg("--watch=9223372036854775807s").arg(&guest);
    let session = watch.piped();
    session.stdout().receives("free");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
}

#[test]
fn ctrl_c_and_signals_end_it_and_give_the_terminal_back() {
    let (guest, locks) = (Guest::new(), Locks::new());
    for (signal, code) in
        [(None, 130), (Some(Signal::TERM), 143), (Some(Signal::HUP), 129), (Some(Signal::INT), 130)]
    {
        let terminal = Terminal::new();
        let before = terminal.settings();
        let session = watch(&guest, &locks).on(&terminal);
        terminal.shows("free");
        match signal {
            Some(signal) => session.signal(signal),
            None => terminal.types("\x03"),
        }
        assert_eq!(session.wait(), code);
        assert_eq!(terminal.settings(), before);
    }
}

#[test]
fn ctrl_z_stops_it_with_the_terminal_as_it_was_and_fg_goes_on() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let before = terminal.settings();
    let session = watch(&guest, &locks).on(&terminal);
    terminal.shows("free");
    terminal.becomes_raw();
    terminal.types("\x1a");
    session.is_stopped();
    assert_eq!(terminal.settings(), before);
    terminal.clear();
    session.fg();
    terminal.shows("free");
    terminal.becomes_raw();
    terminal.types("q");
    assert_eq!(session.wait(), 0);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_terminal_that_takes_nothing_keeps_nobody_from_leaving() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = watch(&guest, &locks).on(&terminal);
    terminal.shows("free");
    terminal.freezes();
    // It goes on looking only when the last table was taken.
    session.reads_no_more();
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    terminal.thaws();
}

#[test]
fn in_a_pipe_it_prints_one_table_or_one_line_of_json_after_the_other() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let session = watch(&guest, &locks).piped();
    let tables = || String::from_utf8_lossy(&session.stdout().so_far()).matches("CONSOLE").count();
    until("there are three tables", || tables() >= 3);
    assert!(!String::from_utf8_lossy(&session.stdout().so_far()).contains('\x1b'));
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);

    let mut session = watch(&guest, &locks).arg("--json").piped();
    let lines = || String::from_utf8(session.stdout().so_far()).unwrap();
    until("there are three lines", || lines().lines().count() > 3);
    for line in lines().lines().take(3) {
        let document: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(document["consoles"][0]["state"], "free");
    }
    session.breaks_stdout();
    assert_eq!(session.wait(), 141);
}

#[test]
fn a_wrong_time_is_wrong_usage() {
    let output = Vconsole::status().arg("--watch=soon").output();
    assert_eq!(output.status, 2, "{output:?}");
    let done = Command::new(env!("CARGO_BIN_EXE_vconsole"))
        .args(["status", "--names", "--watch"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert_eq!(done.unwrap().code(), Some(2));
}
