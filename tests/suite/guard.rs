//! What a SIGKILL leaves behind: nothing. And what becomes of a session whose guard is killed.
//!
//! `VCONSOLE_ROUNDS=500 cargo test guard` kills as often as that.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::harness::{
    Client, Guest, Locks, Program, SOMEBODY, Session, Terminal, Vconsole, not_root, ready, rounds,
    until,
};
use super::locks::{NOBODY, all_names, attached, path_name, try_attach};

/// The processes that `pid` has started, those as well that have ended and that it has not heard of.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The guard of the session `pid`, if it has one by now.
pub(crate) fn guard_of(pid: i32) -> Option<i32> {
    children_of(pid).into_iter().find_map(|child| {
        let line = fs::read(format!("/proc/{child}/cmdline")).ok()?;
        line.starts_with(b"vconsole-guard\0").then_some(child)
    })
}

#[track_caller]
pub(crate) fn awaited_guard_of(session: &Session) -> i32 {
    awaited_guard(session.pid())
}

/// The guard of the session `pid`. It may take a moment until it has its name.
#[track_caller]
pub(crate) fn awaited_guard(pid: i32) -> i32 {
    let mut found = None;
    until("the session has a guard", || {
        found = guard_of(pid);
        found.is_some()
    });
    found.unwrap()
}

/// Waits until the guard has ended, but no longer than it may take to put things right: closing its
/// watch can take the kernel longer on a loaded machine.
pub(crate) fn is_done(guard: i32) {
    let Ok(pidfd) = pidfd_open(Pid::from_raw(guard).unwrap(), PidfdFlags::empty()) else { return };
    ready(&pidfd, rustix::event::PollFlags::IN, Duration::from_secs(2));
}

pub(crate) fn kill(pid: i32) {
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
}

/// Nothing of a killed session is left: an ordinary user can attach.
#[track_caller]
fn nothing_is_left(guest: &Guest, locks: &Locks, expected: &[String]) {
    assert_eq!(locks.names(), expected);
    let mut attach = Vconsole::attach(guest).locks(locks).args(["--linger", "0"]);
    if rustix::process::geteuid().is_root() {
        attach = attach.as_user(SOMEBODY, SOMEBODY);
    }
    let output = attach.output();
    assert_eq!(output.status, 0, "{output:?}");
}

#[test]
fn a_session_killed_at_any_moment_leaves_nothing_behind() {
    let terminal = Terminal::new();
    let before = terminal.settings();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..rounds(40) {
        let (guest, locks) = (Guest::new(), Locks::new());
        if rustix::process::geteuid().is_root() {
            guest.chown(SOMEBODY);
        }
        // Half of them find a dead lock to remove, so as to be killed while they do.
        if round % 2 == 0 {
            locks.write(&path_name(&guest), NOBODY);
        }
        // xorshift64: anywhere from exec to well into the relay.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let moment = Duration::from_micros(random % 25_000);
        let session = Vconsole::attach(&guest).locks(&locks).on(&terminal);
        let start = std::time::Instant::now();
        let mut guard = None;
        while start.elapsed() < moment {
            guard = guard.or_else(|| guard_of(session.pid()));
        }
        guard = guard.or_else(|| guard_of(session.pid()));
        session.signal(Signal::KILL);
        assert_eq!(session.wait(), 128 + 9);
        if let Some(guard) = guard {
            is_done(guard);
        }
        // One that was just being started is found by nobody, and has little to do.
        until("the terminal is as it was", || terminal.settings() == before);
        until("its files are gone", || {
            locks.names().iter().all(|name| *name == path_name(&guest))
                && locks.read(&path_name(&guest)).is_none_or(|left| left == NOBODY.as_bytes())
        });
        let left = locks.names();
        if left.is_empty() {
            nothing_is_left(&guest, &locks, &[]);
        } else {
            // The dead lock is another user's in a sticky directory: it stays, and is passed over.
            nothing_is_left(&guest, &locks, &[path_name(&guest)]);
        }
    }
}

