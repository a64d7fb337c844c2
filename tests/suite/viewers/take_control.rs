//! From viewer to operator and back.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::super::harness::{
    Bystander, Guest, Locks, Pause, Terminal, Vconsole, not_root, rounds, until,
};
use super::{leaves, viewer, watches};

/// It is no flood, of which nobody is promised to see everything.
const PACE: Duration = Duration::from_millis(1);

#[test]
fn a_viewer_takes_control() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shown");
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let other = watches(&guest, &locks);
    let successor = viewer(&guest, &locks).stdout_to(&file).on(&desk);
    desk.shows("watching");
    let mut said = String::new();
    let mut say = |number: usize| {
        write!(said, "{number} ").unwrap();
        guest.say(format!("{number} "));
    };
    (0..100).for_each(&mut say);
    desk.types("ignored\x1df");
    let mut number = 100;
    while !desk.screen_so_far().contains("connected to") {
        say(number);
        number += 1;
        std::thread::sleep(PACE);
    }
    assert_eq!(operator.wait(), 4);
    operator.stderr().receives(format!("taken over by vconsole (pid {}, ", successor.pid()));
    desk.types("uptime\r");
    guest.receives_exactly("uptime\r");
    guest.say("end");
    said += "end";
    other.stdout().receives_exactly(&said);
    until("all is shown", || fs::read_to_string(&file).unwrap().ends_with("end"));
    assert!(fs::read_to_string(&file).unwrap() == said, "every byte once");
    let nice = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().to_owned()
    };
    let successors = nice(&successor.pid().to_string());
    assert_eq!(successors, nice("self"), "who operates has the priority of any other");
    desk.types("\x1d.");
    assert_eq!(successor.wait(), 0);
}

#[test]
fn a_viewer_takes_control_from_an_operator_who_is_stopped() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let successor = viewer(&guest, &locks).on(&desk);
    desk.shows("watching");
    operator.signal(Signal::STOP);
    operator.is_stopped();
    desk.types("\x1df");
    desk.shows("connected to");
    until("the operator has ended", || operator.has_ended());
    desk.types("x");
    guest.receives_exactly("x");
    guest.say("hello");
    desk.shows("hello");
    desk.types("\x1d.");
    assert_eq!(successor.wait(), 0);
    locks.become_empty();
}

#[test]
fn of_two_viewers_who_want_control_one_gets_it_and_the_other_watches_on() {
    for _ in 0..rounds(3) {
        let (guest, locks, desks) = (Guest::new(), Locks::new(), [(); 2].map(|()| Terminal::new()));
        let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let both = desks.each_ref().map(|desk| {
            let session = viewer(&guest, &locks).on(desk);
            desk.shows("watching");
            session
        });
        for desk in &desks {
            desk.types("\x1df");
        }
        assert_eq!(operator.wait(), 4);
        until("one of them operates, for whatever came before", || {
            let shows = |it: &Terminal, what: &str| it.screen_so_far().matches(what).count();
            let watches = |it: &Terminal| shows(it, "watching") > 1;
            let holds = |it: &Terminal| shows(it, "connected to") > 0;
            (holds(&desks[0]) && watches(&desks[1]))
                || (holds(&desks[1]) && watches(&desks[0]))
                || both.iter().any(|it| it.has_ended())
        });
        guest.say("for both");
        for desk in &desks {
            desk.shows("for both");
        }
    }
}

#[test]
fn control_is_taken_from_who_was_watched_alone() {
    let (guest, locks, desks) = (Guest::new(), Locks::new(), [(); 2].map(|()| Terminal::new()));
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let [first, second] = desks.each_ref().map(|desk| {
        let session = viewer(&guest, &locks).on(desk);
        desk.shows("watching");
        desk.becomes_raw();
        session
    });
    // It means the operator, and is too late for that.
    second.signal(Signal::STOP);
    second.is_stopped();
    desks[1].types("\x1df");
    desks[0].types("\x1df");
    desks[0].shows("connected to");
    assert_eq!(operator.wait(), 4);
    second.fg();
    desks[1].shows(format!("held by vconsole (pid {}, ", first.pid()));
    guest.say("for both");
    for desk in &desks {
        desk.shows("for both");
    }
    desks[0].types("x");
    guest.receives_exactly("x");
    assert!(!desks[1].screen_so_far().contains("connected to"));
}

