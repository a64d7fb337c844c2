//! The ways out that nobody chose: signals, a bug, and whoever is gone.

use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::Signal;

use crate::harness::{Guest, Locks, Program, Session, Settings, Terminal, Vconsole, rounds, until};

/// What a session that was idle may cost, until its end.
const LITTLE: Duration = Duration::from_millis(50);

/// A guest, a lock directory and a terminal.
fn stage() -> (Guest, Locks, Terminal) {
    (Guest::new(), Locks::new(), Terminal::new())
}

/// The session ended; the terminal is as before, no lock is left, and the next one has the console.
#[track_caller]
fn left_nothing_behind(guest: &Guest, locks: &Locks, terminal: &Terminal, before: &Settings) {
    assert_eq!(&terminal.settings(), before);
    locks.assert_empty();
    let next = Vconsole::attach(guest).locks(locks).attached_on(terminal);
    terminal.types("next\x1d.");
    assert_eq!(next.wait(), 0);
    guest.receives("next");
}

/// It has ended, and cost little since it had used as much processor time as it had at its start: that
/// is as much as there are processes to look at.
#[track_caller]
fn cost_little(session: &Session, at_its_start: Duration) {
    let used = session.cpu_time().saturating_sub(at_its_start);
    assert!(used < LITTLE, "it used {used:?} of processor time");
}

#[test]
fn a_signal_ends_the_session_and_leaves_nothing_behind() {
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
        let (guest, locks, terminal) = stage();
        let before = terminal.settings();
        let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
        terminal.types("x");
        guest.receives("x");
        session.signal(signal);
        assert_eq!(session.wait(), 128 + signal.as_raw());
        terminal.shows("ended by SIG");
        left_nothing_behind(&guest, &locks, &terminal, &before);
    }
}

#[test]
fn a_signal_at_any_moment_leaves_nothing_behind() {
    let (guest, locks, terminal) = stage();
    let before = terminal.settings();
    for round in 0..rounds(30) {
        let session = Vconsole::attach(&guest).locks(&locks).on(&terminal);
        let moment = u64::try_from(round).unwrap() * 977 % 12_000;
        std::thread::sleep(Duration::from_micros(moment));
        session.signal(Signal::TERM);
        session.signal(Signal::INT);
        let status = session.wait();
        assert!([143, 130].contains(&status), "status {status} after {moment} us");
        assert_eq!(terminal.settings(), before, "after {moment} us");
        locks.assert_empty();
    }
    left_nothing_behind(&guest, &locks, &terminal, &before);
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::TSTP] {
        let (guest, locks, terminal) = stage();
        let attach = Vconsole::attach(&guest).locks(&locks).ignoring(signal);
        let session = attach.attached_on(&terminal);
        session.signal(signal);
        terminal.types("still here");
        guest.receives("still here");
        terminal.types("\x1d.");
        assert_eq!(session.wait(), 0, "{signal:?}");
    }
}

#[test]
fn a_bug_leaves_nothing_behind_and_can_be_read() {
    let (guest, locks, terminal) = stage();
    let before = terminal.settings();
    let attach = Vconsole::attach(&guest).locks(&locks).env("VCONSOLE_TEST_PANIC", "relay");
    assert_eq!(attach.on(&terminal).wait(), 101);
    terminal.shows("panicked at");
    terminal.shows("asked to panic");
    let screen = terminal.screen_so_far();
    let stairs = screen.split_inclusive('\n').find(|line| !line.ends_with("\r\n"));
    assert_eq!(stairs, None, "a line that the next does not begin under");
    left_nothing_behind(&guest, &locks, &terminal, &before);
}

#[test]
fn a_guest_that_hangs_up_ends_the_session_at_once() {
    let (mut guest, locks, terminal) = stage();
    let before = terminal.settings();
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    let start = session.cpu_time();
    guest.say("reboot: Power down\r\n");
    terminal.shows("reboot: Power down\r\n");
    guest.hang_up();
    assert_eq!(session.wait(), 5);
    cost_little(&session, start);
    terminal.shows("hung up");
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}

