//! `--force` against programs that are no vconsoles: who is made to let go and by what, and who is left
//! alone.

mod hang_up;
mod instances;
mod namesakes;
mod others;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{Uid, chown};
use rustix::process::Signal;

use super::harness::{
    Bystander, Client, Guest, Locks, Output, Piped, Program, SOMEBODY, Session, Terminal, Vconsole,
    in_time, is_alive, missing, not_root, took_less_than, until,
};
use super::locks::{NOBODY, path_name};

/// Another ordinary user.
const SOMEBODY_ELSE: u32 = 65533;

/// A console of SOMEBODY's, that everybody may open.
fn console() -> Guest {
    let guest = Guest::new();
    guest.chown(SOMEBODY);
    fs::set_permissions(guest.path(), fs::Permissions::from_mode(0o666)).unwrap();
    guest
}

/// A client that `user` sits at: it has the console as standard input, and ignores `ignored`.
fn client(guest: &Guest, terminal: &Terminal, user: u32, ignored: &[Signal]) -> Session {
    let client = Program::new("sleep").arg("1000").stdin_from(guest.path()).as_user(user, user);
    let client = ignored.iter().fold(client, |client, &signal| client.ignoring(signal));
    let session = client.on(terminal);
    until("the client has the console", || {
        session.open_files().contains(&guest.path().to_path_buf())
            && fs::read_to_string(format!("/proc/{}/comm", session.pid())).unwrap() == "sleep\n"
    });
    session
}

/// `attach --force`, as SOMEBODY.
fn force(guest: &Guest, locks: &Locks) -> Program {
    forced(guest, locks).as_user(SOMEBODY, SOMEBODY)
}

/// `attach --force`, as ourselves: root.
fn forced(guest: &Guest, locks: &Locks) -> Program {
    Vconsole::attach(guest).locks(locks).args(["--force", "--linger", "0"])
}

#[track_caller]
fn assert_evicted(output: &Output, pid: impl std::fmt::Display, how: &str) {
    let said = output.stderr();
    assert_eq!(output.status, 0, "{said}");
    assert!(said.contains("connected to"), "{said}");
    let line = said.lines().find(|line| line.contains("evicted sleep (pid "));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&format!("(pid {pid}, ")) && line.ends_with(how), "{said}");
}

#[track_caller]
fn assert_refused(output: &Output, why: &str, hint: &str) {
    let said = output.stderr();
    assert_eq!(output.status, 3, "{said}");
    assert!(said.contains(why) && said.contains(&format!("hint: {hint}")), "{said}");
    assert!(!said.contains("evicted sleep") && !said.contains("connected"), "{said}");
}

#[test]
fn a_client_is_evicted_by_the_mildest_signal_that_it_heeds() {
    if not_root() {
        return;
    }
    for (ignored, how) in [(&[][..], "by SIGHUP"), (&[Signal::HUP], "by SIGTERM")] {
        let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
        let client = client(&guest, &terminal, SOMEBODY, ignored);
        let output = force(&guest, &locks).output();
        assert_evicted(&output, client.pid(), how);
        assert!(client.has_ended());
        assert_eq!(output.stderr().contains("waiting for it to leave"), !ignored.is_empty());
        locks.assert_empty();
    }
}

#[test]
fn root_evicts_another_user_s_client_by_a_signal() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let client = client(&guest, &terminal, SOMEBODY, &[]);
    assert_evicted(&forced(&guest, &locks).output(), client.pid(), "by SIGHUP");
}

#[test]
fn a_stopped_client_is_evicted() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let client = client(&guest, &terminal, SOMEBODY, &[]);
    client.signal(Signal::STOP);
    client.is_stopped();
    assert_evicted(&force(&guest, &locks).output(), client.pid(), "by SIGHUP");
}

#[test]
fn a_client_that_heeds_no_signal_is_refused_and_all_is_as_it_was() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let client = client(&guest, &terminal, SOMEBODY, &[Signal::HUP, Signal::TERM]);
    // Its own lock, and a dead one that has to give way while the outcome is open.
    let own = locks.write(&path_name(&guest), format!("{:>10}\n", client.pid()));
    let dead = locks.write(&format!("LCK..{}", super::locks::number(&guest)), NOBODY);
    for lock in [&own, &dead] {
        chown(lock, Some(Uid::from_raw(SOMEBODY)), None).unwrap();
    }
    let names = locks.names();
    let output = force(&guest, &locks).output();
    assert_refused(
        &output,
        "it went on after SIGHUP and SIGTERM",
        "ask its user to leave, or: sudo",
    );
    assert_eq!(locks.names(), names);
    assert_eq!(fs::read_to_string(dead).unwrap(), NOBODY);
    assert!(!client.has_ended() && open_to(SOMEBODY, &guest));
}