#[test]
fn who_stays_uses_no_force_in_order_to_read() {
    let (guest, locks, pause) = (Guest::new(), Locks::new(), Pause::at("closing"));
    let first = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let staying = Vconsole::attach(&guest).args(["--stay", "--force"]).locks(&locks);
    let staying = staying.attached_to_pipes();
    assert_eq!(first.wait(), 4);
    let next = pause.of(Vconsole::attach(&guest).arg("--force").locks(&locks)).attached_to_pipes();
    staying.stderr().receives("watching");
    let names = locks.names();
    next.signal(Signal::TERM);
    let paused = pause.reached();
    locks.become_empty();
    // Force would break it.
    let lock = locks.write(&names[0], "garbage");
    pause.is_over(&[&paused]);
    let told = staying.output();
    assert_eq!(told.status, 3, "{told:?}");
    assert_eq!(fs::read_to_string(lock).unwrap(), "garbage");
    assert_eq!(next.wait(), 143);
}

#[test]
fn who_stays_watches_who_took_over_and_may_take_it_back() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let settings = desk.settings();
    let old = Vconsole::attach(&guest).arg("--stay").locks(&locks).attached_on(&desk);
    let new = Vconsole::attach(&guest).arg("--force").locks(&locks).attached_to_pipes();
    desk.shows(format!("taken over by vconsole (pid {}, ", new.pid()));
    desk.shows("watching");
    guest.say("hello");
    new.stdout().receives("hello");
    desk.shows("hello");
    desk.types("x");
    desk.shows("read-only: nothing is typed");
    desk.clear();
    desk.types("\x1df");
    desk.shows("connected to");
    assert_eq!(new.wait(), 4);
    desk.types("y");
    guest.receives_exactly("y");
    desk.types("\x1d.");
    assert_eq!(old.wait(), 0);
    assert_eq!(desk.settings(), settings);
}

#[test]
fn who_stays_and_was_stopped_watches_as_soon_as_its_user_comes_back_to_it() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let settings = desk.settings();
    let old = Vconsole::attach(&guest).arg("--stay").locks(&locks).attached_on(&desk);
    old.signal(Signal::STOP);
    old.is_stopped();
    until("its shell has the terminal", || desk.foreground() != old.pid());
    let shells = settings.of_a_line_editor();
    desk.set(&shells);
    let new = Vconsole::attach(&guest).arg("--force").locks(&locks).attached_to_pipes();
    desk.shows(format!("taken over by vconsole (pid {}, ", new.pid()));
    old.is_stopped();
    assert!(desk.settings() == shells, "the shell uses it");
    desk.set(&settings);
    old.fg();
    desk.shows("watching");
    guest.say("hello");
    desk.shows("hello");
    desk.types("\x1df");
    desk.shows("connected to");
    assert_eq!(new.wait(), 4);
    desk.types("\x1d.");
    assert_eq!(old.wait(), 0);
    assert_eq!(desk.settings(), settings);
}

#[test]
fn by_force_one_also_operates_what_a_viewer_reads_whose_operator_was_killed_meanwhile() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let (held, asked) = (Pause::held_at("handing-over"), Pause::at("asked"));
    let operator = held.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let reader = watches(&guest, &locks);
    let forced = Vconsole::attach(&guest).arg("--force").locks(&locks);
    let newcomer = asked.of(forced).piped();
    let paused = asked.reached();
    operator.kill();
    reader.stderr().receives("connected to");
    asked.is_over(&[&paused]);
    newcomer.stderr().receives("connected to");
    reader.stderr().receives(format!("taken over by vconsole (pid {}, ", newcomer.pid()));
    guest.say("for both");
    newcomer.stdout().receives_exactly("for both");
    reader.stdout().receives("for both");
}