#[test]
fn all_that_was_read_is_printed_after_a_hang_up_however_long_the_reader_takes() {
    let (mut guest, locks) = (Guest::new(), Locks::new());
    let piped = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let start = piped.cpu_time();
    piped.stdout().pause();
    let before = piped.bytes_read();
    // More than the pipe holds: a part of it is in the session when the guest is gone.
    let text: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    guest.say(&text);
    crate::harness::until("all is read", || piped.bytes_read() - before >= 100_000);
    guest.hang_up();
    // For as long as it might spin.
    std::thread::sleep(Duration::from_millis(300));
    assert!(!piped.has_ended());
    piped.stdout().resume();
    let output = piped.output();
    assert_eq!(output.status, 5);
    assert!(output.stdout == text, "{} of {} bytes", output.stdout.len(), text.len());
    cost_little(&piped, start);
    locks.assert_empty();
}

/// Of what is on its way at that moment the kernel throws away up to 4095 bytes, and may give a reader
/// what came after them (a bare loop of read: 39 of 3000 times). What was shown before stays.
#[test]
fn a_guest_that_hangs_up_in_the_middle_of_a_flood_ends_the_session() {
    let (mut guest, locks, terminal) = stage();
    let before = terminal.settings();
    let text: Vec<u8> = (0..50_000).flat_map(|line| format!("{line}\n").into_bytes()).collect();
    let session = Vconsole::attach(&guest).arg("-q").locks(&locks).on(&terminal);
    terminal.becomes_raw();
    guest.say(&text);
    guest.hang_up();
    assert_eq!(session.wait(), 5);
    // More than that is not on its way.
    terminal.ear().receives(&text[..text.len() - 100_000]);
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}

#[test]
fn a_hang_up_on_a_stuck_terminal_leaves_the_way_out_open() {
    let (mut guest, locks, terminal) = stage();
    let before = terminal.settings();
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.freezes();
    let flood = guest.floods();
    flood.gets_stuck();
    drop(flood);
    guest.hang_up();
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}

#[test]
fn a_terminal_that_vanishes_ends_the_session() {
    for ignored in [None, Some(Signal::HUP)] {
        let (guest, locks, mut terminal) = stage();
        let attach = Vconsole::attach(&guest).locks(&locks);
        let attach = ignored.into_iter().fold(attach, Program::ignoring);
        let session = attach.attached_on(&terminal);
        let start = session.cpu_time();
        terminal.vanishes();
        assert_eq!(session.wait(), 129, "{ignored:?} ignored");
        cost_little(&session, start);
        locks.assert_empty();
        let terminal = Terminal::new();
        left_nothing_behind(&guest, &locks, &terminal, &terminal.settings());
    }
}

#[test]
fn a_terminal_that_vanishes_under_a_flood_ends_the_session() {
    for ignored in [None, Some(Signal::HUP)] {
        let (guest, locks, mut terminal) = stage();
        let attach = Vconsole::attach(&guest).locks(&locks);
        let attach = ignored.into_iter().fold(attach, Program::ignoring);
        let session = attach.attached_on(&terminal);
        let flood = guest.floods();
        flood.pours(100_000);
        terminal.vanishes();
        assert_eq!(session.wait(), 129, "{ignored:?} ignored");
        locks.assert_empty();
    }
}

#[test]
fn stopped_it_gives_the_terminal_back_and_continued_it_goes_on() {
    let (guest, locks, terminal) = stage();
    let before = terminal.settings();
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    for round in 0..3_u16 {
        session.signal(Signal::TSTP);
        session.is_stopped();
        assert_eq!(terminal.settings(), before);
        assert_ne!(locks.names(), [""; 0], "the console stays ours");
        terminal.set_size(30 + round, 90);
        guest.say(format!("while it was stopped {round}"));
        session.fg();
        terminal.becomes_raw();
        terminal.shows(format!("while it was stopped {round}"));
        terminal.types(format!("go on {round}"));
        guest.receives(format!("go on {round}"));
        crate::harness::until("the new size", || guest.size() == (30 + round, 90));
    }
    gives_back_by_itself(&session, &locks, &terminal, &before);
    left_nothing_behind(&guest, &locks, &terminal, &before);
}

