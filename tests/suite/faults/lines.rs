//! Consoles that vanish, or are taken away, and windows that never rest.

use rustix::process::Signal;
use vconsole::sys::hang_up;

use super::{Stage, said};
use crate::harness::{Client, Guest, Program, SOMEBODY, not_root, rounds};

#[test]
fn nothing_goes_to_a_stranger_who_gets_the_consoles_number() {
    let (mut round, mut met) = (0, 0);
    // Another test may be quicker, and have the number.
    while round < rounds(10) || met == 0 {
        assert!(round < 500, "no stranger ever had the console's number");
        round += 1;
        let mut stage = Stage::new();
        let path = stage.guest.path().to_path_buf();
        let session = stage.attach().attached_on(&stage.terminal);
        stage.talks("hello");
        stage.terminal.ear().pause();
        stage.guest.hang_up();
        // The kernel gives the lowest number that is free.
        let strangers: Vec<Guest> = (0..8).map(|_| Guest::new()).collect();
        stage.terminal.types("reboot\r");
        stage.terminal.ear().resume();
        assert_eq!(session.wait(), 5);
        assert_eq!(stage.terminal.settings(), stage.before);
        stage.locks.become_empty();
        for stranger in &strangers {
            assert_eq!(stranger.ear().so_far(), b"");
        }
        // Nor is anything of ours in the way there.
        if let Some(stranger) = strangers.iter().find(|stranger| stranger.path() == path) {
            let next = crate::harness::Vconsole::attach(stranger).locks(&stage.locks);
            assert_eq!(next.args(["--linger", "0"]).output().status, 0);
            met += 1;
        }
    }
}

#[test]
fn a_console_that_root_hangs_up_ends_roots_session_and_is_free() {
    if not_root() {
        return;
    }
    let stage = Stage::new();
    stage.guest.chown(SOMEBODY);
    let session = stage.attach().attached_on(&stage.terminal);
    stage.talks("hello");
    hang_up(Client::asleep(stage.guest.path()).line()).unwrap();
    assert_eq!(session.wait(), 5);
    stage.terminal.shows("its other end is still there");
    stage.is_as_before();
    assert!(!stage.guest.echoes(), "the guest would read what it prints");
    let mut next = stage.attach().as_user(SOMEBODY, SOMEBODY).attached_to_pipes();
    next.closes_stdin();
    assert_eq!(next.wait(), 0);
}

#[test]
fn a_users_console_that_root_hangs_up_keeps_a_flag_that_only_root_can_clear() {
    if not_root() {
        return;
    }
    let stage = Stage::new();
    stage.guest.chown(SOMEBODY);
    let attach = stage.attach().as_user(SOMEBODY, SOMEBODY);
    let session = attach.attached_on(&stage.terminal);
    stage.talks("hello");
    hang_up(Client::asleep(stage.guest.path()).line()).unwrap();
    assert_eq!(session.wait(), 5);
    stage.terminal.shows("root clears it: sudo vconsole attach --force");
    assert_eq!(stage.terminal.settings(), stage.before);
    stage.locks.become_empty();
    let refused = attach.output();
    assert_eq!(refused.status, 3, "{refused:?}");
    let forced = stage.attach().arg("--force").output();
    assert_eq!(forced.status, 0, "{forced:?}");
    stage.is_as_before();
    let mut next = attach.attached_to_pipes();
    next.closes_stdin();
    assert_eq!(next.wait(), 0);
}

/// Whoever hung the line up to have it for themselves keeps it, and their flag.
#[test]
fn the_flag_of_who_took_the_console_by_a_hang_up_stays() {
    if not_root() {
        return;
    }
    let stage = Stage::new();
    let session = stage.attach().attached_to_pipes();
    session.signal(Signal::STOP);
    session.is_stopped();
    hang_up(Client::asleep(stage.guest.path()).line()).unwrap();
    let cat = Program::new("cat").arg(&stage.guest).piped();
    let path = stage.guest.path().to_path_buf();
    crate::harness::until("it has the console", || cat.open_files().contains(&path));
    session.signal(Signal::CONT);
    assert_eq!(session.wait(), 5);
    let line = Client::asleep(stage.guest.path());
    assert!(vconsole::sys::is_exclusive(line.line()).unwrap());
    rustix::termios::ioctl_tiocnxcl(line.line()).unwrap();
    drop((line, cat));
    stage.nothing_is_left();
}

#[test]
fn a_window_that_never_rests_loses_no_byte() {
    let stage = Stage::new();
    let mut piped = stage.attach().attached_to_pipes();
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| (0..5_000).for_each(|_| piped.signal(Signal::WINCH)));
        let text = crate::pipes::noise(500_000);
        scope.spawn(|| stage.guest.say(crate::pipes::noise(500_000)));
        piped.stdout().receives_exactly(&text);
        storm.join().unwrap();
    });
    piped.closes_stdin();
    assert_eq!(piped.wait(), 0);

    let session = stage.attach().attached_on(&stage.terminal);
    for size in 0..2_000 {
        stage.terminal.set_size(10 + size % 50, 80);
    }
    stage.terminal.set_size(33, 123);
    crate::harness::until("the guest learns the last size", || stage.guest.size() == (33, 123));
    stage.talks("hello");
    stage.terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert!(!said(&stage.terminal.ear().so_far(), "lost"));
    stage.is_as_before();
}
