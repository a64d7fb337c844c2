//! The escape key: found anywhere, and always obeyed.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Guest, Locks, Session, Terminal, Vconsole, in_time, lies_between, took_less_than, until,
};

/// How long the user may have to wait for the way out.
const SECOND: Duration = Duration::from_secs(1);

/// No more memory than this, whatever is stuck.
const BOUND: u64 = 16 << 20;

#[track_caller]
fn ends_within_a_second(session: &Session) -> i32 {
    let start = Instant::now();
    until("it has ended", || session.has_ended());
    took_less_than(SECOND, start);
    session.wait()
}

#[test]
fn what_was_typed_before_it_is_delivered() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.types("sync; reboot\r\x1d.");
    assert_eq!(session.wait(), 0);
    guest.receives_exactly("sync; reboot\r");
}

#[test]
fn commands_in_the_middle_of_a_paste_are_obeyed_and_not_sent() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.types("one\x1dbtwo\x1dzthree\x1d?four\x1dq");
    assert_eq!(session.wait(), 0);
    guest.receives_exactly("onetwothreefour");
    for answer in ["carries none", "no such command", "this help"] {
        terminal.shows(answer);
    }
}

#[test]
fn it_may_come_apart_from_its_command() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    for text in ["one", "two", "three"] {
        // Together they are one read, so that the command comes with another.
        terminal.types(format!("{text}\x1d"));
        guest.receives(text);
        terminal.types("z");
        terminal.shows("no such command");
        terminal.clear();
    }
    terminal.types("four\x1d");
    guest.receives_exactly("onetwothreefour");
    terminal.types(".");
    assert_eq!(session.wait(), 0);
    guest.receives_exactly("onetwothreefour");
}

#[test]
fn twice_it_sends_itself_once() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.types("\x1d\x1d");
    guest.receives_exactly("\x1d");
    terminal.types(".a\x1d\x1d\x1d\x1d.b");
    guest.receives_exactly("\x1d.a\x1d\x1d.b");
    terminal.types("\x1d\x1d\x1d.");
    assert_eq!(session.wait(), 0);
    guest.receives_exactly("\x1d.a\x1d\x1d.b\x1d");
}

#[test]
fn ctrl_may_be_held_down() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.types("\x1d\x02");
    terminal.shows("carries none");
    terminal.types("\x1d\x13");
    terminal.shows(format!("pid {}", session.pid()));
    terminal.types("\x1d\x11");
    assert_eq!(session.wait(), 0);
    guest.receives_exactly("");
}

#[test]
fn help_names_every_command() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.clear();
    terminal.types("\x1d?");
    for line in [
        ". or q  detach",
        "?       show this help",
        "s       show the state and the viewers",
        "b       send a break",
        "f       take control, if you only watch",
        "^]      send the escape key itself",
    ] {
        terminal.shows(line);
    }
    // Every command of the man page is in the help.
    for (keys, _) in vconsole::key_commands() {
        assert!(terminal.screen_so_far().contains(&format!("{keys:<7} ")), "{keys}");
    }
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    guest.receives_exactly("");
}

#[test]
fn the_state_names_the_console_its_operator_and_its_locks() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.types("12345");
    guest.receives("12345");
    terminal.clear();
    terminal.types("\x1ds");
    terminal.shows(guest.path().to_str().unwrap());
    terminal.shows(format!("pid {}", session.pid()));
    terminal.shows(locks.names().first().unwrap());
    terminal.shows("5 to it");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    guest.receives_exactly("12345");
}

#[test]
fn a_break_on_a_pty_is_said_not_to_arrive() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.types("\x1db");
    terminal.shows("a PTY carries none");
    terminal.types("still here");
    guest.receives_exactly("still here");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn an_unknown_command_sends_nothing_and_is_shown_safely() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    for key in ["x", "\r", "\x1b", "\u{9b}", "\x03"] {
        terminal.clear();
        terminal.types(format!("\x1d{key}"));
        terminal.shows("no such command");
        assert!(!terminal.screen_so_far().contains('\x1b'));
    }
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    // The second byte of U+009B in UTF-8 is no part of the command.
    guest.receives_exactly("\u{9b}".as_bytes().split_at(1).1);
}

#[test]
fn alone_it_is_explained_after_a_second_and_still_waits_for_its_command() {
    in_time(|| {
        let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
        let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
        terminal.clear();
        let start = Instant::now();
        terminal.types("\x1d");
        terminal.shows("^]");
        let took = start.elapsed();
        lies_between(SECOND, SECOND * 3, took);
        terminal.types("z");
        terminal.shows("no such command");
        terminal.types("\x1d");
        terminal.clear();
        terminal.shows("^]");
        terminal.types("\x1d");
        guest.receives_exactly("\x1d");
        terminal.types("\x1d.");
        assert_eq!(session.wait(), 0);
    });
}

