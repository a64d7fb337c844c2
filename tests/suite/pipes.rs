//! Standard input and output that are no terminals: what a script has.

use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::Signal;

use crate::harness::{Guest, Locks, Piped, Program, Terminal, Vconsole, rounds, until};

/// No more memory than this, however slow somebody is.
const BOUND: u64 = 16 << 20;

/// Bytes of every value, in an order that shows a loss, a repetition and a swap.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    // Marsaglia's xorshift: "Xorshift RNGs", Journal of Statistical Software 8 (2003).
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..count).map(|_| next()).collect()
}

/// How much passes through where all of it counts: 10 MB for each of `VCONSOLE_ROUNDS`, 100 MB for 10
/// of them; without it 3 MB.
fn a_lot() -> Vec<u8> {
    noise(match rounds(0) {
        0 => 3_000_000,
        count => count * 10_000_000,
    })
}

/// Attaches so that the session ends soon after its input.
fn attach(guest: &Guest, locks: &Locks) -> Program {
    Vconsole::attach(guest).args(["--linger", "200ms"]).locks(locks)
}

#[track_caller]
fn ends_well(mut piped: Piped, locks: &Locks) {
    piped.closes_stdin();
    assert_eq!(piped.wait(), 0);
    locks.assert_empty();
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

#[test]
fn pipes_pass_every_byte_and_there_is_no_escape_key() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let piped = attach(&guest, &locks).attached_to_pipes();
    let every: Vec<u8> = (0..=255).chain(*b"\x1d.\x1dq\x1d\x1d").collect();
    piped.types(&every);
    guest.receives_exactly(&every);
    guest.say(&every);
    piped.stdout().receives_exactly(&every);
    ends_well(piped, &locks);
}

#[test]
fn a_lot_comes_down_without_a_loss() {
    let (guest, locks, lot) = (Guest::new(), Locks::new(), a_lot());
    let piped = attach(&guest, &locks).attached_to_pipes();
    std::thread::scope(|scope| {
        scope.spawn(|| guest.say(&lot));
        piped.stdout().receives_exactly(&lot);
    });
    ends_well(piped, &locks);
}

#[test]
fn a_lot_goes_up_without_a_loss() {
    let (guest, locks, lot) = (Guest::new(), Locks::new(), a_lot());
    let piped = attach(&guest, &locks).attached_to_pipes();
    std::thread::scope(|scope| {
        scope.spawn(|| piped.types(&lot));
        guest.receives_exactly(&lot);
    });
    ends_well(piped, &locks);
}

#[test]
fn both_ways_at_once_neither_waits_for_the_other() {
    let (guest, locks, lot) = (Guest::new(), Locks::new(), a_lot());
    let piped = attach(&guest, &locks).attached_to_pipes();
    std::thread::scope(|scope| {
        scope.spawn(|| guest.say(&lot));
        scope.spawn(|| piped.types(&lot));
        piped.stdout().receives_exactly(&lot);
        guest.receives_exactly(&lot);
    });
    ends_well(piped, &locks);
}

#[test]
fn a_slow_reader_slows_the_guest_down_and_loses_nothing() {
    let (guest, locks, text) = (Guest::new(), Locks::new(), noise(3_000_000));
    let piped = attach(&guest, &locks).attached_to_pipes();
    piped.stdout().pause();
    std::thread::scope(|scope| {
        scope.spawn(|| guest.say(&text));
        piped.reads_no_more();
        // The other way is free.
        piped.types("typed meanwhile");
        guest.receives_exactly("typed meanwhile");
        let peak = piped.peak_memory();
        assert!(peak < BOUND, "{peak} bytes");
        piped.stdout().resume();
        piped.stdout().receives_exactly(&text);
    });
    ends_well(piped, &locks);
}

#[test]
fn a_slow_guest_slows_the_writer_down_and_loses_nothing() {
    let (guest, locks, text) = (Guest::new(), Locks::new(), noise(3_000_000));
    let piped = attach(&guest, &locks).attached_to_pipes();
    guest.stops_reading();
    std::thread::scope(|scope| {
        scope.spawn(|| piped.types(&text));
        piped.reads_no_more();
        guest.say("printed meanwhile");
        piped.stdout().receives_exactly("printed meanwhile");
        let peak = piped.peak_memory();
        assert!(peak < BOUND, "{peak} bytes");
        guest.reads_on();
        guest.receives_exactly(&text);
    });
    ends_well(piped, &locks);
}

#[test]
fn a_file_is_sent_whole() {
    let (guest, locks, text) = (Guest::new(), Locks::new(), noise(300_000));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("in");
    std::fs::write(&file, &text).unwrap();
    let output = attach(&guest, &locks).redirected(format!("< {}", quoted(&file))).output();
    assert_eq!(output.status, 0, "{output:?}");
    guest.receives_exactly(&text);
    locks.assert_empty();
}

