//! `attach --read-only`: watching what another operates, or a console that nobody operates.

mod behind;
mod feed;
mod hostile;
mod many;
mod passing;
mod take_control;
mod without_locks;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{
    DEADLINE, Guest, Locks, Piped, Program, SOMEBODY, Terminal, Vconsole, in_time, not_root,
    took_less_than, until,
};

fn viewer(guest: &Guest, locks: &Locks) -> Program {
    Vconsole::attach(guest).arg("--read-only").locks(locks)
}

/// One that watches by now.
#[track_caller]
fn watches(guest: &Guest, locks: &Locks) -> Piped {
    let viewer = viewer(guest, locks).piped();
    viewer.stderr().receives("watching");
    viewer
}

#[track_caller]
fn leaves(session: &Piped) {
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
}

/// `count` lines of eight bytes.
fn lines(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        write!(text, "{number:06}\r\n").unwrap();
        text
    })
}

#[test]
fn any_number_see_what_the_operator_sees_beginning_with_the_last_64_kib() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let before = lines(20_000);
    guest.say(&before);
    operator.stdout().receives("019999\r\n");
    let mut viewers = [(); 5].map(|()| viewer(&guest, &locks).piped());
    for viewer in &viewers {
        viewer.stderr().receives(format!("held by vconsole (pid {}, ", operator.pid()));
        operator.stderr().receives(format!("watched by vconsole (pid {}, ", viewer.pid()));
        viewer.stdout().receives("019999\r\n");
    }
    guest.say("and more");
    let last = &before[before.len() - 65_536..];
    for viewer in &viewers {
        viewer.stdout().receives_exactly(format!("{last}and more"));
    }
    // The end of their input means nothing, and what is in it stays for whoever shares it.
    viewers[0].types("reboot\r");
    viewers[0].closes_stdin();
    let [others @ .., first, second] = &viewers;
    leaves(first);
    second.kill();
    for gone in [first, second] {
        operator.stderr().receives(format!("watched no more by vconsole (pid {}, ", gone.pid()));
    }
    let mut input = String::new();
    File::open(format!("/proc/{}/fd/0", others[0].pid()))
        .unwrap()
        .read_to_string(&mut input)
        .unwrap();
    assert_eq!(input, "reboot\r");
    guest.say("to the others");
    for viewer in others {
        viewer.stdout().receives("to the others");
    }
    operator.types("x");
    guest.receives_exactly("x");
    locks.names().iter().for_each(|name| {
        let holder = String::from_utf8(locks.read(name).unwrap()).unwrap();
        assert_eq!(holder.trim().parse(), Ok(operator.pid()));
    });
}

#[test]
fn what_a_viewer_types_goes_nowhere_and_the_escape_key_works() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let settings = desk.settings();
    let viewer = viewer(&guest, &locks).on(&desk);
    desk.shows("^] then f takes control");
    desk.types("reboot\r\x1d\x1d");
    desk.shows("read-only: nothing is typed; ^] then . leaves");
    desk.types("\x1db");
    desk.shows("no break sent: read-only");
    desk.types("\x1ds");
    desk.shows(format!("held by vconsole (pid {}, ", operator.pid()));
    desk.shows("nothing is typed: read-only");
    desk.types("more\x1d.");
    assert_eq!(viewer.wait(), 0);
    assert_eq!(desk.settings(), settings);
    assert_eq!(desk.screen_so_far().matches("nothing is typed; ").count(), 1, "it is said once");
    operator.types("x");
    guest.receives_exactly("x");
}

#[test]
fn the_operator_sees_who_watches() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let _operator = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    let viewer = viewer(&guest, &locks).env("SSH_CONNECTION", "192.0.2.7 1 2 3").piped();
    let who = format!("watched by vconsole (pid {}, ", viewer.pid());
    desk.shows(&who);
    desk.shows("from 192.0.2.7");
    desk.clear();
    desk.types("\x1ds");
    desk.shows(&who);
    leaves(&viewer);
    desk.shows("watched no more");
    desk.clear();
    desk.types("\x1ds");
    desk.shows("bytes from it");
    desk.types("\x1df");
    desk.shows("you operate the console already");
    assert!(!desk.screen_so_far().contains("watched"));
}

#[test]
fn who_wants_to_be_alone_is_not_watched() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let private = Vconsole::attach(&guest).arg("--private").locks(&locks);
    let operator = private.attached_to_pipes();
    let refused = viewer(&guest, &locks).output();
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(refused.stderr().contains("it lets nobody watch"), "{refused:?}");
    operator.stderr().receives("did not let watch");
    // A takeover does not ask.
    let next = Vconsole::attach(&guest).args(["--private", "--force"]).locks(&locks);
    let next = next.attached_to_pipes();
    assert_eq!(operator.wait(), 4);
    leaves(&next);
}

