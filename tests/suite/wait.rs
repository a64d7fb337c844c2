//! `attach --wait`: sleeps until the console is free, and comes in the order of coming.

mod queue;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{
    Bystander, Guest, Locks, Piped, Program, SOMEBODY, Terminal, Vconsole, in_time, is_alive,
    not_root, silence, took_less_than, until,
};

fn waiting(guest: &Guest, locks: &Locks) -> Program {
    Vconsole::attach(guest).arg("--wait").locks(locks)
}

fn waits(guest: &Guest, locks: &Locks) -> Piped {
    let session = waiting(guest, locks).piped();
    session.stderr().receives("waiting for");
    session
}

/// Whether this process has a place in a queue.
fn is_queued(pid: i32) -> bool {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let mine = format!("-{pid}");
    table.lines().any(|line| line.contains("@vconsole-wait-") && line.ends_with(&mine))
}

/// Everybody may use this console.
fn for_all_users() -> Guest {
    let guest = Guest::new();
    fs::set_permissions(guest.path(), Permissions::from_mode(0o666)).unwrap();
    guest
}

#[track_caller]
fn leaves(session: &Piped) {
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
}

#[test]
fn a_free_console_is_attached_to_at_once() {
    in_time(|| {
        let (guest, locks) = (Guest::new(), Locks::new());
        let start = Instant::now();
        let session = waiting(&guest, &locks).attached_to_pipes();
        took_less_than(Duration::from_secs(2), start);
        assert!(!String::from_utf8_lossy(&session.stderr().so_far()).contains("waiting"));
    });
}

#[test]
fn it_says_whom_it_waits_for_and_attaches_when_they_leave() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let holder = Bystander::new();
    let name = format!("LCK..{}", guest.path().file_name().unwrap().to_str().unwrap());
    locks.write(&name, holder.lock());
    let session = waits(&guest, &locks);
    session.stderr().receives(format!("held by sleep (pid {}", holder.pid()));
    drop(holder);
    session.stderr().receives("connected to");
    leaves(&session);

    let opener = Bystander::with_open(guest.path());
    let session = waits(&guest, &locks);
    session.stderr().receives(format!("open in sleep (pid {}", opener.pid()));
    drop(opener);
    session.stderr().receives("connected to");
    leaves(&session);
}

#[test]
fn three_are_served_in_the_order_of_coming_also_when_the_middle_one_is_killed() {
    for kill in [false, true] {
        let (guest, locks) = (Guest::new(), Locks::new());
        let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let queue = [(); 3].map(|()| waits(&guest, &locks));
        if kill {
            let before = locks.names();
            assert!(is_queued(queue[1].pid()));
            queue[1].kill();
            assert!(!is_queued(queue[1].pid()) && locks.names() == before, "it left something");
        }
        let mut before = &operator;
        for (number, next) in queue.iter().enumerate().filter(|(number, _)| !kill || *number != 1) {
            leaves(before);
            next.stderr().receives("connected to");
            for later in &queue[number + 1..] {
                let said = String::from_utf8_lossy(&later.stderr().so_far()).into_owned();
                assert!(!said.contains("connected"), "{said}");
            }
            before = next;
        }
    }
}

#[test]
fn one_who_is_stopped_is_passed_over() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let (first, second) = (waits(&guest, &locks), waits(&guest, &locks));
    first.signal(Signal::STOP);
    first.is_stopped();
    leaves(&operator);
    second.stderr().receives("connected to");
}

#[test]
fn a_time_limit_ends_with_124_and_signals_at_once() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let _operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let limited = Vconsole::attach(&guest).arg("--wait=100ms").locks(&locks).output();
    assert_eq!(limited.status, 124, "{limited:?}");
    assert!(limited.stderr().contains("the time limit passed"), "{limited:?}");
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let session = waits(&guest, &locks);
        session.signal(signal);
        assert_eq!(session.wait(), status);
    }
}