#[test]
fn taking_control_evicts_nobody_beside_a_reader_that_came_meanwhile() {
    if not_root() {
        return;
    }
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let (held, asked) = (Pause::held_at("handing-over"), Pause::at("asked"));
    let operator = held.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let newcomer = asked.of(viewer(&guest, &locks)).on(&desk);
    desk.shows("watching");
    desk.becomes_raw();
    let reader = watches(&guest, &locks);
    desk.types("\x1df");
    asked.reached();
    operator.kill();
    reader.stderr().receives("connected to");
    let daemon = Bystander::daemon_with_open(guest.path());
    asked.is_over(&[]);
    newcomer.fg();
    desk.shows("connected to");
    desk.shows(format!("sleep (pid {}", daemon.pid()));
    assert!(!desk.screen_so_far().contains("evicted"), "{}", desk.screen_so_far());
    reader.stderr().receives("taken over by");
}

#[test]
fn who_has_just_come_to_read_makes_way_too() {
    let (guest, locks, pause) = (Guest::new(), Locks::new(), Pause::held_at("claimed"));
    let reader = pause.of(viewer(&guest, &locks)).piped();
    let paused = pause.reached();
    let operator = Vconsole::attach(&guest).locks(&locks).piped();
    // It has time to find that nobody answers there yet.
    std::thread::sleep(Duration::from_millis(100));
    pause.is_over(&[&paused]);
    operator.stderr().receives("connected to");
    reader.stderr().receives(format!("taken over by vconsole (pid {}, ", operator.pid()));
}

#[test]
fn who_stays_where_nobody_may_watch_ends_with_4() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let old = Vconsole::attach(&guest).arg("--stay").locks(&locks).attached_to_pipes();
    let new = Vconsole::attach(&guest).args(["--force", "--private"]).locks(&locks);
    let new = new.attached_to_pipes();
    assert_eq!(old.wait(), 4);
    leaves(&new);
}

#[test]
fn viewers_follow_to_an_successor_who_is_slow_to_let_them_in() {
    let (guest, locks, pause) = (Guest::new(), Locks::new(), Pause::held_at("relay"));
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let [viewer, impatient] = [(); 2].map(|()| watches(&guest, &locks));
    let next = pause.of(Vconsole::attach(&guest).arg("--force").locks(&locks)).piped();
    assert_eq!(operator.wait(), 4);
    let paused = pause.reached();
    // Longer than who is not expected to be busy may take for an answer.
    std::thread::sleep(Duration::from_secs(3));
    leaves(&impatient);
    pause.is_over(&[&paused]);
    viewer.stderr().receives(format!("held by vconsole (pid {}, ", next.pid()));
    guest.say("hello");
    viewer.stdout().receives_exactly("hello");
}

#[test]
fn viewers_follow_a_chain_of_takeovers_and_miss_no_byte() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let viewers = [(); 3].map(|()| watches(&guest, &locks));
    let staying = Vconsole::attach(&guest).args(["--stay", "--force"]).locks(&locks);
    let staying = staying.attached_to_pipes();
    assert_eq!(operator.wait(), 4);
    let (mut said, mut number) = (String::new(), 0);
    let mut operator = None;
    for _ in 0..rounds(20) {
        // One of them is not there for a while.
        viewers[0].signal(Signal::STOP);
        let next = Vconsole::attach(&guest).arg("--force").locks(&locks).piped();
        while !String::from_utf8_lossy(&next.stderr().so_far()).contains("connected") {
            let line = format!("{number} ");
            guest.say(&line);
            said += &line;
            number += 1;
            std::thread::sleep(PACE);
        }
        viewers[0].signal(Signal::CONT);
        if let Some(before) = operator.replace(next) {
            assert_eq!(before.wait(), 4);
        }
    }
    guest.say("end");
    said += "end";
    for viewer in viewers.iter().chain([&staying]) {
        let over = viewer
            .stdout()
            .wait_for_or_end("the end", |shown| shown.ends_with(b"end").then_some(()));
        assert!(over.is_some(), "{}", String::from_utf8_lossy(&viewer.stderr().to_the_end()));
        viewer.stdout().receives("end");
        let shown = String::from_utf8(viewer.stdout().so_far()).unwrap();
        assert!(shown == said, "{} of {} bytes", shown.len(), said.len());
        assert!(!String::from_utf8_lossy(&viewer.stderr().so_far()).contains("missed"));
    }
    viewers.iter().for_each(leaves);
}

