//! Those whom `--force` meets beside the one who has the console: intruders, children, newcomers, and
//! those who started it.

use std::fs;
use std::time::{Duration, Instant};

use rustix::fs::{Uid, chown};
use rustix::process::Signal;

use super::super::audit::Log;
use super::super::harness::{
    Bystander, Guest, Locks, Pause, Program, SOMEBODY, Terminal, Vconsole, in_time, is_alive,
    missing, not_root, took_less_than, until,
};
use super::super::locks::{NOBODY, all_names, number, path_name};
use super::{assert_evicted, assert_refused, client, console, force, forced, open_to};

#[test]
fn who_intruded_on_a_vconsole_is_evicted_when_that_is_taken_over() {
    if not_root() {
        return;
    }
    let (guest, locks, desk) = (Guest::new(), Locks::new(), Terminal::new());
    let old = Vconsole::attach(&guest).locks(&locks).attached_on(&desk);
    let intruder = Bystander::daemon_with_open(guest.path());
    desk.shows("has opened the console as well");
    let new = Vconsole::attach(&guest).locks(&locks).arg("--force").attached_to_pipes();
    assert_eq!(old.wait(), 4);
    new.stderr().receives(format!("evicted sleep (pid {}, root) by hanging up", intruder.pid()));
    assert!(is_alive(intruder.pid().cast_signed()));
    guest.say("all of it for one");
    new.stdout().receives_exactly("all of it for one");
    new.types("and back");
    guest.receives_exactly("and back");
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 143);
    locks.assert_empty();
}

#[test]
fn who_is_ended_while_it_evicts_an_intruder_says_that_and_nothing_else() {
    if not_root() {
        return;
    }
    in_time(|| {
        let (guest, locks, log, terminal) =
            (Guest::new(), Locks::new(), Log::new(), Terminal::new());
        let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
        let _intruder = client(&guest, &terminal, 0, &[Signal::HUP, Signal::TERM]);
        let new = log.of(Vconsole::attach(&guest).locks(&locks).arg("--force")).piped();
        assert_eq!(old.wait(), 4);
        let start = Instant::now();
        new.stderr().receives("waiting for it to leave");
        new.signal(Signal::INT);
        took_less_than(Duration::from_secs(4), start);
        let told = new.output();
        assert_eq!(told.status, 130, "{told:?}");
        let last = format!("ended by SIGINT, left {}\n", guest.path().display());
        assert!(told.stderr().ends_with(&last), "{told:?}");
        assert!(!told.stderr().contains("is lost to you"), "{told:?}");
        log.says("event=took-over from=");
        log.says("event=ended why=\"ended by SIGINT");
        log.is_silent();
        locks.assert_empty();
    });
}

#[test]
fn a_child_that_a_client_leaves_behind_is_evicted_as_well() {
    if not_root() || missing("python3") {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    // Not a program of /etc/shells: those are left alone.
    let script = "import os, signal, time\n\
                  def fork(number, _):\n\
                  \x20 signal.signal(number, signal.SIG_DFL)\n\
                  \x20 os.fork() or time.sleep(1000)\n\
                  \x20 os._exit(0)\n\
                  signal.signal(signal.SIGHUP, fork)\n\
                  print('here', flush=True)\n\
                  time.sleep(1000)";
    let parent = Program::new("python3").args(["-c", script]).stdin_from(guest.path());
    let parent = parent.as_user(SOMEBODY, SOMEBODY).on(&terminal);
    terminal.shows("here");
    let output = force(&guest, &locks).output();
    let said = output.stderr();
    assert_eq!(output.status, 0, "{said}");
    assert!(said.contains(&format!("evicted python3 (pid {}, ", parent.pid())), "{said}");
    assert_eq!(said.matches("evicted python3").count(), 2, "{said}");
    locks.assert_empty();
}

#[test]
fn a_lock_that_another_writes_meanwhile_is_not_broken_nor_waited_for() {
    if not_root() {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let client = client(&guest, &terminal, SOMEBODY, &[Signal::HUP]);
    locks.write(&path_name(&guest), format!("{:>10}\n", client.pid()));
    let newcomer = Bystander::new();
    let own = Terminal::new();
    let session = force(&guest, &locks).on(&own);
    own.shows("waiting for it to leave");
    let lock = locks.write(&path_name(&guest), newcomer.lock());
    own.shows("is held by sleep (pid ");
    assert_eq!(session.wait(), 3);
    assert_eq!(fs::read_to_string(lock).unwrap(), newcomer.lock());
    assert_eq!(locks.names(), [path_name(&guest)]);
}

#[test]
fn who_started_us_is_not_evicted() {
    if not_root() || missing("python3") {
        return;
    }
    let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
    let script = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:], stdin=0))";
    let attach = [env!("CARGO_BIN_EXE_vconsole"), "attach", "--force", "--lock-dir"];
    let parent = Program::new("python3").args(["-c", script]).args(attach).arg(locks.path());
    let parent = parent.arg(&guest).redirected(format!("3<>{}", guest.path().display()));
    let parent = parent.as_user(SOMEBODY, SOMEBODY).on(&terminal);
    // The wrapper's descriptor is inherited by nobody but it: subprocess closes the rest.
    terminal.shows("it started this very program");
    assert_eq!(parent.wait(), 3);
}