#[test]
fn whom_no_signal_ends_root_hangs_up() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let client = client(&guest, &terminal, SOMEBODY, &[Signal::HUP, Signal::TERM]);
    let output = forced(&guest, &locks).output();
    let how = format!("by hanging up {}", guest.path().display());
    assert_evicted(&output, client.pid(), &how);
    assert!(output.stderr().contains("output may be gone"), "{output:?}");
    assert!(!client.has_ended() && !guest.echoes());
    // What it has left is good for nothing: it is in nobody's way.
    let output = super::locks::try_attach(&guest, &locks, &[]);
    assert_eq!(output.status, 0, "{output:?}");
}

/// Whether `user` can open the console: no exclusive flag was left.
fn open_to(user: u32, guest: &Guest) -> bool {
    let open = Program::new("sh").args(["-c", ": <>\"$1\"", "sh"]).arg(guest);
    open.as_user(user, user).output().status == 0
}

#[test]
fn a_daemon_is_refused_an_ordinary_user_and_hung_up_for_root() {
    if not_root() {
        return;
    }
    let (guest, locks) = (console(), Locks::new());
    // As SOMEBODY: a session of its own, and no terminal but the console, which it got by accident.
    let script = "exec 3<>\"$1\"; echo open; exec sleep 1000";
    let daemon = Program::new("sh").args(["-c", script, "sh"]).arg(&guest);
    let daemon = daemon.as_user(SOMEBODY, SOMEBODY).piped();
    daemon.stdout().receives("open");
    until("it is a sleep", || {
        fs::read_to_string(format!("/proc/{}/comm", daemon.pid())).unwrap() == "sleep\n"
    });
    assert_refused(&force(&guest, &locks).output(), "it is a daemon", "tell sleep (pid ");
    assert!(!daemon.has_ended());
    locks.assert_empty();
    drop(daemon);

    let daemon = Bystander::daemon_with_open(guest.path());
    let lock = locks.write(&path_name(&guest), daemon.lock());
    let output = forced(&guest, &locks).output();
    assert_evicted(&output, daemon.pid(), &format!("by hanging up {}", guest.path().display()));
    // It lives, and did not remove its lock: that is of no more use.
    let removed = format!(
        "removed the lock {}: sleep (pid {}, root) was evicted",
        lock.display(),
        daemon.pid()
    );
    assert!(output.stderr().contains(&removed), "{output:?}");
    assert!(is_alive(daemon.pid().cast_signed()));
    locks.assert_empty();
}

/// A daemon that has the console open, and `flock` on it.
fn daemon_with_flock(guest: &Guest) -> Piped {
    let daemon = Program::new("flock").args(["--no-fork", "--nonblock"]).arg(guest);
    let daemon = daemon.args(["sleep", "1000"]).piped();
    until("it has the lock", || {
        fs::read_to_string(format!("/proc/{}/comm", daemon.pid())).unwrap() == "sleep\n"
    });
    daemon
}

#[test]
fn a_flock_that_only_the_hung_up_have_is_not_in_the_way() {
    if not_root() || missing("flock") {
        return;
    }
    let (guest, locks) = (console(), Locks::new());
    let daemon = daemon_with_flock(&guest);
    let output = forced(&guest, &locks).output();
    assert_evicted(&output, daemon.pid(), &format!("by hanging up {}", guest.path().display()));
    assert!(output.stderr().contains("going on without flock: sleep (pid "), "{output:?}");
    assert!(!daemon.has_ended());
    locks.assert_empty();
}

#[test]
fn a_shell_that_has_the_console_on_some_descriptor_is_left_alone() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let shell = Program::new("bash").args(["--norc", "-i"]).as_user(SOMEBODY, SOMEBODY);
    let shell = shell.redirected(format!("3<>{}", guest.path().display())).on(&terminal);
    terminal.types("echo he''llo\n");
    terminal.shows("hello");
    assert_refused(
        &force(&guest, &locks).output(),
        "it is a shell",
        "ask its user to leave, or: sudo",
    );
    let output = forced(&guest, &locks).output();
    assert_eq!(output.status, 0, "{output:?}");
    assert!(output.stderr().contains("evicted bash (pid "), "{output:?}");
    assert!(output.stderr().contains("by hanging up"), "{output:?}");
    terminal.types("echo ali''ve\n");
    terminal.shows("alive");
    assert!(!shell.has_ended());
}

