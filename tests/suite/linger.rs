//! How long a session stays after the end of its input.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Guest, Locks, Vconsole, in_time, lies_between, took_less_than};

const SECOND: Duration = Duration::from_secs(1);

/// More than a console holds whose guest reads nothing, less than a session does.
static PASTE: [u8; 50_000] = [b'x'; 50_000];

#[test]
fn an_answer_that_takes_its_time_arrives() {
    in_time(|| {
        let (guest, locks) = (Guest::new(), Locks::new());
        let mut piped = Vconsole::attach(&guest).locks(&locks).piped();
        piped.types("help\r");
        let asked = Instant::now();
        piped.closes_stdin();
        guest.receives_exactly("help\r");
        // Less than the 3 s for the first byte, then less than the 1 s of quiet.
        std::thread::sleep(SECOND * 2);
        let began = Instant::now();
        guest.say("usage: ");
        took_less_than(SECOND * 14 / 5, asked);
        std::thread::sleep(SECOND / 2);
        let said = Instant::now();
        guest.say("help\r\n");
        took_less_than(SECOND * 4 / 5, began);
        let output = piped.output();
        let stayed = said.elapsed();
        assert_eq!((output.status, output.stdout()), (0, "usage: help\r\n".into()));
        lies_between(SECOND * 9 / 10, SECOND * 2, stayed);
        locks.assert_empty();
    });
}

#[test]
fn a_guest_that_does_not_answer_is_left_after_three_seconds() {
    in_time(|| {
        let (guest, locks) = (Guest::new(), Locks::new());
        let start = Instant::now();
        let output = Vconsole::attach(&guest).locks(&locks).output();
        let stayed = start.elapsed();
        assert_eq!((output.status, output.stdout()), (0, String::new()));
        lies_between(SECOND * 3, SECOND * 4, stayed);
        locks.assert_empty();
    });
}

#[test]
fn linger_counts_from_the_last_byte() {
    in_time(|| {
        let (guest, locks) = (Guest::new(), Locks::new());
        let attach = Vconsole::attach(&guest).args(["--linger", "500ms"]).locks(&locks);
        let mut piped = attach.attached_to_pipes();
        let mut last = Instant::now();
        piped.closes_stdin();
        for _ in 0..8 {
            std::thread::sleep(SECOND / 10);
            let now = Instant::now();
            guest.say(".");
            took_less_than(SECOND * 4 / 10, last);
            last = now;
        }
        let output = piped.output();
        let stayed = last.elapsed();
        assert_eq!((output.status, output.stdout()), (0, "........".into()));
        lies_between(SECOND * 4 / 10, SECOND * 3 / 2, stayed);
    });
}

#[test]
fn a_short_linger_leaves_a_silent_guest_soon() {
    in_time(|| {
        let (guest, locks) = (Guest::new(), Locks::new());
        let mut piped =
            Vconsole::attach(&guest).args(["--linger", "200ms"]).locks(&locks).attached_to_pipes();
        let start = Instant::now();
        piped.closes_stdin();
        assert_eq!(piped.wait(), 0);
        let stayed = start.elapsed();
        lies_between(SECOND / 5, SECOND, stayed);
    });
}

#[test]
fn an_answer_that_came_while_it_was_stopped_is_shown() {
    in_time(|| {
        let (guest, locks) = (Guest::new(), Locks::new());
        let attach = Vconsole::attach(&guest).args(["--linger", "2s"]).locks(&locks);
        let mut piped = attach.attached_to_pipes();
        let start = Instant::now();
        piped.closes_stdin();
        std::thread::sleep(SECOND / 5);
        piped.signal(Signal::STOP);
        // It lingers still.
        took_less_than(SECOND * 3 / 2, start);
        piped.is_stopped();
        guest.say("late");
        // Longer than it lingers.
        std::thread::sleep(SECOND * 5 / 2);
        piped.signal(Signal::CONT);
        let output = piped.output();
        assert_eq!((output.status, output.stdout()), (0, "late".into()));
    });
}

#[test]
fn linger_begins_when_the_guest_has_taken_all_of_the_input() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let mut piped =
        Vconsole::attach(&guest).args(["--linger", "200ms"]).locks(&locks).attached_to_pipes();
    guest.stops_reading();
    piped.types(PASTE);
    piped.closes_stdin();
    piped.reads_no_more();
    // Longer than it lingers.
    std::thread::sleep(SECOND / 2);
    assert!(!piped.has_ended());
    guest.reads_on();
    guest.receives_exactly(PASTE);
    assert_eq!(piped.wait(), 0);
}

#[test]
fn lingering_for_ever_ends_with_the_guest_and_costs_nothing() {
    let (mut guest, locks) = (Guest::new(), Locks::new());
    let attach = Vconsole::attach(&guest).args(["--linger", "forever"]).locks(&locks);
    let mut piped = attach.attached_to_pipes();
    piped.closes_stdin();
    // For as long as it might spin.
    std::thread::sleep(SECOND / 2);
    guest.say("bye");
    piped.stdout().receives("bye");
    guest.hang_up();
    let output = piped.output();
    assert_eq!((output.status, output.stdout()), (5, "bye".into()));
    assert!(piped.cpu_time() < SECOND / 20, "{:?}", piped.cpu_time());
    locks.assert_empty();
}

#[test]
fn a_time_limit_ends_what_would_not_end() {
    in_time(|| {
        for reader_is_stuck in [false, true] {
            let (guest, locks) = (Guest::new(), Locks::new());
            let limit = ["--linger", "forever", "--linger-max", "500ms"];
            let mut piped = Vconsole::attach(&guest).args(limit).locks(&locks).attached_to_pipes();
            let flood = guest.floods();
            flood.pours(10_000);
            if reader_is_stuck {
                piped.stdout().pause();
            }
            let start = Instant::now();
            piped.closes_stdin();
            assert_eq!(piped.wait(), 124);
            let stayed = start.elapsed();
            lies_between(SECOND / 2, SECOND * 2, stayed);
            locks.assert_empty();
        }
    });
}

#[test]
fn a_time_limit_ends_waiting_for_a_guest_that_reads_nothing() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let attach = Vconsole::attach(&guest).args(["--linger-max", "500ms"]).locks(&locks);
    let mut piped = attach.attached_to_pipes();
    guest.stops_reading();
    piped.types(PASTE);
    piped.closes_stdin();
    assert_eq!(piped.wait(), 124);
    piped.stderr().receives("lost");
    locks.assert_empty();
}