#[test]
fn root_does_not_hang_up_who_would_be_ended_by_that() {
    if not_root() {
        return;
    }
    let (guest, locks) = (console(), Locks::new());
    // A session of its own, and no terminal but the console, which it got by accident.
    let script = "exec 3<>\"$1\"; echo open; exec sleep 1000";
    let daemon = Program::new("sh").args(["-c", script, "sh"]).arg(&guest).piped();
    daemon.stdout().receives("open");
    until("it is a sleep", || {
        fs::read_to_string(format!("/proc/{}/comm", daemon.pid())).unwrap() == "sleep\n"
    });
    let output = forced(&guest, &locks).output();
    assert_refused(&output, "the console is its controlling terminal", "ask the user of sleep");
    assert!(!daemon.has_ended());
}

#[test]
fn root_does_not_hang_up_a_line_whose_session_s_leader_has_closed_it() {
    if not_root() {
        return;
    }
    let (guest, locks) = (console(), Locks::new());
    // The leader gets the console as its terminal, and only its child has it open.
    let script = ": < \"$1\"; sleep 1000 3<> \"$1\" & echo open; wait";
    let leader = Program::new("sh").args(["-c", script, "sh"]).arg(&guest).piped();
    leader.stdout().receives("open");
    let opener = || {
        let children = format!("/proc/{0}/task/{0}/children", leader.pid());
        let child = fs::read_to_string(children).unwrap();
        fs::read_link(format!("/proc/{}/fd/3", child.trim())).is_ok_and(|it| it == guest.path())
    };
    until("its child has the console open", opener);
    let output = forced(&guest, &locks).output();
    assert_refused(&output, "the console is its controlling terminal", "ask the user of sh");
    assert!(
        output.stderr().contains(&format!("sh (pid {}, ", leader.pid())),
        "{}",
        output.stderr()
    );
    assert!(!leader.has_ended() && opener());
}

#[test]
fn who_leaves_while_it_is_looked_at_is_in_nobody_s_way() {
    if not_root() {
        return;
    }
    for point in ["locks-seen", "holders-seen"] {
        let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
        let client = client(&guest, &terminal, SOMEBODY, &[]);
        let lock = locks.write(&path_name(&guest), format!("{:>10}\n", client.pid()));
        let pause = Pause::at(point);
        let program = Vconsole::attach(&guest).locks(&locks).arg("--force");
        let session = pause.of(program).piped();
        let stopped = pause.reached();
        fs::remove_file(lock).unwrap();
        client.signal(Signal::KILL);
        client.wait();
        pause.is_over(&[&stopped]);
        session.stderr().receives("connected to");
        assert_eq!(locks.names(), all_names(&guest), "{point}");
        session.signal(Signal::TERM);
        assert_eq!(session.wait(), 143);
        locks.become_empty();
    }
}

#[test]
fn whatever_is_done_about_lock_files_a_client_is_evicted_by_force() {
    if not_root() {
        return;
    }
    for mode in ["off", "check", "require"] {
        let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
        let client = client(&guest, &terminal, SOMEBODY, &[]);
        let lock = locks.write(&path_name(&guest), format!("{:>10}\n", client.pid()));
        let output = forced(&guest, &locks).args(["--locks", mode]).output();
        assert_evicted(&output, client.pid(), "by SIGHUP");
        // Only who takes locks removes one.
        assert_eq!(lock.exists(), mode != "require", "{mode}");
    }
}

#[test]
fn who_has_let_go_before_another_is_refused_is_named_and_stays_gone() {
    if not_root() {
        return;
    }
    let (guest, locks) = (console(), Locks::new());
    let (desk, other) = (Terminal::new(), Terminal::new());
    let heeds = client(&guest, &desk, SOMEBODY, &[]);
    let stubborn = client(&guest, &other, SOMEBODY, &[Signal::HUP, Signal::TERM]);
    let own = locks.write(&path_name(&guest), format!("{:>10}\n", stubborn.pid()));
    let dead = locks.write(&format!("LCK..{}", number(&guest)), NOBODY);
    for lock in [&own, &dead] {
        chown(lock, Some(Uid::from_raw(SOMEBODY)), None).unwrap();
    }
    let names = locks.names();
    let output = force(&guest, &locks).output();
    let said = output.stderr();
    assert_eq!(output.status, 3, "{said}");
    assert!(said.contains(&format!("evicted sleep (pid {}, ", heeds.pid())), "{said}");
    assert!(said.contains("it went on after SIGHUP and SIGTERM"), "{said}");
    assert_eq!(said.matches("evicted sleep").count(), 1, "{said}");
    assert!(heeds.has_ended() && !stubborn.has_ended() && open_to(SOMEBODY, &guest));
    assert_eq!(locks.names(), names);
    assert_eq!(fs::read_to_string(dead).unwrap(), NOBODY);
}