#[test]
fn nobody_is_disturbed_if_one_of_them_leads_a_session_of_others() {
    if not_root() || missing("script") {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    // All three have the console; the two of the inner session are sleep. One of them leads it, and
    // the other is not its child.
    let inner = "(sleep 1000 &); echo star''ted; exec sleep 1000";
    let script = Program::new("script").args(["-qec", inner, "/dev/null"]);
    let script = script.env("SHELL", "/bin/sh").as_user(SOMEBODY, SOMEBODY);
    let script = script.redirected(format!("3<>{}", guest.path().display())).on(&terminal);
    terminal.shows("started");
    until("the leader is a sleep", || {
        let said = force(&guest, &locks).output().stderr();
        said.contains("held by sleep (pid ") && said.contains("leads a session that others are in")
    });
    assert!(!script.has_ended());
    locks.assert_empty();
}

#[test]
fn of_two_nobody_is_disturbed_when_one_cannot_be_evicted() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let client = client(&guest, &terminal, SOMEBODY, &[]);
    let (other, elsewhere) = (Terminal::new(), Program::new("sleep").arg("1000"));
    let theirs =
        elsewhere.stdin_from(guest.path()).as_user(SOMEBODY_ELSE, SOMEBODY_ELSE).on(&other);
    let lock = locks.write(&path_name(&guest), format!("{:>10}\n", theirs.pid()));
    assert_refused(
        &force(&guest, &locks).output(),
        "it is another user's",
        "ask its user to leave, or: sudo",
    );
    assert!(!client.has_ended() && !theirs.has_ended() && lock.exists());
    // And one who only has flock, which the kernel says though /proc does not show it.
    fs::remove_file(lock).unwrap();
    drop(theirs);
    if missing("flock") {
        return;
    }
    let theirs = Program::new("flock").args(["--no-fork", "--nonblock"]).arg(&guest);
    let theirs = theirs.args(["sleep", "1000"]).as_user(SOMEBODY_ELSE, SOMEBODY_ELSE).on(&other);
    until("it has the lock", || {
        fs::read_to_string(format!("/proc/{}/comm", theirs.pid())).unwrap() == "sleep\n"
    });
    assert_refused(
        &force(&guest, &locks).output(),
        "it is another user's",
        "ask its user to leave, or: sudo",
    );
    assert!(!client.has_ended() && !theirs.has_ended());
    locks.assert_empty();
}

#[test]
fn who_waits_for_a_client_to_leave_can_give_up() {
    in_time(|| {
        if not_root() {
            return;
        }
        let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
        let client = client(&guest, &terminal, SOMEBODY, &[Signal::HUP, Signal::TERM]);
        let (own, start) = (Terminal::new(), Instant::now());
        let session = force(&guest, &locks).on(&own);
        own.shows("waiting for it to leave");
        own.types("\x03");
        assert_eq!(session.wait(), 130);
        took_less_than(Duration::from_secs(4), start);
        assert!(!client.has_ended() && open_to(SOMEBODY, &guest));
        locks.assert_empty();
    });
}

#[test]
fn killed_while_it_evicts_it_leaves_the_old_lock_and_no_flag() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let _client = client(&guest, &terminal, SOMEBODY, &[Signal::HUP, Signal::TERM]);
    let lock = locks.write(&path_name(&guest), NOBODY);
    chown(&lock, Some(Uid::from_raw(SOMEBODY)), None).unwrap();
    let own = Terminal::new();
    let session = force(&guest, &locks).on(&own);
    own.shows("waiting for it to leave");
    assert!(!open_to(SOMEBODY, &guest), "nobody else comes in meanwhile");
    session.kill();
    until("the old lock is back", || locks.names() == [path_name(&guest)]);
    assert_eq!(fs::read_to_string(&lock).unwrap(), NOBODY);
    until("the flag is gone", || open_to(SOMEBODY, &guest));
}

#[test]
fn the_lock_of_who_is_at_the_other_end_is_not_broken() {
    // The guest is in this very process, which has the slave open as well: that makes it no client.
    let (guest, locks) = (Guest::new(), Locks::new());
    let _line = Client::asleep(guest.path());
    let lock = locks.write(&path_name(&guest), format!("{:>10}\n", std::process::id()));
    let output = forced(&guest, &locks).output();
    assert_refused(&output, "is held by ", "--force evicts who has the console open");
    assert!(lock.exists());
}

#[test]
fn who_is_stopped_while_a_client_leaves_stops_when_that_is_over() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let client = client(&guest, &terminal, SOMEBODY, &[Signal::HUP]);
    let own = Terminal::new();
    let session = Vconsole::attach(&guest).locks(&locks).arg("--force");
    let session = session.as_user(SOMEBODY, SOMEBODY).on(&own);
    own.shows("waiting for it to leave");
    own.types("\x1a");
    session.is_stopped();
    until("the client has left", || client.has_ended());
    session.fg();
    own.becomes_raw();
    guest.say("on");
    own.shows("on");
    own.types("\x1d.");
    assert_eq!(session.wait(), 0);
}
