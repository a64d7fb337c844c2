//! Attaching, being there, and leaving by the escape key.

use crate::harness::{Client, Guest, Locks, Terminal, Vconsole, until};

#[test]
fn a_session_gives_everything_back() {
    for leave in ["\x1d.", "\x1dq"] {
        let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
        let before = terminal.settings();
        let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
        assert!(terminal.is_raw());
        assert_ne!(locks.names(), [""; 0], "a lock while it is attached");
        terminal.types("uname\r");
        guest.receives_exactly("uname\r");
        guest.say("Linux\r\n# ");
        terminal.shows("Linux\r\n# ");
        terminal.types(leave);
        assert_eq!(session.wait(), 0);
        assert_eq!(terminal.settings(), before);
        locks.assert_empty();
        guest.receives_exactly("uname\r");
    }
}

#[test]
fn one_session_after_another_operates_the_same_console() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    for round in 0..3 {
        let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
        guest.say(format!("question {round}?"));
        terminal.shows(format!("question {round}?"));
        terminal.types(format!("answer {round}\r"));
        guest.receives(format!("answer {round}\r"));
        terminal.types("\x1d.");
        assert_eq!(session.wait(), 0);
        locks.assert_empty();
    }
}

#[test]
fn the_first_notice_names_the_console_and_the_way_out() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.shows(guest.path().to_str().unwrap());
    terminal.shows("^]");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    terminal.shows("detached");
}

#[test]
fn stdout_gets_the_consoles_bytes_and_nothing_else() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let attach = Vconsole::attach(&guest).locks(&locks).stdout_to(&out);
    let session = attach.attached_on(&terminal);
    guest.say("first\r\n");
    terminal.types("\x1d?\x1ds\x1db\x1dx");
    terminal.shows("no such command");
    guest.say("second");
    until("both are in the file", || std::fs::read(&out).unwrap() == b"first\r\nsecond");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(std::fs::read(&out).unwrap(), b"first\r\nsecond");
    assert!(!terminal.screen_so_far().contains("first"));
}

#[test]
fn quiet_leaves_the_screen_to_the_console() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).arg("-q").locks(&locks).on(&terminal);
    guest.say("just this");
    terminal.shows("just this");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    terminal.ear().receives_exactly("just this");
}

#[test]
fn quiet_mutes_no_answer_to_the_user() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).arg("--quiet").locks(&locks).on(&terminal);
    guest.say("here");
    terminal.shows("here");
    terminal.types("\x1d?");
    terminal.shows("detach");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn all_that_was_printed_before_is_shown() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let boot: Vec<u8> = (0..4096_u32).map(|at| b'!' + u8::try_from(at % 93).unwrap()).collect();
    guest.say(&boot);
    let attach = Vconsole::attach(&guest).arg("-q").locks(&locks);
    let session = attach.on(&terminal);
    terminal.ear().receives_exactly(&boot);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn every_byte_value_is_shown_unchanged() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let every: Vec<u8> = (0..=255).cycle().take(100 * 256).collect();
    let session = Vconsole::attach(&guest).arg("-q").locks(&locks).on(&terminal);
    terminal.becomes_raw();
    guest.say(&every);
    terminal.ear().receives_exactly(&every);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

/// A line that is as the kernel makes it gives a guest its own output as input.
#[test]
fn a_cooked_console_is_made_raw_without_a_loss_and_stays_raw() {
    let (guest, locks, terminal) = (Guest::cooked(), Locks::new(), Terminal::new());
    guest.say("half a line, pending");
    guest.receives_exactly("half a line, pending");
    guest.ear().forget();
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.shows("half a line, pending");
    guest.say("login: ");
    terminal.shows("login: ");
    terminal.types("root\r");
    guest.receives_exactly("root\r");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert!(!guest.echoes());
    guest.say("later");
    Client::of(guest.path()).shows("later");
    guest.receives_exactly("root\r");
}

#[test]
fn a_cooked_console_stays_raw_when_a_signal_ends_the_session() {
    let (guest, locks, terminal) = (Guest::cooked(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    session.signal(rustix::process::Signal::TERM);
    assert_eq!(session.wait(), 143);
    assert!(!guest.echoes());
}

#[test]
fn the_guest_learns_the_windows_size_and_each_new_one() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    terminal.set_size(50, 132);
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    until("the size at the start", || guest.size() == (50, 132));
    terminal.set_size(25, 81);
    until("the new size", || guest.size() == (25, 81));
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(guest.size(), (25, 81));
}

#[test]
fn the_window_counts_where_only_stdout_is_one() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    terminal.set_size(31, 99);
    let attach = Vconsole::attach(&guest).args(["--linger", "forever"]).locks(&locks);
    let session = attach.stdin_from("/dev/null").attached_on(&terminal);
    until("the size at the start", || guest.size() == (31, 99));
    session.signal(rustix::process::Signal::TERM);
    assert_eq!(session.wait(), 143);
}

#[test]
fn a_window_without_a_size_does_not_change_the_consoles() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    terminal.set_size(0, 0);
    Client::of(guest.path()).set_size(40, 100);
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.types("x");
    guest.receives("x");
    assert_eq!(guest.size(), (40, 100));
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn what_was_typed_ahead_is_sent() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    terminal.types("typed ahead");
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    guest.receives_exactly("typed ahead");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn a_symlink_leads_to_its_console() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("serial0");
    std::os::unix::fs::symlink(guest.path(), &link).unwrap();
    let session = Vconsole::attach(&link).locks(&locks).attached_on(&terminal);
    terminal.types("x");
    guest.receives("x");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    locks.assert_empty();
}

#[test]
fn two_guests_on_two_terminals_do_not_mix() {
    let locks = Locks::new();
    let stages = [(); 2].map(|()| (Guest::new(), Terminal::new()));
    let sessions = stages
        .each_ref()
        .map(|(guest, terminal)| Vconsole::attach(guest).locks(&locks).attached_on(terminal));
    for ((guest, terminal), name) in stages.iter().zip(["first", "second"]) {
        terminal.types(format!("to the {name}"));
        guest.receives_exactly(format!("to the {name}"));
        guest.say(format!("from the {name}"));
        terminal.shows(format!("from the {name}"));
    }
    assert!(!stages[0].1.screen_so_far().contains("from the second"));
    for ((_, terminal), session) in stages.iter().zip(sessions) {
        terminal.types("\x1d.");
        assert_eq!(session.wait(), 0);
    }
    locks.assert_empty();
}