#[test]
fn a_killed_session_gives_back_its_terminal_its_locks_and_the_flag() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    if rustix::process::geteuid().is_root() {
        guest.chown(SOMEBODY);
    }
    let before = terminal.settings();
    let session = attached(&guest, &locks, &terminal);
    assert_ne!(terminal.settings(), before);
    let guard = awaited_guard_of(&session);
    session.signal(Signal::KILL);
    is_done(guard);
    assert_eq!(terminal.settings(), before);
    nothing_is_left(&guest, &locks, &[]);
}

#[test]
fn a_guard_leaves_with_its_session() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    let guard = awaited_guard_of(&session);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    until("the guard has left", || !super::harness::is_alive(guard));

    // Also when the console is refused.
    locks.write(&path_name(&guest), "");
    let refused = try_attach(&guest, &locks, &[]);
    assert_eq!(refused.status, 3);
}

/// What a process has open, in order, without the numbers of what has no path.
pub(crate) fn open_things(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    // socket:[4711]
    let unnumbered = |name: &str| match name.split_once(":[") {
        Some((kind, number)) if number.starts_with(|first: char| first.is_ascii_digit()) => {
            kind.to_owned()
        }
        _ => name.to_owned(),
    };
    let mut things: Vec<_> = links.map(|link| unnumbered(&link.display().to_string())).collect();
    things.sort();
    things
}

/// The same of a guard, when it has read all that it is told while a session starts.
pub(crate) fn what_it_guards(guard: i32, terminal: &Terminal) -> Vec<String> {
    let told = [terminal.path().display().to_string(), "anon_inode:[eventpoll]".to_owned()];
    let mut things = Vec::new();
    until("the guard knows the terminal, and waits at its door", || {
        things = open_things(guard);
        told.iter().all(|it| things.contains(it))
    });
    things
}

#[test]
fn a_guard_holds_nothing_but_what_it_guards() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    let guard = awaited_guard_of(&session);
    let mut expected =
        [guest.path(), locks.path(), terminal.path()].map(|path| path.display().to_string());
    expected.sort();
    // It reads what it is told when it comes to it: the session does not wait.
    until("it holds what it guards, and nothing else", || {
        let mut open = open_things(guard);
        open.retain(|thing| thing.starts_with('/') && thing != "/dev/null");
        open == expected
    });
    assert_eq!(fs::read_link(format!("/proc/{guard}/cwd")).unwrap(), std::path::Path::new("/"));
    // It is in a session of its own: what ends the terminal's does not end it.
    let stat = fs::read_to_string(format!("/proc/{guard}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    assert_eq!(fields.split(' ').nth(3).unwrap(), guard.to_string());
}

#[test]
fn a_killed_guard_is_replaced_and_the_new_one_knows_everything() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    if rustix::process::geteuid().is_root() {
        guest.chown(SOMEBODY);
    }
    let before = terminal.settings();
    let session = attached(&guest, &locks, &terminal);
    let first = awaited_guard_of(&session);
    let known = what_it_guards(first, &terminal);
    kill(first);
    terminal.shows("the guard was killed: there is a new one");
    guest.say("still here");
    terminal.shows("still here");
    let second = awaited_guard_of(&session);
    assert_ne!(second, first);
    // By now the session has much more open than when it made the first one.
    until("the new one holds the same, and nothing else", || open_things(second) == known);
    assert_eq!(locks.names(), all_names(&guest));
    session.signal(Signal::KILL);
    is_done(second);
    assert_eq!(terminal.settings(), before);
    nothing_is_left(&guest, &locks, &[]);
}

#[test]
fn a_guard_that_is_killed_again_and_again_is_done_without() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    guest.chown(SOMEBODY);
    let session = attached(&guest, &locks, &terminal);
    for _ in 0..3 {
        let guard = awaited_guard_of(&session);
        kill(guard);
        terminal.shows("there is a new one");
        terminal.clear();
    }
    kill(awaited_guard_of(&session));
    terminal.shows("going on without the exclusive flag");
    // The flag is gone: nobody would clear it.
    let cat = Program::new("cat").arg(&guest).as_user(SOMEBODY, SOMEBODY).piped();
    guest.say("no flag");
    until("somebody reads it", || {
        !cat.stdout().so_far().is_empty() || terminal.screen_so_far().contains("no flag")
    });
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    locks.become_empty();
}

