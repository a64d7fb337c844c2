//! A holder that is stopped: it is continued, and hands over itself.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{forced, is_as_new};
use crate::guard::awaited_guard_of;
use crate::harness::{
    Guest, Locks, Pause, Process, Terminal, Vconsole, in_time, rounds, took_less_than, until,
};

/// A takeover of somebody who is stopped takes no longer.
const SOON: Duration = Duration::from_secs(3);

fn numbers() -> String {
    let mut text = String::new();
    (0..9000).for_each(|number| write!(text, "{number} ").unwrap());
    text
}

#[test]
fn a_stopped_session_hands_over_every_byte_even_if_its_guard_is_stopped_as_well() {
    in_time(|| {
        for _ in 0..rounds(1) {
            for guard_too in [false, true] {
                let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
                let before = desk.settings();
                let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
                desk.freezes();
                let text = numbers();
                guest.say(&text);
                until("the old operator has read it", || old.bytes_read() >= text.len() as u64);
                let guard = Process::find(Pid::from_raw(awaited_guard_of(&old)).unwrap());
                old.signal(Signal::STOP);
                old.is_stopped();
                if guard_too {
                    guard.as_ref().unwrap().signal(Signal::STOP);
                    guard.as_ref().unwrap().is_stopped();
                }
                let start = Instant::now();
                let new = forced(&guest, &locks).attached_to_pipes();
                took_less_than(SOON, start);
                // Its last words wait for 200 ms only: whether they come in time is another matter.
                desk.thaws();
                assert_eq!(old.wait(), 4);
                assert_eq!(desk.settings(), before);
                guest.say("end");
                new.stdout().receives("end");
                let rest = String::from_utf8(new.stdout().so_far()).unwrap();
                let first = text.strip_suffix(rest.strip_suffix("end").unwrap());
                let first = first.expect("the new operator shows the end of it");
                until("the old one showed its beginning", || desk.screen_so_far().contains(first));
                new.signal(Signal::TERM);
                assert_eq!(new.wait(), 143);
                is_as_new(&guest, &locks);
            }
        }
    });
}

#[test]
fn a_session_that_is_stopped_when_it_is_about_to_read_hands_over() {
    in_time(|| {
        for _ in 0..rounds(1) {
            let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
            let before = desk.settings();
            let pause = Pause::at("typed");
            let old = pause.of(Vconsole::attach(&guest).locks(&locks)).attached_on(&desk);
            desk.types("x");
            assert_eq!(pause.reached().pid(), old.pid());
            let start = Instant::now();
            let new = forced(&guest, &locks).attached_to_pipes();
            took_less_than(SOON, start);
            assert_eq!(old.wait(), 4);
            assert_eq!(desk.settings(), before);
            guest.say("end");
            new.stdout().receives("end");
            new.signal(Signal::TERM);
            assert_eq!(new.wait(), 143);
            is_as_new(&guest, &locks);
        }
    });
}

#[test]
fn a_session_in_the_background_hands_over_before_it_stops_again() {
    in_time(|| {
        for _ in 0..rounds(1) {
            let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
            let before = desk.settings();
            let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
            old.signal(Signal::TSTP);
            old.is_stopped();
            assert_eq!(desk.settings(), before);
            guest.say("while nobody looked");
            let start = Instant::now();
            let new = forced(&guest, &locks).attached_to_pipes();
            took_less_than(SOON, start);
            assert_eq!(old.wait(), 4);
            new.stdout().receives("while nobody looked");
            assert_eq!(desk.settings(), before);
        }
    });
}

#[test]
fn a_stopped_session_stops_again_when_nobody_takes_the_console() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let before = desk.settings();
    let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    old.signal(Signal::TSTP);
    old.is_stopped();
    let pause = Pause::held_at("taken");
    let new = pause.of(forced(&guest, &locks)).piped();
    pause.reached();
    guest.say("for the operator");
    new.kill();
    old.is_stopped();
    assert_eq!(desk.settings(), before);
    old.fg();
    desk.shows("for the operator");
    desk.becomes_raw();
    desk.types("\x1d.");
    assert_eq!(old.wait(), 0);
    is_as_new(&guest, &locks);
}

#[test]
fn a_session_that_is_stopped_before_it_has_sockets_makes_them_and_hands_over() {
    in_time(|| {
        for _ in 0..rounds(1) {
            let (guest, locks) = (Guest::new(), Locks::new());
            let pause = Pause::at("claimed");
            let old = pause.of(Vconsole::attach(&guest).locks(&locks)).piped();
            pause.reached();
            let start = Instant::now();
            let new = forced(&guest, &locks).attached_to_pipes();
            took_less_than(SOON, start);
            assert_eq!(old.wait(), 4);
            guest.say("hello");
            new.stdout().receives("hello");
            new.signal(Signal::TERM);
            assert_eq!(new.wait(), 143);
            is_as_new(&guest, &locks);
        }
    });
}