#[test]
fn a_file_opened_for_appending_keeps_what_others_append() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log");
    std::fs::write(&file, "before ").unwrap();
    let attach = attach(&guest, &locks).redirected(format!(">> {}", quoted(&file)));
    let piped = attach.attached_to_pipes();
    guest.say("first ");
    until("the first", || std::fs::read(&file).unwrap() == b"before first ");
    assert!(piped.flags_of(1).contains(OFlags::APPEND));
    let mut other = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
    std::io::Write::write_all(&mut other, b"other's ").unwrap();
    guest.say("second");
    ends_well(piped, &locks);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "before first other's second");
}

#[test]
fn a_socket_is_input_and_output_at_once() {
    let (guest, locks, text) = (Guest::new(), Locks::new(), noise(1_000_000));
    let piped = attach(&guest, &locks).on_a_socket();
    std::thread::scope(|scope| {
        scope.spawn(|| guest.say(&text));
        scope.spawn(|| piped.types(&text));
        piped.stdout().receives_exactly(&text);
        guest.receives_exactly(&text);
    });
    piped.stdout().pause();
    guest.say("the last words");
    piped.stdout().resume();
    piped.stdout().receives("the last words");
    ends_well(piped, &locks);
}

#[test]
fn a_socket_whose_other_end_is_closed_ends_the_session() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let mut piped = Vconsole::attach(&guest).locks(&locks).on_a_socket();
    piped.types("hello");
    guest.receives("hello");
    piped.breaks_stdout();
    piped.closes_stdin();
    assert_eq!(piped.wait(), 141);
    locks.assert_empty();
}

#[test]
fn a_socket_whose_other_end_leaves_without_reading_ends_the_session() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let mut piped = Vconsole::attach(&guest).locks(&locks).on_a_socket();
    piped.stderr().receives("connected to");
    piped.stdout().pause();
    guest.say("never read");
    until("it is there to be read", || piped.unread() > 0);
    piped.breaks_stdout();
    piped.closes_stdin();
    assert_eq!(piped.wait(), 141);
    assert!(!String::from_utf8_lossy(&piped.stderr().so_far()).contains("cannot read"));
    locks.assert_empty();
}

#[test]
fn nothing_to_read_and_nowhere_to_write() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let attach = attach(&guest, &locks);
    let reading_nothing = attach.clone().redirected("< /dev/null").attached_to_pipes();
    guest.say("heard");
    let output = reading_nothing.output();
    assert_eq!((output.status, output.stdout()), (0, "heard".into()));

    let writing_nowhere = attach.redirected("> /dev/null").attached_to_pipes();
    let flood = guest.floods();
    flood.pours(300_000);
    writing_nowhere.types("typed");
    guest.receives_exactly("typed");
    drop(flood);
    ends_well(writing_nowhere, &locks);
}

#[test]
fn a_full_disk_is_a_failure_that_says_so() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let piped = attach(&guest, &locks).redirected("> /dev/full").attached_to_pipes();
    guest.say("x");
    let output = piped.output();
    assert_eq!(output.status, 1);
    assert!(output.stderr().contains("No space left"), "{output:?}");
    locks.assert_empty();
}

#[test]
fn a_directory_as_input_is_a_failure_that_says_so() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let output = attach(&guest, &locks).redirected("< /").output();
    assert_eq!(output.status, 1);
    assert!(output.stderr().contains("stdin"), "{output:?}");
    locks.assert_empty();
}

/// The console must not get a number that was free, and with it what is meant for the user.
#[test]
fn descriptors_that_were_closed_at_the_start_are_missed_by_nobody() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"] {
        let (guest, locks) = (Guest::new(), Locks::new());
        guest.say("printed before");
        let mut piped = attach(&guest, &locks).redirected(closed).piped();
        let typed = if closed.contains('<') { "" } else { "typed" };
        piped.types(typed);
        piped.closes_stdin();
        let output = piped.output();
        assert_eq!(output.status, 0, "{closed}: {output:?}");
        guest.receives_exactly(typed);
        let printed =
            if closed.contains(">&- ") || closed == ">&-" { "" } else { "printed before" };
        assert_eq!(output.stdout(), if closed.contains(" >&-") { "" } else { printed }, "{closed}");
        locks.assert_empty();
    }
}

#[test]
fn what_it_shares_with_others_keeps_its_flags() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let flags_stay = |process: &crate::harness::Process| {
        for number in 0..=2 {
            assert!(!process.flags_of(number).contains(OFlags::NONBLOCK), "descriptor {number}");
        }
    };
    let piped = attach(&guest, &locks).attached_to_pipes();
    flags_stay(&piped);
    ends_well(piped, &locks);

    let socket = attach(&guest, &locks).on_a_socket();
    socket.stderr().receives("connected to");
    flags_stay(&socket);
    ends_well(socket, &locks);

    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    guest.say("shown");
    terminal.shows("shown");
    flags_stay(&session);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn with_another_standard_input_the_terminal_stays_as_it_is() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let before = terminal.settings();
    let attach = Vconsole::attach(&guest).args(["--linger", "forever"]).locks(&locks);
    let session = attach.stdin_from("/dev/null").attached_on(&terminal);
    guest.say("shown");
    terminal.shows("shown");
    assert_eq!(terminal.settings(), before);
    terminal.types("\x03");
    assert_eq!(session.wait(), 128 + Signal::INT.as_raw());
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}