#[test]
fn a_stopped_guard_keeps_neither_its_session_nor_the_console() {
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    let session = attached(&guest, &locks, &terminal);
    let guard = awaited_guard_of(&session);
    let pidfd = pidfd_open(Pid::from_raw(guard).unwrap(), PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&pidfd, Signal::STOP).unwrap();
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    until("the guard is gone", || !super::harness::is_alive(guard));
    assert_eq!(try_attach(&guest, &locks, &[]).status, 0);
}

#[test]
fn a_guard_that_is_killed_during_the_claim_is_replaced() {
    // Somebody who has the console open for a moment makes the claim wait for them.
    for _ in 0..20 {
        let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
        let passing = super::harness::Bystander::with_open(guest.path());
        let session = Vconsole::attach(&guest).locks(&locks).on(&terminal);
        kill(awaited_guard_of(&session));
        drop(passing);
        until("it is attached or refused", || {
            let screen = terminal.screen_so_far();
            screen.contains("connected to") || screen.contains("without a lock")
        });
        if session.has_ended() || terminal.screen_so_far().contains("without a lock") {
            continue; // We were too slow to be a passer-by.
        }
        terminal.shows("the guard was killed: there is a new one");
        if rustix::process::geteuid().is_root() {
            let line = Client::asleep(guest.path());
            let is_set = || vconsole::sys::is_exclusive(line.line()).unwrap();
            until("the flag is set, now that somebody would clear it", is_set);
        }
        let before = locks.names();
        session.signal(Signal::KILL);
        locks.become_empty();
        assert_eq!(before, all_names(&guest));
        return;
    }
    panic!("it was refused each time");
}

#[test]
fn a_session_without_descriptors_to_spare_gives_its_locks_back() {
    let (guest, locks) = (Guest::new(), Locks::new());
    for limit in 6..20 {
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        let output = Program::new("sh")
            .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_vconsole"), "attach"])
            .args(["--linger", "0"])
            .arg(&guest)
            .locks(&locks)
            .output();
        assert!([0, 1, 3, 6].contains(&output.status), "{limit}: {output:?}");
        until("its files are gone", || locks.names().is_empty());
    }
}

#[test]
fn what_both_leave_behind_needs_no_force_but_for_the_flag() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    guest.chown(SOMEBODY);
    let session = attached(&guest, &locks, &terminal);
    let guard = awaited_guard_of(&session);
    // The session must not live to start another one.
    session.signal(Signal::STOP);
    session.is_stopped();
    kill(guard);
    session.signal(Signal::KILL);
    assert_eq!(session.wait(), 128 + 9);
    assert_eq!(locks.names(), all_names(&guest));

    let plain = ["--linger", "0"];
    let theirs = Vconsole::attach(&guest).locks(&locks).args(plain).as_user(SOMEBODY, SOMEBODY);
    let output = theirs.output();
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("exclusive flag"), "{output:?}");
    assert!(output.stderr().contains("sudo vconsole attach --force"), "{output:?}");

    let output = try_attach(&guest, &locks, &[]);
    assert_eq!(output.status, 3, "{output:?}");
    assert!(output.stderr().contains("exclusive flag"), "{output:?}");
    let output = try_attach(&guest, &locks, &["--force"]);
    assert_eq!(output.status, 0, "{output:?}");
    assert!(output.stderr().contains("took over an exclusive flag"), "{output:?}");
    nothing_is_left(&guest, &locks, &[]);
}

#[test]
fn the_flag_keeps_ordinary_users_out_while_a_session_lives() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (Guest::new(), Locks::new(), Terminal::new());
    guest.chown(SOMEBODY);
    let session = attached(&guest, &locks, &terminal);
    let cat = || Program::new("cat").arg(&guest).as_user(SOMEBODY, SOMEBODY).output();
    let refused = cat();
    assert!(refused.stderr().contains("busy"), "{refused:?}");
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    drop(Client::asleep(guest.path()));
    let cat = Program::new("cat").arg(&guest).as_user(SOMEBODY, SOMEBODY).piped();
    guest.say("free again");
    cat.stdout().receives("free again");
}