#[test]
fn a_console_that_vanishes_ends_the_wait() {
    let (mut guest, locks) = (Guest::new(), Locks::new());
    let opener = Bystander::with_open(guest.path());
    let session = waits(&guest, &locks);
    guest.hang_up();
    drop(opener);
    assert_eq!(session.wait(), 6);
}

#[test]
fn waiting_is_sleeping() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let _operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let session = waits(&guest, &locks);
    let before = session.naps();
    // Only for proving that something does not come.
    std::thread::sleep(Duration::from_secs(3));
    let naps = session.naps() - before;
    assert!(naps <= 12, "woken {naps} times in 3 s");
    until("it used little", || session.cpu_time() < Duration::from_millis(500));
}

#[test]
fn quiet_waits_without_a_word() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let session = waiting(&guest, &locks).arg("--quiet").piped();
    until("it waits", || is_queued(session.pid()));
    session.reads_no_more();
    leaves(&operator);
    guest.say("hello");
    session.stdout().receives("hello");
    session.signal(Signal::TERM);
    let output = session.output();
    assert_eq!((output.status, output.stderr().as_str()), (143, ""));
}

#[test]
fn ctrl_z_stops_it_and_fg_goes_on_waiting_as_often_as_one_likes() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let before = desk.settings();
    let session = waiting(&guest, &locks).on(&desk);
    desk.shows("waiting for");
    for _ in 0..2 {
        desk.types("\x1a");
        session.is_stopped();
        session.fg();
        until("it runs in the foreground", || {
            desk.foreground() == session.pid() && !session.is_stopped_now()
        });
        // A stop that comes before it has seen that it was continued is none.
        session.reads_no_more();
    }
    desk.clear();
    desk.types("\x1a");
    desk.shows("^Z");
    session.is_stopped();
    leaves(&operator);
    desk.clear();
    silence(desk.ear(), Duration::from_millis(200));
    session.fg();
    desk.shows("connected to");
    desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(desk.settings(), before);
}

#[test]
fn in_the_background_it_waits_and_asks_for_fg_when_the_console_is_free() {
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let before = desk.settings();
    let session = waiting(&guest, &locks).on(&desk);
    desk.shows("waiting for");
    desk.types("\x1a");
    session.is_stopped();
    until("the shell has its terminal back", || desk.foreground() != session.pid());
    session.signal(Signal::CONT);
    leaves(&operator);
    desk.shows("can be had: use fg");
    session.is_stopped();
    assert_eq!(desk.settings(), before);
    session.fg();
    desk.shows("connected to");
    desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
}

#[test]
fn waiters_of_different_users_are_served_in_the_order_of_coming() {
    if not_root() {
        return;
    }
    let (guest, locks) = (for_all_users(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let waiting = waiting(&guest, &locks);
    let (one, other) = (SOMEBODY, SOMEBODY - 1);
    let queue = [
        waiting.clone().as_user(one, one),
        waiting.clone().as_user(other, other),
        waiting.clone(),
        waiting.as_user(one, one),
    ];
    let queue = queue.map(|program| {
        let session = program.piped();
        session.stderr().receives("waiting for");
        session
    });
    let mut before = &operator;
    for (number, next) in queue.iter().enumerate() {
        leaves(before);
        next.stderr().receives("connected to");
        for later in &queue[number + 1..] {
            let said = String::from_utf8_lossy(&later.stderr().so_far()).into_owned();
            assert!(!said.contains("connected"), "{said}");
        }
        before = next;
    }
}

#[test]
fn the_time_limit_is_exact() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let _operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let limit = Duration::from_millis(1300);
    let late = || {
        let start = Instant::now();
        let limited = Vconsole::attach(&guest).arg("--wait=1300ms").locks(&locks).output();
        assert_eq!(limited.status, 124, "{limited:?}");
        let late = start.elapsed().checked_sub(limit);
        late.unwrap_or_else(|| panic!("it ended before its time, after {:?}", start.elapsed()))
    };
    // A loaded machine may be late once.
    let tries = [(); 3].map(|()| late());
    assert!(tries.iter().min().unwrap() < &Duration::from_millis(400), "late by {tries:?}");
}

#[test]
fn with_force_it_takes_over_at_once_whoever_waits() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let patient = waits(&guest, &locks);
    let session = waiting(&guest, &locks).arg("--force").attached_to_pipes();
    assert_eq!(operator.wait(), 4);
    leaves(&session);
    patient.stderr().receives("connected to");
}