#[test]
fn who_watches_and_who_was_not_let_is_recorded() {
    let (guest, locks, directory) = (Guest::new(), Locks::new(), tempfile::tempdir().unwrap());
    let path = directory.path().join("log");
    let log = UnixDatagram::bind(&path).unwrap();
    log.set_read_timeout(Some(DEADLINE)).unwrap();
    let next = |wanted: &str| {
        let mut line = [0; 4096];
        let length = log.recv(&mut line).unwrap();
        let line = String::from_utf8_lossy(&line[..length]).into_owned();
        assert!(line.contains(wanted), "{wanted} in {line}");
        line
    };
    let recorded = |program: Program| program.env("VCONSOLE_TEST_SYSLOG", &path);
    let open = Vconsole::attach(&guest).locks(&locks);
    let operator = recorded(open.clone()).attached_to_pipes();
    next("event=attached");
    let viewer = recorded(viewer(&guest, &locks)).args(["--reason", "curious"]).piped();
    // Both speak for themselves, in any order.
    let lines = next("event=") + &next("event=");
    for part in [
        format!("event=watched by=\"vconsole (pid {}, ", viewer.pid()),
        format!("event=watches whom=\"vconsole (pid {}, ", operator.pid()),
        "reason=curious".to_owned(),
    ] {
        assert!(lines.contains(&part), "{part} in {lines}");
    }
    let _private = recorded(open.args(["--private", "--force"])).attached_to_pipes();
    let lines: String = (0..4).map(|_| next("event=")).collect();
    for event in ["took-over", "taken-over", "watch-refused", "refused"] {
        let wanted = format!("event={event} ");
        assert!(lines.contains(&wanted), "{wanted} in {lines}");
    }
    assert_eq!(viewer.wait(), 3);
}

#[test]
fn another_user_does_not_watch_and_root_does() {
    if not_root() {
        return;
    }
    let (guest, locks) = (Guest::new(), Locks::new().mode(0o1777));
    guest.chown(SOMEBODY);
    let users = Vconsole::attach(&guest).locks(&locks).as_user(SOMEBODY, SOMEBODY);
    let user = users.attached_to_pipes();
    let root = watches(&guest, &locks);
    guest.say("seen by both");
    root.stdout().receives("seen by both");
    leaves(&user);
    root.stderr().receives("connected to");
    let refused = viewer(&guest, &locks).as_user(SOMEBODY, SOMEBODY).output();
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(refused.stderr().contains("another user's"), "{refused:?}");
    guest.say("root's");
    root.stdout().receives("root's");
}

#[test]
fn without_an_operator_it_reads_and_types_nothing() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    desk.set_size(7, 77);
    let reader = viewer(&guest, &locks).attached_on(&desk);
    desk.shows("read-only: nobody operates it");
    guest.say("printed");
    desk.shows("printed");
    desk.types("typed\r");
    desk.shows("read-only: nothing is typed");
    assert_ne!(guest.size(), (7, 77), "the size is the operator's");
    // As long as nobody operates, control is free.
    desk.types("\x1df");
    desk.shows("you operate the console now");
    desk.types("x");
    guest.receives_exactly("x");
    assert_eq!(guest.size(), (7, 77));
    let refused = Vconsole::attach(&guest).locks(&locks).output();
    assert_eq!(refused.status, 3, "{refused:?}");
    desk.types("\x1d.");
    assert_eq!(reader.wait(), 0);
    locks.become_empty();
}

#[test]
fn of_two_who_read_the_second_watches_the_first() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let first = viewer(&guest, &locks).attached_to_pipes();
    let second = watches(&guest, &locks);
    guest.say("for both");
    for it in [&first, &second] {
        it.stdout().receives_exactly("for both");
    }
    leaves(&first);
    second.stderr().receives("connected to");
    guest.say(" and for one");
    second.stdout().receives_exactly("for both and for one");
    leaves(&second);
    locks.become_empty();
}

#[test]
fn who_only_reads_makes_way_for_who_operates() {
    for wait in [None, Some("--wait")] {
        let (guest, locks) = (Guest::new(), Locks::new());
        let reader = viewer(&guest, &locks).attached_to_pipes();
        guest.say("before ");
        reader.stdout().receives("before ");
        let operator = Vconsole::attach(&guest).args(wait).locks(&locks).attached_to_pipes();
        reader.stderr().receives(format!("taken over by vconsole (pid {}, ", operator.pid()));
        reader.stderr().receives("watching");
        operator.types("x");
        guest.receives_exactly("x");
        guest.say("after");
        operator.stdout().receives_exactly("after");
        reader.stdout().receives_exactly("before after");
        leaves(&operator);
        // And then it reads again.
        reader.stderr().wait_for("the second time", |said| {
            (String::from_utf8_lossy(said).matches("connected to").count() == 2).then_some(())
        });
        guest.say(" and on");
        reader.stdout().receives_exactly("before after and on");
        leaves(&reader);
        locks.become_empty();
    }
}