/// The session gives the terminal back itself: bash does so too, after `fg`. On a frozen terminal its last
/// words take a moment, in which bash still waits for it.
#[track_caller]
fn gives_back_by_itself(session: &Session, locks: &Locks, terminal: &Terminal, wanted: &Settings) {
    terminal.freezes();
    terminal.types("\x1d.");
    locks.become_empty();
    assert_eq!(&terminal.settings(), wanted);
    terminal.thaws();
    assert_eq!(session.wait(), 0);
}

#[test]
fn what_the_user_sets_while_it_is_stopped_is_what_it_leaves() {
    let (guest, locks, terminal) = stage();
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    session.signal(Signal::TSTP);
    session.is_stopped();
    let stty = Program::new("stty").args(["-echoctl", "intr", "^B"]);
    assert_eq!(stty.on(&terminal).wait(), 0);
    let set = terminal.settings();
    session.fg();
    terminal.becomes_raw();
    terminal.types("go on");
    guest.receives("go on");
    gives_back_by_itself(&session, &locks, &terminal, &set);
}

/// SIGSTOP comes without a word: the shell gets a raw terminal, and puts it right itself.
#[test]
fn stopped_without_a_word_it_takes_the_terminal_again_and_gives_it_back() {
    for put_right in [false, true] {
        let (guest, locks, terminal) = stage();
        let before = terminal.settings();
        let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
        session.signal(Signal::STOP);
        session.is_stopped();
        if put_right {
            terminal.set(&before);
        }
        session.fg();
        terminal.becomes_raw();
        terminal.types("go on");
        guest.receives("go on");
        gives_back_by_itself(&session, &locks, &terminal, &before);
    }
}

#[test]
fn continued_in_the_background_it_leaves_the_terminal_alone() {
    let (guest, locks, terminal) = stage();
    let before = terminal.settings();
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    session.signal(Signal::TSTP);
    session.is_stopped();
    // Until the shell has noticed, the session is still in the foreground.
    crate::harness::until("the shell has its terminal back", || {
        terminal.foreground() != session.pid()
    });
    for _ in 0..3 {
        // Continued when this returns; so stopped means: stopped again.
        session.signal(Signal::CONT);
        session.is_stopped();
        assert_eq!(terminal.settings(), before);
    }
    session.fg();
    terminal.becomes_raw();
    terminal.types("go on");
    guest.receives("go on");
    gives_back_by_itself(&session, &locks, &terminal, &before);
    left_nothing_behind(&guest, &locks, &terminal, &before);
}

#[test]
fn stopped_and_then_ended_it_leaves_nothing_behind() {
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
        let (guest, locks, terminal) = stage();
        let before = terminal.settings();
        let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
        session.signal(Signal::TSTP);
        session.is_stopped();
        session.signal(signal);
        session.signal(Signal::CONT);
        assert_eq!(session.wait(), 128 + signal.as_raw());
        left_nothing_behind(&guest, &locks, &terminal, &before);
    }
}

#[test]
fn stopped_and_then_killed_it_leaves_no_more_than_a_dead_lock() {
    let (guest, locks, terminal) = stage();
    let before = terminal.settings();
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    session.signal(Signal::TSTP);
    session.is_stopped();
    session.signal(Signal::KILL);
    assert_eq!(session.wait(), 137);
    assert_eq!(terminal.settings(), before);
    let next = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    terminal.types("\x1d.");
    assert_eq!(next.wait(), 0);
    left_nothing_behind(&guest, &locks, &terminal, &before);
}