#[test]
fn with_force_it_does_not_wait_for_a_lock_that_nobody_can_vouch_for() {
    let (guest, locks) = (Guest::new(), Locks::new());
    let name = format!("LCK..{}", guest.path().file_name().unwrap().to_str().unwrap());
    locks.write(&name, "garbage");
    leaves(&waits(&guest, &locks));
    leaves(&waiting(&guest, &locks).arg("--force").attached_to_pipes());
}

#[test]
fn with_force_it_waits_for_who_refuses_and_takes_over_from_who_came_meanwhile() {
    if not_root() {
        return;
    }
    let (guest, locks) = (for_all_users(), Locks::new());
    let user = |program: Program| program.as_user(SOMEBODY, SOMEBODY);
    let roots = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let session = user(waiting(&guest, &locks).arg("--force")).piped();
    session.stderr().receives("it is another user's: root can take it over");
    // Whatever it is woken by, it knows who refuses.
    for _ in 0..3 {
        fs::remove_file(locks.write("LCK..nothing", "")).unwrap();
        session.reads_no_more();
    }
    let said = String::from_utf8_lossy(&session.stderr().so_far()).into_owned();
    assert_eq!(said.matches("waiting for").count(), 1, "{said}");
    session.signal(Signal::STOP);
    session.is_stopped();
    leaves(&roots);
    let newcomer = user(Vconsole::attach(&guest).locks(&locks)).attached_to_pipes();
    session.signal(Signal::CONT);
    assert_eq!(newcomer.wait(), 4);
    session.stderr().receives("connected to");
    guest.say("hello");
    session.stdout().receives("hello");
}

#[test]
fn with_force_it_leaves_their_turn_to_those_who_waited_before_it() {
    if not_root() {
        return;
    }
    let (guest, locks) = (for_all_users(), Locks::new());
    let user = |program: Program| program.as_user(SOMEBODY, SOMEBODY);
    let roots = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let patient = user(waiting(&guest, &locks)).piped();
    patient.stderr().receives("waiting for");
    let session = user(waiting(&guest, &locks).arg("--force")).piped();
    session.stderr().receives("waiting for");
    leaves(&roots);
    patient.stderr().receives("connected to");
    session.stderr().receives(format!("held by vconsole (pid {}", patient.pid()));
    session.reads_no_more();
    guest.say("in turn");
    patient.stdout().receives("in turn");
    leaves(&patient);
    session.stderr().receives("connected to");
}

#[test]
fn with_force_it_waits_for_who_cannot_be_evicted_and_says_why() {
    if not_root() {
        return;
    }
    let (guest, locks) = (for_all_users(), Locks::new());
    let daemon = Bystander::daemon_of(SOMEBODY, guest.path());
    let session = waiting(&guest, &locks).arg("--force").as_user(SOMEBODY, SOMEBODY).piped();
    session.stderr().receives("waiting for");
    session.reads_no_more();
    let said = String::from_utf8_lossy(&session.stderr().so_far()).into_owned();
    assert_eq!(said.matches("waiting for").count(), 1, "{said}");
    assert!(said.contains("who cannot be evicted: "), "{said}");
    assert!(is_alive(daemon.pid().try_into().unwrap()));
    drop(daemon);
    session.stderr().receives("connected to");
}

#[test]
fn a_console_on_which_somebody_logs_in_ends_the_wait() {
    let (desk, locks) = (Terminal::new(), Locks::new());
    let _holder = Bystander::with_open(desk.path());
    let session = Vconsole::attach(desk.path()).arg("--wait").locks(&locks).piped();
    session.stderr().receives("waiting for");
    let _login = Program::new("sleep").arg("1000").on(&desk);
    let output = session.output();
    assert_eq!(output.status, 6, "{output:?}");
}