#[test]
fn who_waits_gets_what_is_only_read() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let viewers = [(); 2].map(|()| watches(&guest, &locks));
    let waiting = Vconsole::attach(&guest).arg("--wait").locks(&locks).piped();
    waiting.stderr().receives("waiting for");
    leaves(&operator);
    // Whoever of them comes first.
    waiting.stderr().receives("connected to");
    guest.say("hello");
    waiting.stdout().receives("hello");
    for viewer in &viewers {
        viewer.stdout().receives("hello");
    }
}

#[test]
fn a_operator_who_is_stopped_delays_nobodys_refusal_for_long() {
    in_time(|| {
        let (guest, locks) = (Guest::new(), Locks::new());
        let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        operator.signal(Signal::STOP);
        operator.is_stopped();
        let start = Instant::now();
        let refused = Vconsole::attach(&guest).locks(&locks).output();
        assert_eq!(refused.status, 3, "{refused:?}");
        assert!(refused.stderr().contains("is held by vconsole"), "{refused:?}");
        took_less_than(Duration::from_secs(5), start);
        let refused = viewer(&guest, &locks).output();
        assert_eq!(refused.status, 3, "{refused:?}");
        assert!(refused.stderr().contains("it does not answer"), "{refused:?}");
    });
}

#[test]
fn when_the_operator_leaves_one_viewer_reads_and_the_others_watch_it() {
    for killed in [false, true] {
        let (guest, locks) = (Guest::new(), Locks::new());
        let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let viewers = [(); 4].map(|()| watches(&guest, &locks));
        guest.say("one ");
        for viewer in &viewers {
            viewer.stdout().receives("one ");
        }
        if killed {
            operator.kill();
        } else {
            leaves(&operator);
        }
        let settled = |viewer: &Piped| {
            let said = String::from_utf8_lossy(&viewer.stderr().so_far()).into_owned();
            (said.contains("connected to"), said.matches("watching").count() > 1)
        };
        until("each has a place", || {
            viewers.iter().all(|viewer| settled(viewer) != (false, false))
        });
        assert_eq!(viewers.iter().filter(|viewer| settled(viewer).0).count(), 1);
        guest.say("two ");
        for viewer in &viewers {
            viewer.stdout().receives_exactly("one two ");
        }
        viewers.iter().for_each(leaves);
        locks.become_empty();
    }
}

#[test]
fn a_viewer_ends_as_an_operator_does() {
    let (mut guest, locks, mut desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let [mut unread, whole] = [(); 2].map(|()| watches(&guest, &locks));
    let on_terminal = viewer(&guest, &locks).on(&desk);
    desk.shows("watching");
    unread.breaks_stdout();
    guest.say("something");
    assert_eq!(unread.wait(), 141);
    desk.vanishes();
    assert_eq!(on_terminal.wait(), 129);
    // All that was printed is shown before the end, also where that has to wait.
    whole.stdout().pause();
    let text = lines(30_000);
    guest.say(&text);
    operator.stdout().receives("029999");
    guest.hang_up();
    assert_eq!(operator.wait(), 5);
    whole.reads_no_more();
    whole.stdout().resume();
    let output = whole.output();
    assert_eq!(output.status, 5);
    assert!(output.stdout() == format!("something{text}"));
    assert!(output.stderr().contains("hung up"), "{output:?}");
    locks.become_empty();
}

#[test]
fn a_panic_of_a_viewer_gives_its_terminal_back() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let settings = desk.settings();
    let viewer = viewer(&guest, &locks).env("VCONSOLE_TEST_PANIC", "relay").on(&desk);
    assert_eq!(viewer.wait(), 101);
    assert_eq!(desk.settings(), settings);
    desk.shows("was asked to panic");
    guest.say("undisturbed");
    operator.stdout().receives("undisturbed");
}

#[test]
fn viewers_see_the_rest_of_a_session_that_panics_and_are_told_that_it_left() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let attach = Vconsole::attach(&guest).locks(&locks).env("VCONSOLE_TEST_PANIC", "handing-over");
    let operator = attach.attached_to_pipes();
    let viewer = watches(&guest, &locks);
    let _newcomer = Vconsole::attach(&guest).arg("--force").locks(&locks).piped();
    assert_eq!(operator.wait(), 101);
    viewer.stderr().receives(" left ");
    let said = String::from_utf8(viewer.stderr().so_far()).unwrap();
    assert!(!said.contains("ended without a word"), "{said}");
}

#[test]
fn a_viewer_that_is_killed_leaves_its_terminal_as_it_was() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    guest.say("hello");
    operator.stdout().receives("hello");
    let files = operator.open_files().len();
    let settings = desk.settings();
    let viewer = viewer(&guest, &locks).on(&desk);
    desk.shows("watching");
    desk.becomes_raw();
    viewer.kill();
    until("the terminal is back", || desk.settings() == settings);
    operator.stderr().receives("watched no more");
    until("nothing of it is left", || operator.open_files().len() <= files);
}
