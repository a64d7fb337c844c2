//! `--force` against programs that only call themselves vconsole: as against any other program.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::super::harness::{
    Bystander, Guest, Locks, Program, SOMEBODY, Terminal, is_alive, not_root, set_mode, until,
};
use super::super::locks::path_name;
use super::{assert_refused, console, force, forced};

/// A copy of `sleep` that is called vconsole, where everybody may run it.
fn namesake() -> (TempDir, PathBuf) {
    let directory = TempDir::with_prefix("vconsole-namesake-").unwrap();
    set_mode(directory.path(), 0o755);
    let file = directory.path().join("vconsole");
    // Not `fs::copy`: a child that another test forks meanwhile would have the copy open for writing.
    assert!(Command::new("cp").arg("/bin/sleep").arg(&file).status().unwrap().success());
    (directory, file)
}

/// Whether a process is stopped.
fn is_stopped(process: &Bystander) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    stat.rsplit(") ").next().unwrap().starts_with('T')
}

/// A daemon of `user`'s that calls itself vconsole, and is stopped; with a lock, or with none.
fn stopped_daemon(user: u32, guest: &Guest, lock_in: Option<&Locks>) -> (TempDir, Bystander) {
    let (directory, file) = namesake();
    let daemon = Bystander::daemon_named_vconsole(&file, user, guest.path());
    kill_process(Pid::from_raw(daemon.pid().cast_signed()).unwrap(), Signal::STOP).unwrap();
    until("it is stopped", || is_stopped(&daemon));
    if let Some(locks) = lock_in {
        locks.write(&path_name(guest), daemon.lock());
    }
    (directory, daemon)
}

#[test]
fn a_daemon_that_calls_itself_vconsole_is_refused_an_ordinary_user_and_sent_nothing() {
    if not_root() {
        return;
    }
    for locked in [false, true] {
        let (guest, locks) = (console(), Locks::new());
        let (_directory, daemon) = stopped_daemon(SOMEBODY, &guest, locked.then_some(&locks));
        let names = locks.names();
        let output = force(&guest, &locks).output();
        assert_refused(&output, "it is a daemon", "tell vconsole (pid ");
        assert!(!output.stderr().contains("sent "), "{output:?}");
        // Neither ended nor continued.
        assert!(is_stopped(&daemon), "{locked}");
        assert_eq!(locks.names(), names);
    }
}

#[test]
fn a_daemon_that_calls_itself_vconsole_is_hung_up_for_root_and_sent_nothing() {
    if not_root() {
        return;
    }
    for locked in [false, true] {
        let (guest, locks) = (console(), Locks::new());
        let (_directory, daemon) = stopped_daemon(SOMEBODY, &guest, locked.then_some(&locks));
        let output = forced(&guest, &locks).output();
        let said = output.stderr();
        assert_eq!(output.status, 0, "{said}");
        let how = format!("by hanging up {}", guest.path().display());
        let line = said.lines().find(|line| line.contains("evicted vconsole (pid "));
        assert!(line.is_some_and(|line| line.ends_with(&how)), "{said}");
        assert!(!said.contains("sent "), "{said}");
        let removed = format!("vconsole (pid {}, nobody) was evicted", daemon.pid());
        assert_eq!(said.contains(&removed), locked, "{said}");
        assert!(is_alive(daemon.pid().cast_signed()) && is_stopped(&daemon), "{locked}");
        locks.assert_empty();
    }
}

#[test]
fn a_client_that_calls_itself_vconsole_is_evicted_as_any_other() {
    if not_root() {
        return;
    }
    for locked in [false, true] {
        let (guest, locks, terminal) = (console(), Locks::new(), Terminal::new());
        let (_directory, file) = namesake();
        let client = Program::new(&file).arg("1000").stdin_from(guest.path());
        let client = client.as_user(SOMEBODY, SOMEBODY).on(&terminal);
        until("the client has the console", || {
            client.open_files().contains(&guest.path().to_path_buf())
                && fs::read_to_string(format!("/proc/{}/comm", client.pid())).unwrap()
                    == "vconsole\n"
        });
        if locked {
            locks.write(&path_name(&guest), format!("{:>10}\n", client.pid()));
        }
        let output = forced(&guest, &locks).output();
        let said = output.stderr();
        assert_eq!(output.status, 0, "{said}");
        let evicted = format!("evicted vconsole (pid {}, ", client.pid());
        let line = said.lines().find(|line| line.contains(&evicted));
        assert!(line.is_some_and(|line| line.ends_with("by SIGHUP")), "{said}");
    }
}
