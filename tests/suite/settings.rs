//! Settings of a line that other programs change while it is in use.

use rustix::termios::{LocalModes, SpecialCodeIndex, Termios};

use crate::harness::{Guest, Locks, Program, Session, Terminal, Vconsole, not_root, until};

const RAW_AGAIN: &str = "it is raw again";

/// Changes after which a read returns 0 bytes although nobody hung up.
const READS_OF_NOTHING: [fn(&mut Termios); 2] = [
    |settings| settings.special_codes[SpecialCodeIndex::VMIN] = 0,
    |settings| settings.local_modes |= LocalModes::ICANON,
];

/// Root is not kept out by the exclusive flag.
fn stty(guest: &Guest, settings: &str) {
    let stty = Program::new("stty").arg("-F").arg(guest.path()).args(settings.split(' '));
    assert_eq!(stty.output().status, 0);
}

fn count(screen: &str, text: &str) -> usize {
    screen.matches(text).count()
}

fn works_both_ways(guest: &Guest, terminal: &Terminal, session: &Session) {
    guest.say("login: ");
    terminal.shows("login: ");
    terminal.types("root\r");
    guest.receives("root\r");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert!(!guest.echoes());
}

#[test]
fn a_read_of_no_bytes_from_the_console_is_not_a_hang_up() {
    for change in READS_OF_NOTHING {
        let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
        let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
        guest.sets(change);
        // In canonical mode this ends the input.
        guest.say("\x04");
        terminal.shows(RAW_AGAIN);
        works_both_ways(&guest, &terminal, &session);
        guest.receives_exactly("root\r");
    }
}

#[test]
fn a_read_of_no_bytes_from_the_terminal_is_not_its_end() {
    for change in READS_OF_NOTHING {
        let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
        let before = terminal.settings();
        let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
        terminal.sets(change);
        terminal.types("\x04");
        terminal.shows(RAW_AGAIN);
        terminal.becomes_raw();
        works_both_ways(&guest, &terminal, &session);
        assert_eq!(terminal.settings(), before);
    }
}

#[test]
fn the_terminal_of_a_viewer_is_made_raw_again_as_well() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let (operators, viewers) = (Terminal::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_on(&operators);
    let viewer = Vconsole::attach(&guest).arg("--read-only").locks(&locks).on(&viewers);
    viewers.shows("watching");
    viewers.sets(READS_OF_NOTHING[0]);
    viewers.types("x");
    viewers.shows(RAW_AGAIN);
    guest.say("still here");
    viewers.shows("still here");
    viewers.types("\x1d.");
    assert_eq!(viewer.wait(), 0);
    operators.types("\x1d.");
    assert_eq!(operator.wait(), 0);
}

#[test]
fn a_console_that_another_program_makes_cooked_is_raw_again_at_once() {
    if not_root() {
        return;
    }
    for settings in ["sane", "echo", "icrnl", "opost onlcr", "ixoff", "inpck ignpar", "min 255"] {
        let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
        let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
        stty(&guest, settings);
        terminal.shows(RAW_AGAIN);
        works_both_ways(&guest, &terminal, &session);
        guest.receives_exactly("root\r");
    }
}

#[test]
fn the_raw_again_message_appears_once() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    stty(&guest, "sane");
    terminal.shows(RAW_AGAIN);
    for _ in 0..5 {
        stty(&guest, "sane");
        until("the console is raw again", || !guest.echoes());
    }
    works_both_ways(&guest, &terminal, &session);
    assert_eq!(count(&terminal.screen_so_far(), RAW_AGAIN), 1);
}

#[test]
fn another_speed_is_reported_and_left() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    stty(&guest, "9600");
    let session = Vconsole::attach(&guest).locks(&locks).attached_on(&terminal);
    stty(&guest, "115200");
    terminal.shows("another program changed the speed from 9600 to 115200");
    stty(&guest, "sane");
    terminal.shows(RAW_AGAIN);
    works_both_ways(&guest, &terminal, &session);
    assert_eq!(count(&terminal.screen_so_far(), "the speed"), 1);
    let speed = Program::new("stty").arg("-F").arg(guest.path()).arg("speed").output();
    assert_eq!(speed.stdout().trim(), "115200");
}
