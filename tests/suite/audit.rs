//! The audit trail in the system's log.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::harness::{Bystander, DEADLINE, Guest, Locks, Program, Terminal, Vconsole, not_root};

/// The system's log, as a test has it.
pub(super) struct Log {
    directory: TempDir,
    socket: UnixDatagram,
}

impl Log {
    /// One that everybody may write to.
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let socket = UnixDatagram::bind(directory.path().join("log")).unwrap();
        fs::set_permissions(directory.path().join("log"), Permissions::from_mode(0o666)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { directory, socket }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// `program` writes into it.
    pub(super) fn of(&self, program: Program) -> Program {
        program.env("VCONSOLE_TEST_SYSLOG", self.path())
    }

    /// Waits for the next line.
    #[track_caller]
    pub(super) fn next(&self) -> String {
        let mut line = [0; 4096];
        let length = self.socket.recv(&mut line).expect("a line in the log");
        String::from_utf8(line[..length].to_vec()).unwrap()
    }

    /// Waits for the next line, and asserts that it is about `event`.
    #[track_caller]
    pub(super) fn says(&self, event: &str) -> String {
        let line = self.next();
        assert!(line.contains(event), "not {event}: {line}");
        line
    }

    /// Nothing more was written.
    #[track_caller]
    pub(super) fn is_silent(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let mut line = [0; 4096];
        if let Ok(length) = self.socket.recv(&mut line) {
            panic!("one more line: {}", String::from_utf8_lossy(&line[..length]));
        }
        self.socket.set_nonblocking(false).unwrap();
    }
}

#[test]
fn attaching_leaving_and_being_refused_are_recorded() {
    let (guest, locks, log) = (Guest::new(), Locks::new(), Log::new());
    let attach = log.of(Vconsole::attach(&guest).locks(&locks));
    let attach =
        attach.args(["--reason", "a \"b\" \x1b[c"]).env("SSH_CONNECTION", "192.0.2.1 1 2 3");
    let mut operator = attach.attached_to_pipes();
    let line = log.next();
    assert!(line.starts_with("<86>") && line.contains(&format!("vconsole[{}]: ", operator.pid())));
    for part in ["event=attached how=plain", r#"reason="a \"b\" \\x1b[c""#, "ssh=192.0.2.1", "uid="]
    {
        assert!(line.contains(&part.replace(r"\\x", r"\x")), "{line}");
    }
    assert!(line.contains(guest.path().to_str().unwrap()), "{line}");
    assert_eq!(attach.output().status, 3);
    let line = log.next();
    assert!(line.starts_with("<85>") && line.contains("event=refused why="), "{line}");
    operator.closes_stdin();
    assert_eq!(operator.wait(), 0);
    log.says("event=ended why=\"end of input");
    log.is_silent();
}

#[test]
fn the_end_of_a_session_says_how_many_bytes_went_both_ways() {
    let (guest, locks, log) = (Guest::new(), Locks::new(), Log::new());
    let attach = log.of(Vconsole::attach(&guest).locks(&locks));
    let first = attach.attached_to_pipes();
    log.says("event=attached how=plain");
    guest.say("12345");
    first.stdout().receives("12345");
    first.types("abc");
    guest.receives("abc");
    let second = attach.clone().arg("--force").attached_to_pipes();
    assert_eq!(first.wait(), 4);
    // Each of the two writes what it did: in any order.
    let both = [log.next(), log.next()].concat();
    let by = format!("event=taken-over by=\"vconsole (pid {}, ", second.pid());
    assert!(both.contains(&by) && both.contains(" received=5 sent=3 "), "{both}");
    assert!(both.contains(&format!("event=took-over from=\"vconsole (pid {}, ", first.pid())));
    second.types("d");
    guest.receives("abcd");
    second.signal(Signal::TERM);
    assert_eq!(second.wait(), 143);
    let line = log.says("event=ended why=\"ended by SIGTERM");
    assert!(line.contains(" received=0 sent=1 "), "{line}");
    log.is_silent();
}

#[test]
fn how_a_wait_ends_is_recorded() {
    let (guest, locks, log) = (Guest::new(), Locks::new(), Log::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let waiting = log.of(Vconsole::attach(&guest).locks(&locks));
    assert_eq!(waiting.clone().arg("--wait=100ms").output().status, 124);
    log.says("event=waited end=\"the time limit passed\" seconds=");
    let waiting = waiting.arg("--wait");
    let session = waiting.piped();
    session.stderr().receives("waiting for");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    log.says("event=waited end=SIGTERM seconds=");
    let session = waiting.piped();
    session.stderr().receives("waiting for");
    operator.signal(Signal::TERM);
    session.stderr().receives("connected to");
    log.says("event=waited end=\"got it\" ");
    log.says("event=attached how=wait");
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    log.says("event=ended ");
    // Who need not wait has not waited.
    let session = waiting.attached_to_pipes();
    session.signal(Signal::TERM);
    assert_eq!(session.wait(), 143);
    log.says("event=attached how=wait");
    log.says("event=ended ");
    log.is_silent();
}

#[test]
fn what_was_answered_is_recorded() {
    let (guest, locks, log, desk) = (Guest::new(), Locks::new(), Log::new(), Terminal::new());
    let operator = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
    let asking = log.of(Vconsole::attach(&guest).arg("--ask").locks(&locks));
    for (typed, status, answer) in [("q\n", 3, "quit"), ("\x03", 130, "SIGINT")] {
        desk.clear();
        let session = asking.on(&desk);
        desk.shows("or (q)uit?");
        desk.types(typed);
        assert_eq!(session.wait(), status);
        log.says("event=refused why=");
        log.says(&format!("event=asked answer={answer} "));
    }
    desk.clear();
    let session = asking.on(&desk);
    desk.shows("or (q)uit?");
    desk.types("t\n");
    assert_eq!(operator.wait(), 4);
    log.says("event=refused why=");
    log.says("event=asked answer=\"take over\" ");
    log.says("event=took-over from=");
    desk.types("\x1d.");
    assert_eq!(session.wait(), 0);
    log.says("event=ended ");
    log.is_silent();
}

#[test]
fn an_eviction_is_recorded_once() {
    if not_root() {
        return;
    }
    let (guest, locks, log) = (Guest::new(), Locks::new(), Log::new());
    let daemon = Bystander::daemon_with_open(guest.path());
    let forced = log.of(Vconsole::attach(&guest).arg("--force").locks(&locks));
    let operator = forced.attached_to_pipes();
    let line = log.says(&format!("event=evicted whom=\"sleep (pid {}, ", daemon.pid()));
    assert!(line.starts_with("<85>") && line.contains(" how=\"by hanging up"), "{line}");
    log.says("event=attached how=force");
    operator.signal(Signal::TERM);
    assert_eq!(operator.wait(), 143);
    log.says("event=ended ");
    log.is_silent();
}

#[test]
fn a_log_that_takes_nothing_holds_nobody_up() {
    let (guest, locks, directory) = (Guest::new(), Locks::new(), tempfile::tempdir().unwrap());
    let path = directory.path().join("log");
    let _log = UnixDatagram::bind(&path).unwrap();
    let full = UnixDatagram::unbound().unwrap();
    full.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    while full.send_to(b"x", &path).is_ok() {}
    for path in [path.as_path(), std::path::Path::new("/nowhere/log")] {
        let attach = Vconsole::attach(&guest).locks(&locks).env("VCONSOLE_TEST_SYSLOG", path);
        assert_eq!(attach.args(["--linger", "0"]).output().status, 0);
    }
}