#[test]
fn another_key_leaves_the_default_to_the_guest() {
    for name in ["^A", "^a", "\x01"] {
        let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
        let attach = Vconsole::attach(&guest).args(["--escape", name]).locks(&locks);
        let session = attach.attached_on(&terminal);
        terminal.shows("^A");
        terminal.types("\x1d.\x01\x01");
        guest.receives_exactly("\x1d.\x01");
        terminal.types("\x01.");
        assert_eq!(session.wait(), 0);
    }
}

#[test]
fn without_one_every_byte_is_the_guests() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let before = terminal.settings();
    let attach = Vconsole::attach(&guest).args(["-e", "none"]).locks(&locks);
    let session = attach.attached_on(&terminal);
    let every: Vec<u8> = (0..=255).chain(*b"\x1d.\x1dq").collect();
    terminal.types(&every);
    guest.receives_exactly(&every);
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_key_that_is_none_is_wrong_usage() {
    for key in ["", "a", "^", "^1", "^]]", "^ä", "None", "~"] {
        let (guest, locks, terminal) = (Guest::cooked(), Locks::new(), Terminal::new());
        let attach = Vconsole::attach(&guest).arg(format!("--escape={key}")).locks(&locks);
        let session = attach.on(&terminal);
        assert_eq!(session.wait(), 2, "{key:?}");
        terminal.shows("--escape");
        locks.assert_empty();
        assert!(guest.echoes(), "the console was touched");
    }
}

#[test]
fn every_other_byte_typed_arrives_unchanged() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    let all_but_it = (0..=255).filter(|&byte| byte != 0x1d);
    let typed: Vec<u8> = all_but_it.cycle().take(1 << 20).collect();
    terminal.types(&typed);
    guest.receives_exactly(&typed);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn a_guest_that_reads_nothing_keeps_nobody() {
    in_time(|| {
        for stuck in [0, 300_000] {
            let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
            let before = terminal.settings();
            let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
            guest.stops_reading();
            terminal.types(vec![b'x'; stuck]);
            terminal.types("\x1d.");
            assert_eq!(ends_within_a_second(&session), 0);
            assert_eq!(terminal.settings(), before);
            locks.assert_empty();
        }
    });
}

#[test]
fn a_guest_that_reads_nothing_keeps_nobody_from_an_answer() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    guest.stops_reading();
    let paste: Vec<u8> = (b'a'..=b'z').cycle().take(300_000).collect();
    terminal.types(&paste);
    terminal.types("\x1d?");
    terminal.shows("this help");
    guest.say("still printing");
    terminal.shows("still printing");
    guest.reads_on();
    guest.receives_exactly(&paste);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

/// How a terminal is stuck.
enum Stuck {
    NobodyReads,
    Frozen,
}

#[track_caller]
fn leaves_a_stuck_terminal(how: &Stuck, leave: impl Fn(&Terminal, &Session), status: i32) {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let before = terminal.settings();
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    match how {
        Stuck::NobodyReads => terminal.is_stuck(),
        Stuck::Frozen => terminal.freezes(),
    }
    let flood = guest.floods();
    flood.pours(10_000);
    flood.gets_stuck();
    let peak = session.peak_memory();
    assert!(peak < BOUND, "{peak} bytes");
    leave(&terminal, &session);
    assert_eq!(ends_within_a_second(&session), status);
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}

#[test]
fn a_terminal_that_nobody_reads_keeps_nobody() {
    in_time(|| {
        leaves_a_stuck_terminal(&Stuck::NobodyReads, |terminal, _| terminal.types("\x1d."), 0);
    });
}

#[test]
fn a_frozen_terminal_keeps_nobody() {
    in_time(|| {
        leaves_a_stuck_terminal(&Stuck::Frozen, |terminal, _| terminal.types("\x1d."), 0);
    });
}

#[test]
fn a_stuck_terminal_does_not_hold_back_a_signal() {
    in_time(|| {
        for how in [Stuck::NobodyReads, Stuck::Frozen] {
            leaves_a_stuck_terminal(&how, |_, session| session.signal(Signal::TERM), 143);
        }
    });
}

#[test]
fn a_terminal_that_was_stuck_loses_nothing() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).arg("-q").locks(&locks).on(&terminal);
    terminal.becomes_raw();
    terminal.freezes();
    let text: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| guest.say(&text));
        terminal.types("typed meanwhile");
        guest.receives_exactly("typed meanwhile");
        terminal.thaws();
        terminal.ear().receives_exactly(&text);
    });
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}