/// The bytes that `file` is to have in the end, each once.
#[track_caller]
fn shows_all(file: &Path, said: &str) {
    until("all is shown", || fs::read_to_string(file).unwrap().ends_with("end"));
    assert_eq!(fs::read_to_string(file).unwrap(), said, "every byte once");
}

#[test]
fn what_is_typed_right_behind_the_wish_to_operate_is_for_the_console() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let successor = viewer(&guest, &locks).on(&desk);
    desk.shows("watching");
    desk.becomes_raw();
    desk.types("nothing\x1dfls\r");
    desk.shows("connected to");
    guest.receives_exactly("ls\r");
    assert_eq!(operator.wait(), 4);
    desk.types("\x1d.");
    assert_eq!(successor.wait(), 0);
}

#[test]
fn what_is_typed_while_control_is_taken_is_for_the_console_as_it_is() {
    let (guest, locks, pause) = (Guest::new(), Locks::new(), Pause::held_at("handing-over"));
    let desk = Terminal::new();
    let operator = pause.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let successor = viewer(&guest, &locks).on(&desk);
    desk.shows("watching");
    desk.becomes_raw();
    desk.types("\x1df");
    let paused = pause.reached();
    desk.types("ls\r\x03");
    assert!(desk.is_raw());
    pause.is_over(&[&paused]);
    desk.shows("connected to");
    guest.receives_exactly("ls\r\x03");
    assert_eq!(operator.wait(), 4);
    assert!(!desk.screen_so_far().contains("ls"));
    desk.types("\x1d.");
    assert_eq!(successor.wait(), 0);
}

#[test]
fn a_operator_that_is_killed_before_its_last_word_costs_nobody_a_byte() {
    let (guest, locks, pause) = (Guest::new(), Locks::new(), Pause::at("closing"));
    let operator = pause.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let viewers = [(); 2].map(|()| watches(&guest, &locks));
    guest.say("before ");
    for viewer in &viewers {
        viewer.stdout().receives("before ");
    }
    let next = Vconsole::attach(&guest).arg("--force").locks(&locks).attached_to_pipes();
    pause.reached();
    guest.say("after ");
    next.stdout().receives("after ");
    operator.kill();
    for viewer in &viewers {
        viewer.stderr().receives(format!("held by vconsole (pid {}, ", next.pid()));
    }
    guest.say("end");
    for viewer in &viewers {
        viewer.stdout().receives_exactly("before after end");
    }
}

#[test]
fn who_took_control_from_an_operator_that_is_killed_then_sees_every_byte_once() {
    let (guest, locks, pause) = (Guest::new(), Locks::new(), Pause::at("closing"));
    let (desk, directory) = (Terminal::new(), tempfile::tempdir().unwrap());
    let file = directory.path().join("shown");
    let operator = pause.of(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    let _successor = viewer(&guest, &locks).stdout_to(&file).on(&desk);
    desk.shows("watching");
    guest.say("before ");
    until("it is shown", || fs::read_to_string(&file).unwrap() == "before ");
    guest.say("between ");
    operator.stdout().receives("between ");
    desk.types("\x1df");
    pause.reached();
    operator.kill();
    desk.shows("connected to");
    guest.say("end");
    shows_all(&file, "before between end");
}