#[test]
fn started_in_the_background_it_is_refused_before_it_touches_anything() {
    let (guest, locks, terminal) = (Guest::cooked(), Locks::new(), Terminal::new());
    let before = terminal.settings();
    let written = || std::fs::metadata(locks.path()).unwrap().modified().unwrap();
    let untouched = written();
    let session = Vconsole::attach(&guest).locks(&locks).in_background_of(&terminal);
    assert_eq!(session.wait(), 1);
    terminal.shows("background");
    assert_eq!(terminal.settings(), before);
    assert!(guest.echoes(), "the console was set raw");
    locks.assert_empty();
    assert_eq!(written(), untouched, "a lock was made and removed");
}

#[test]
fn in_the_background_it_works_with_another_standard_input() {
    let (guest, locks, terminal) = stage();
    let before = terminal.settings();
    let attach = Vconsole::attach(&guest).args(["--linger", "200ms"]).locks(&locks);
    guest.say("from the background");
    let session = attach.stdin_from("/dev/null").in_background_of(&terminal);
    terminal.shows("from the background");
    assert_eq!(session.wait(), 0);
    left_nothing_behind(&guest, &locks, &terminal, &before);
}

/// GNU nohup opens /dev/null for writing only.
#[test]
fn an_input_that_cannot_be_read_has_ended() {
    let (guest, locks) = (Guest::new(), Locks::new());
    for unreadable in ["0>/dev/null", "0>&2"] {
        let attach = Vconsole::attach(&guest).locks(&locks);
        let quiet = attach.args(["--linger", "200ms"]).redirected(unreadable).attached_to_pipes();
        assert_eq!(quiet.wait(), 0, "{unreadable}");
        let attach = Vconsole::attach(&guest).locks(&locks).args(["--linger", "forever"]);
        let session = attach.redirected(unreadable).attached_to_pipes();
        guest.say("for the log");
        session.stdout().receives("for the log");
        session.signal(Signal::TERM);
        assert_eq!(session.wait(), 143);
    }
}

#[test]
fn a_viewer_whose_output_is_a_file_works_in_the_background() {
    let (guest, locks, terminal) = stage();
    let before = terminal.settings();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let viewer = Vconsole::attach(&guest).arg("--read-only").locks(&locks).stdout_to(&log);
    let viewer = viewer.in_background_of(&terminal);
    terminal.shows("watching");
    guest.say("for the log");
    until("it is in the log", || std::fs::read(&log).unwrap() == b"for the log");
    assert_eq!(terminal.settings(), before);
    operator.signal(Signal::TERM);
    assert_eq!(operator.wait(), 143);
    terminal.shows("read-only");
    guest.say(", and more");
    until("it is in the log", || std::fs::read(&log).unwrap() == b"for the log, and more");
    viewer.signal(Signal::TERM);
    assert_eq!(viewer.wait(), 143);
    left_nothing_behind(&guest, &locks, &terminal, &before);
}

#[test]
fn without_a_reader_of_stdout_the_session_ends() {
    for printing in [false, true] {
        let (guest, locks) = (Guest::new(), Locks::new());
        let mut piped = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let flood = printing.then(|| guest.floods());
        if let Some(flood) = &flood {
            flood.pours(100_000);
        }
        piped.breaks_stdout();
        assert_eq!(piped.wait(), 141, "while the console is printing: {printing}");
        locks.assert_empty();
    }
}

#[test]
fn without_a_reader_of_stdout_the_terminal_is_given_back() {
    let (guest, locks, terminal) = stage();
    let before = terminal.settings();
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let reader = open(&fifo, flags, Mode::empty()).unwrap();
    let attach = Vconsole::attach(&guest).locks(&locks);
    let session = attach.stdout_to(&fifo).attached_on(&terminal);
    let start = session.cpu_time();
    drop(reader);
    assert_eq!(session.wait(), 141);
    cost_little(&session, start);
    terminal.shows("nobody reads");
    left_nothing_behind(&guest, &locks, &terminal, &before);
}
